/**
 * The times behind a lease, all from one: how long its holder may be silent before another process takes over.
 *
 *   holder     request sent ── renews every T/6 ──▶ trusts its lease until 0.8 T after the last renewal *was sent*
 *   contender  looks every T/3; four looks in a row with the same beat span T at least; only then it takes over
 *
 * A contender's first look at a beat comes after the renewal that wrote it was sent, so the holder has stopped a fifth of
 * T before anybody else can have the lease. The fifth is for clocks that run at different speeds and timers that are late.
 */
import { VERDICT_LOOKS_MIN } from './death-verdict.ts'

/** A connection that is silent for so long is taken to be dead, however patient the lease. */
const ANSWER_LIMIT_MS_MAX = 2000

export interface LeaseTiming {
  readonly renewEveryMs: number
  /** What has no answer for so long is given up, and the connection with it. */
  readonly answerLimitMs: number
  /** How long the holder trusts its lease, from when a renewal was sent. */
  readonly trustMs: number
  /** Pause between an answer and the next look. */
  readonly lookEveryMs: number
}

export function leaseTiming(takeoverMs: number): LeaseTiming {
  return {
    renewEveryMs: takeoverMs / 6,
    answerLimitMs: Math.min(ANSWER_LIMIT_MS_MAX, takeoverMs / 3),
    trustMs: takeoverMs * 0.8,
    lookEveryMs: takeoverMs / (VERDICT_LOOKS_MIN - 1),
  }
}
