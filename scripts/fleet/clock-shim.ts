/**
 * Processes with a wall clock of their own. For redis-server: a preloaded shim, compiled on the spot, whose clock can be
 * stepped while the server runs. For Bun: libfaketime with a fixed difference; its monotonic clock is left alone.
 *
 * Where there is no compiler, or no libfaketime, the reason is told, and the tests that need it are skipped by name.
 */
import { existsSync } from 'node:fs'
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const SOURCE = join(import.meta.dir, 'clock-shim.c')
const FAKETIME = [
  '/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1',
  '/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1',
  '/usr/lib64/faketime/libfaketime.so.1',
  '/usr/lib/faketime/libfaketime.so.1',
]

/** Why the shim can't be had here; undefined when it can. */
export const SHIM_MISSING: string | undefined =
  process.platform !== 'linux'
    ? 'preloading is for Linux'
    : Bun.which('cc') === null && Bun.which('gcc') === null
      ? 'there is no C compiler'
      : undefined

const faketime = process.platform === 'linux' ? FAKETIME.find((path) => existsSync(path)) : undefined

/** Why Bun's clock can't be set off here; undefined when it can. */
export const FAKETIME_MISSING: string | undefined =
  faketime === undefined ? 'libfaketime is not installed' : undefined

/** Environment of a Bun process whose wall clock is off by this much. Spawn `bun` itself with it, not a wrapper. */
export function clockOff(aheadMs: number): Readonly<Record<string, string>> {
  if (faketime === undefined || aheadMs === 0) return {}
  const seconds = aheadMs / 1000
  return {
    LD_PRELOAD: faketime,
    FAKETIME: `${seconds < 0 ? '' : '+'}${seconds}s`,
    DONT_FAKE_MONOTONIC: '1',
  }
}

export interface SteppedClock extends AsyncDisposable {
  /** Environment of the process that follows this clock. */
  readonly env: Readonly<Record<string, string>>
  readonly aheadMs: number
  /** Sets the clock: so much ahead of the real time, negative for behind. */
  step(aheadMs: number): Promise<void>
}

/** Compiles the shim into a folder of its own and sets its clock to the real time. */
export async function steppedClock(): Promise<SteppedClock> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-clock-'))
  const [library, file] = [join(folder, 'clock-shim.so'), join(folder, 'ahead')]
  const compiler = Bun.which('cc') ?? Bun.which('gcc') ?? 'cc'
  const built = Bun.spawnSync([compiler, '-O2', '-shared', '-fPIC', '-Wall', '-o', library, SOURCE])
  if (!built.success) throw new Error(`${SOURCE} does not compile: ${built.stderr.toString()}`)
  // A whole page, so that the mapping is readable wherever it is touched; written in place ever after.
  await writeFile(file, Buffer.alloc(4096))
  const handle = await open(file, 'r+')
  let current = 0
  return {
    env: { LD_PRELOAD: library, CLOCK_SHIM_FILE: file },
    get aheadMs() {
      return current
    },
    step: async (aheadMs) => {
      const bytes = Buffer.alloc(8)
      bytes.writeBigInt64LE(BigInt(aheadMs))
      await handle.write(bytes, 0, 8, 0)
      current = aheadMs
    },
    [Symbol.asyncDispose]: async () => {
      await handle.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}
