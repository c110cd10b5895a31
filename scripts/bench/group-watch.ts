/**
 * Watches a consumer group from outside, by what Redis counts: entries read less entries pending are entries acknowledged.
 * The same observer, for whoever consumes.
 */
import type { Redis } from 'ioredis'
import { type ProgressWatchOptions, watchProgress } from './progress-watch.ts'
import type { Measure } from './scenario.ts'

export interface GroupWatchOptions extends Omit<ProgressWatchOptions, 'done' | 'total'> {
  readonly client: Redis
  readonly streams: readonly string[]
  readonly commands: number
}

/** Commands per second from the moment that a tenth is done until all are. */
export async function watchUntilDone(options: GroupWatchOptions): Promise<Measure> {
  const { client, streams, commands: total, ...watch } = options
  return await watchProgress({ ...watch, total, done: () => acknowledged(client, streams) })
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
