/**
 * When a consumer is dead: its heartbeat has not moved over four good looks in a row.
 *
 * A look is good when its round trip was shorter than the interval between looks, and when it came no later than two
 * intervals after the one before; otherwise counting starts again. So neither a slow Redis, nor a restart of it, nor a
 * pause of the observer turns a living worker into a dead one, as "unchanged for T seconds" does.
 */
export const VERDICT_LOOKS_MIN = 4

export interface Look {
  /** Heartbeat per consumer; '' for a consumer without one. */
  readonly beats: ReadonlyMap<string, string>
  /** Monotonic ms at which the answer came. */
  readonly atMs: number
  readonly roundTripMs: number
}

interface Observation {
  readonly beat: string
  readonly looks: number
  readonly sinceMs: number
}

export interface SilentConsumer {
  readonly consumer: string
  /** The heartbeat that did not move. */
  readonly beat: string
  /** Monotonic ms since it was first seen with this value. */
  readonly silentMs: number
}

export class DeathVerdict {
  readonly #intervalMs: number
  #observations = new Map<string, Observation>()
  #lastLookMs = Number.NEGATIVE_INFINITY

  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs
  }

  /** Takes one look and answers who is dead by now. */
  observe(look: Look): SilentConsumer[] {
    const gapMs = look.atMs - this.#lastLookMs
    this.#lastLookMs = look.atMs
    if (look.roundTripMs >= this.#intervalMs) {
      this.forget()
      return []
    }
    const late = gapMs > 2 * this.#intervalMs
    const next = new Map<string, Observation>()
    const silent: SilentConsumer[] = []
    for (const [consumer, beat] of look.beats) {
      const before = late ? undefined : this.#observations.get(consumer)
      const same = before !== undefined && before.beat === beat
      const observation = same
        ? { beat, looks: before.looks + 1, sinceMs: before.sinceMs }
        : { beat, looks: 1, sinceMs: look.atMs }
      next.set(consumer, observation)
      if (observation.looks >= VERDICT_LOOKS_MIN) {
        silent.push({ consumer, beat, silentMs: look.atMs - observation.sinceMs })
      }
    }
    this.#observations = next
    return silent
  }

  /** Starts again, after a look that failed. */
  forget(): void {
    this.#observations = new Map()
    this.#lastLookMs = Number.NEGATIVE_INFINITY
  }
}
