/**
 * Bundles the producer client: one file that names no platform and imports nothing, so that Bun, Node 20 and browsers load it as it
 * is.
 */
import { join } from 'node:path'

const source = join(import.meta.dir, '../src')

/** Writes `client.js` and its source map into a folder. */
export async function bundleClient(folder: string): Promise<void> {
  const result = await Bun.build({
    entrypoints: [join(source, 'client.ts')],
    root: source,
    outdir: folder,
    target: 'browser',
    format: 'esm',
    sourcemap: 'linked',
    throw: false,
  })
  if (!result.success) throw new Error(result.logs.map(String).join('\n'))
}
