/**
 * Builds dist/: one ES module graph for Bun, with shared code split out so that the error class exists once, libraries left
 * to the installer, Lua inlined as text, and declarations written by the compiler beside it. The producer client is one module of
 * its own, for any platform with web standards.
 */
import { chmod, rm } from 'node:fs/promises'
import { basename, dirname, join, relative } from 'node:path'
import { bundleClient } from './client-bundle.ts'

const root = join(import.meta.dir, '..')
const dist = join(root, 'dist')
const command = join(root, 'src/cli/main.ts')
/** Worker threads start from a file of their own: `new Worker(new URL('./x-thread.ts', import.meta.url))`. */
const threads = [...new Bun.Glob('src/**/*-thread.ts').scanSync({ cwd: root, absolute: true })]
const threadUrl = /(new URL\(\s*)(["'])\.{1,2}\/[^"']*?([\w-]+-thread)\.ts\2/g

function fail(what: string): never {
  console.error(`build: ${what}`)
  process.exit(1)
}

async function bundle(): Promise<string[]> {
  const entries = [join(root, 'src/index.ts'), join(root, 'src/testing.ts'), command, ...threads]
  const result = await Bun.build({
    entrypoints: entries,
    root: join(root, 'src'),
    outdir: dist,
    target: 'bun',
    format: 'esm',
    packages: 'external',
    splitting: true,
    sourcemap: 'linked',
    naming: { entry: '[dir]/[name].[ext]', chunk: 'chunks/[name]-[hash].[ext]' },
    throw: false,
  })
  if (!result.success) fail(result.logs.map(String).join('\n'))
  return result.outputs.map(({ path }) => path).filter((path) => path.endsWith('.js'))
}

/** A bundled module sits elsewhere than its source did, so a thread is addressed anew from where its starter ended up. */
async function pointAtThreads(path: string): Promise<void> {
  const built = new Map(threads.map((thread) => [basename(thread, '.ts'), thread]))
  if (built.size !== threads.length) fail('two thread files have the same name')
  const source = await Bun.file(path).text()
  const text = source.replace(threadUrl, (_, start: string, quote: string, name: string) => {
    const thread = built.get(name) ?? fail(`${path} starts ${name}.ts, which is not there`)
    const target = join(dist, relative(join(root, 'src'), thread)).replace(/\.ts$/, '.js')
    const address = relative(dirname(path), target)
    return `${start}${quote}${address.startsWith('.') ? address : `./${address}`}${quote}`
  })
  if (/-thread\.ts["'`]/.test(text))
    fail(`${path} starts a thread without new URL('./x-thread.ts', import.meta.url)`)
  if (text !== source) await Bun.write(path, text)
}

async function declare(): Promise<void> {
  const compiler = join(root, 'node_modules/typescript/bin/tsc')
  const child = Bun.spawn([process.execPath, compiler, '-p', 'tsconfig.build.json'], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  if ((await child.exited) !== 0) fail('the declarations do not compile')
}

await rm(dist, { recursive: true, force: true })
const [outputs] = await Promise.all([bundle(), bundleClient(dist), declare()])
await Promise.all(outputs.map(pointAtThreads))
await chmod(join(dist, 'cli/main.js'), 0o755)
console.log(`Built ${outputs.length + 1} modules into dist/.`)
