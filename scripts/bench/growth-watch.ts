/** Watches a stream grow from outside, by its length: the same observer, for whoever appends. */
import type { Redis } from 'ioredis'
import { RunError } from '../fleet/failure.ts'
import { type NamedProcesses, ProcessorTime } from './processor-time.ts'
import type { Measure } from './scenario.ts'

const LOOK_MS = 20
const PATIENCE_MS = 20_000
/** The start is not counted: connecting, compiling, the first appends. */
const WARM_SHARE = 0.2

export interface GrowthWatchOptions {
  readonly client: Redis
  readonly stream: string
  readonly entries: number
  readonly processes: NamedProcesses
  readonly signal: AbortSignal
}

/** Entries per second from the moment that a fifth is there until all are. */
export async function watchGrowth(options: GrowthWatchOptions): Promise<Measure> {
  const { client, stream, entries, processes, signal } = options
  let from: { readonly atMs: number; readonly length: number; readonly used: ProcessorTime } | undefined
  const startMs = performance.now()
  for (;;) {
    signal.throwIfAborted()
    const length = await client.xlen(stream)
    const atMs = performance.now()
    if (from === undefined && length >= entries * WARM_SHARE)
      from = { atMs, length, used: new ProcessorTime(processes) }
    if (from !== undefined && length >= entries) {
      const cores = from.used.cores()
      return { value: ((length - from.length) * 1000) / (atMs - from.atMs), cores }
    }
    if (atMs - startMs > PATIENCE_MS) {
      throw new RunError(
        'failed',
        `${stream} has ${length} of ${entries} entries after ${PATIENCE_MS / 1000} s.`,
      )
    }
    await Bun.sleep(LOOK_MS)
  }
}
