/**
 * Whether a partition is known to be ours at this moment. Asked right before a handler starts.
 *
 *   proved by an answer ──(others could have taken it since)──▶ in doubt ──asked──▶ proved, or lost
 *
 * A worker that wakes from a pause may have lost the partition without knowing it: its settlements are refused, but handlers
 * that it starts would run beside the new owner's, in no order. Every answer to a settlement proves the lease as of when the
 * request was sent. Others need several looks at a heartbeat that stands still, and the last beat went out at most one interval
 * before the proof; so for that long nobody can have taken it. After that the lease is read again first.
 */
import { VERDICT_LOOKS_MIN } from '../policies/death-verdict.ts'
import type { RedisLink } from '../redis/connection.ts'
import type { Membership } from '../redis/membership.ts'
import { holdsLease } from '../redis/partition-lease.ts'
import type { Clock } from './clock.ts'

export interface LeaseProofOptions {
  readonly link: RedisLink
  readonly membership: Membership
  readonly clock: Clock
  /** Monotonic ms at which the lease was asked for. */
  readonly sinceMs: number
  readonly lookEveryMs: number
  readonly heartbeatEveryMs: number
  /** Called when the lease was found to be another's. */
  readonly onLost: () => void
}

const MARGIN_MS = 100
const PAUSE_MS = 100

export class LeaseProof {
  readonly #options: LeaseProofOptions
  readonly #trustMs: number
  #provedMs: number
  #isLost = false
  #asking: Promise<boolean> | undefined

  constructor(options: LeaseProofOptions) {
    this.#options = options
    this.#provedMs = options.sinceMs
    const { lookEveryMs, heartbeatEveryMs } = options
    this.#trustMs = Math.max(0, (VERDICT_LOOKS_MIN - 1) * lookEveryMs - heartbeatEveryMs - MARGIN_MS)
  }

  /** An answer showed that the partition was ours when its request was sent, monotonic ms. */
  prove(sentMs: number): void {
    this.#provedMs = Math.max(this.#provedMs, sentMs)
  }

  /** From now on the answer is no. */
  lose(): void {
    this.#isLost = true
  }

  /** At once where it is known; else when Redis has answered, however long that takes. */
  isOurs(): boolean | Promise<boolean> {
    if (this.#isLost) return false
    if (this.#options.clock.monotonicMs() - this.#provedMs < this.#trustMs) return true
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined
    })
    return this.#asking
  }

  async #ask(): Promise<boolean> {
    const { link, membership, clock, onLost } = this.#options
    while (!this.#isLost) {
      const sentMs = clock.monotonicMs()
      try {
        if (!(await holdsLease(link, membership))) {
          onLost()
          return false
        }
        this.prove(sentMs)
        // A pause while the answer was on its way: it is as old as a proof may not be.
        if (clock.monotonicMs() - sentMs < this.#trustMs) return true
      } catch {
        await clock.sleep(PAUSE_MS * (0.5 + clock.random()))
      }
    }
    return false
  }
}
