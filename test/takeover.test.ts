/** Taking over from the dead: never from whoever moved, charged for what ran and for nothing else, marked before it runs. */
import { afterEach, beforeEach, expect, test } from 'bun:test'
import { z } from 'zod'
import { defineBatchHandler, defineCommand, done } from '../src/index.ts'
import { ensureGroup, readNew, releaseEntries, takeOver } from '../src/redis/consumer-group.ts'
import { FREE_CONSUMER, partitionKeys } from '../src/redis/keys.ts'
import { sharedMembership } from '../src/redis/membership.ts'
import { FlakyLink } from './support/flaky-link.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const Do = defineCommand({ type: 'do.it', payload: z.object({ n: z.int() }) })
const keys = partitionKeys('main', 0)

let redis: TestRedis
beforeEach(async () => {
  redis = await startTestRedis()
})
afterEach(() => redis[Symbol.asyncDispose]())

/** Commands 0…count-1 in the hands of a consumer that never beats again; answers their tokens. */
async function heldByDead(fleet: TestFleet, count: number, consumer = 'dead'): Promise<string[]> {
  await ensureGroup(fleet.link, keys)
  const appended = await fleet.append(
    Do,
    Array.from({ length: count }, (_, n) => ({ n })),
  )
  await readNew(await redis.open('reader'), sharedMembership(keys, consumer), count, 100)
  return appended.map(({ token }) => token)
}

test('a consumer whose heartbeat moved since it was judged keeps what it holds', async () => {
  const fleet = await testFleet(redis, [Do])
  const tokens = await heldByDead(fleet, 2)
  await fleet.link.client.hset(keys.beats, 'dead', '2:1')
  expect(await takeOver(fleet.link, keys, { consumer: 'dead', beat: '1:1' }, 'heir', 10)).toBeUndefined()
  expect(await takeOver(fleet.link, keys, { consumer: 'dead', beat: '' }, 'heir', 10)).toBeUndefined()
  expect(await fleet.link.client.exists(keys.crashes)).toBe(0)
  const taken = await takeOver(fleet.link, keys, { consumer: 'dead', beat: '2:1' }, 'heir', 10)
  expect(taken?.entries.map(({ token }) => token)).toEqual(tokens)
})

test('what was marked as running rises by a level with every crash, all else is at level 1, what was handed back is at none', async () => {
  const fleet = await testFleet(redis, [Do])
  const tokens = await heldByDead(fleet, 3)
  let from = 'dead'
  const seen: number[][] = []
  for (const heir of ['second', 'third', 'fourth']) {
    const taken = await takeOver(fleet.link, keys, { consumer: from, beat: '' }, heir, 10)
    seen.push(tokens.map((token) => taken?.entries.find((entry) => entry.token === token)?.level ?? -1))
    // The first is marked by whoever holds it, the others never are.
    await fleet.link.client.sadd(keys.running(heir), tokens[0] ?? '')
    from = heir
  }
  expect(seen).toEqual([
    [1, 1, 1],
    [2, 1, 1],
    [3, 1, 1],
  ])
  await fleet.link.client.del(keys.crashes)
  await fleet.link.client.xclaim(keys.commands, 'workers', FREE_CONSUMER, 0, ...tokens.map((t) => t.slice(1)))
  const free = await takeOver(fleet.link, keys, { consumer: FREE_CONSUMER, beat: '' }, 'heir', 10)
  expect(free?.entries.map(({ level }) => level)).toEqual([0, 0, 0])
  expect(await fleet.link.client.exists(keys.crashes)).toBe(0)
})

