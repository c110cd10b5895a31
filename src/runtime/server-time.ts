/**
 * Redis's clock, estimated from its answers against the monotonic clock of this process.
 *
 * Each answer says: the difference lies between "read just before it came" and "read just after it was asked". Answers are
 * intersected, so the estimate is as good as the quickest one; `at` is the low end, so that a tick is rarely tried too early;
 * `latestAt` the high end.
 * An answer that contradicts the others (a clock was set, the machine slept) starts the estimate anew.
 */

/** Clocks may drift apart by this much per millisecond between two answers. */
const DRIFT = 0.0005

export class ServerTime {
  #lowMs = Number.NEGATIVE_INFINITY
  #highMs = Number.POSITIVE_INFINITY
  #atMs = 0

  /** `serverMs` is whole; the other two are monotonic times of asking and of the answer. */
  learn(serverMs: number, askedMs: number, answeredMs: number): void {
    const drifted = (answeredMs - this.#atMs) * DRIFT
    const lowMs = Math.max(this.#lowMs - drifted, serverMs - answeredMs)
    const highMs = Math.min(this.#highMs + drifted, serverMs + 1 - askedMs)
    const agrees = lowMs <= highMs
    this.#lowMs = agrees ? lowMs : serverMs - answeredMs
    this.#highMs = agrees ? highMs : serverMs + 1 - askedMs
    this.#atMs = answeredMs
  }

  /** The server's clock at a monotonic time; NaN before the first answer. */
  at(monotonicMs: number): number {
    return this.#lowMs === Number.NEGATIVE_INFINITY ? Number.NaN : monotonicMs + this.#lowMs
  }

  /** What it may read at most; for deadlines, which must not be passed. NaN before the first answer. */
  latestAt(monotonicMs: number): number {
    const drifted = Math.max(0, monotonicMs - this.#atMs) * DRIFT
    return this.#highMs === Number.POSITIVE_INFINITY ? Number.NaN : monotonicMs + this.#highMs + drifted
  }
}
