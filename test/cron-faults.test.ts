/** Schedules with what stands around them: real workers that are slow, keys of a broken type, several partitions. */
import { expect, test } from 'bun:test'
import { z } from 'zod'
import { defineCommand } from '../src/contracts/command.ts'
import { defineHandler } from '../src/contracts/handler.ts'
import { done } from '../src/contracts/outcome.ts'
import { defineSchedule } from '../src/contracts/schedule.ts'
import { defineStream } from '../src/contracts/stream.ts'
import { CronScheduler } from '../src/cron/cron-scheduler.ts'
import { partitionOf } from '../src/policies/partition.ts'
import { decodeEntry } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { fireSchedule, readSchedule, registerSchedule } from '../src/redis/schedule-store.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { rejection } from './support/rejection.ts'
import { until } from './support/until.ts'

function schedulerOf({ link, catalogue, telemetry }: TestFleet): CronScheduler {
  return new CronScheduler({ command: link, catalogue, clock: SYSTEM_CLOCK, telemetry })
}

test('a schedule that must not overlap waits for its handler, in the partition of its key', async () => {
  const books = defineStream({ name: 'books', partitions: 4 })
  const close = defineCommand({
    type: 'books.close',
    stream: books,
    payload: z.object({ shop: z.string(), deep: z.boolean().default(true) }),
    key: ({ shop }) => shop,
  })
  const running: { tickMs: number | undefined; payload: unknown; finish(): void }[] = []
  const onClose = defineHandler(close, async ({ tickMs, payload }) => {
    const { promise, resolve } = Promise.withResolvers<void>()
    running.push({ tickMs, payload, finish: resolve })
    await promise
    return done()
  })
  const schedule = defineSchedule({
    ...{ name: 'closing', command: close, payload: { shop: 'north' }, every: 100, overlap: 'forbid' },
  })
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [books, close, onClose, schedule])
  await using _worker = await fleet.worker()
  await using scheduler = schedulerOf(fleet)
  await scheduler.start()
  for (let run = 0; run < 3; run++) {
    await until('the handler to run', () => running.length === run + 1)
    const seen = fleet.telemetry.of('schedule.refused').length
    await fleet.telemetry.until('schedule.refused', (refused) => refused.length >= seen + 2)
    expect(running.length).toBe(run + 1)
    running[run]?.finish()
  }
  expect(running.map(({ payload }) => payload)).toEqual(
    Array.from({ length: 3 }, () => ({ shop: 'north', deep: true })),
  )
  const ticks = running.map(({ tickMs }) => tickMs ?? 0)
  expect(
    ticks.every((tick, i) => tick % 100 === 0 && tick >= (ticks[i - 1] ?? 0) + 300 * Math.min(i, 1)),
  ).toBe(true)
  const home = partitionKeys('books', partitionOf('north', 4))
  expect((await readSchedule(fleet.link, home, 'closing')).firedCount).toBeGreaterThanOrEqual(3)
  await until('the last handler', () => running.length === 4)
  running[3]?.finish()
})

test('a tick whose command can not be appended is fired later, not lost', async () => {
  await using redis = await startTestRedis()
  const link = await redis.open()
  const keys = partitionKeys('main', 0)
  const spec = { name: 'daily', keys, spec: 'a', timetable: 'a' }
  const { epoch, watermarkMs } = await registerSchedule(link, spec)
  await link.client.hset(keys.schedule('daily'), 'watermark', watermarkMs - 5000)
  await link.client.set(keys.ready, 'not a stream')
  const next = {
    ...{ epoch, watermarkMs: watermarkMs - 5000, tickMs: watermarkMs - 4000 },
    missed: { count: 3, firstMs: watermarkMs - 4900, lastMs: watermarkMs - 4700 },
    ...{ blob: Buffer.from('blob'), overlap: 'allow' as const },
  }
  expect((await rejection(fireSchedule(link, spec, next))).message).toContain('WRONGTYPE')
  expect(await readSchedule(link, keys, 'daily')).toMatchObject({
    ...{ watermarkMs: watermarkMs - 5000, firedCount: 0, missedCount: 0 },
  })
  await link.client.del(keys.ready)
  expect((await fireSchedule(link, spec, next)).verdict).toBe('fired')
})

