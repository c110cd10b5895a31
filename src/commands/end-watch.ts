/**
 * Waits for the end of commands, for all requests of this process together: one script for each partition and look asks for
 * up to 256 of them, and only while somebody waits.
 *
 *   waiting ──(looks: after 10 ms, then whenever its age has grown by a quarter, 250 ms at most)──▶ ended
 *      └──────(time over, client gone, process stops)──────▶ not ended
 *
 * The number of waiters is bounded. It serves before it is started too; stopping it lets go of all who wait.
 */
import type { RedisLink } from '../redis/connection.ts'
import { type PartitionKeys, partitionKeys } from '../redis/keys.ts'
import { readOpen } from '../redis/open-commands.ts'
import type { Clock, Timer } from '../runtime/clock.ts'
import { Service } from '../runtime/service.ts'

export interface EndWatchParts {
  readonly link: RedisLink
  readonly clock: Clock
  /** Default 5000. */
  readonly waitersMax?: number
}

const WAITERS_MAX = 5000
/** Between two rounds of looks. */
const ROUND_MS = 10
const LOOK_MAX_MS = 250
const AGE_SHARE = 0.25
/** Commands in one look. */
const LOOK_COUNT_MAX = 256

interface Waiter {
  readonly token: string
  readonly sinceMs: number
  lookAtMs: number
  readonly settle: (ended: boolean) => void
}

interface Watched {
  readonly keys: PartitionKeys
  readonly waiters: Set<Waiter>
  isAsking: boolean
}

export class EndWatch extends Service {
  readonly #parts: EndWatchParts
  /** By stream and partition; those nobody waits in are gone. */
  readonly #watched = new Map<string, Watched>()
  #count = 0
  #isRunning = false

  constructor(parts: EndWatchParts) {
    super('end-watch')
    this.#parts = parts
  }

  /** Who waits now. */
  get waiterCount(): number {
    return this.#count
  }

  /**
   * Settles with true as soon as the command seems to be over: its status has the last word. With false when the time is over,
   * the signal aborts or the process stops. Undefined at once where nobody can wait any more. The id is one that was just given out,
   * or whose status was just told: it is not checked again.
   */
  untilEnded(id: string, waitMs: number, signal: AbortSignal): Promise<boolean> | undefined {
    const { clock, waitersMax = WAITERS_MAX } = this.#parts
    const [stream = '', partition = '', token = ''] = id.split('.', 3)
    if (this.#count >= waitersMax || this.stopSignal.aborted || signal.aborted) return undefined
    const watched = this.#watch(stream, Number(partition))
    const { promise, resolve } = Promise.withResolvers<boolean>()
    const settle = (ended: boolean): void => {
      if (!watched.waiters.delete(waiter)) return
      this.#count -= 1
      timer.cancel()
      signal.removeEventListener('abort', giveUp)
      resolve(ended)
    }
    const giveUp = (): void => settle(false)
    const timer: Timer = clock.after(waitMs, giveUp)
    const sinceMs = clock.monotonicMs()
    const waiter: Waiter = { token, sinceMs, lookAtMs: sinceMs + ROUND_MS, settle }
    signal.addEventListener('abort', giveUp, { once: true })
    watched.waiters.add(waiter)
    this.#count += 1
    if (!this.#isRunning) void this.#run()
    return promise
  }

  protected override async onStart(): Promise<void> {
    // There is nothing to do until somebody waits.
  }

  protected override async onStop(): Promise<void> {
    for (const { waiters } of this.#watched.values()) for (const { settle } of [...waiters]) settle(false)
  }

  #watch(stream: string, partition: number): Watched {
    const name = `${stream}.${partition}`
    const known = this.#watched.get(name)
    if (known !== undefined) return known
    const watched = { keys: partitionKeys(stream, partition), waiters: new Set<Waiter>(), isAsking: false }
    this.#watched.set(name, watched)
    return watched
  }

  /** Rounds of looks, until nobody waits. */
  async #run(): Promise<void> {
    this.#isRunning = true
    while (this.#count > 0) {
      await this.#parts.clock.sleep(ROUND_MS)
      for (const [name, watched] of this.#watched) {
        if (watched.waiters.size === 0) this.#watched.delete(name)
        else if (!watched.isAsking) void this.#look(watched)
      }
    }
    this.#watched.clear()
    this.#isRunning = false
  }

  async #look(watched: Watched): Promise<void> {
    const nowMs = this.#parts.clock.monotonicMs()
    const due: Waiter[] = []
    for (const waiter of watched.waiters) {
      if (waiter.lookAtMs > nowMs) continue
      due.push(waiter)
      if (due.length === LOOK_COUNT_MAX) break
    }
    if (due.length === 0) return
    watched.isAsking = true
    const open = await this.#readOpen(watched.keys, due)
    watched.isAsking = false
    const answeredMs = this.#parts.clock.monotonicMs()
    for (const [index, waiter] of due.entries()) {
      if (open[index] === false) waiter.settle(true)
      else waiter.lookAtMs = answeredMs + Math.min(LOOK_MAX_MS, AGE_SHARE * (answeredMs - waiter.sinceMs))
    }
  }

  /** Without an answer of Redis nothing is known, and they are asked for again: the command was accepted. */
  async #readOpen(keys: PartitionKeys, waiters: readonly Waiter[]): Promise<readonly boolean[]> {
    try {
      const tokens = waiters.map(({ token }) => token)
      return await readOpen(this.#parts.link, keys, tokens)
    } catch {
      return []
    }
  }
}
