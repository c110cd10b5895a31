/** Watches from outside how a count grows, such as the length of a stream: the same observer, for whoever makes it grow. */
import { RunError } from '../fleet/failure.ts'
import { type NamedProcesses, ProcessorTime } from './processor-time.ts'
import type { Measure } from './scenario.ts'

const LOOK_MS = 20
const PATIENCE_MS = 20_000
/** The start is not counted: connecting, compiling, the first appends. */
const WARM_SHARE = 0.2

export interface GrowthWatchOptions {
  readonly count: () => Promise<number>
  /** What it grows to. */
  readonly goal: number
  readonly processes: NamedProcesses
  readonly signal: AbortSignal
}

/** Growth per second from the moment that a fifth is there until all is. */
export async function watchGrowth(options: GrowthWatchOptions): Promise<Measure> {
  const { count, goal, processes, signal } = options
  let from: { readonly atMs: number; readonly count: number; readonly used: ProcessorTime } | undefined
  let last = { atMs: performance.now(), count: 0 }
  for (;;) {
    signal.throwIfAborted()
    const now = { count: await count(), atMs: performance.now() }
    if (from === undefined && now.count >= goal * WARM_SHARE)
      from = { ...now, used: new ProcessorTime(processes) }
    if (from !== undefined && now.count >= goal) {
      const cores = from.used.cores()
      return { value: ((now.count - from.count) * 1000) / (now.atMs - from.atMs), cores }
    }
    if (now.count > last.count) last = now
    if (now.atMs - last.atMs > PATIENCE_MS) {
      throw new RunError('failed', `It stands at ${now.count} of ${goal} since ${PATIENCE_MS / 1000} s.`)
    }
    await Bun.sleep(LOOK_MS)
  }
}
