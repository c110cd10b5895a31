/**
 * Commands on their way to a server: gathered into requests, and tried again one by one.
 *
 *   enqueue ─▶ ready ──(a turn or lingerMs is over, or a request is full, and one may be under way)──▶ request
 *                ▲                                                                                    │
 *                └────────(pause: what may go better; its neighbours are not sent again)──────────────┤
 *                                                                              accepted or refused ◀──┘
 *
 * Everything is bounded: commands and bytes that wait or are under way, requests under way, tries, and the time of each command.
 * A command's bytes are made once, so each try says exactly the same under its key.
 */
import { onAbort } from './abort-calls.ts'
import type { Carried } from './carrier.ts'
import type { ClientClock, ClientTimer } from './client-clock.ts'
import { ClientError, isClientError, isRetryable, leavesUnknown } from './client-error.ts'
import type { ClientBounds } from './client-options.ts'
import { abortedBy, conclude, pauseAfter, type RetryRule } from './retries.ts'

/** A command as it is sent. */
export interface Packed {
  readonly bytes: number
  readonly idempotencyKey: string | undefined
}

/** One per command, in order. */
export type Fate = Carried | ClientError

export interface QueueBounds
  extends RetryRule,
    Pick<
      ClientBounds,
      | 'lingerMs'
      | 'batchCountMax'
      | 'batchBytesMax'
      | 'requestsInFlightMax'
      | 'queueCountMax'
      | 'queueBytesMax'
    > {}

export interface CommandQueueParts<Item extends Packed> {
  /** One request; what it throws is the fate of all. */
  readonly deliver: (items: readonly Item[], signal: AbortSignal) => Promise<readonly Fate[]>
  readonly bounds: QueueBounds
  readonly clock: ClientClock
}

/** A request under way; it is cut off when nobody waits for it any more. */
interface Flight {
  readonly abort: AbortController
  waiting: number
}

interface Entry<Item> {
  readonly item: Item
  readonly deadlineMs: number
  readonly settle: (fate: Fate) => void
  isSettled: boolean
  attempts: number
  /** A try of it may have stored it. */
  isUnknown: boolean
  lastError: ClientError | undefined
  flight: Flight | undefined
}

export class CommandQueue<Item extends Packed> {
  readonly #parts: CommandQueueParts<Item>
  #ready: Entry<Item>[] = []
  #readyBytes = 0
  #liveCount = 0
  #liveBytes = 0
  #flights = 0
  /** What is ready goes as soon as a request may. */
  #isDue = false
  #linger: ClientTimer | undefined
  #closing = false
  #roomWaiters: (() => void)[] = []
  #onEmpty: (() => void)[] = []

  constructor(parts: CommandQueueParts<Item>) {
    this.#parts = parts
  }

