/**
 * Time and chance, as a parameter. The only file that reads a clock, sets a timer or draws a random number.
 *
 * Wall time (`nowMs`) is for what is stored; monotonic time (`monotonicMs`) for differences and limits. What the whole
 * fleet must agree on is decided by Redis's own TIME, inside scripts.
 */

export interface Timer {
  cancel(): void
}

export interface Clock {
  /** Wall clock, ms since 1970, whole. */
  nowMs(): number
  /** Monotonic, ms, with fractions. */
  monotonicMs(): number
  /** Resolves after `ms`, or at once when `signal` aborts. Never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>
  /** Calls once after `ms`. */
  after(ms: number, call: () => void): Timer
  /** Uniform in [0, 1). */
  random(): number
}

export const SYSTEM_CLOCK: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve) => {
      if (signal?.aborted === true) return resolve()
      const finish = () => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', finish)
        resolve()
      }
      const timer = setTimeout(finish, ms)
      signal?.addEventListener('abort', finish, { once: true })
    }),
  after: (ms, call) => {
    const timer = setTimeout(call, ms)
    return { cancel: () => clearTimeout(timer) }
  },
  random: () => Math.random(),
}

/** A UUID of version 4, for names that must not collide. */
export function randomId(): string {
  return crypto.randomUUID()
}
