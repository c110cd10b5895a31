/** What a crash leaves of an append-only file whose end was never written: the file, without its last bytes. */
import { readdir, truncate } from 'node:fs/promises'
import { join } from 'node:path'

/** Bytes of the append-only file that is being written, of a server that runs or not. */
export async function logBytes(directory: string): Promise<number> {
  return Bun.file(await openLog(directory)).size
}

/** Cuts it to `bytes`. The server must not be running. */
export async function tearLog(directory: string, bytes: number): Promise<void> {
  await truncate(await openLog(directory), bytes)
}

async function openLog(directory: string): Promise<string> {
  const folder = join(directory, 'appendonlydir')
  const names = (await readdir(folder)).filter((name) => name.endsWith('.incr.aof')).sort()
  const newest = names.at(-1)
  if (newest === undefined) throw new Error(`no append-only file in ${folder}`)
  return join(folder, newest)
}
