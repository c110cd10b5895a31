/** Workers under lost replies, a killed Redis and a pause longer than the verdict: every effect once, nothing left behind. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { join } from 'node:path'
import { z } from 'zod'
import { defineBatchHandler, defineCommand, defineEvent, defineStream, done, retry } from '../src/index.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { Ran, Run, run } from './fixtures/crasher/crasher.ts'
import { FlakyLink } from './support/flaky-link.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

setDefaultTimeout(60_000)
const ROOT = join(import.meta.dir, '..')
const SEED = Number(Bun.env['MILLRACE_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31))

const Wide = defineStream({ name: 'wide', partitions: 2 })
const number = z.object({ n: z.number() })
const First = defineCommand({ type: 'chain.first', payload: number, stream: Wide, key: (p) => `k${p.n}` })
const Second = defineCommand({
  type: 'chain.second',
  payload: number,
  stream: Wide,
  key: (p) => `other${p.n}`,
})
const FirstDone = defineEvent({ type: 'chain.first-done', payload: number })
const SecondDone = defineEvent({ type: 'chain.second-done', payload: number })
const first = defineBatchHandler(First, (batch) =>
  batch.map((command) => {
    if (command.payload.n % 10 === 0 && command.attempt === 1) return retry('once more', { delayMs: 5 })
    command.emit(FirstDone, command.payload)
    command.send(Second, command.payload, command.payload.n % 2 === 0 ? { delayMs: 10 } : {})
    return done()
  }),
)
const second = defineBatchHandler(Second, (batch) =>
  batch.map((command) => {
    command.emit(SecondDone, command.payload)
    return done()
  }),
)
const CHAIN = [Wide, First, Second, FirstDone, SecondDone, first, second]

/** How often each number was recorded, by event type. */
async function recorded(fleet: TestFleet): Promise<Map<string, number>> {
  const { unpackPayloadOf } = await import('../src/redis/entry-codec.ts')
  const counts = new Map<string, number>()
  for (const partition of [0, 1]) {
    for (const { entry } of await fleet.events('wide', partition)) {
      const name = `${entry.type} ${(unpackPayloadOf(entry) as { n: number }).n}`
      counts.set(name, (counts.get(name) ?? 0) + 1)
    }
  }
  return counts
}

async function quiet(fleet: TestFleet): Promise<boolean> {
  for (const partition of [0, 1]) {
    const keys = partitionKeys('wide', partition)
    const [due, outbox, pending] = await Promise.all([
      fleet.link.client.zcard(keys.due),
      fleet.link.client.xlen(keys.outbox),
      fleet.pending('wide', partition),
    ])
    if (due + outbox + pending > 0) return false
  }
  return true
}

test('lost, late and doubled answers to settle, promote, relay and take over leave every effect there once', async () => {
  console.info(`seed ${SEED}`)
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, CHAIN)
  const flaky = async (seed: number) => {
    const link = new FlakyLink(redis.links.options, seed, [
      'settle',
      'promote',
      'append-once',
      'takeover',
      'sample',
    ])
    await link.whenReady(5000)
    return link
  }
  const links = [await flaky(SEED), await flaky(SEED + 1)]
  await fleet.append(
    First,
    Array.from({ length: 2000 }, (_, n) => ({ n })),
  )
  await using _one = await fleet.worker({ readCountMax: 20 }, links[0])
  await using _two = await fleet.worker({ readCountMax: 20 }, links[1])
  await until('4000 events', async () => (await recorded(fleet)).size === 4000, 40_000)
  await until('quiet', () => quiet(fleet))
  const counts = await recorded(fleet)
  expect(counts.size).toBe(4000)
  expect([...counts.values()].every((count) => count === 1)).toBe(true)
  expect(await fleet.deadLetters('wide', 0)).toHaveLength(0)
  expect(await fleet.deadLetters('wide', 1)).toHaveLength(0)
})

test('a Redis that is killed three times under load and written through loses and doubles nothing', async () => {
  await using redis = await startTestRedis(['--appendfsync', 'always'])
  const fleet = await testFleet(redis, CHAIN)
  await using _one = await fleet.worker()
  await using _two = await fleet.worker()
  let accepted = 0
  let kills = 0
  while (accepted < 3000) {
    const base = accepted
    const batch = Array.from({ length: 100 }, (_, i) => ({ n: base + i }))
    await fleet.append(First, batch)
    accepted += batch.length
    if (accepted % 1000 === 500) {
      await redis.kill()
      await redis.restart()
      kills += 1
      await until('the connection', () => fleet.link.ready)
    }
  }
  expect(kills).toBe(3)
  await until('6000 events', async () => (await recorded(fleet)).size === 6000, 40_000)
  await until('quiet', () => quiet(fleet))
  const counts = await recorded(fleet)
  expect([...counts.values()].every((count) => count === 1)).toBe(true)
})

test('a worker that is frozen past the verdict and wakes again records nothing twice', async () => {
  await using redis = await startTestRedis(['--appendfsync', 'everysec'])
  const fleet = await testFleet(redis, [Run, Ran, run])
  const start = () =>
    Bun.spawn(
      [
        process.execPath,
        join(ROOT, 'src/cli/main.ts'),
        'start',
        'work',
        '--redis-url',
        redis.url,
        '--admin-port',
        '0',
      ],
      {
        cwd: ROOT,
        env: { ...Bun.env, LOG_LEVEL: 'silent', MILLRACE_WORKERS_DIR: join(ROOT, 'test/fixtures/crasher') },
        stdio: ['ignore', 'ignore', 'ignore'],
      },
    )
  const workers = [start(), start()]
  try {
    const keys = partitionKeys('crash', 0)
    await until('both workers', async () => (await fleet.link.client.hlen(keys.beats)) === 2)
    let sent = 0
    const send = async (count: number) => {
      // From 100 up: number 13 is the crasher.
      await fleet.append(
        Run,
        Array.from({ length: count }, (_, i) => ({ n: 100 + sent + i })),
      )
      sent += count
    }
    for (let round = 0; round < 3; round++) {
      const frozen = workers[round % 2]
      await send(3000)
      frozen?.kill('SIGSTOP')
      await send(3000)
      const before = new Map(Object.entries(await fleet.link.client.hgetall(keys.beats)))
      await until(
        'the other to go on and take over',
        async () => (await fleet.events('crash')).length >= sent,
      )
      frozen?.kill('SIGCONT')
      await until('its heartbeat to move again', async () => {
        const now = await fleet.link.client.hgetall(keys.beats)
        return (
          Object.keys(now).length === 2 &&
          Object.entries(now).every(([name, beat]) => before.get(name) !== beat)
        )
      })
    }
    await send(100)
    await until(
      'everything settled',
      async () => (await fleet.events('crash')).length >= sent && (await fleet.pending('crash')) === 0,
    )
    const events = await fleet.events('crash')
    expect(events).toHaveLength(sent)
    expect(new Set(events.map((event) => event.token)).size).toBe(sent)
    expect(await fleet.deadLetters('crash')).toHaveLength(0)
  } finally {
    for (const worker of workers) worker.kill('SIGKILL')
    await Promise.all(workers.map((worker) => worker.exited))
  }
})
