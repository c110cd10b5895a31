/**
 * The two ways to limit a rate, and how a process shares one with others. Pure; the counting itself is done by one script
 * each (`lua/limit-window.lua`, `lua/limit-bucket.lua`), by Redis's clock.
 *
 *   window   at most `quota` in any window. Uses are logged in slots of a 500th of the window and leave when their slot has
 *            wholly left it: never too many; a use may count for one slot too long.
 *   bucket   `burst` tokens that come back at a steady rate: in any time T at most burst + rate × T.
 *
 * Small limits are asked for at each request. For larger ones a process holds a few tokens in advance; what it holds counts
 * as gone, so that no division of tokens among processes lets more through than one process would.
 */
export type Quota =
  | { readonly kind: 'window'; readonly quota: number; readonly windowS: number }
  | { readonly kind: 'bucket'; readonly burst: number; readonly ratePerS: number }

/** How a process holds tokens of one quota in advance. */
export interface LeasePlan {
  /** False: Redis is asked at each request. */
  readonly isLeased: boolean
  /** Held by a process that uses any at all. */
  readonly stockMin: number
  /** Uses are told to Redis at least so often, ms. */
  readonly reportMs: number
  /** A stock covers the use of this long, ms. */
  readonly leadMs: number
  /** Where nothing was free, Redis is not asked again sooner than this, ms. */
  readonly pauseMs: number
}

/** Limits below this are asked for at each request. */
const LEASED_PER_S_MIN = 50
/** A bucket that holds less than this of its rate would lose what comes back while a process waits for its turn. */
const LEASED_BURST_S_MIN = 0.1
const STOCK_SHARE = 1 / 500
/** In a window a use counts from when it was told, so it is told soon. */
const WINDOW_REPORT_SHARE = 1 / 250
const WINDOW_REPORT_MS_MIN = 4
const REPORT_MS_MAX = 100
/** Beside the time between two reports: an answer of Redis, and a busy event loop. */
const LEAD_SPARE_MS = 5
const PAUSE_MS = 2

/** Tokens when nothing was used. */
export function quotaSize(quota: Quota): number {
  return quota.kind === 'window' ? quota.quota : quota.burst
}

/** The window that is told to clients, s: for a bucket, the time in which an empty one fills. */
export function quotaWindowS(quota: Quota): number {
  return quota.kind === 'window' ? quota.windowS : Math.max(1, Math.ceil(quota.burst / quota.ratePerS))
}

export function planLeases(quota: Quota): LeasePlan {
  const size = quotaSize(quota)
  const perS = quota.kind === 'window' ? quota.quota / quota.windowS : quota.ratePerS
  const isLeased =
    perS >= LEASED_PER_S_MIN &&
    size >= LEASED_PER_S_MIN &&
    (quota.kind === 'window' || quota.burst >= quota.ratePerS * LEASED_BURST_S_MIN)
  if (!isLeased) return { isLeased, stockMin: 0, reportMs: WINDOW_REPORT_MS_MIN, leadMs: 0, pauseMs: 0 }
  const reportMs =
    quota.kind === 'bucket'
      ? REPORT_MS_MAX
      : Math.min(REPORT_MS_MAX, Math.max(WINDOW_REPORT_MS_MIN, quota.windowS * 1000 * WINDOW_REPORT_SHARE))
  return {
    isLeased,
    stockMin: Math.max(1, Math.floor(size * STOCK_SHARE)),
    reportMs,
    leadMs: Math.min(reportMs, 20) + LEAD_SPARE_MS,
    pauseMs: PAUSE_MS,
  }
}

/** Tokens to hold for a use of `perMs` tokens a millisecond. */
export function stockTarget(plan: LeasePlan, perMs: number): number {
  return plan.isLeased ? Math.max(plan.stockMin, Math.ceil(perMs * plan.leadMs)) : 0
}

/** What is used a millisecond, after `used` in `elapsedMs`: what was seen before fades with a time constant of 20 ms. */
export function fadeRate(perMs: number, used: number, elapsedMs: number): number {
  if (elapsedMs <= 0) return perMs
  const kept = Math.exp(-elapsedMs / RATE_FADES_MS)
  return perMs * kept + (used / elapsedMs) * (1 - kept)
}

const RATE_FADES_MS = 20
