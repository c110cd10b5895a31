/** Chance that can be repeated: a small generator (mulberry32) from a seed. Everything about faults is drawn from it. */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** Uniform in [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  between(min: number, max: number): number {
    return min + this.next() * (max - min)
  }

  whole(min: number, max: number): number {
    return Math.floor(this.between(min, max + 1))
  }

  /** A generator of its own for each name, so that what one part draws changes nothing for another. */
  fork(name: string): Random {
    return new Random((this.#state ^ Number(Bun.hash.xxHash32(name))) >>> 0)
  }
}
