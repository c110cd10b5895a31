/** How many workers a stream wants: the rule by itself, and what an autoscaler is told of a real Redis. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { z } from 'zod'
import { Schedules } from '../src/cron/schedules.ts'
import { DeadLetters } from '../src/dead-letters/dead-letters.ts'
import { createAdminApp } from '../src/http/admin-app.ts'
import { Metrics } from '../src/http/metrics.ts'
import { ApiKeys } from '../src/identity/api-keys.ts'
import { defineCommand, defineHandler, defineStream, done } from '../src/index.ts'
import { decideScale } from '../src/policies/autoscale.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { TelemetryHub } from '../src/runtime/telemetry-hub.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

describe('the rule', () => {
  const free = Number.POSITIVE_INFINITY
  const none = { target: 100, min: 0, max: free }
  const load = (waiting: number, pending = 0, workersUseful = free) => ({ waiting, pending, workersUseful })

  test.each([
    ['nothing to do wants nobody', load(0), none, 0, undefined],
    ['one command wants one worker', load(1), none, 1, undefined],
    ['so does one in hand: whoever holds it may be dead', load(0, 1), none, 1, undefined],
    ['a full share is one', load(60, 40), none, 1, undefined],
    ['one more is two', load(61, 40), none, 2, undefined],
    ['no more than allowed', load(1000), { ...none, max: 3 }, 3, 'max'],
    ['no more than partitions have an owner', load(1000, 0, 4), none, 4, 'partitions'],
    ['the smaller of the two', load(1000, 0, 4), { ...none, max: 3 }, 3, 'max'],
    ['no fewer than asked for', load(0), { ...none, min: 2 }, 2, 'min'],
    ['also where partitions are fewer', load(1000, 0, 1), { ...none, min: 2 }, 2, 'min'],
    ['a bound that is not felt is not told', load(200), { target: 100, min: 2, max: 2 }, 2, undefined],
  ] as const)('%s', (_, given, bounds, desired, limitedBy) => {
    expect(decideScale(given, bounds)).toEqual({ value: given.waiting + given.pending, desired, limitedBy })
  })

  test('is inside its bounds, never less for more load, and none only where nothing is to be done', () => {
    const count = fc.nat(1_000_000)
    const bounds = fc.record({
      target: fc.integer({ min: 1, max: 5000 }),
      min: fc.nat(5),
      max: fc.integer({ min: 5, max: 50 }),
    })
    fc.assert(
      fc.property(count, count, fc.integer({ min: 1, max: 64 }), bounds, (waiting, pending, useful, rule) => {
        const { desired } = decideScale(load(waiting, pending, useful), rule)
        expect(desired).toBeGreaterThanOrEqual(rule.min)
        expect(desired).toBeLessThanOrEqual(rule.max)
        expect(decideScale(load(waiting + 1, pending, useful), rule).desired).toBeGreaterThanOrEqual(desired)
        if (waiting + pending > 0) expect(desired).toBeGreaterThan(0)
      }),
    )
  })
})

describe('GET /v1/autoscale', () => {
  const payload = z.object({ n: z.number() })
  const stream = defineStream({ name: 'orders', partitions: 2 })
  const ordered = defineStream({ name: 'in-order', partitions: 2, ordering: 'key' })
  const order = defineCommand({ type: 'order.place', stream, payload, key: ({ n }) => `k${n}` })
  const step = defineCommand({ type: 'step.take', stream: ordered, payload, key: ({ n }) => `k${n}` })
  const gate = Promise.withResolvers<void>()
  const onOrder = defineHandler(order, async () => {
    await gate.promise
    return done()
  })

  let redis: TestRedis
  let fleet: TestFleet
  let ask: (query: string) => Promise<{ status: number; body: Record<string, unknown> }>

  beforeAll(async () => {
    redis = await startTestRedis()
    fleet = await testFleet(redis, [stream, ordered, order, step, onOrder])
    const { link: command, catalogue, ids } = fleet
    const telemetry = new TelemetryHub()
    const { app } = createAdminApp({
      ...{ command, catalogue, telemetry, schedules: new Schedules({ command, catalogue, ids }) },
      metrics: new Metrics({ catalogue, telemetry, streams: async () => new Map() }),
      deadLetters: new DeadLetters({ command, catalogue, ids, clock: SYSTEM_CLOCK, telemetry }),
      keys: new ApiKeys({
        ...{ command, clock: SYSTEM_CLOCK, telemetry, names: { streams: [], projections: [] } },
        onChange: async () => undefined,
      }),
      ...{ health: () => [], started: () => true, draining: () => false },
    })
    ask = async (query) => {
      const response = await app.fetch(new Request(`http://admin/v1/autoscale${query}`), {})
      return { status: response.status, body: (await response.json()) as Record<string, unknown> }
    }
  })
  afterAll(async () => {
    gate.resolve()
    await redis[Symbol.asyncDispose]()
  })

  const many = (count: number) => Array.from({ length: count }, (_, n) => ({ n }))

  test('nothing there: nobody wanted', async () => {
    expect((await ask('?stream=orders')).body).toEqual({
      ...{ value: 0, desired: 0, limitedBy: null, stream: 'orders', waiting: 0, pending: 0 },
      ...{ lagIsExact: true, oldestAgeMs: 0, workers: 0, ordering: 'none', partitionCount: 2 },
      ...{ target: 1000, min: 0, max: null },
    })
  })

  test('what waits counts, before any worker was there, by the target that is asked for', async () => {
    await fleet.append(order, many(25))
    expect((await ask('?stream=orders&target=10')).body).toMatchObject({ value: 25, waiting: 25, desired: 3 })
    expect((await ask('?stream=orders&target=10&max=2')).body).toMatchObject({ desired: 2, limitedBy: 'max' })
    expect((await ask('?stream=orders&min=4')).body).toMatchObject({ desired: 4, limitedBy: 'min' })
  })

  test('an ordered stream wants no more workers than it has partitions', async () => {
    await fleet.append(step, many(50))
    const { body } = await ask('?stream=in-order&target=1')
    expect(body).toMatchObject({ value: 50, desired: 2, limitedBy: 'partitions', ordering: 'key' })
  })

  test('a delayed command wants a worker when its time has come, also when none runs', async () => {
    const keys = partitionKeys('orders', 0)
    const before = Number((await ask('?stream=orders')).body['value'])
    await fleet.link.client.zadd(keys.due, Date.now() + 3_600_000, 'x1')
    expect((await ask('?stream=orders')).body['value']).toBe(before)
    await fleet.link.client.zadd(keys.due, Date.now() - 1000, 'x2')
    expect((await ask('?stream=orders')).body['value']).toBe(before + 1)
    await fleet.link.client.del(keys.due)
  })

  test('what a worker holds counts until it is done, and the worker is seen', async () => {
    await using _worker = await fleet.worker()
    await until(
      'the worker to hold something',
      async () => Number((await ask('?stream=orders')).body['pending']) > 0,
    )
    expect((await ask('?stream=orders')).body).toMatchObject({ value: 25, workers: 1 })
    gate.resolve()
    await until('all to be done', async () => (await ask('?stream=orders')).body['value'] === 0)
    expect((await ask('?stream=orders')).body).toMatchObject({ desired: 0, oldestAgeMs: 0 })
  })

  test('mistakes are told', async () => {
    const details = []
    for (const query of [
      '',
      '?stream=order',
      '?stream=orders&target=0',
      '?stream=orders&min=3&max=2',
      '?streams=orders',
    ]) {
      const { status, body } = await ask(query)
      details.push([status, String(body['detail'])])
    }
    expect(details).toEqual([
      [400, expect.stringContaining('Name a stream')],
      [404, expect.stringContaining('Did you mean "orders"?')],
      [400, expect.stringContaining('"target"')],
      [400, expect.stringContaining('"max"')],
      [400, expect.stringContaining('Did you mean "stream"?')],
    ])
  })
})