test('a worker hands back only what is still its own, and leaves no heartbeat when it leaves', async () => {
  const fleet = await testFleet(redis, [Do])
  const tokens = await heldByDead(fleet, 3, 'paused')
  await fleet.link.client.hset(keys.beats, 'paused', '1:1')
  const [first = '', ...rest] = tokens.map((token) => token.slice(1))
  await fleet.link.client.xclaim(keys.commands, 'workers', 'heir', 0, first)
  const entries = tokens.map((token) => ({ source: 'commands', entryId: token.slice(1) }) as const)
  expect(await releaseEntries(fleet.link, keys, 'paused', entries.slice(0, 2), false)).toBe(1)
  expect(await fleet.link.client.hexists(keys.beats, 'paused')).toBe(1)
  expect(await releaseEntries(fleet.link, keys, 'paused', entries, true)).toBe(1)
  expect(await fleet.link.client.hexists(keys.beats, 'paused')).toBe(0)
  const holds = async (consumer: string) =>
    ((await fleet.link.client.xpending(keys.commands, 'workers', '-', '+', 10, consumer)) as string[][]).map(
      ([id]) => id,
    )
  expect(await holds('heir')).toEqual([first])
  expect(await holds(FREE_CONSUMER)).toEqual(rest)
})

test('a suspect is marked in Redis before it starts, and apart from fresh commands', async () => {
  const batches: { numbers: number[]; marked: string[] }[] = []
  let consumer = ''
  const handle = defineBatchHandler(Do, async (batch) => {
    const marked = await fleet.link.client.smembers(keys.running(consumer))
    batches.push({ numbers: batch.map(({ payload }) => payload.n), marked })
    return batch.map(() => done())
  })
  const fleet: TestFleet = await testFleet(redis, [Do, handle])
  const tokens = await heldByDead(fleet, 4)
  await using worker = await fleet.worker()
  consumer = worker.consumer
  await fleet.telemetry.until('entries.claimed')
  await fleet.append(Do, [{ n: 100 }])
  await until('all to be done', async () => batches.flat().length > 0 && (await fleet.pending('main')) === 0)
  const suspects = batches.filter(({ numbers }) => !numbers.includes(100))
  expect(suspects.flatMap(({ numbers }) => numbers).sort()).toEqual([0, 1, 2, 3])
  for (const { numbers, marked } of suspects) {
    expect(marked.sort()).toEqual(numbers.map((n) => tokens[n] ?? '').sort())
    expect(numbers.length).toBeLessThanOrEqual(2)
  }
})

test('a third crash is the end: a dead letter, without another run', async () => {
  let runs = 0
  const handle = defineBatchHandler(Do, (batch) => {
    runs += batch.length
    return batch.map(() => done())
  })
  const fleet = await testFleet(redis, [Do, handle])
  const [token = ''] = await heldByDead(fleet, 1)
  await fleet.link.client.hset(keys.crashes, token, '2')
  await fleet.link.client.sadd(keys.running('dead'), token)
  await using _worker = await fleet.worker()
  await until('the command to end', async () => (await fleet.pending('main')) === 0)
  expect(runs).toBe(0)
  expect((await fleet.deadLetters('main')).map((letter) => letter.token)).toEqual([token])
  expect(await fleet.link.client.exists(keys.crashes)).toBe(0)
})

test('the crash level of what was taken over holds also when the answer of the take-over was lost', async () => {
  let runs = 0
  const handle = defineBatchHandler(Do, (batch) => {
    runs += batch.length
    return batch.map(() => done())
  })
  const fleet = await testFleet(redis, [Do, handle])
  const [token = ''] = await heldByDead(fleet, 1)
  await fleet.link.client.hset(keys.crashes, token, '2')
  await fleet.link.client.sadd(keys.running('dead'), token)
  const flaky = new FlakyLink(redis.links.options, 1, [])
  await flaky.whenReady(5000)
  flaky.loseNextAnswerOf = 'takeover'
  await using _worker = await fleet.worker({}, flaky)
  await fleet.telemetry.until('service.failed', (all) =>
    all.some(({ error }) => error.includes('on purpose')),
  )
  // The claimed entry is in the own pending list now, which is read after the next broken connection.
  await fleet.link.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await fleet.link.whenReady(5000)
  await until('the command to end', async () => (await fleet.pending('main').catch(() => 1)) === 0)
  expect(runs).toBe(0)
  expect((await fleet.deadLetters('main')).map((letter) => letter.token)).toEqual([token])
  flaky.close()
})
