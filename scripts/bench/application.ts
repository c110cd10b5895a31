/**
 * An application as a user has one: a folder of its own, with modules beside a `node_modules` that holds the package as it is
 * built. What starts there loads `dist/`, through the package's own exports.
 */
import { cpSync, mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { RunError } from '../fleet/failure.ts'

const ROOT = join(import.meta.dir, '../..')

/** Builds the package and lays out an application with the modules of `app/<name>`; answers its folder. */
export async function installApplication(folder: string, name: string): Promise<string> {
  const build = Bun.spawn([process.execPath, 'scripts/build.ts'], {
    cwd: ROOT,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  if ((await build.exited) !== 0) {
    throw new RunError('failed', `The package does not build: ${await new Response(build.stderr).text()}`)
  }
  mkdirSync(join(folder, 'node_modules'), { recursive: true })
  symlinkSync(ROOT, join(folder, 'node_modules/millrace'))
  symlinkSync(join(ROOT, 'node_modules/zod'), join(folder, 'node_modules/zod'))
  const app = join(import.meta.dir, 'app')
  cpSync(join(app, name), join(folder, name), { recursive: true })
  cpSync(join(app, 'order-line.ts'), join(folder, 'order-line.ts'))
  return folder
}
