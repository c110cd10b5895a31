/**
 * Rate limits as an operator declares them, and whom a request counts against. A rule is either a sliding window (`quota` in
 * `windowS`) or a token bucket (`ratePerS` with `burst`); it has one count for each different value of what it counts by.
 */

import type { Principal } from './principal.ts'

/** What a rule may count by; one count for everybody when it names none. */
export const RATE_LIMIT_SUBJECTS = ['tenant', 'credential', 'route', 'type'] as const
export type RateLimitSubject = (typeof RATE_LIMIT_SUBJECTS)[number]

export interface RateLimitRule {
  /** Told to clients: 1-63 characters of a-z, 0-9, "_" and "-". */
  readonly name: string
  /** Sliding window: at most so many in any `windowS`. */
  readonly quota?: number
  /** Whole seconds, 1-86 400. */
  readonly windowS?: number
  /** Token bucket: tokens that come back in a second; may be a fraction. */
  readonly ratePerS?: number
  /** Tokens of a full bucket. */
  readonly burst?: number
  /** Default: one count for everybody. */
  readonly by?: readonly RateLimitSubject[]
  /** Names of routes as in metrics, such as `command.send`. Default: every route but health and problem pages. */
  readonly routes?: readonly string[]
  /** Command types; then only commands of these are counted. Default: all. */
  readonly types?: readonly string[]
}

/** Whom a request counts against. Both are '' where nobody needs a credential: all of these share one count. */
export type RequestSubject = Pick<Principal, 'credential' | 'tenant'>
