/**
 * Pages of dead letters, newest first, over all partitions that the filter leaves.
 *
 * Entries of several partitions are merged by entry id, then by partition, so a cursor is one position whatever the number
 * of partitions. A walk sees each dead letter that is there from its beginning to its end exactly once. The work of a page is
 * bounded: when a filter finds little, a page may be short or empty and still have a `next`.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { RedisLink } from '../redis/connection.ts'
import { type DeadEntry, readDead } from '../redis/dead-letter-stream.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import { type DeadLetterSummary, summarise } from './dead-letter.ts'
import { type DeadLetterFilter, digestOf, matches, rangeOf } from './dead-letter-filter.ts'

export interface DeadLetterPageOptions {
  /** 1-500. Default 50. */
  readonly limit?: number | undefined
  /** `next` of another page of the same filter. */
  readonly cursor?: string | undefined
}

export interface ErrorGroup {
  readonly fingerprint: string
  /** The newest of them. */
  readonly error: string
  readonly count: number
}

export interface ErrorGroups {
  /** Most frequent first, at most 100. */
  readonly data: readonly ErrorGroup[]
  /** Dead letters that were looked at; the newest. */
  readonly scanned: number
  /** False: there are more dead letters, or more groups, than were counted. */
  readonly complete: boolean
}

export interface DeadLetterPage {
  readonly data: readonly DeadLetterSummary[]
  readonly next: string | undefined
  /** Only with the first page. */
  readonly groups: ErrorGroups | undefined
}

const LIMIT_DEFAULT = 50
const LIMIT_MAX = 500
/** Dead letters that one page looks at. */
export const SCAN_COUNT_MAX = 10_000
const GROUPS_MAX = 100
const CHUNK_MIN = 8
const CHUNK_MAX = 200

interface Position {
  readonly entryId: string
  readonly place: string
}

export class DeadLetterPages {
  readonly #link: RedisLink
  readonly #ids: CommandIds
  readonly #scanCountMax: number

  constructor(link: RedisLink, ids: CommandIds, scanCountMax: number) {
    this.#link = link
    this.#ids = ids
    this.#scanCountMax = scanCountMax
  }

