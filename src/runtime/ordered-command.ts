/**
 * A command of an ordered partition, from the moment that it is read until it has ended. One object for everybody who has to
 * do with it: its key's queue, the dispatcher, and the settler, which knows it by this reference.
 */
import type { ReadEntry } from '../redis/consumer-group.ts'
import type { Entry, Trail } from '../redis/entry-codec.ts'
import type { EntryRef } from '../redis/settlements.ts'
import type { Queued } from './key-queues.ts'

export class OrderedCommand implements EntryRef, Queued {
  readonly source = 'commands'
  readonly entryId: string
  readonly token: string
  readonly isNamed: boolean
  readonly key: string
  entry: Entry
  level: number
  /** How often it was retried in its place. */
  turn: number
  /** Monotonic ms; 0 at once. */
  dueAtMs: number
  /** In the dispatcher's or the settler's hands. */
  isActive = false

  constructor(
    { entryId, token, isNamed = true, level }: Pick<ReadEntry, 'entryId' | 'token' | 'isNamed' | 'level'>,
    entry: Entry,
    turn: number,
    dueAtMs: number,
  ) {
    this.entryId = entryId
    this.token = token
    this.isNamed = isNamed
    this.key = entry.key
    this.entry = entry
    this.level = Math.max(level, entry.trail?.level ?? 0)
    this.turn = turn
    this.dueAtMs = dueAtMs
  }

  /** It has failed, and runs again in its place. */
  hold(trail: Trail, dueAtMs: number): void {
    this.turn += 1
    this.entry = { ...this.entry, trail }
    this.dueAtMs = dueAtMs
  }
}
