/**
 * What becomes of a command after a run: finished, tried again later, or a dead letter. Pure.
 */
import type { DeadReason } from '../contracts/dead-reason.ts'
import type { HandlerOptions } from '../contracts/handler.ts'
import type { Outcome } from '../contracts/outcome.ts'
import { type BackoffOptions, backoffMs } from './backoff.ts'

export type Settlement =
  | { readonly kind: 'done'; readonly result: unknown }
  | { readonly kind: 'retry'; readonly error: string; readonly delayMs: number }
  | { readonly kind: 'dead'; readonly reason: DeadReason; readonly error: string }

type Limits = BackoffOptions & Pick<Required<HandlerOptions>, 'attemptsMax'>

const DELAY_MAX_MS = 366 * 86_400_000

/** `attempt` is the number of the run that just ended, 1 for the first. `random` is uniform in [0, 1), for retries alone. */
export function decideSettlement(
  outcome: Outcome,
  attempt: number,
  limits: Limits,
  random: number,
): Settlement {
  switch (outcome.outcome) {
    case 'done':
      return { kind: 'done', result: outcome.result }
    case 'reject':
      return { kind: 'dead', reason: 'rejected', error: outcome.reason }
    case 'retry': {
      if (attempt >= limits.attemptsMax) return { kind: 'dead', reason: 'failed', error: outcome.reason }
      const wanted = outcome.delayMs
      const delayMs =
        wanted === undefined || !Number.isFinite(wanted)
          ? backoffMs(attempt, limits, random)
          : Math.min(DELAY_MAX_MS, Math.max(0, Math.floor(wanted)))
      return { kind: 'retry', error: outcome.reason, delayMs }
    }
    default:
      return outcome satisfies never
  }
}
