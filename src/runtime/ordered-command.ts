/**
 * A command of an ordered partition, from the moment that it is read until it has ended. One object for everybody who has to
 * do with it: its key's queue, the dispatcher, and the settler, which knows it by this reference.
 */
import { scopedKey } from '../policies/scoped-key.ts'
import type { ReadEntry } from '../redis/consumer-group.ts'
import type { Entry, Trail } from '../redis/entry-codec.ts'
import { HeldEntry } from './in-flight.ts'
import type { Queued } from './key-queues.ts'

export class OrderedCommand extends HeldEntry implements Queued {
  /** Of its queue: the same key of another tenant is another. */
  readonly key: string
  entry: Entry
  /** How often it was retried in its place. */
  turn: number
  /** Monotonic ms; 0 at once. */
  dueAtMs: number
  /** In the dispatcher's or the settler's hands. */
  isActive = false

  constructor(read: Omit<ReadEntry, 'blob'>, entry: Entry, turn: number, dueAtMs: number) {
    super(read, Math.max(read.level, entry.trail?.level ?? 0), entry.bytes.length)
    this.key = scopedKey(entry.tenant, entry.key)
    this.entry = entry
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
