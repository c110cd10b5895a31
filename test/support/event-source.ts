/** Puts events into a partition's log, as a settlement would, for tests that fold them. */

import { partitionOf } from '../../src/policies/partition.ts'
import type { RedisLink } from '../../src/redis/connection.ts'
import { packEntry } from '../../src/redis/entry-codec.ts'
import { type PartitionKeys, partitionKeys } from '../../src/redis/keys.ts'

export interface TestEvent {
  readonly type: string
  readonly key: string
  readonly payload: unknown
  readonly version?: number
}

export class EventSource {
  readonly #link: RedisLink
  readonly #stream: string
  readonly #partitions: number
  #tokens = 0

  constructor(link: RedisLink, stream: string, partitions: number) {
    this.#link = link
    this.#stream = stream
    this.#partitions = partitions
  }

  keys(partition: number): PartitionKeys {
    return partitionKeys(this.#stream, partition)
  }

  partition(key: string): number {
    return partitionOf(key, this.#partitions)
  }

  /** One log entry per partition that the events belong to, or one in the partition named. */
  async log(events: readonly TestEvent[], inPartition?: number): Promise<string[]> {
    const byPartition = new Map<number, (string | Buffer)[]>()
    for (const event of events) {
      const partition = inPartition ?? this.partition(event.key)
      const fields = byPartition.get(partition) ?? []
      byPartition.set(partition, fields)
      this.#tokens += 1
      fields.push(`e${this.#tokens}-0`, eventBlob(event))
    }
    return await Promise.all(
      [...byPartition].map(([partition, fields]) =>
        this.#link.use('a test event', async (client) =>
          String(await client.xadd(this.keys(partition).events, '*', ...fields)),
        ),
      ),
    )
  }
}

export function eventBlob({ type, key, payload, version = 1 }: TestEvent): Buffer {
  const header = { type, version, atMs: 1_700_000_000_000, key }
  return packEntry({ ...header, trace: undefined, tickMs: undefined, trail: undefined }, payload).blob
}