test('one schedule that can not be registered keeps neither the process nor the others from starting', async () => {
  const tick = defineCommand({ type: 'clock.tick', payload: z.object({}) })
  const schedules = ['broken', 'whole'].map((name) =>
    defineSchedule({ name, command: tick, payload: {}, every: 100 }),
  )
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [tick, ...schedules])
  const keys = partitionKeys('main', 0)
  await fleet.link.client.set(keys.schedule('broken'), 'not a hash')
  await using scheduler = schedulerOf(fleet)
  await scheduler.start()
  await fleet.telemetry.until('schedule.fired', (fired) => fired.length >= 5)
  expect(new Set(fleet.telemetry.of('schedule.fired').map((fired) => fired.schedule))).toEqual(
    new Set(['whole']),
  )
  expect(fleet.telemetry.of('service.failed')[0]?.service).toBe('schedule broken')

  await fleet.link.client.del(keys.schedule('broken'))
  await fleet.telemetry.until('schedule.fired', (fired) =>
    fired.some(({ schedule }) => schedule === 'broken'),
  )
})

test('a scheduler does not start without Redis', async () => {
  const tick = defineCommand({ type: 'clock.tick', payload: z.object({}) })
  const schedule = defineSchedule({ name: 'any', command: tick, payload: {}, every: 100 })
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [tick, schedule])
  await redis.kill()
  await until('the connection to be lost', () => !fleet.link.ready)
  expect(await rejection(schedulerOf(fleet).start())).toMatchObject({ code: 'redis.unavailable' })
})

test('while Redis is away ticks are missed, not kept; they go on within two seconds of its return', async () => {
  const tick = defineCommand({ type: 'clock.tick', payload: z.object({}) })
  const schedule = defineSchedule({ name: 'any', command: tick, payload: {}, every: 100, catchUp: 'latest' })
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [tick, schedule])
  await using scheduler = schedulerOf(fleet)
  await scheduler.start()
  await fleet.telemetry.until('schedule.fired', (fired) => fired.length >= 2)
  await redis.kill()
  await fleet.telemetry.until('service.failed', (failed) => failed.length >= 6)
  const before = fleet.telemetry.of('schedule.fired').length
  const backMs = performance.now()
  await redis.restart()
  await fleet.telemetry.until('schedule.fired', (fired) => fired.length > before + 2)
  expect(performance.now() - backMs).toBeLessThan(2000)
  const [first, ...later] = fleet.telemetry.of('schedule.fired').slice(before)
  expect(first?.missed).toBeGreaterThan(10)
  expect(Math.max(...later.map(({ missed }) => missed))).toBeLessThan(5)
  const rows = await (await redis.open()).client.xrangeBuffer(partitionKeys('main', 0).ready, '-', '+')
  const ticks = rows.map(([, fields]) => decodeEntry(fields[1] ?? Buffer.alloc(0)).tickMs)
  expect(new Set(ticks).size).toBe(ticks.length)
})

test('a watermark that went back, because Redis lost writes, leaves no tick out', async () => {
  const note = defineCommand({ type: 'note', payload: z.object({}) })
  const schedule = defineSchedule({ name: 'notes', command: note, payload: {}, every: 300, catchUp: 'all' })
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [note, schedule])
  const verdicts: string[] = []
  const { link } = fleet
  const run = link.run.bind(link)
  link.run = async (name, keys, args) => {
    const reply = await run(name, keys, args)
    if (name === 'fire' && Array.isArray(reply)) verdicts.push(String(reply[0]))
    return reply
  }
  await using scheduler = schedulerOf(fleet)
  await scheduler.start()
  await fleet.telemetry.until('schedule.fired', (fired) => fired.length >= 2)
  const key = partitionKeys('main', 0).schedule('notes')
  // The next tick is planned and refused; then the server forgets the pause, and the last decision with it.
  await link.client.hset(key, 'paused', '1')
  await until('a tick to meet the pause', () => verdicts.includes('paused'))
  const watermarkMs = Number(await link.client.hget(key, 'watermark'))
  const before = fleet.telemetry.of('schedule.fired').length
  const forgotten = { watermark: watermarkMs - 300 }
  await link.client.multi().hdel(key, 'paused').hset(key, forgotten).exec()
  await fleet.telemetry.until('schedule.fired', (fired) => fired.length >= before + 4)
  const ticks = fleet.telemetry
    .of('schedule.fired')
    .slice(before)
    .map(({ tickMs }) => tickMs)
  expect(ticks.slice(0, 4)).toEqual([0, 1, 2, 3].map((i) => watermarkMs + 300 * i))
})
