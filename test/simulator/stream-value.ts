/**
 * A stream of the in-memory Redis: entries, consumer groups, pending entries lists, with the rules of Redis 7.0.
 *
 * One difference: a node holds one entry (`stream-node-max-entries 1`), so trimming with `~` is as exact as with `=`.
 */
import { compareIds, indexFrom, nextId, type StreamId, streamId, ZERO_ID } from './stream-ids.ts'

export interface StreamEntry {
  readonly id: StreamId
  readonly fields: readonly string[]
}

export interface GroupConsumer {
  readonly name: string
  seenMs: number
  pendingCount: number
}

export interface PendingEntry {
  readonly id: StreamId
  consumer: GroupConsumer
  deliveredMs: number
  deliveries: number
}

export class StreamValue {
  readonly kind = 'stream'
  entries: StreamEntry[] = []
  lastId: StreamId = ZERO_ID
  maxDeletedId: StreamId = ZERO_ID
  entriesAdded = 0
  readonly groups: Map<string, GroupValue> = new Map()

  /** The id that `*` stands for. */
  nextAutoId(nowMs: number): StreamId {
    return nowMs > this.lastId.ms ? streamId(nowMs, 0) : nextId(this.lastId)
  }

  add(id: StreamId, fields: readonly string[]): void {
    this.entries.push({ id, fields })
    this.lastId = id
    this.entriesAdded += 1
  }

  find(id: StreamId): StreamEntry | undefined {
    const entry = this.entries[indexFrom(this.entries, id)]
    return entry !== undefined && compareIds(entry.id, id) === 0 ? entry : undefined
  }

  range(start: StreamId, end: StreamId, countMax: number): StreamEntry[] {
    const found: StreamEntry[] = []
    for (let i = indexFrom(this.entries, start); i < this.entries.length && found.length < countMax; i++) {
      const entry = this.entries[i]
      if (entry === undefined || compareIds(entry.id, end) > 0) break
      found.push(entry)
    }
    return found
  }

  reversed(start: StreamId, end: StreamId, countMax: number): StreamEntry[] {
    const all = this.range(start, end, Number.POSITIVE_INFINITY)
    return all.reverse().slice(0, countMax)
  }

  delete(id: StreamId): boolean {
    const at = indexFrom(this.entries, id)
    const entry = this.entries[at]
    if (entry === undefined || compareIds(entry.id, id) !== 0) return false
    this.entries.splice(at, 1)
    if (compareIds(id, this.maxDeletedId) > 0) this.maxDeletedId = id
    return true
  }

  /** Drops the first entries before `minId`, at most `countMax`. */
  trimBefore(minId: StreamId, countMax: number): number {
    const count = Math.min(indexFrom(this.entries, minId), countMax)
    this.entries.splice(0, count)
    return count
  }

  trimTo(length: number, countMax: number): number {
    const count = Math.max(0, Math.min(this.entries.length - length, countMax))
    this.entries.splice(0, count)
    return count
  }

  get firstId(): StreamId {
    return this.entries[0]?.id ?? ZERO_ID
  }

  /** Whether an entry at or behind `start` was deleted out of the middle. */
  hasTombstones(start: StreamId): boolean {
    if (this.entries.length === 0 || compareIds(this.maxDeletedId, ZERO_ID) === 0) return false
    return compareIds(start, this.maxDeletedId) <= 0
  }

  /** How many entries were ever added up to `id`; undefined when that can't be told. */
  distanceTo(id: StreamId): number | undefined {
    if (this.entriesAdded === 0) return 0
    const length = this.entries.length
    const toLast = compareIds(id, this.lastId)
    if (length === 0 && toLast <= 0) return this.entriesAdded
    if (toLast === 0) return this.entriesAdded
    if (toLast > 0) return undefined
    const toFirst = compareIds(id, this.firstId)
    const isWhole =
      compareIds(this.maxDeletedId, ZERO_ID) === 0 || compareIds(this.maxDeletedId, this.firstId) < 0
    if (!isWhole || toFirst > 0) return undefined
    return this.entriesAdded - length + (toFirst === 0 ? 1 : 0)
  }

  copy(): StreamValue {
    const twin = new StreamValue()
    twin.entries = [...this.entries]
    twin.lastId = this.lastId
    twin.maxDeletedId = this.maxDeletedId
    twin.entriesAdded = this.entriesAdded
    for (const [name, group] of this.groups) twin.groups.set(name, group.copy())
    return twin
  }
}

export class GroupValue {
  lastId: StreamId
  /** Undefined when it can't be told. */
  entriesRead: number | undefined
  readonly consumers: Map<string, GroupConsumer> = new Map()
  /** Ascending. */
  readonly pending: PendingEntry[] = []

  constructor(lastId: StreamId, entriesRead: number | undefined) {
    this.lastId = lastId
    this.entriesRead = entriesRead
  }

  /** The consumer by this name, made if it is new. */
  consumer(name: string, nowMs: number): GroupConsumer {
    let consumer = this.consumers.get(name)
    if (consumer === undefined) {
      consumer = { name, seenMs: nowMs, pendingCount: 0 }
      this.consumers.set(name, consumer)
    }
    consumer.seenMs = nowMs
    return consumer
  }

  find(id: StreamId): PendingEntry | undefined {
    const entry = this.pending[indexFrom(this.pending, id)]
    return entry !== undefined && compareIds(entry.id, id) === 0 ? entry : undefined
  }

  give(id: StreamId, consumer: GroupConsumer, nowMs: number): PendingEntry {
    const known = this.find(id)
    if (known !== undefined) {
      this.move(known, consumer)
      known.deliveredMs = nowMs
      known.deliveries = 1
      return known
    }
    const entry: PendingEntry = { id, consumer, deliveredMs: nowMs, deliveries: 1 }
    this.pending.splice(indexFrom(this.pending, id), 0, entry)
    consumer.pendingCount += 1
    return entry
  }

  move(entry: PendingEntry, consumer: GroupConsumer): void {
    entry.consumer.pendingCount -= 1
    entry.consumer = consumer
    consumer.pendingCount += 1
  }

  drop(id: StreamId): boolean {
    const at = indexFrom(this.pending, id)
    const entry = this.pending[at]
    if (entry === undefined || compareIds(entry.id, id) !== 0) return false
    this.pending.splice(at, 1)
    entry.consumer.pendingCount -= 1
    return true
  }

  /** Removes a consumer with all it holds; answers how many entries that were. */
  deleteConsumer(name: string): number {
    const consumer = this.consumers.get(name)
    if (consumer === undefined) return 0
    this.consumers.delete(name)
    const held = this.pending.filter((entry) => entry.consumer === consumer)
    for (const { id } of held) this.drop(id)
    return held.length
  }

  copy(): GroupValue {
    const twin = new GroupValue(this.lastId, this.entriesRead)
    for (const consumer of this.consumers.values()) twin.consumers.set(consumer.name, { ...consumer })
    for (const { consumer, ...entry } of this.pending) {
      const owner = twin.consumers.get(consumer.name)
      if (owner !== undefined) twin.pending.push({ ...entry, consumer: owner })
    }
    return twin
  }
}
