/** What lies in the keys of one partition, read from the outside: groups, events, dead letters, arrivals. */
import type { Ordering } from '../../src/contracts/stream.ts'
import { decodeEntry, unpackPayloadOf } from '../../src/redis/entry-codec.ts'
import { type PartitionKeys, partitionKeys } from '../../src/redis/keys.ts'
import { unpackPayload } from '../../src/redis/payload-codec.ts'
import type { Keyspace } from './keyspace.ts'
import { PARTITIONS, STREAM, type Tally } from './scenario.ts'
import { compareIds, parseId, ZERO_ID } from './stream-ids.ts'
import type { GroupValue, StreamEntry } from './stream-value.ts'

export interface StoredEvent {
  readonly type: string
  readonly n: number
  /** Of the payload, or ''. */
  readonly key: string
  readonly tickMs: number
  /** Of the command behind it. */
  readonly token: string
}

export interface DeadOrder {
  readonly n: number
  readonly error: string
}

const GROUP_NAME = /^(workers|o\d+)$/

export function partitionsOf(ordering: Ordering): PartitionKeys[] {
  return Array.from({ length: PARTITIONS }, (_, partition) => partitionKeys(STREAM, partition, ordering))
}

/** The streams that workers read, each once. */
export function sourcesOf(keys: PartitionKeys): string[] {
  return [...new Set([keys.commands, keys.ready])]
}

export function groupOf(redis: Keyspace, key: string): GroupValue | undefined {
  for (const [name, group] of redis.find(key, 'stream')?.groups ?? []) if (GROUP_NAME.test(name)) return group
  return undefined
}

function bytes(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}

export function readEvents(redis: Keyspace, keys: PartitionKeys): StoredEvent[] {
  const found: StoredEvent[] = []
  for (const { fields } of redis.find(keys.events, 'stream')?.entries ?? []) {
    for (let i = 1; i < fields.length; i += 2) {
      const entry = decodeEntry(bytes(fields[i] ?? ''))
      const payload = unpackPayloadOf(entry) as { n?: number; key?: string; tickMs?: number }
      const { n = -1, key = '', tickMs = 0 } = payload
      found.push({ type: entry.type, n, key, tickMs, token: fields[i - 1] ?? '' })
    }
  }
  return found
}

export function readDead(redis: Keyspace, keys: PartitionKeys): DeadOrder[] {
  return (redis.find(keys.dead, 'stream')?.entries ?? []).map(({ fields }) => {
    const entry = decodeEntry(bytes(fields[1] ?? ''))
    const { n } = unpackPayloadOf(entry) as { n?: number }
    return { n: n ?? -1, error: entry.trail?.failures.at(-1)?.error ?? '' }
  })
}

export function readViews(redis: Keyspace, keys: PartitionKeys, reader: string): Map<string, Tally> {
  const stored = redis.find(keys.views(reader), 'hash')?.fields ?? new Map<string, string>()
  return new Map([...stored].map(([key, blob]) => [key, unpackPayload(bytes(blob)) as Tally]))
}

/** Partition key of the command in an entry. */
export function keyOfEntry({ fields }: StreamEntry): string {
  return decodeEntry(bytes(fields[1] ?? '')).key
}

/** The consumer that a command is pending with, under its own entry or a copy. */
export function holderOf(redis: Keyspace, keys: PartitionKeys, token: string): string | undefined {
  for (const key of sourcesOf(keys)) {
    const stream = redis.find(key, 'stream')
    for (const { id, consumer } of groupOf(redis, key)?.pending ?? []) {
      const name = stream?.find(id)?.fields[0]
      if (name === token || (name === '-' && `e${id.text}` === token)) return consumer.name
    }
  }
  return undefined
}

/** True when nothing is pending, waiting, on its way or unread. */
export function isAtRest(redis: Keyspace, keys: PartitionKeys): boolean {
  const isRead = sourcesOf(keys).every((key) => {
    const group = groupOf(redis, key)
    const last = redis.find(key, 'stream')?.entries.at(-1)
    if (group === undefined || group.pending.length > 0) return false
    return last === undefined || compareIds(last.id, group.lastId) <= 0
  })
  if (!isRead || redis.typeOf(keys.due) !== undefined) return false
  if ((redis.find(keys.outbox, 'stream')?.entries.length ?? 0) > 0) return false
  const last = redis.find(keys.events, 'stream')?.lastId ?? ZERO_ID
  const readers = [...(redis.find(keys.readers, 'hash')?.fields.values() ?? [])]
  return readers.length > 0 && readers.every((checkpoint) => compareIds(parseId(checkpoint), last) >= 0)
}
