/** Keeps a steady rate: a pause is never made up for by a burst. */
import type { Clock } from '../runtime/clock.ts'

export class Pace {
  readonly #clock: Clock
  readonly #perSecond: number
  #nextMs: number

  constructor(clock: Clock, perSecond: number) {
    this.#clock = clock
    this.#perSecond = perSecond
    this.#nextMs = clock.monotonicMs()
  }

  /** Resolves when the next `count` may go, or at once when `signal` aborts. */
  async wait(count: number, signal: AbortSignal): Promise<void> {
    const nowMs = this.#clock.monotonicMs()
    const startMs = Math.max(nowMs, this.#nextMs)
    this.#nextMs = startMs + (1000 * count) / this.#perSecond
    if (startMs > nowMs) await this.#clock.sleep(startMs - nowMs, signal)
  }
}
