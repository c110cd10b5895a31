/**
 * Entries that a worker was handed although another run of them had begun: the sum of the workers' own counters.
 *
 * A killed worker takes its counter along, so it is read right before each kill and now and then in between.
 */
import type { StackProcess } from './stack.ts'

const COUNTER = /^millrace_entries_redelivered_total(?:\{[^}]*\})? (\d+)/gm
const ANSWER_LIMIT_MS = 2000

export class Redeliveries {
  readonly #counts = new Map<string, number>()

  get total(): number {
    let sum = 0
    for (const count of this.#counts.values()) sum += count
    return sum
  }

  async look(worker: StackProcess): Promise<void> {
    try {
      const response = await fetch(`${worker.adminUrl}/metrics`, {
        signal: AbortSignal.timeout(ANSWER_LIMIT_MS),
      })
      let count = 0
      for (const [, value] of (await response.text()).matchAll(COUNTER)) count += Number(value)
      this.#counts.set(worker.name, Math.max(count, this.#counts.get(worker.name) ?? 0))
    } catch {
      // It is being killed, or too busy to answer: what was read before stands.
    }
  }
}
