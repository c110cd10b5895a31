/**
 * The entries of one partition that this process holds: read or claimed, not yet settled. Bounded by count and bytes.
 *
 * An entry enters once (insert if absent) and leaves on the *answer* of its settlement. While the own pending list is being
 * re-read, what leaves is remembered, because the list may have been read before the settlement and answered after it.
 */
import type { Clock } from './clock.ts'

/** What an entry is taken to weigh before any was seen, and how many entries it takes to learn better. */
const TYPICAL_BYTES = 65_536
const TYPICAL_OVER = 16
/** A read asks for entries of both streams. */
const ROOM_MIN = 2

export class InFlight {
  readonly #countMax: number
  readonly #bytesMax: number
  readonly #clock: Clock
  /** Bytes by key. */
  readonly #held = new Map<string, number>()
  #leftDuringReread: Set<string> | undefined
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
    return this.#held.size
  }

  /** How many more entries fit, in count and in bytes if they are as large as the last ones were. */
  get room(): number {
    if (this.#held.size === 0) return Math.max(ROOM_MIN, this.#fitting)
    return Math.max(0, Math.min(this.#countMax - this.#held.size, this.#fitting))
  }

  get #fitting(): number {
    const left = Math.floor((this.#bytesMax - this.#bytes) / Math.max(1, this.#typicalBytes))
    return Math.min(this.#countMax, left)
  }

  /** Also true for what left while the pending list is being read. */
  has(key: string): boolean {
    return this.#held.has(key) || this.#leftDuringReread?.has(key) === true
  }

  keys(): IterableIterator<string> {
    return this.#held.keys()
  }

  /** False when it is here already, or left while the pending list was being read. */
  enter(key: string, bytes: number): boolean {
    if (this.#leftDuringReread?.has(key) === true) return false
    const { size } = this.#held
    this.#held.set(key, bytes)
    if (this.#held.size === size) return false
    this.#bytes += bytes
    this.#typicalBytes += (bytes - this.#typicalBytes) / TYPICAL_OVER
    return true
  }

  leave(key: string): void {
    const bytes = this.#held.get(key)
    if (bytes === undefined) return
    this.#held.delete(key)
    this.#bytes -= bytes
    this.#leftDuringReread?.add(key)
    this.notify()
  }

  /** Remembers who leaves until `rereadEnded`. */
  rereadStarted(): void {
    this.#leftDuringReread = new Set()
  }

  rereadEnded(): void {
    this.#leftDuringReread = undefined
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

/** How an entry is named in the table: both streams of a partition may use the same entry id. */
export function inFlightKey(source: 'commands' | 'ready', entryId: string): string {
  return source === 'commands' ? entryId : `r${entryId}`
}
