/**
 * One partition's log as the tails of this process share it: how far it was read, the newest chunks of it, and who follows.
 *
 *   cold ──begin(id)──▶ live: the feed reads on after `newest`, what it reads lies here for a while, followers are woken
 *
 * It is begun by the first follower who has come to the end of the log, at the place where that one stands. So between what
 * followers read themselves and what lies here nothing is left out: both count by entry id.
 */
import { compareEntryIds } from '../redis/bytes.ts'
import type { EventChunk } from '../redis/event-log.ts'
import type { LogState } from '../redis/event-pages.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import type { LogPosition } from './event-cursor.ts'

export interface TopicFollower {
  /** There is more to read here. */
  onMore(topic: EventTopic): void
  /** Redis no longer has what was read here: it goes on after `last`. */
  onBroken(topic: EventTopic, state: Exclude<LogState, 'known'>, last: string): void
}

export class EventTopic {
  readonly keys: PartitionKeys
  readonly #followers = new Set<TopicFollower>()
  readonly #chunks: EventChunk[] = []
  #newest: string | undefined
  #isEntry = false

  constructor(keys: PartitionKeys) {
    this.keys = keys
  }

  /** The last entry that was read for all; undefined while it is cold. */
  get newest(): string | undefined {
    return this.#newest
  }

  /** True when `newest` is an entry that lay in the log, and not only where the log ended. */
  get isEntry(): boolean {
    return this.#isEntry
  }

  get followers(): number {
    return this.#followers.size
  }

  follow(follower: TopicFollower): void {
    this.#followers.add(follower)
  }

  leave(follower: TopicFollower): void {
    this.#followers.delete(follower)
  }

  /** It is read from here on. */
  begin(id: string, isEntry: boolean): void {
    this.#newest = id
    this.#isEntry = isEntry
  }

  /** Nothing more is to be had here at the moment. */
  isAtEnd({ id, seen }: LogPosition): boolean {
    return seen === 0 && this.#newest !== undefined && compareEntryIds(id, this.#newest) >= 0
  }

  /** The chunk in which the position goes on, if it lies here. */
  chunkFrom({ id, seen }: LogPosition): EventChunk | undefined {
    const chunk = this.#lastThat(({ after }) => compareEntryIds(after, id) < (seen > 0 ? 0 : 1))
    return chunk !== undefined && compareEntryIds(id, chunk.last) < (seen > 0 ? 1 : 0) ? chunk : undefined
  }

  /** The feed has read this, right after `newest`. */
  publish(chunk: EventChunk): void {
    this.#chunks.push(chunk)
    this.#newest = chunk.last
    this.#isEntry = true
    for (const follower of this.#followers) follower.onMore(this)
  }

  /** Drops the oldest chunk: who still needs it reads it from Redis. */
  forgetOldest(): void {
    this.#chunks.shift()
  }

  /** The log was found to be without what was read last: it is read on after `last`. */
  restart(state: Exclude<LogState, 'known'>, last: string): void {
    this.#chunks.length = 0
    this.#newest = last
    this.#isEntry = false
    for (const follower of this.#followers) follower.onBroken(this, state, last)
  }

  /** Of chunks in order, by halves: there may be a thousand of one event each. */
  #lastThat(begins: (chunk: EventChunk) => boolean): EventChunk | undefined {
    let [from, to] = [0, this.#chunks.length]
    while (from < to) {
      const middle = (from + to) >>> 1
      const chunk = this.#chunks[middle]
      if (chunk !== undefined && begins(chunk)) from = middle + 1
      else to = middle
    }
    return this.#chunks[from - 1]
  }
}
