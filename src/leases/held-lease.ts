/**
 * The holder's side of a lease: renews it, and says in time when it may be somebody else's.
 *
 *   held ──renewed──▶ held
 *    ├── a renewal is refused (taken, gone) ──▶ lost
 *    ├── trust runs out: no renewal was answered ──▶ lost
 *    └── release ──▶ released
 *
 * Trust runs from when a renewal was *sent*, by the monotonic clock, which also runs on while the process is frozen. A lost
 * lease is never regained by this object: the next one has a higher epoch.
 */
import type { MillraceError } from '../contracts/errors.ts'
import { type Lease, leaseLost } from '../contracts/lease.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { type LeaseTiming, leaseTiming } from '../policies/lease-timing.ts'
import type { RedisLink } from '../redis/connection.ts'
import { type LeaseHold, releaseLease, renewLease } from '../redis/lease-store.ts'
import type { Clock, Timer } from '../runtime/clock.ts'
import { answeredInTime } from './answered-in-time.ts'

export interface HeldLeaseParts {
  readonly link: RedisLink
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly name: string
  readonly hold: LeaseHold
  readonly takeoverMs: number
  /** Monotonic time at which the request that took it was sent. */
  readonly sentMs: number
  /** Called when it is not held any more. */
  readonly onEnd: () => void
}

const RETRY_MS_MIN = 20
const RETRY_SPREAD_MS = 80
const RELEASE_TRIES_MAX = 3

export class HeldLease implements Lease {
  readonly name: string
  readonly #parts: HeldLeaseParts
  readonly #timing: LeaseTiming
  readonly #over = new AbortController()
  #trustedUntilMs: number
  #timer: Timer | undefined
  #releasing: Promise<void> | undefined

  constructor(parts: HeldLeaseParts) {
    this.name = parts.name
    this.#parts = parts
    this.#timing = leaseTiming(parts.takeoverMs)
    this.#trustedUntilMs = parts.sentMs + this.#timing.trustMs
    this.#watch()
    void this.#renewals()
  }

  get epoch(): number {
    return this.#parts.hold.epoch
  }

  get signal(): AbortSignal {
    return this.#over.signal
  }

  get held(): boolean {
    this.#check()
    return !this.#over.signal.aborted
  }

  assertHeld(): void {
    if (this.held) return
    throw this.#over.signal.reason
  }

  release(): Promise<void> {
    this.#releasing ??= this.#release()
    return this.#releasing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }

  async #release(): Promise<void> {
    const { telemetry, onEnd } = this.#parts
    const lost = !this.held
    this.#end(leaseLost(this.name, 'was released'))
    // Also after a loss: perhaps nobody has taken it, and then nobody needs to wait for our silence.
    const freed = await this.#free()
    if (!lost) telemetry.emit('lease.released', { lease: this.name, epoch: this.epoch, freed })
    onEnd()
  }

  async #free(): Promise<boolean> {
    const { link, clock, hold } = this.#parts
    for (let tries = 1; tries <= RELEASE_TRIES_MAX; tries++) {
      try {
        const release = releaseLease(link, this.name, hold)
        return await answeredInTime({ link, clock }, release, this.#timing.answerLimitMs)
      } catch {
        // Perhaps it was freed: asking again does no harm, and silence frees it in the end.
        if (tries < RELEASE_TRIES_MAX) await clock.sleep(RETRY_MS_MIN + clock.random() * RETRY_SPREAD_MS)
      }
    }
    return false
  }

  /** The timer may be late, and the wake-up of a frozen process comes in any order: the clock decides, not the timer. */
  #check(): void {
    const { clock } = this.#parts
    if (this.#over.signal.aborted || clock.monotonicMs() < this.#trustedUntilMs) return
    this.#lose('silent', 'could not be renewed in time')
  }

  #watch(): void {
    const { clock } = this.#parts
    this.#timer?.cancel()
    if (this.#over.signal.aborted) return
    const leftMs = Math.max(0, this.#trustedUntilMs - clock.monotonicMs())
    this.#timer = clock.after(leftMs, () => {
      this.#check()
      this.#watch()
    })
  }

  async #renewals(): Promise<void> {
    const { clock } = this.#parts
    const { signal } = this.#over
    let pauseMs = this.#timing.renewEveryMs
    for (;;) {
      await clock.sleep(pauseMs, signal)
      if (!this.held) return
      const sentMs = clock.monotonicMs()
      const answer = await this.#renew()
      if (signal.aborted) return
      if (answer === 'taken') return this.#lose('taken', 'was taken over by another process')
      if (answer === 'gone') return this.#lose('gone', 'has vanished from Redis')
      if (answer === 'held') {
        this.#trustedUntilMs = sentMs + this.#timing.trustMs
        this.#watch()
      }
      const retryMs = RETRY_MS_MIN + clock.random() * RETRY_SPREAD_MS
      pauseMs = answer === 'held' ? this.#timing.renewEveryMs : retryMs
    }
  }

  /** `unknown` when there was no answer in time; the connection is then dialled anew. */
  async #renew(): Promise<'held' | 'taken' | 'gone' | 'unknown'> {
    const { link, clock, hold } = this.#parts
    const renewal = renewLease(link, this.name, hold)
    return await answeredInTime({ link, clock }, renewal, this.#timing.answerLimitMs).catch(() => 'unknown')
  }

  #lose(reason: 'taken' | 'gone' | 'silent', why: string): void {
    if (this.#over.signal.aborted) return
    const { telemetry, onEnd } = this.#parts
    this.#end(leaseLost(this.name, why))
    onEnd()
    telemetry.emit('lease.lost', { lease: this.name, epoch: this.epoch, reason })
    if (reason !== 'gone') return
    const detail = `Lease "${this.name}" has vanished from Redis; its next epoch is made from Redis's clock.`
    telemetry.emit('alarm.raised', { alarm: 'lease-state-lost', stream: undefined, detail })
  }

  #end(reason: MillraceError): void {
    if (this.#over.signal.aborted) return
    this.#over.abort(reason)
    this.#timer?.cancel()
  }
}
