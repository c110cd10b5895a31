/** The two scripts behind rate limits: what is granted, what counts as used, what comes back, and that nothing stays behind. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import type { Quota } from '../src/policies/quota.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import {
  callQuota,
  type QuotaAnswer,
  type QuotaCall,
  type QuotaCount,
  quotaCount,
} from '../src/redis/limit-store.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

let redis: TestRedis
let link: RedisLink
let counts = 0

beforeAll(async () => {
  redis = await startTestRedis()
  link = await redis.open()
})
afterAll(async () => {
  await redis[Symbol.asyncDispose]()
})

const NOTHING: QuotaCall = {
  ...{ holder: 'a', used: 0, kept: 0, back: 0, need: 0, wish: 0, largest: 1, holdMs: 5000, isSpent: true },
}

interface Counted extends QuotaCount {
  call(call: Partial<QuotaCall>): Promise<QuotaAnswer>
}

function counted(quota: Quota): Counted {
  const count = quotaCount(quota, ['rule', String(counts++)])
  return { ...count, call: (call) => callQuota(link, count, { ...NOTHING, ...call }) }
}

const window = (quota: number, windowS = 1) => counted({ kind: 'window', quota, windowS })
/** So slow that nothing comes back during a test. */
const stillBucket = (burst: number) => counted({ kind: 'bucket', burst, ratePerS: burst / 80_000 })

describe.each([
  ['window', () => window(10, 60)],
  ['bucket', () => stillBucket(10)],
] as const)('a %s', (_, make) => {
  test('grants what there is and no more, and a call that gets nothing takes nothing', async () => {
    const { call } = make()
    expect(await call({ need: 7 })).toMatchObject({ granted: 7, free: 3 })
    expect(await call({ need: 5, holder: 'b' })).toMatchObject({ granted: 3, free: 0 })
    expect(await call({ need: 5, wish: 5 })).toMatchObject({ granted: 0, free: 0 })
  })

  test('what is needed may be held instead of used, and is told as used later', async () => {
    const { call } = make()
    expect(await call({ need: 4, isSpent: false })).toMatchObject({ granted: 4, free: 6 })
    expect(await call({ used: 1, kept: 0 })).toMatchObject({ free: 9 })
  })

  test('all or nothing gets nothing where there is too little', async () => {
    const { call } = make()
    expect(await call({ need: 7, largest: 7 })).toMatchObject({ granted: 7, free: 3 })
    expect(await call({ need: 4, largest: 4 })).toMatchObject({ granted: 0, free: 3 })
    expect(await call({ need: 3, largest: 3 })).toMatchObject({ granted: 3, free: 0 })
  })

  test('counts what is held as gone, and what comes back as free', async () => {
    const { call } = make()
    expect(await call({ wish: 2 })).toMatchObject({ granted: 2, free: 8 })
    expect(await call({ holder: 'b', need: 10 })).toMatchObject({ granted: 8, free: 0 })
    expect(await call({ used: 1, kept: 0 })).toMatchObject({ granted: 0, free: 1 })
    expect(await call({ back: 8, holder: 'b' })).toMatchObject({ free: 9 })
  })

  test('gives in advance only a part of what is left', async () => {
    const { call } = make()
    expect(await call({ need: 2, wish: 100 })).toMatchObject({ granted: 4, free: 6 })
    expect(await call({ holder: 'b', wish: 100 })).toMatchObject({ granted: 2, free: 4 })
  })

  test('lets nobody use more than was held', async () => {
    const { call } = make()
    expect(await call({ used: 5, kept: 5 })).toMatchObject({ free: 10 })
    await call({ wish: 4 })
    expect(await call({ used: 1, kept: 100 })).toMatchObject({ free: 7 })
  })

  test('what a holder that fell silent held does not come back as free', async () => {
    const { call } = make()
    expect(await call({ wish: 8, holdMs: 1 })).toMatchObject({ granted: 3 })
    await Bun.sleep(5)
    expect(await call({ holder: 'b' })).toMatchObject({ free: 7 })
    expect(await call({ used: 3 }), 'its report comes too late').toMatchObject({ free: 7 })
  })

  test('uses two keys of one slot at most, named by no request, and both expire', async () => {
    const { call, keys } = make()
    await call({ need: 1, wish: 1 })
    const names = [keys.state, keys.log]
    for (const name of names) expect(name).toMatch(/^mr:\{l\.[\w-]{22}\}:[su]$/)
    expect(new Set(names.map((name) => /\{.+\}/.exec(name)?.[0])).size).toBe(1)
    const used = await Promise.all(names.map(async (name) => (await link.client.exists(name)) === 1))
    const ttls = await Promise.all(names.map((name) => link.client.pttl(name)))
    expect(used[0]).toBe(true)
    for (const [index, ttl] of ttls.entries()) if (used[index]) expect(ttl).toBeGreaterThan(0)
  })
})

