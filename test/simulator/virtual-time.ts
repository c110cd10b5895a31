/**
 * Virtual time: events in order of their moment, each run to its end with all the promises that it settles before the next
 * one starts. Nothing waits for real time, and nothing happens in an order that the seed does not give.
 *
 * A `Strand` is a thread of execution that can be frozen (its events wait) or dead (they are dropped): the main loop of a
 * simulated process, its heartbeat thread, a producer.
 */
import { drainMicrotasks } from 'bun:jsc'
import type { Clock, Timer } from '../../src/runtime/clock.ts'
import type { Chance } from './chance.ts'

export interface Happening {
  readonly atMs: number
  readonly order: number
  readonly strand: Strand | undefined
  call: (() => void) | undefined
}

export class VirtualTime {
  #nowMs = 0
  #order = 0
  /** A binary heap. */
  readonly #heap: Happening[] = []
  /** How many events have run. */
  steps = 0

  /** ms since the run began, with fractions. */
  get nowMs(): number {
    return this.#nowMs
  }

  /** Calls at that moment, or at once if it has passed; on a strand, when the strand runs. */
  at(atMs: number, call: () => void, strand?: Strand): Timer {
    const happening: Happening = { atMs: Math.max(atMs, this.#nowMs), order: this.#order++, strand, call }
    this.#push(happening)
    return {
      cancel: () => {
        happening.call = undefined
      },
    }
  }

  after(ms: number, call: () => void, strand?: Strand): Timer {
    return this.at(this.#nowMs + Math.max(0, ms), call, strand)
  }

  /** Runs events until `isOver` says so after one, or the moment is reached. */
  run(untilMs: number, isOver: () => boolean = () => false): void {
    drainMicrotasks()
    for (;;) {
      const next = this.#heap[0]
      if (next === undefined || next.atMs > untilMs) {
        this.#nowMs = Math.max(this.#nowMs, untilMs)
        return
      }
      this.#pop()
      const { call, strand } = next
      if (call === undefined) continue
      if (strand?.takes(next) === false) continue
      this.#nowMs = next.atMs
      this.steps += 1
      call()
      drainMicrotasks()
      if (isOver()) return
    }
  }

  #push(happening: Happening): void {
    const heap = this.#heap
    let at = heap.push(happening) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = heap[parent]
      if (above === undefined || !isBefore(happening, above)) break
      heap[at] = above
      at = parent
    }
    heap[at] = happening
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let at = 0
    for (;;) {
      const left = 2 * at + 1
      const right = left + 1
      let child = left
      const [a, b] = [heap[left], heap[right]]
      if (a !== undefined && b !== undefined && isBefore(b, a)) child = right
      const below = heap[child]
      if (below === undefined || !isBefore(below, last)) break
      heap[at] = below
      at = child
    }
    heap[at] = last
  }
}

function isBefore(a: Happening, b: Happening): boolean {
  return a.atMs === b.atMs ? a.order < b.order : a.atMs < b.atMs
}

export class Strand {
  readonly #time: VirtualTime
  #isDead = false
  #frozenUntilMs = Number.NEGATIVE_INFINITY
  #waiting: Happening[] = []

  constructor(time: VirtualTime) {
    this.#time = time
  }

  get isDead(): boolean {
    return this.#isDead
  }

  get isFrozen(): boolean {
    return this.#time.nowMs < this.#frozenUntilMs
  }

  /** False when the event is not to run now; it is kept if the strand is merely frozen. */
  takes(happening: Happening): boolean {
    if (this.#isDead) return false
    if (this.#waiting.length === 0 && !this.isFrozen) return true
    this.#waiting.push(happening)
    return false
  }

  kill(): void {
    this.#isDead = true
    this.#waiting = []
  }

  freeze(ms: number): void {
    const untilMs = this.#time.nowMs + ms
    if (untilMs <= this.#frozenUntilMs) return
    this.#frozenUntilMs = untilMs
    this.#time.at(untilMs, () => this.#thaw())
  }

  #thaw(): void {
    if (this.isFrozen) return
    const waiting = this.#waiting
    this.#waiting = []
    for (const happening of waiting) this.#time.after(0, () => happening.call?.(), this)
  }
}

/** Clock of one strand. `wallOffsetMs` is how wrong its wall clock is. */
export class VirtualClock implements Clock {
  readonly #time: VirtualTime
  readonly #strand: Strand
  readonly #chance: Chance
  wallOffsetMs: number
  readonly #bootMs: number

  constructor(time: VirtualTime, strand: Strand, chance: Chance, wallMs: number) {
    this.#time = time
    this.#strand = strand
    this.#chance = chance
    this.wallOffsetMs = wallMs
    this.#bootMs = chance.between(0, 1_000_000)
  }

  nowMs(): number {
    return Math.floor(this.#time.nowMs + this.wallOffsetMs)
  }

  monotonicMs(): number {
    return this.#time.nowMs + this.#bootMs
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted === true) return resolve()
      const finish = () => {
        timer.cancel()
        signal?.removeEventListener('abort', finish)
        resolve()
      }
      const timer = this.after(ms, finish)
      signal?.addEventListener('abort', finish, { once: true })
    })
  }

  after(ms: number, call: () => void): Timer {
    return this.#time.after(ms, call, this.#strand)
  }

  random(): number {
    return this.#chance.next()
  }
}
