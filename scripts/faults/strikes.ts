/**
 * Faults at planned moments: drawn from the seed before the first one, carried out against whatever runs at that moment.
 *
 *   plan:  at 1.2 s kill (pick 0.7) · at 2.9 s pause 4.1 s (pick 0.1) · at 3.3 s kill redis, down 0.4 s …
 *
 * The same seed gives the same plan. Which process a pick meets depends on who is up, and the system's own timing is
 * never the same twice.
 */

import type { RedisServer } from '../fleet/redis-server.ts'
import type { Fleet, Worker } from './fleet.ts'
import type { Partition, RedisProbe } from './probe.ts'
import type { Random } from './random.ts'

export type StrikeKind = 'kill' | 'pause' | 'redis-kill'

export interface Strike {
  readonly kind: StrikeKind
  /** From the begin of the faults. */
  readonly atMs: number
  /** Which of the workers, from 0 to 1. */
  readonly pick: number
  /** Of a pause, or until Redis is started again. */
  readonly ms: number
}

export interface StrikeCounts {
  readonly workerKills: number
  readonly pauses: number
  readonly redisKills: number
}

/** What a kill left behind. */
export interface Casualty {
  readonly process: string
  readonly consumers: ReadonlySet<string>
  /** Time since 1970 by the harness's monotonic clock, ms. */
  readonly atMs: number
  readonly held: readonly { readonly place: Partition; readonly token: string }[]
}

const PAUSE_MAX_MS = 10_000
const REDIS_DOWN_MIN_MS = 100
const REDIS_DOWN_MAX_MS = 1500
const LOOK_MS = 20

/** Spread over `seconds`, each somewhere in a stretch of its own. */
export function planStrikes(random: Random, counts: StrikeCounts, seconds: number): Strike[] {
  const spread = (kind: StrikeKind, count: number, draw: () => number): Strike[] =>
    Array.from({ length: count }, (_, i) => ({
      kind,
      atMs: ((i + random.between(0.1, 0.9)) / count) * seconds * 1000,
      pick: random.next(),
      ms: draw(),
    }))
  const pauseMaxMs = Math.min(PAUSE_MAX_MS, seconds * 500)
  return [
    ...spread('kill', counts.workerKills, () => 0),
    ...spread('pause', counts.pauses, () => random.between(0, pauseMaxMs)),
    ...spread('redis-kill', counts.redisKills, () => random.between(REDIS_DOWN_MIN_MS, REDIS_DOWN_MAX_MS)),
  ].sort((a, b) => a.atMs - b.atMs)
}

export interface StrikerOptions {
  readonly fleet: Fleet
  readonly redis: RedisServer
  readonly probe: RedisProbe
  readonly places: () => readonly Partition[]
  readonly signal: AbortSignal
}

export class Striker {
  readonly #options: StrikerOptions
  readonly #aftermath = new Set<Promise<void>>()
  readonly casualties: Casualty[] = []
  /** When Redis was killed, by its wall clock. */
  readonly redisKillsAtMs: number[] = []
  workerKills = 0
  pauses = 0
  redisKills = 0
  /** How much of the plan is carried out, from 0 to 1. */
  progress = 0

  constructor(options: StrikerOptions) {
    this.#options = options
  }

  /** Carries out the plan; resolves when everything that was struck is up again. */
  async carryOut(plan: readonly Strike[]): Promise<void> {
    const { signal } = this.#options
    const startMs = performance.now()
    for (const strike of plan) {
      while (performance.now() - startMs < strike.atMs) {
        signal.throwIfAborted()
        await Bun.sleep(Math.min(LOOK_MS, Math.max(1, strike.atMs - (performance.now() - startMs))))
      }
      await this.#carryOut(strike)
      this.progress += 1 / plan.length
    }
    this.progress = 1
    await this.recovered()
  }

  /** Everything that was struck is up again. */
  async recovered(): Promise<void> {
    while (this.#aftermath.size > 0) await Promise.all(this.#aftermath)
  }

  /** SIGKILL to one worker, with a note of what it held; another one starts in its place. */
  async killWorker(worker: Worker): Promise<Casualty> {
    const { fleet } = this.#options
    await fleet.kill(worker)
    const atMs = performance.timeOrigin + performance.now()
    this.workerKills += 1
    const { process, consumers } = worker
    const casualty = { process: process.name, consumers, atMs, held: await this.#held(worker) }
    this.casualties.push(casualty)
    return casualty
  }

  #carryOut(strike: Strike): Promise<void> {
    switch (strike.kind) {
      case 'kill':
        return this.#kill(strike)
      case 'pause':
        return this.#pause(strike)
      case 'redis-kill':
        return this.#killRedis(strike)
      default:
        return strike.kind satisfies never
    }
  }

  async #kill(strike: Strike): Promise<void> {
    const victim = await this.#pick(strike, 2)
    await this.killWorker(victim)
    this.#later(this.#options.fleet.startWorker().then(() => undefined))
  }

  async #pause(strike: Strike): Promise<void> {
    const victim = await this.#pick(strike, 2)
    const { fleet } = this.#options
    fleet.pause(victim)
    this.pauses += 1
    this.#later(Bun.sleep(strike.ms).then(() => fleet.resume(victim)))
  }

  async #killRedis({ ms }: Strike): Promise<void> {
    const { redis } = this.#options
    await redis.kill()
    this.redisKillsAtMs.push(Date.now())
    this.redisKills += 1
    await Bun.sleep(ms)
    await redis.start()
  }

  /** One of the workers that run, once there are enough of them. */
  async #pick({ pick }: Strike, runningMin: number): Promise<Worker> {
    const { fleet, signal } = this.#options
    for (;;) {
      const running = fleet.running
      const victim = running[Math.floor(pick * running.length)]
      if (running.length >= runningMin && victim !== undefined) return victim
      signal.throwIfAborted()
      await Bun.sleep(LOOK_MS)
    }
  }

  async #held(worker: Worker): Promise<Casualty['held']> {
    const { probe, places } = this.#options
    const held: { place: Partition; token: string }[] = []
    try {
      for (const place of places()) {
        for (const consumer of worker.consumers) {
          for (const token of await probe.held(place, consumer)) held.push({ place, token })
        }
      }
    } catch {
      // Redis is away as well: what was held is not known, and not counted.
    }
    return held
  }

  #later(work: Promise<void>): void {
    this.#aftermath.add(work)
    void work.then(
      () => this.#aftermath.delete(work),
      () => undefined,
    )
  }
}
