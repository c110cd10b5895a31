/**
 * Watches a consumer group from outside, by what Redis counts: entries read less entries pending are entries acknowledged.
 * The same observer, for whoever consumes.
 */
import type { Redis } from 'ioredis'
import { RunError } from '../fleet/failure.ts'
import { type NamedProcesses, ProcessorTime } from './processor-time.ts'
import type { Measure } from './scenario.ts'

const LOOK_MS = 20
const PATIENCE_MS = 60_000
/** The start is not counted: connecting, compiling, the first reads. */
const WARM_SHARE = 0.1

export interface GroupWatchOptions {
  readonly client: Redis
  readonly streams: readonly string[]
  readonly commands: number
  readonly processes: NamedProcesses
  readonly signal: AbortSignal
  /** Default 0.1. */
  readonly warmShare?: number
}

/** Commands per second from the moment that a tenth is done until all are. */
export async function watchUntilDone(options: GroupWatchOptions): Promise<Measure> {
  const { client, streams, commands, processes, signal, warmShare = WARM_SHARE } = options
  let from: { readonly atMs: number; readonly done: number; readonly used: ProcessorTime } | undefined
  let last = { atMs: performance.now(), done: 0 }
  for (;;) {
    signal.throwIfAborted()
    const done = await acknowledged(client, streams)
    const atMs = performance.now()
    if (done > last.done) last = { atMs, done }
    if (from === undefined && done >= commands * warmShare)
      from = { atMs, done, used: new ProcessorTime(processes) }
    if (from !== undefined && done >= commands) {
      const cores = from.used.cores()
      return { value: ((done - from.done) * 1000) / (atMs - from.atMs), cores }
    }
    if (atMs - last.atMs > PATIENCE_MS) {
      throw new RunError(
        'failed',
        `Nothing was acknowledged for ${PATIENCE_MS / 1000} s, ${done} of ${commands} so far.`,
      )
    }
    await Bun.sleep(LOOK_MS)
  }
}

/** Entries that all groups of these streams have behind them. */
export async function acknowledged(client: Redis, streams: readonly string[]): Promise<number> {
  const pipeline = client.pipeline()
  for (const stream of streams) pipeline.call('XINFO', 'GROUPS', stream)
  let sum = 0
  for (const [error, reply] of (await pipeline.exec()) ?? []) {
    if (error !== null) continue
    for (const group of reply as (string | number | null)[][]) {
      sum += Number(fieldOf(group, 'entries-read') ?? 0) - Number(fieldOf(group, 'pending') ?? 0)
    }
  }
  return sum
}

function fieldOf(
  fields: readonly (string | number | null)[],
  name: string,
): string | number | null | undefined {
  return fields[fields.indexOf(name) + 1]
}
