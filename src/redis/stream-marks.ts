/**
 * The newest entry ids that this process has been told of: appended, read or committed; and the highest number of a command
 * that waits for its time. A server that no longer knows of
 * them after a reconnect has lost entries. One id for each log, however much went by.
 */
import { compareEntryIds } from './bytes.ts'
import type { PartitionKeys } from './keys.ts'

export const MARKED_LOGS = ['commands', 'ready', 'events', 'counter'] as const
export type MarkedLog = (typeof MARKED_LOGS)[number]

/** '' while nothing was seen. */
export type Marks = Readonly<Record<MarkedLog, string>>

const NONE: Marks = { commands: '', ready: '', events: '', counter: '' }

export class StreamMarks {
  /** By the key of the command stream: a partition's keys may come as two objects. */
  readonly #marks = new Map<
    string,
    { readonly keys: PartitionKeys; readonly marks: Record<MarkedLog, string> }
  >()

  /** Call it once for each batch, with its last id. */
  note(keys: PartitionKeys, log: MarkedLog, id: string): void {
    let place = this.#marks.get(keys.commands)
    if (place === undefined) {
      place = { keys, marks: { ...NONE } }
      this.#marks.set(keys.commands, place)
    }
    const { marks } = place
    const known = marks[log]
    if (known === '' || compareEntryIds(known, id) < 0) marks[log] = id
  }

  /** Drops a mark whose loss was reported, unless something newer was seen meanwhile. */
  forget(keys: PartitionKeys, log: MarkedLog, id: string): void {
    const marks = this.#marks.get(keys.commands)?.marks
    if (marks?.[log] === id) marks[log] = ''
  }

  entries(): readonly (readonly [PartitionKeys, Marks])[] {
    return [...this.#marks.values()].map(({ keys, marks }) => [keys, { ...marks }])
  }
}
