/**
 * One reader's way through the events of a stream: it is asked for the next ones, never pushes, and keeps nothing between two
 * questions but a position for each partition. So a slow reader costs no memory, and falls back to pages by itself.
 *
 *   behind ──page from Redis──▶ … ──the page was the last one──▶ live: chunks of the topic ──chunk no longer at hand──▶ behind
 *
 * A partition is asked for more while it may have some (`#ready`); a topic says when it has. Positions are entry ids and an
 * index, so it does not matter which of the two ways an entry came by: none is left out, none comes twice.
 */
import { describeError, errorCode } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { compareEntryIds } from '../redis/bytes.ts'
import type { EventChunk, LoggedEntry, LoggedEvent } from '../redis/event-log.ts'
import type { EventPage, LogState } from '../redis/event-pages.ts'
import type { Clock } from '../runtime/clock.ts'
import type { EventCursors, LogPosition } from './event-cursor.ts'
import type { EventFeed } from './event-feed.ts'
import type { EventTopic, TopicFollower } from './event-topic.ts'
import type { PageReader } from './page-reader.ts'

export type GapReason = Exclude<LogState, 'known'>

/** An event, or that events are missing here. `cursor` goes on after it. */
export type TailItem =
  | {
      readonly kind: 'event'
      readonly partition: number
      readonly entry: string
      readonly index: number
      readonly event: LoggedEvent
      readonly cursor: string
    }
  | {
      readonly kind: 'gap'
      readonly partition: number
      readonly reason: GapReason
      /** The last entry before what is missing. */
      readonly after: string
      readonly cursor: string
    }

export interface TailSetting {
  readonly stream: string
  readonly cursors: EventCursors
  readonly feed: EventFeed
  readonly pages: PageReader
  readonly clock: Clock
  readonly telemetry: Telemetry
  /** Bytes of the events that one answer holds; an event that is larger comes alone. */
  readonly bytesMax: number
  /** False hides an event from this reader: filters, and later whatever its credential may not see. */
  readonly sees: (event: LoggedEvent) => boolean
}

/** Where a tail begins in one partition. */
export interface TailStart {
  readonly topic: EventTopic
  readonly position: LogPosition
  /** The position is an entry that lay in the log. */
  readonly isEntry: boolean
  /** The position came from outside: what it stands on may be gone. */
  readonly isResumed: boolean
}

interface Place {
  readonly partition: number
  readonly topic: EventTopic
  id: string
  seen: number
  isEntry: boolean
  isResumed: boolean
  /** Entries of a page, by the size of those before. */
  entriesMax: number
  /** How far the feed had read when a page after this place was empty. */
  doubted: string | undefined
}

const PAGE_ENTRIES_FIRST = 4
const PAGE_ENTRIES_MAX = 256
const FAILED_PAUSE_MS = 50
const FAILED_PAUSE_MAX_MS = 1000

export class Tail implements TopicFollower {
  readonly stream: string
  readonly #setting: TailSetting
  readonly #places: readonly Place[]
  readonly #byTopic: ReadonlyMap<EventTopic, Place>
  /** Partitions that may have more, in the order in which they are asked. */
  readonly #ready: Set<Place>
  readonly #gaps: TailItem[] = []
  #wake: (() => void) | undefined
  #failures = 0
  #closed = false
  #answeredMs: number | undefined

