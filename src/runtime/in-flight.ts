/**
 * The entries of one partition that this process holds: read or claimed, not yet settled. Bounded by count and bytes.
 *
 * An entry enters once and leaves on the *answer* of its settlement. What comes in is compared with what is held only where
 * it may be held already: entries that are younger than all that came before are not. While the own pending list is being
 * re-read, what leaves is remembered, because the list may have been read before the settlement and answered after it.
 *
 * What is held is a chain through the entries themselves: a table of their names took a tenth of a worker's time.
 */
import { compareEntryIds } from '../redis/bytes.ts'
import type { ReadEntry } from '../redis/consumer-group.ts'
import type { EntryRef, Source } from '../redis/settlements.ts'
import type { Clock } from './clock.ts'

/** What an entry is taken to weigh before any was seen, and how many entries it takes to learn better. */
const TYPICAL_BYTES = 65_536
const TYPICAL_OVER = 16
/** A read asks for entries of both streams. */
const ROOM_MIN = 2

/** An entry in hand, and its place among the others. */
export class HeldEntry implements EntryRef {
  readonly source: Source
  readonly entryId: string
  readonly token: string
  readonly isNamed: boolean
  level: number
  /** Of the whole entry. */
  readonly bytes: number
  isHeld = false
  before: HeldEntry | undefined
  behind: HeldEntry | undefined

  constructor(
    { source, entryId, token, isNamed = true }: Omit<ReadEntry, 'blob' | 'level'>,
    level: number,
    bytes: number,
  ) {
    this.source = source
    this.entryId = entryId
    this.token = token
    this.isNamed = isNamed
    this.level = level
    this.bytes = bytes
  }
}

type Named = Pick<ReadEntry, 'source' | 'entryId'>

export class InFlight {
  readonly #countMax: number
  readonly #bytesMax: number
  readonly #clock: Clock
  /** Ends of the chain, oldest and youngest. */
  #first: HeldEntry | undefined
  #last: HeldEntry | undefined
  #count = 0
  /** The youngest that ever came, of each stream. */
  readonly #youngest = { commands: '0-0', ready: '0-0' }
  /** Names of what is held, and of what has left, while the pending list is being read. */
  #seen: Set<string> | undefined
  #bytes = 0
  #typicalBytes = TYPICAL_BYTES
  #waiting: (() => void) | undefined

  readonly #onAbort = (): void => this.notify()

  constructor(clock: Clock, countMax: number, bytesMax: number) {
    this.#clock = clock
    this.#countMax = countMax
    this.#bytesMax = bytesMax
  }

  get count(): number {
    return this.#count
  }

  /** How many more entries fit, in count and in bytes if they are as large as the last ones were. */
  get room(): number {
    if (this.#count === 0) return Math.max(ROOM_MIN, this.#fitting)
    return Math.max(0, Math.min(this.#countMax - this.#count, this.#fitting))
  }

  get #fitting(): number {
    const left = Math.floor((this.#bytesMax - this.#bytes) / Math.max(1, this.#typicalBytes))
    return Math.min(this.#countMax, left)
  }

  /** Also true for what left while the pending list is being read. */
  has(entry: Named): boolean {
    return (this.#seen ?? this.#names()).has(nameOf(entry))
  }

  /** What is held, in the order in which it came. */
  entries(): HeldEntry[] {
    const all: HeldEntry[] = []
    for (let entry = this.#first; entry !== undefined; entry = entry.behind) all.push(entry)
    return all
  }

  /** Those that are not here already, and did not leave while the pending list was being read. */
  fresh<Entry extends Named>(entries: readonly Entry[]): readonly Entry[] {
    let areYounger = true
    for (const { source, entryId } of entries) {
      if (compareEntryIds(entryId, this.#youngest[source]) > 0) this.#youngest[source] = entryId
      else areYounger = false
    }
    if (areYounger) return entries
    const names = this.#seen === undefined ? this.#names() : new Set(this.#seen)
    return entries.filter((entry) => {
      const name = nameOf(entry)
      if (names.has(name)) return false
      names.add(name)
      return true
    })
  }

  /** Takes one of those that are fresh. */
  enter(entry: HeldEntry): void {
    if (this.#last === undefined) this.#first = entry
    else this.#last.behind = entry
    entry.before = this.#last
    this.#last = entry
    entry.isHeld = true
    this.#count += 1
    this.#bytes += entry.bytes
    this.#typicalBytes += (entry.bytes - this.#typicalBytes) / TYPICAL_OVER
    this.#seen?.add(nameOf(entry))
  }

  /** Nothing happens for one that is not here. */
  leave(entry: EntryRef): void {
    if (!(entry instanceof HeldEntry && entry.isHeld)) return
    const { before, behind } = entry
    if (before === undefined) this.#first = behind
    else before.behind = behind
    if (behind === undefined) this.#last = before
    else behind.before = before
    entry.isHeld = false
    entry.before = undefined
    entry.behind = undefined
    this.#count -= 1
    this.#bytes -= entry.bytes
    this.notify()
  }

  /** Remembers who is here and who leaves until `rereadEnded`. */
  rereadStarted(): void {
    this.#seen = this.#names()
  }

  rereadEnded(): void {
    this.#seen = undefined
  }

  #names(): Set<string> {
    return new Set(this.entries().map(nameOf))
  }

  /** Ends a `change` that is being waited for. */
  notify(): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.()
  }

  /** Resolves when something leaves, or after `limitMs`. */
  async change(limitMs: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#waiting = resolve
    const timer = this.#clock.after(limitMs, resolve)
    signal.addEventListener('abort', this.#onAbort, { once: true })
    await promise
    timer.cancel()
    signal.removeEventListener('abort', this.#onAbort)
  }
}

/** Both streams of a partition may use the same entry id. */
function nameOf({ source, entryId }: Named): string {
  return source === 'commands' ? entryId : `r${entryId}`
}