  /** Rejects when the tries are over, the deadline is, or the signal aborts. */
  enqueue(item: Item, deadlineMs: number, signal: AbortSignal | undefined): Promise<Carried> {
    if (signal?.aborted === true)
      return Promise.reject(conclude(abortedBy(signal), false, item.idempotencyKey))
    if (this.#isFull(item.bytes)) return Promise.reject(full(item, this.#parts.bounds))
    return new Promise((resolve, reject) => {
      const { clock } = this.#parts
      const timer = clock.after(deadlineMs - clock.monotonicMs(), () => this.#giveUp(entry, timeOver(entry)))
      const stopListening = onAbort(signal, () => this.#giveUp(entry, abortedBy(signal)))
      const settle = (fate: Fate): void => {
        timer.cancel()
        stopListening()
        if (isClientError(fate)) reject(fate)
        else resolve(fate)
      }
      const entry: Entry<Item> = {
        ...{ item, deadlineMs, settle, isSettled: false, attempts: 0, isUnknown: false },
        ...{ lastError: undefined, flight: undefined },
      }
      this.#liveCount += 1
      this.#liveBytes += item.bytes
      this.#makeReady([entry])
    })
  }

  /** Resolves when a command has left; undefined while there is room for so many bytes. */
  room(bytes: number): Promise<void> | undefined {
    if (!this.#isFull(bytes)) return undefined
    return new Promise((resolve) => this.#roomWaiters.push(resolve))
  }

  /** Sends what is ready, and waits until everything has its fate. */
  async close(): Promise<void> {
    this.#closing = true
    this.#flushNow()
    if (this.#liveCount > 0) await new Promise<void>((resolve) => this.#onEmpty.push(resolve))
  }

  /** A command that alone has more than all may have is taken when nothing else is there. */
  #isFull(bytes: number): boolean {
    const { queueCountMax, queueBytesMax } = this.#parts.bounds
    if (this.#liveCount >= queueCountMax) return true
    return this.#liveCount > 0 && this.#liveBytes + bytes > queueBytesMax
  }

  #makeReady(entries: readonly Entry<Item>[]): void {
    const { batchCountMax, batchBytesMax, lingerMs } = this.#parts.bounds
    for (const entry of entries) {
      this.#ready.push(entry)
      this.#readyBytes += entry.item.bytes
    }
    const isFull = this.#ready.length >= batchCountMax || this.#readyBytes >= batchBytesMax
    if (isFull || this.#closing || this.#isDue) this.#flushNow()
    else this.#linger ??= this.#parts.clock.after(lingerMs, () => this.#flushNow())
  }

  #flushNow(): void {
    this.#linger?.cancel()
    this.#linger = undefined
    this.#isDue = true
    this.#dispatch()
  }

  #dispatch(): void {
    while (this.#isDue && this.#flights < this.#parts.bounds.requestsInFlightMax) {
      const entries = this.#take()
      if (this.#ready.length === 0) this.#isDue = false
      if (entries.length > 0) void this.#fly(entries)
    }
  }

  /** As much as fits into one request; one command at least. */
  #take(): Entry<Item>[] {
    const { batchCountMax, batchBytesMax } = this.#parts.bounds
    const nowMs = this.#parts.clock.monotonicMs()
    const taken: Entry<Item>[] = []
    let bytes = 0
    let at = 0
    for (; at < this.#ready.length && taken.length < batchCountMax; at++) {
      const entry = this.#ready[at] as Entry<Item>
      // Its timer may be a moment late.
      if (nowMs >= entry.deadlineMs) this.#giveUp(entry, timeOver(entry))
      if (!entry.isSettled) {
        if (taken.length > 0 && bytes + entry.item.bytes > batchBytesMax) break
        bytes += entry.item.bytes
        taken.push(entry)
      }
      this.#readyBytes -= entry.item.bytes
    }
    this.#ready = this.#ready.slice(at)
    return taken
  }

  async #fly(entries: readonly Entry<Item>[]): Promise<void> {
    const flight = { abort: new AbortController(), waiting: entries.length }
    this.#flights += 1
    for (const entry of entries) {
      entry.attempts += 1
      entry.flight = flight
    }
    let fates: readonly Fate[]
    try {
      const items = entries.map(({ item }) => item)
      fates = await this.#parts.deliver(items, flight.abort.signal)
    } catch (error) {
      const fate = isClientError(error)
        ? error
        : new ClientError('fault', 'The request failed.', { cause: error })
      fates = entries.map(() => fate)
    }
    this.#flights -= 1
    this.#land(entries, fates)
    this.#dispatch()
  }

  #land(entries: readonly Entry<Item>[], fates: readonly Fate[]): void {
    const again: Entry<Item>[] = []
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i] as Entry<Item>
      const fate = fates[i] ?? new ClientError('fault', 'The answer does not tell of this command.')
      entry.flight = undefined
      if (entry.isSettled) continue
      if (!isClientError(fate)) {
        this.#settle(entry, fate)
        continue
      }
      entry.lastError = fate
      entry.isUnknown ||= leavesUnknown(fate)
      if (this.#mayTryAgain(entry, fate)) again.push(entry)
      else this.#giveUp(entry, fate)
    }
    if (again.length > 0) this.#pause(again)
  }

  #mayTryAgain({ attempts, item }: Entry<Item>, error: ClientError): boolean {
    if (!isRetryable(error) || attempts >= this.#parts.bounds.attemptsMax) return false
    return item.idempotencyKey !== undefined || !leavesUnknown(error)
  }

  /** What failed together comes back together. */
  #pause(entries: readonly Entry<Item>[]): void {
    const { bounds, clock } = this.#parts
    const attempt = Math.max(...entries.map(({ attempts }) => attempts))
    const retryAfterS = Math.max(...entries.map(({ lastError }) => lastError?.retryAfterS ?? -1))
    const pauseMs = pauseAfter(attempt, retryAfterS < 0 ? undefined : retryAfterS, bounds, clock)
    const backMs = clock.monotonicMs() + pauseMs
    const patient: Entry<Item>[] = []
    for (const entry of entries) {
      if (backMs < entry.deadlineMs) patient.push(entry)
      else this.#giveUp(entry, entry.lastError ?? timeOver(entry))
    }
    if (patient.length > 0) clock.after(pauseMs, () => this.#return(patient))
  }

  #return(entries: readonly Entry<Item>[]): void {
    const waiting = entries.filter(({ isSettled }) => !isSettled)
    if (waiting.length > 0) this.#makeReady(waiting)
  }

  #giveUp(entry: Entry<Item>, error: ClientError): void {
    const { flight, item } = entry
    const isUnknown = entry.isUnknown || flight !== undefined
    this.#settle(entry, conclude(error, isUnknown, item.idempotencyKey))
    if (flight === undefined) return
    flight.waiting -= 1
    if (flight.waiting === 0) flight.abort.abort()
  }

  #settle(entry: Entry<Item>, fate: Fate): void {
    if (entry.isSettled) return
    entry.isSettled = true
    this.#liveCount -= 1
    this.#liveBytes -= entry.item.bytes
    entry.settle(fate)
    for (const go of this.#roomWaiters.splice(0)) go()
    if (this.#liveCount === 0) for (const go of this.#onEmpty.splice(0)) go()
  }
}

function timeOver({ lastError, flight }: Entry<unknown>): ClientError {
  if (flight === undefined && lastError !== undefined) return lastError
  if (flight !== undefined) return new ClientError('timeout', 'No answer came within the deadline.')
  return new ClientError('queue-full', 'Its turn did not come within the deadline: nothing was sent.')
}

function full(item: Packed, { queueCountMax, queueBytesMax }: QueueBounds): ClientError {
  return new ClientError(
    'queue-full',
    `At most ${queueCountMax} commands and ${queueBytesMax} bytes wait in a client: nothing was sent.`,
    { idempotencyKey: item.idempotencyKey },
  )
}