test('a window takes again as soon as the oldest uses have left it, and says when', async () => {
  const { call, keys } = window(3)
  await call({ need: 2 })
  await Bun.sleep(300)
  await call({ need: 1 })
  const full = await call({ need: 1, largest: 3 })
  expect(full.granted).toBe(0)
  expect(full.nextMs).toBeGreaterThan(600)
  expect(full.nextMs).toBeLessThanOrEqual(702)
  expect(full.largestMs).toBeGreaterThanOrEqual(full.nextMs + 290)
  await Bun.sleep(full.nextMs + 1)
  expect(await call({ need: 3, holdMs: 10 })).toMatchObject({ granted: 2 })
  await until('the keys to expire', async () => (await link.client.exists(keys.state, keys.log)) === 0)
}, 20_000)

test('a window forgets what a clock that was set back by more would keep for as long', async () => {
  const { call, keys } = window(5)
  await call({ need: 5 })
  const slotUs = 1e6 / 500
  const ahead = Math.floor(((Date.now() + 3_600_000) * 1000) / slotUs)
  await link.client.del(keys.log)
  await link.client.rpush(keys.log, `${ahead} 5`)
  expect(await call({ need: 1 })).toMatchObject({ granted: 1, free: 4 })
})

test('a bucket fills at its rate, says when there is enough, and never above its burst', async () => {
  const { call } = counted({ kind: 'bucket', burst: 20, ratePerS: 100 })
  expect(await call({ need: 20 })).toMatchObject({ granted: 20, free: 0 })
  const empty = await call({ need: 1, largest: 10 })
  expect(empty.nextMs).toBeLessThanOrEqual(10)
  expect(empty.largestMs).toBeGreaterThan(80)
  await Bun.sleep(empty.largestMs)
  expect((await call({ need: 10 })).granted).toBe(10)
  await Bun.sleep(300)
  expect(await call({})).toMatchObject({ free: 20, nextMs: 0 })
})

test('a bucket does not fill the room of what is held: held and free are never more than the burst', async () => {
  const { call } = counted({ kind: 'bucket', burst: 20, ratePerS: 1000 })
  expect((await call({ wish: 100 })).granted).toBe(5)
  await Bun.sleep(50)
  expect((await call({ holder: 'b' })).free).toBe(15)
  expect((await call({ holder: 'b', need: 100 })).granted).toBe(15)
})

test('what was used of a held stock comes back from when it was told, not from before', async () => {
  const { call } = counted({ kind: 'bucket', burst: 20, ratePerS: 1000 })
  expect((await call({ wish: 100 })).granted).toBe(5)
  await Bun.sleep(50)
  expect((await call({ used: 5, kept: 0 })).free).toBe(15)
  await Bun.sleep(50)
  expect((await call({})).free).toBe(20)
})

test('another rule, and another subject, is another count', () => {
  const quota: Quota = { kind: 'window', quota: 10, windowS: 60 }
  const names = [
    quotaCount(quota, ['a', 'x']),
    quotaCount(quota, ['a', 'y']),
    quotaCount(quota, ['b', 'x']),
    quotaCount({ ...quota, quota: 11 }, ['a', 'x']),
  ].map(({ keys }) => keys.state)
  expect(new Set(names).size).toBe(names.length)
})
