/**
 * The contender's side of a lease: takes it when it is free, or when its holder's beat has not moved over four good looks,
 * by this process's monotonic clock. Neither a slow Redis, nor a restart of it, nor a step of its clock makes a living holder
 * look silent, and the script that takes over compares once more what was seen.
 *
 * Who gives up after a take without an answer may have left the lease under a name that nobody renews; it is then taken over
 * like a dead holder's.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { ResolvedLeaseOptions } from '../contracts/lease.ts'
import { DeathVerdict } from '../policies/death-verdict.ts'
import { type LeaseTiming, leaseTiming } from '../policies/lease-timing.ts'
import type { RedisLink } from '../redis/connection.ts'
import { type LeaseHold, type LeaseSight, type LeaseTake, takeLease } from '../redis/lease-store.ts'
import type { Clock } from '../runtime/clock.ts'
import { answeredInTime } from './answered-in-time.ts'

export interface ContenderParts {
  readonly link: RedisLink
  readonly clock: Clock
}

/** What was won, and when the request that won it was sent, by the monotonic clock. */
export interface WonLease {
  readonly hold: LeaseHold
  readonly sentMs: number
}

const RETRY_MS_MIN = 20
const RETRY_SPREAD_MS = 130
/** Contenders drift apart by this share of a look's pause; well inside what a good look allows. */
const SPREAD = 0.2

export class LeaseContender {
  readonly #parts: ContenderParts
  readonly #name: string
  readonly #options: ResolvedLeaseOptions
  readonly #me: { readonly owner: string; readonly takeoverMs: number }
  #timing: LeaseTiming
  #verdict: DeathVerdict

  constructor(parts: ContenderParts, name: string, options: ResolvedLeaseOptions) {
    this.#parts = parts
    this.#name = name
    this.#options = options
    // Unique to this one acquisition, so that its repetition after a lost answer is told from anybody else's.
    const owner = Buffer.from(crypto.getRandomValues(new Uint8Array(12))).toString('hex')
    this.#me = { owner, takeoverMs: options.takeoverMs }
    this.#timing = leaseTiming(options.takeoverMs)
    this.#verdict = new DeathVerdict(this.#timing.lookEveryMs)
  }

  /**
   * @param stop ends the waiting
   * @throws MillraceError `lease.held` when `waitMs` is over and somebody holds it, or `redis.unavailable`, `redis.unknown`
   * when Redis was not to be asked by then; the reason of `stop`
   */
  async win(stop: AbortSignal): Promise<WonLease> {
    const { clock } = this.#parts
    const endMs = clock.monotonicMs() + this.#options.waitMs
    let silent: LeaseSight | undefined
    for (;;) {
      stop.throwIfAborted()
      const sentMs = clock.monotonicMs()
      let failure: unknown
      let pauseMs: number
      try {
        const asked = takeLease(this.#parts.link, this.#name, this.#me, silent)
        const take = await answeredInTime(this.#parts, asked, this.#timing.answerLimitMs)
        const tookMs = clock.monotonicMs() - sentMs
        // An answer that waited for a frozen process to wake is worth nothing: ask whether it is still ours.
        const fresh = tookMs < leaseTiming(this.#me.takeoverMs).trustMs
        if (take.mine && fresh) return { hold: { owner: this.#me.owner, epoch: take.epoch }, sentMs }
        silent = take.mine ? undefined : this.#judge(take, sentMs)
        const again = take.mine || silent !== undefined
        pauseMs = again ? 0 : this.#timing.lookEveryMs * (1 + clock.random() * SPREAD)
      } catch (error) {
        this.#verdict.forget()
        silent = undefined
        failure = error
        pauseMs = RETRY_MS_MIN + clock.random() * RETRY_SPREAD_MS
      }
      const leftMs = endMs - clock.monotonicMs()
      if (leftMs <= 0) throw failure ?? this.#held()
      // A look that comes early proves nothing, so the last pause is cut short only when it is the end anyway.
      if (pauseMs > 0) await clock.sleep(Math.min(pauseMs, leftMs), stop)
      if (pauseMs > leftMs) {
        stop.throwIfAborted()
        throw failure ?? this.#held()
      }
    }
  }

  /** What the lease was seen to stand still at. */
  #judge(take: LeaseTake, sentMs: number): LeaseSight | undefined {
    // The holder trusts itself by its own figure.
    const timing = leaseTiming(Math.max(take.takeoverMs, this.#me.takeoverMs))
    if (timing.lookEveryMs !== this.#timing.lookEveryMs) this.#verdict = new DeathVerdict(timing.lookEveryMs)
    this.#timing = timing
    const atMs = this.#parts.clock.monotonicMs()
    const beats = new Map([[this.#name, `${take.owner} ${take.epoch} ${take.beat}`]])
    const dead = this.#verdict.observe({ beats, atMs, roundTripMs: atMs - sentMs })
    return dead.length > 0 ? take : undefined
  }

  #held(): MillraceError {
    return new MillraceError(
      'lease.held',
      `Lease "${this.#name}" is held by another process. Wait longer, or leave the work to it.`,
    )
  }
}