  constructor(setting: TailSetting, starts: readonly TailStart[]) {
    this.#setting = setting
    this.stream = setting.stream
    this.#places = starts.map(({ topic, position, isEntry, isResumed }) => ({
      partition: topic.keys.partition,
      topic,
      ...position,
      isEntry,
      isResumed,
      entriesMax: PAGE_ENTRIES_FIRST,
      doubted: undefined,
    }))
    this.#byTopic = new Map(this.#places.map((place) => [place.topic, place]))
    this.#ready = new Set(this.#places)
    for (const { topic } of this.#places) topic.follow(this)
    this.#answeredMs = setting.clock.monotonicMs()
  }

  /** Where it stands in all partitions. */
  get cursor(): string {
    return this.#setting.cursors.encode(this.#places)
  }

  get partitions(): readonly number[] {
    return this.#places.map(({ partition }) => partition)
  }

  get closed(): boolean {
    return this.#closed
  }

  /** Monotonic ms of its last answer, while it has not been asked again. */
  get answeredMs(): number | undefined {
    return this.#answeredMs
  }

  onMore(topic: EventTopic): void {
    const place = this.#byTopic.get(topic)
    if (place === undefined) return
    this.#ready.add(place)
    this.#wake?.()
  }

  onBroken(topic: EventTopic, reason: GapReason, last: string): void {
    const place = this.#byTopic.get(topic)
    if (place === undefined) return
    const gap = this.#gap(place, reason)
    if (compareEntryIds(place.id, last) > 0) this.#move(place, last, 0)
    this.#gaps.push({ ...gap, cursor: this.cursor })
    this.#ready.add(place)
    this.#wake?.()
  }

  /**
   * The next events, in order within each partition; an empty list when there are none for `waitMs`, or when it was closed.
   * While Redis is away it waits. Ask one question at a time.
   */
  async next(waitMs: number): Promise<readonly TailItem[]> {
    const { clock } = this.#setting
    this.#answeredMs = undefined
    const endMs = clock.monotonicMs() + waitMs
    const items: TailItem[] = []
    while (!this.#closed && clock.monotonicMs() < endMs) {
      items.push(...this.#gaps.splice(0))
      const behind = this.#collect(items)
      if (items.length > 0) break
      if (behind !== undefined) await this.#readPage(behind, items)
      else await this.#wait(endMs - clock.monotonicMs())
      if (items.length > 0) break
    }
    this.#answeredMs = clock.monotonicMs()
    return this.#closed ? [] : items
  }

  /** Frees all it holds, and ends a question that waits. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    for (const { topic } of this.#places) {
      topic.leave(this)
      this.#setting.feed.drop(topic)
    }
    this.#wake?.()
  }

  /** Takes what lies at hand, and answers a partition that has to be read from Redis. */
  #collect(items: TailItem[]): Place | undefined {
    let behind: Place | undefined
    let room = this.#setting.bytesMax
    for (const place of [...this.#ready]) {
      if (room <= 0) break
      let chunk = place.topic.chunkFrom(place)
      while (chunk !== undefined && room > 0) {
        room = this.#take(place, chunk, room, items)
        if (room > 0) chunk = place.topic.chunkFrom(place)
      }
      // Whoever had its turn is asked last next time.
      this.#ready.delete(place)
      // A place that came from outside may lie beyond the log: only Redis can tell.
      const isProved = place.topic.isEntry && place.id === place.topic.newest
      const isDoubtful = place.isResumed && !isProved
      if (isDoubtful || !place.topic.isAtEnd(place)) {
        this.#ready.add(place)
        if (room > 0) behind ??= place
      }
    }
    return behind
  }

  async #readPage(place: Place, items: TailItem[]): Promise<void> {
    const { feed, pages, clock, telemetry, bytesMax } = this.#setting
    const { topic } = place
    const { id, seen } = place
    const newestBefore = topic.newest
    let page: EventPage
    try {
      page = await pages.read(topic.keys, { id, seen }, place.entriesMax)
      this.#failures = 0
    } catch (error) {
      if (errorCode(error) === undefined) throw error
      this.#failures += 1
      telemetry.emit('service.failed', { service: 'event tails', error: describeError(error) })
      const pauseMs = Math.min(FAILED_PAUSE_MAX_MS, FAILED_PAUSE_MS * 2 ** Math.min(this.#failures, 6))
      await clock.sleep(pauseMs * (0.5 + clock.random()))
      return
    }
    // The topic may have been found broken meanwhile, and the position with it.
    if (this.#closed || place.id !== id || place.seen !== seen) return
    this.#judge(place, page, items)
    const { chunk, isLast } = page
    if (chunk !== undefined) {
      const fitting = Math.floor((bytesMax * chunk.entries.length) / Math.max(1, chunk.bytes))
      place.entriesMax = Math.max(1, Math.min(PAGE_ENTRIES_MAX, fitting, place.entriesMax * 2))
      if (this.#take(place, chunk, bytesMax, items) <= 0) return
    } else this.#doubt(place, newestBefore)
    if (isLast && place.seen === 0 && topic.newest === undefined) feed.begin(topic, place.id, place.isEntry)
  }

  /**
   * Nothing came after the position, but the feed has read beyond it: entries were removed by hand, or the page was begun by
   * somebody else before they came. A second page was begun after this one, so it decides.
   */
  #doubt(place: Place, newestBefore: string | undefined): void {
    const { doubted } = place
    place.doubted = newestBefore
    if (doubted !== undefined && compareEntryIds(place.id, doubted) < 0) this.#move(place, doubted, 0)
  }

  /** Says what is missing before a page, and goes on where the log does. */
  #judge(place: Place, { state, last, chunk }: EventPage, items: TailItem[]): void {
    const { isResumed } = place
    place.isResumed = false
    // Not even the entry of which a part was read is there any more.
    if (chunk === undefined) place.seen = 0
    else place.doubted = undefined
    if (state === 'known') {
      // A place from outside that the log knows.
      if (isResumed) place.isEntry = place.id !== '0-0'
      return
    }
    const isBeyond = state === 'lost' && compareEntryIds(place.id, last) > 0
    // A log that is read from its beginning has no gap there, and a place that this process has read is not doubted.
    const isTold = isResumed || isBeyond || (state === 'trimmed' && place.id !== '0-0')
    if (!isTold) return
    const gap = this.#gap(place, state)
    if (chunk === undefined && (state === 'trimmed' || isBeyond)) this.#move(place, last, 0)
    items.push({ ...gap, cursor: this.cursor })
  }

  #gap({ partition, id }: Place, reason: GapReason): TailItem {
    return { kind: 'gap', partition, reason, after: id, cursor: this.cursor }
  }

  /** Answers the room that is left; at least one event is taken. */
  #take(place: Place, chunk: EventChunk, room: number, items: TailItem[]): number {
    let left = room
    place.isResumed = false
    for (const entry of entriesFrom(chunk, place)) {
      let index = entry.id === place.id ? place.seen : 0
      for (const event of entry.events.slice(index)) {
        index += 1
        this.#move(place, entry.id, index === entry.events.length ? 0 : index, true)
        if (!this.#setting.sees(event)) continue
        const { partition } = place
        const { cursor } = this
        items.push({ kind: 'event', partition, entry: entry.id, index: index - 1, event, cursor })
        left -= event.blob.length
        if (left <= 0) return left
      }
      this.#move(place, entry.id, 0, true)
    }
    return left
  }

  #move(place: Place, id: string, seen: number, isEntry = false): void {
    place.id = id
    place.seen = seen
    place.isEntry = isEntry
  }

  async #wait(ms: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const timer = this.#setting.clock.after(Math.max(1, ms), resolve)
    this.#wake = resolve
    await promise
    this.#wake = undefined
    timer.cancel()
  }
}

function entriesFrom({ entries }: EventChunk, { id, seen }: LogPosition): readonly LoggedEntry[] {
  const from = entries.findIndex((entry) => {
    const order = compareEntryIds(entry.id, id)
    return order > 0 || (order === 0 && seen > 0)
  })
  return from < 0 ? [] : entries.slice(from)
}
