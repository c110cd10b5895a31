/** Looks at how much is unfinished, again and again. */
import type { Arena } from './arena.ts'

const LOOK_MS = 50

/** The most that was unfinished at any look, and how fast each partition's commands were settled meanwhile. */
export class DepthWatch {
  readonly #arena: Arena
  readonly #looking: Promise<void>
  readonly #looks: { readonly atMs: number; readonly settled: readonly number[] }[] = []
  #isOver = false
  most = 0

  constructor(arena: Arena) {
    this.#arena = arena
    this.#looking = this.#look()
  }

  async stop(): Promise<void> {
    this.#isOver = true
    await this.#looking
  }

  /** How long the slowest partition took on average to settle so many commands, and how long any took at most, ms. */
  settling(commands: number): { readonly averageMs: number; readonly longestMs: number } {
    const [first, last] = [this.#looks[0], this.#looks.at(-1)]
    let [averageMs, longestMs] = [0, 0]
    if (first === undefined || last === undefined) return { averageMs, longestMs }
    for (const [place] of this.#arena.places.entries()) {
      const at = (i: number): number => this.#looks[i]?.settled[place] ?? Number.NaN
      const all = at(this.#looks.length - 1) - at(0)
      averageMs = Math.max(averageMs, ((last.atMs - first.atMs) * commands) / all)
      let end = 0
      for (const [i, { atMs }] of this.#looks.entries()) {
        while (end < this.#looks.length && at(end) - at(i) < commands) end += 1
        const done = this.#looks[end]
        if (done === undefined) break
        longestMs = Math.max(longestMs, done.atMs - atMs)
      }
    }
    return { averageMs: Math.round(averageMs), longestMs: Math.round(longestMs) }
  }

  async #look(): Promise<void> {
    const { probe, places, signal } = this.#arena
    while (!this.#isOver && !signal.aborted) {
      const parts = await Promise.all(places.map((place) => probe.backlog([place])))
      const unfinished = parts.reduce((sum, part) => sum + part.unfinished, 0)
      this.most = Math.max(this.most, unfinished)
      const settled = parts.map((part) => part.added - part.unfinished)
      this.#looks.push({ atMs: performance.now(), settled })
      await Bun.sleep(LOOK_MS)
    }
  }
}
