/**
 * Exponential backoff with full jitter: uniform in [0, base · 2^(attempt-1)], capped.
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export interface BackoffOptions {
  readonly backoffBaseMs: number
  readonly backoffMaxMs: number
}

/** Whole ms to wait after failed attempt number `attempt` (1 = the first). `random` is uniform in [0, 1). */
export function backoffMs(attempt: number, options: BackoffOptions, random: number): number {
  const ceiling = Math.min(options.backoffMaxMs, options.backoffBaseMs * 2 ** Math.min(attempt - 1, 40))
  return Math.floor(ceiling * random)
}
