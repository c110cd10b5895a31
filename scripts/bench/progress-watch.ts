/**
 * Watches from outside how far somebody has come, and tells how fast that was. The same observer for everybody who does the
 * same work: it looks at Redis a few times a second, and costs none of them anything per command or event.
 */
import { RunError } from '../fleet/failure.ts'
import { type NamedProcesses, ProcessorTime } from './processor-time.ts'
import type { Measure } from './scenario.ts'

const LOOK_MS = 20
const PATIENCE_MS = 60_000
/** The start is not counted: connecting, compiling, the first reads. */
const WARM_SHARE = 0.1

export interface ProgressWatchOptions {
  /** How many are done by now. */
  readonly done: () => Promise<number>
  readonly total: number
  readonly processes: NamedProcesses
  readonly signal: AbortSignal
  /** Default 0.1. */
  readonly warmShare?: number
}

/** How many per second from the moment that a tenth is done until all are. */
export async function watchProgress(options: ProgressWatchOptions): Promise<Measure> {
  const { total, processes, signal, warmShare = WARM_SHARE } = options
  let from: { readonly atMs: number; readonly done: number; readonly used: ProcessorTime } | undefined
  let last = { atMs: performance.now(), done: 0 }
  for (;;) {
    signal.throwIfAborted()
    const done = await options.done()
    const atMs = performance.now()
    if (done > last.done) last = { atMs, done }
    if (from === undefined && done >= total * warmShare)
      from = { atMs, done, used: new ProcessorTime(processes) }
    if (from !== undefined && done >= total) {
      const cores = from.used.cores()
      return { value: ((done - from.done) * 1000) / (atMs - from.atMs), cores }
    }
    if (atMs - last.atMs > PATIENCE_MS) {
      throw new RunError(
        'failed',
        `Nothing was done for ${PATIENCE_MS / 1000} s, ${done} of ${total} so far.`,
      )
    }
    await Bun.sleep(LOOK_MS)
  }
}