  /** @throws MillraceError `cursor.invalid`, `command.malformed`, `redis.unavailable`, `redis.unknown` */
  async read(
    filter: DeadLetterFilter,
    places: readonly PartitionKeys[],
    { limit = LIMIT_DEFAULT, cursor }: DeadLetterPageOptions,
  ): Promise<DeadLetterPage> {
    if (!Number.isInteger(limit) || limit < 1 || limit > LIMIT_MAX) {
      throw new MillraceError('command.malformed', `"limit" must be a whole number from 1 to ${LIMIT_MAX}.`)
    }
    const digest = digestOf(filter)
    const after = cursor === undefined ? undefined : readCursor(cursor, digest)
    const groups = after === undefined ? new GroupCount() : undefined
    const data: DeadLetterSummary[] = []
    let [scanned, hasMore, isWhole] = [0, false, true]
    let [lastListed, lastSeen]: (Position | undefined)[] = []
    for await (const { keys, entry } of this.#walk(filter, places, after, limit)) {
      if (scanned === this.#scanCountMax) {
        isWhole = false
        break
      }
      scanned += 1
      lastSeen = { entryId: entry.entryId, place: placeName(keys) }
      const letter = summarise(this.#ids, keys, entry)
      if (!matches(filter, letter)) continue
      groups?.add(letter)
      if (data.length < limit) {
        data.push(letter)
        lastListed = lastSeen
      } else {
        hasMore = true
        if (groups === undefined) break
      }
    }
    const isFull = data.length === limit
    const end = isFull ? lastListed : lastSeen
    const goesOn = isFull ? hasMore || !isWhole : !isWhole
    return {
      data,
      next: goesOn && end !== undefined ? formatCursor(digest, end) : undefined,
      groups: groups?.result(scanned, isWhole),
    }
  }

  async *#walk(
    filter: DeadLetterFilter,
    places: readonly PartitionKeys[],
    after: Position | undefined,
    limit: number,
  ): AsyncGenerator<{ readonly keys: PartitionKeys; readonly entry: DeadEntry }> {
    const range = rangeOf(filter)
    const chunk = Math.min(CHUNK_MAX, Math.max(CHUNK_MIN, Math.ceil((2 * limit) / places.length)))
    const sources = places.map((keys) => new Source(this.#link, keys, range, after))
    await Promise.all(sources.map((source) => source.fill(chunk)))
    let open = sources.filter((source) => source.head !== undefined)
    while (open.length > 0) {
      const [first, ...others] = open
      if (first === undefined) return
      let newest = first
      for (const other of others) if (comesBefore(other, newest)) newest = other
      const entry = newest.take()
      if (newest.head === undefined) await newest.fill(CHUNK_MAX)
      if (newest.head === undefined) open = open.filter((source) => source !== newest)
      if (entry !== undefined) yield { keys: newest.keys, entry }
    }
  }
}

/** The dead letters of one partition, newest first, a chunk at a time. */
class Source {
  readonly keys: PartitionKeys
  readonly place: string
  readonly #link: RedisLink
  readonly #from: string
  #to: string
  #chunk: readonly DeadEntry[] = []
  #at = 0
  #ended = false
  #headOrder: readonly [number, number] = [0, 0]

  constructor(
    link: RedisLink,
    keys: PartitionKeys,
    range: { readonly from: string; readonly to: string },
    after: Position | undefined,
  ) {
    this.#link = link
    this.keys = keys
    this.place = placeName(keys)
    this.#from = range.from
    this.#to = after === undefined ? range.to : this.place > after.place ? after.entryId : `(${after.entryId}`
  }

  get head(): DeadEntry | undefined {
    return this.#chunk[this.#at]
  }

  get headOrder(): readonly [number, number] {
    return this.#headOrder
  }

  take(): DeadEntry | undefined {
    const taken = this.head
    this.#at += 1
    this.#readOrder()
    return taken
  }

  async fill(countMax: number): Promise<void> {
    if (this.#ended) return
    const range = { from: this.#from, to: this.#to, countMax, newestFirst: true }
    const { entries, ended } = await readDead(this.#link, this.keys, range)
    this.#chunk = entries
    this.#at = 0
    const last = entries.at(-1)
    if (last === undefined || ended) this.#ended = true
    else this.#to = `(${last.entryId}`
    this.#readOrder()
  }

  #readOrder(): void {
    const [ms = 0, seq = 0] = this.head?.entryId.split('-').map(Number) ?? []
    this.#headOrder = [ms, seq]
  }
}

/** Newer entries first; of equal ones by partition. */
function comesBefore(a: Source, b: Source): boolean {
  const [aMs, aSeq] = a.headOrder
  const [bMs, bSeq] = b.headOrder
  if (aMs !== bMs) return aMs > bMs
  return aSeq === bSeq ? a.place < b.place : aSeq > bSeq
}

function placeName({ stream, partition }: PartitionKeys): string {
  return `${stream}.${String(partition).padStart(3, '0')}`
}

class GroupCount {
  readonly #groups = new Map<string, { readonly error: string; count: number }>()
  #left = false

  add({ fingerprint, error }: DeadLetterSummary): void {
    const known = this.#groups.get(fingerprint)
    if (known !== undefined) known.count += 1
    else if (this.#groups.size < GROUPS_MAX) this.#groups.set(fingerprint, { error, count: 1 })
    else this.#left = true
  }

  result(scanned: number, isWhole: boolean): ErrorGroups {
    const data = [...this.#groups].map(([fingerprint, { error, count }]) => ({ fingerprint, error, count }))
    data.sort((a, b) => b.count - a.count || (a.fingerprint < b.fingerprint ? -1 : 1))
    return { data, scanned, complete: isWhole && !this.#left }
  }
}

function formatCursor(digest: string, { entryId, place }: Position): string {
  return Buffer.from(`${digest} ${entryId} ${place}`).toString('base64url')
}

const CURSOR = /^([\w-]{12}) (\d{1,15}-\d{1,15}) ([a-z0-9][a-z0-9_-]{0,62}\.\d{3})$/
const CURSOR_CHARS_MAX = 300

function readCursor(text: string, digest: string): Position {
  const plain = text.length > CURSOR_CHARS_MAX ? '' : Buffer.from(text, 'base64url').toString('latin1')
  const [, bound, entryId, place] = CURSOR.exec(plain) ?? []
  if (bound === undefined || entryId === undefined || place === undefined || entryId === '0-0') {
    throw new MillraceError('cursor.invalid', 'This is not a cursor; use "next" of a page.')
  }
  if (bound === digest) return { entryId, place }
  throw new MillraceError(
    'cursor.invalid',
    'This cursor belongs to another filter: use it with the filter it came from, or start without one.',
  )
}
