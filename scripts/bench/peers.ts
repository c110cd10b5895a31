/**
 * The peers' packages: a package of their own in `peers/`, pinned by its own lock file, installed only when asked for, and none
 * of the product's dependencies.
 */
import { join } from 'node:path'
import { RunError } from '../fleet/failure.ts'

const FOLDER: string = join(import.meta.dir, 'peers')
const INSTALL_LIMIT_MS = 120_000

/**
 * Answers the folder.
 *
 * @throws RunError `unavailable` when the registry can't be reached or the lock file does not fit
 */
export async function installPeers(signal: AbortSignal): Promise<string> {
  const child = Bun.spawn([process.execPath, 'install', '--frozen-lockfile'], {
    cwd: FOLDER,
    stdin: 'ignore',
    stdout: 'ignore',
    stderr: 'pipe',
    signal: AbortSignal.any([signal, AbortSignal.timeout(INSTALL_LIMIT_MS)]),
  })
  const [words, code] = await Promise.all([child.stderr.text(), child.exited])
  signal.throwIfAborted()
  if (code === 0) return FOLDER
  const why = words.split('\n').findLast((line) => /error/i.test(line)) ?? `it ended with ${code}`
  throw new RunError(
    'unavailable',
    `The peers can't be installed (bun install --frozen-lockfile in scripts/bench/peers): ${why.trim()}. They come from the npm registry; without --with-peers nothing needs it.`,
  )
}
