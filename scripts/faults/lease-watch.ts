/** Who owns each ordered partition, looked at all the time: how long after a kill the partitions of the dead had an owner again. */
import { keyOf, type Partition, type RedisProbe } from './probe.ts'
import type { Casualty } from './strikes.ts'

const LOOK_MS = 20

interface Change {
  readonly atMs: number
  readonly owner: string
}

export interface OwnedAgain {
  readonly casualty: Casualty
  readonly ms: number
}

export class LeaseWatch {
  readonly #probe: RedisProbe
  readonly #places: readonly Partition[]
  readonly #changes = new Map<number, Change[]>()
  #watching: Promise<void> = Promise.resolve()
  #stopped = false

  constructor(probe: RedisProbe, places: readonly Partition[]) {
    this.#probe = probe
    this.#places = places
  }

  start(): void {
    this.#watching = this.#watch()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#watching
  }

  /** Moves of leases that were seen. */
  get moves(): number {
    return [...this.#changes.values()].reduce((sum, changes) => sum + changes.length - 1, 0)
  }

  /** For each partition that a casualty owned: ms until somebody else did. */
  ownedAgain(casualties: readonly Casualty[]): readonly OwnedAgain[] {
    return casualties.flatMap((casualty) =>
      [...this.#changes.values()].flatMap((changes) => {
        const { consumers, atMs } = casualty
        const before = changes.findLast((change) => change.atMs <= atMs)
        if (before === undefined || !consumers.has(before.owner)) return []
        const next = changes.find(
          (change) => change.atMs > atMs && change.owner !== '' && !consumers.has(change.owner),
        )
        return [{ casualty, ms: next === undefined ? Number.POSITIVE_INFINITY : next.atMs - atMs }]
      }),
    )
  }

  async #watch(): Promise<void> {
    while (!this.#stopped) {
      for (const [index, place] of this.#places.entries()) {
        const owner = await this.#probe.send('HGET', [keyOf(place, 'lease'), 'owner']).catch(() => undefined)
        if (owner !== undefined) this.#see(index, typeof owner === 'string' ? owner : '')
      }
      await Bun.sleep(LOOK_MS)
    }
  }

  #see(index: number, owner: string): void {
    const changes = this.#changes.get(index) ?? []
    if (changes.at(-1)?.owner === owner) return
    changes.push({ atMs: performance.timeOrigin + performance.now(), owner })
    this.#changes.set(index, changes)
  }
}
