/**
 * Reads what is new in all logs that somebody in this process tails, over one connection for all of them, and hands it to
 * those who follow. The connection is opened for the first of them and closed when nobody is left.
 *
 *   idle ──a topic is live──▶ XREAD BLOCK over all live topics ──no topic is live──▶ idle
 *                                   │ connection lost: dial, prove each topic's newest entry, read on
 *
 * Reading takes nothing from the log, so a read whose answer was lost is done again. Of what was read the newest chunks stay at
 * hand, up to `keptBytesMax` and `KEPT_MAX` over all topics; who needs older ones reads them from Redis.
 */
import { describeError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { compareEntryIds } from '../redis/bytes.ts'
import type { RedisLink, RedisLinks } from '../redis/connection.ts'
import { identifyConnection, unblock } from '../redis/consumer-group.ts'
import type { EventChunk } from '../redis/event-log.ts'
import { type LogPlace, readEventPage, readNewEvents } from '../redis/event-pages.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import type { Clock } from '../runtime/clock.ts'
import { EventTopic } from './event-topic.ts'

export interface EventFeedParts {
  readonly links: RedisLinks
  /** Shared connection, to end a blocked read when another topic comes in. */
  readonly command: RedisLink
  readonly clock: Clock
  readonly telemetry: Telemetry
  /** Of chunks that are kept for those who are a little behind; as objects they take several times that. */
  readonly keptBytesMax: number
  readonly signal: AbortSignal
}

const CONNECT_WAIT_MS = 2000
/** One read answers about this much, once the size of entries is known. */
const REPLY_BYTES = 1024 * 1024
const ENTRIES_FIRST = 8
const ENTRIES_MAX = 256
/** An object around each event. */
const EVENT_BYTES = 256
/** Chunks at hand, however small. */
const KEPT_MAX = 1024
const FAILED_PAUSE_MAX_MS = 500
const INTERRUPT_AGAIN_MS = 20

interface Kept {
  readonly topic: EventTopic
  readonly bytes: number
}

export class EventFeed {
  readonly #parts: EventFeedParts
  readonly #topics = new Map<string, EventTopic>()
  /** In the order in which they came. */
  #kept: Kept[] = []
  #keptBytes = 0
  #reader: RedisLink | undefined
  /** CLIENT ID of the reader, while it is connected. */
  #clientId: number | undefined
  /** Counts beginnings and ends of reads: odd while one is under way. */
  #round = 0
  /** The last read that was asked to end. */
  #interrupted = 0
  #entryCount = ENTRIES_FIRST
  #answeredMs = 0
  #running: Promise<void> | undefined

  constructor(parts: EventFeedParts) {
    this.#parts = parts
  }

  /** True while a connection is held for reading. */
  get reads(): boolean {
    return this.#reader !== undefined
  }

  /** Monotonic ms since the last answer from Redis; 0 while nothing is read. */
  get silentMs(): number {
    return this.reads ? this.#parts.clock.monotonicMs() - this.#answeredMs : 0
  }

  /** The topic of a partition; drop it when its last follower has left. */
  topic(keys: PartitionKeys): EventTopic {
    let topic = this.#topics.get(keys.events)
    if (topic === undefined) {
      topic = new EventTopic(keys)
      this.#topics.set(keys.events, topic)
    }
    return topic
  }

  /** Reads a cold topic from here on; `isEntry` when an entry of this id lay in the log. */
  begin(topic: EventTopic, id: string, isEntry: boolean): void {
    topic.begin(id, isEntry)
    this.#interrupt()
    this.#running ??= this.#run()
  }

  /** Call it when somebody left. */
  drop(topic: EventTopic): void {
    if (topic.followers > 0 || this.#topics.get(topic.keys.events) !== topic) return
    this.#topics.delete(topic.keys.events)
    this.#release(topic)
  }

  /** Ends the present read; `signal` has been aborted. */
  async close(): Promise<void> {
    if (this.#reader !== undefined) this.#parts.links.close(this.#reader)
    await this.#running
  }

  #live(): EventTopic[] {
    return [...this.#topics.values()].filter(({ newest }) => newest !== undefined)
  }

  async #run(): Promise<void> {
    const { links, clock, telemetry, signal } = this.#parts
    const reader = links.open('reader')
    this.#reader = reader
    this.#answeredMs = clock.monotonicMs()
    let generation: number | undefined
    let failures = 0
    while (!signal.aborted && this.#live().length > 0) {
      try {
        await reader.whenReady(CONNECT_WAIT_MS, signal)
        if (reader.generation !== generation) {
          this.#clientId = undefined
          const found = reader.generation
          if (generation !== undefined) await this.#prove(reader)
          this.#clientId = (await identifyConnection(reader)).id
          generation = found
        }
        await this.#read(reader)
        failures = 0
      } catch (error) {
        if (signal.aborted) break
        failures += 1
        telemetry.emit('service.failed', { service: 'event feed', error: describeError(error) })
        const pauseMs = Math.min(FAILED_PAUSE_MAX_MS, 25 * 2 ** Math.min(failures, 7))
        await clock.sleep(pauseMs * (0.5 + clock.random()), signal)
      }
    }
    links.close(reader)
    this.#reader = undefined
    this.#clientId = undefined
    this.#running = undefined
  }

  /** After a reconnect the server may be another one, or one that lost its newest entries. */
  async #prove(reader: RedisLink): Promise<void> {
    await Promise.all(
      this.#live().map(async (topic) => {
        const { newest: id = '0-0', keys } = topic
        const { state, last } = await readEventPage(reader, keys, { id, inclusive: false, entriesMax: 0 })
        const isShorter = compareEntryIds(last, id) < 0
        if (topic.newest !== id || state === 'known' || (!topic.isEntry && !isShorter)) return
        this.#release(topic)
        topic.restart(state, isShorter ? last : id)
      }),
    )
  }

  async #read(reader: RedisLink): Promise<void> {
    const { links, clock } = this.#parts
    const places = new Map<LogPlace, EventTopic>()
    for (const topic of this.#live()) {
      if (topic.newest !== undefined) places.set({ keys: topic.keys, after: topic.newest }, topic)
    }
    if (places.size === 0) return
    const bounds = { entriesMax: this.#entryCount, blockMs: links.options.blockMs }
    this.#round += 1
    const chunks = await readNewEvents(reader, [...places.keys()], bounds).finally(() => {
      this.#round += 1
    })
    this.#answeredMs = clock.monotonicMs()
    for (const [place, chunk] of chunks) {
      const topic = places.get(place)
      const isCurrent = topic !== undefined && this.#topics.get(place.keys.events) === topic
      if (isCurrent && topic.newest === chunk.after) this.#keep(topic, chunk)
    }
    this.#fit([...chunks.values()], places.size)
  }

  #keep(topic: EventTopic, chunk: EventChunk): void {
    const bytes = chunk.bytes + chunk.events * EVENT_BYTES
    this.#kept.push({ topic, bytes })
    this.#keptBytes += bytes
    topic.publish(chunk)
    while (this.#keptBytes > this.#parts.keptBytesMax || this.#kept.length > KEPT_MAX) {
      const oldest = this.#kept.shift()
      if (oldest === undefined) break
      this.#keptBytes -= oldest.bytes
      oldest.topic.forgetOldest()
    }
  }

  #release(topic: EventTopic): void {
    this.#kept = this.#kept.filter((kept) => kept.topic !== topic)
    this.#keptBytes = this.#kept.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** As many entries from each log as make about one reply of `REPLY_BYTES`, if all of them are full. */
  #fit(chunks: readonly EventChunk[], logs: number): void {
    const entries = chunks.reduce((sum, chunk) => sum + chunk.entries.length, 0)
    if (entries === 0) return
    const bytes = chunks.reduce((sum, chunk) => sum + chunk.bytes + chunk.events * EVENT_BYTES, 0)
    const fitting = Math.floor((REPLY_BYTES * entries) / Math.max(1, bytes * logs))
    this.#entryCount = Math.max(1, Math.min(ENTRIES_MAX, fitting, this.#entryCount * 2))
  }

  /**
   * Lets the present read answer, so that the next one asks for a topic that came in. Without the right to do so, the topic
   * waits for the end of the block.
   */
  #interrupt(): void {
    const round = this.#round
    if (round % 2 === 0 || round === this.#interrupted || this.#clientId === undefined) return
    this.#interrupted = round
    void this.#unblock(round).catch(() => undefined)
  }

  async #unblock(round: number): Promise<void> {
    const { command, clock, signal } = this.#parts
    // The read may still be on its way to Redis, and would block after the request to end it.
    while (this.#round === round && this.#clientId !== undefined && !signal.aborted) {
      await unblock(command, this.#clientId)
      await clock.sleep(INTERRUPT_AGAIN_MS, signal)
    }
  }
}
