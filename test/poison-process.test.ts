/**
 * Commands that take their process with them: by process.exit, by a rejection that nobody awaits, by blocking the event loop.
 * Alone or in a batch of 200, each costs three processes, dies as `crashed`, and costs its neighbours nothing.
 */
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { Take, Taken, take, WAYS } from './fixtures/poison/poison.ts'
import { testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const PROGRAM = join(import.meta.dir, 'fixtures/poison/poison.ts')

/** Keeps so many workers alive; each that ends by itself is counted and followed by another. */
class Fleet implements AsyncDisposable {
  ended = 0
  readonly #url: string
  readonly #workers = new Set<Subprocess>()
  #stopping = false

  constructor(url: string, count: number) {
    this.#url = url
    for (let i = 0; i < count; i++) this.#start()
  }

  #start(): void {
    const worker = Bun.spawn(['bun', PROGRAM, this.#url], { stdio: ['ignore', 'ignore', 'ignore'] })
    this.#workers.add(worker)
    void worker.exited.then(() => {
      this.#workers.delete(worker)
      if (this.#stopping || this.ended > 20) return
      this.ended += 1
      this.#start()
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true
    const workers = [...this.#workers]
    for (const worker of workers) worker.kill('SIGKILL')
    await Promise.all(workers.map((worker) => worker.exited))
  }
}

for (const way of WAYS) {
  test(`${way}: three processes end, the culprit is a dead letter, its neighbours are done, uncharged`, async () => {
    await using redis = await startTestRedis()
    const fleet = await testFleet(redis, [Take, Taken, take])
    const others = way === 'exit' || way === 'block' ? 199 : 0
    const batch = Array.from({ length: others + 1 }, (_, n) => ({ n, way: n === others >> 1 ? way : 'none' }))
    await fleet.append(Take, batch)
    await using workers = new Fleet(redis.url, 2)
    const isOver = async () => {
      const [events, dead] = await Promise.all([fleet.events('poison'), fleet.deadLetters('poison')])
      return events.length === others && dead.length === 1
    }
    await until(`${others} events and one dead letter`, isOver, 50_000)
    await until('nothing pending', async () => (await fleet.pending('poison')) === 0)
    const [dead] = await fleet.deadLetters('poison')
    expect(dead?.entry.trail).toMatchObject({ reason: 'crashed', level: 3 })
    expect(workers.ended).toBe(3)
    const attempts = (await fleet.events('poison')).map(
      ({ entry }) => (unpackPayloadOf(entry) as { attempt: number }).attempt,
    )
    expect(attempts.every((attempt) => attempt === 1)).toBe(true)
    expect(await fleet.link.client.hlen(partitionKeys('poison', 0).crashes)).toBe(0)
    // The fleet goes on.
    await fleet.append(Take, [{ n: 1000, way: 'none' }])
    await until('the next one', async () => (await fleet.events('poison')).length === others + 1)
  }, 60_000)
}
