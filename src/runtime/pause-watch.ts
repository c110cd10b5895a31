/**
 * Tells whether this process has stood still (SIGSTOP, a machine that slept, an event loop that was kept busy) for so long that
 * others may have judged it dead. What it took for true before is then to be asked again.
 *
 * A timer alone does not tell: after a pause, answers that had come in before may be handled first. So whoever asks looks at
 * the clock as well.
 */
import type { Clock } from './clock.ts'

export class PauseWatch {
  readonly #clock: Clock
  readonly #pauseMinMs: number
  #tickedMs: number
  #count = 0

  /** `tick` must be called more often than every `pauseMinMs`. */
  constructor(clock: Clock, pauseMinMs: number) {
    this.#clock = clock
    this.#pauseMinMs = pauseMinMs
    this.#tickedMs = clock.monotonicMs()
  }

  tick(): void {
    const nowMs = this.#clock.monotonicMs()
    if (nowMs - this.#tickedMs >= this.#pauseMinMs) this.#count += 1
    this.#tickedMs = nowMs
  }

  /** Pauses so far, one that has just ended included. */
  get count(): number {
    if (this.#clock.monotonicMs() - this.#tickedMs >= this.#pauseMinMs) this.tick()
    return this.#count
  }
}
