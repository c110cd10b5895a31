/** The scheduler and the operator's actions against a real Redis: on time, idle in between, catch-up, pause, two deployments, faults. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { type CommandDefinition, defineCommand } from '../src/contracts/command.ts'
import { errorCode } from '../src/contracts/errors.ts'
import { defineSchedule, type ScheduleDefinition } from '../src/contracts/schedule.ts'
import { CronScheduler } from '../src/cron/cron-scheduler.ts'
import { Schedules } from '../src/cron/schedules.ts'
import { buildCatalogue, type Catalogue } from '../src/policies/catalogue.ts'
import { dueTicks } from '../src/policies/timetable.ts'
import type { CommandIds } from '../src/redis/command-id.ts'
import { readStatus } from '../src/redis/command-log.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { decodeEntry, unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { joinFleet } from '../src/redis/fleet.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { readServerTime } from '../src/redis/schedule-store.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { until } from './support/until.ts'

let redis: TestRedis
let link: RedisLink
let ids: CommandIds
let made = 0

beforeAll(async () => {
  redis = await startTestRedis()
  link = await redis.open()
  ids = await joinFleet(link, [])
})
afterAll(() => redis[Symbol.asyncDispose]())

const DAY_MS = 86_400_000

interface Bench {
  readonly name: string
  readonly command: CommandDefinition
  readonly schedule: ScheduleDefinition
  readonly catalogue: Catalogue
  readonly schedules: Schedules
  readonly telemetry: RecordedTelemetry
  start(
    over?: Partial<{ catalogue: Catalogue; telemetry: RecordedTelemetry; registerEveryMs: number }>,
  ): Promise<CronScheduler>
  /** Entries of the ready stream. */
  ran(): Promise<{ tickMs: number; atMs: number; payload: unknown }[]>
  field(name: string, value?: number): Promise<string | null>
}

type Options = Partial<Pick<ScheduleDefinition, 'catchUp' | 'catchUpCountMax' | 'overlap'>> & {
  readonly every?: number
  readonly cron?: string
}

/** A schedule on a stream of its own. */
function bench(options: Options): Bench {
  made += 1
  const name = `bench-${made}`
  const command = defineCommand({ type: `tick-${made}`, stream: name, payload: z.object({ n: z.number() }) })
  const { every, cron = '0 0 1 1 *', ...rest } = options
  const timing = every === undefined ? { cron } : { every }
  const schedule = defineSchedule({ name, command, payload: { n: made }, ...timing, ...rest } as never)
  const catalogue = buildCatalogue([command, schedule])
  const telemetry = new RecordedTelemetry()
  const keys = partitionKeys(name, 0)
  return {
    name,
    command,
    schedule,
    catalogue,
    telemetry,
    schedules: new Schedules({ command: link, catalogue, ids }),
    start: async (over = {}) => {
      const parts = { command: link, catalogue, clock: SYSTEM_CLOCK, telemetry, ...over }
      const scheduler = new CronScheduler(parts)
      await scheduler.start()
      return scheduler
    },
    ran: async () => {
      const entries = await link.use('XRANGE', (client) => client.xrangeBuffer(keys.ready, '-', '+'))
      return entries.map(([id, fields]) => {
        const entry = decodeEntry(fields[1] ?? Buffer.alloc(0))
        const payload = unpackPayloadOf(entry)
        return { tickMs: entry.tickMs ?? 0, atMs: Number(id.toString().split('-')[0]), payload }
      })
    },
    field: async (field, value) => {
      const key = keys.schedule(name)
      if (value !== undefined) await link.use('HSET', (client) => client.hset(key, field, value))
      return await link.use('HGET', (client) => client.hget(key, field))
    },
  }
}

/** Registers, and lets as much time pass as the watermark is put back. */
async function outage(at: Bench, awayMs: number): Promise<number> {
  const scheduler = await at.start()
  await scheduler.stop()
  const watermarkMs = (await readServerTime(link)) - awayMs
  await at.field('watermark', watermarkMs)
  return watermarkMs
}

const ticksOf = async (at: Bench): Promise<number[]> => (await at.ran()).map((run) => run.tickMs)

describe('on time', () => {
  test('ticks fall on the multiples of the period, never early, a few ms late, each with its payload', async () => {
    const at = bench({ every: 200 })
    await using scheduler = await at.start()
    await at.telemetry.until('schedule.fired', (fired) => fired.length >= 8)
    expect(scheduler.health()).toEqual({ ready: true, detail: '1 of 1 schedules fire from here.' })
    const ran = await at.ran()
    const first = ran[0]?.tickMs ?? 0
    expect(ran.map((run) => run.tickMs)).toEqual(ran.map((_, i) => first + i * 200))
    expect(first % 200).toBe(0)
    expect(Math.min(...ran.map((run) => run.atMs - run.tickMs))).toBeGreaterThanOrEqual(0)
    const late = ran.map((run) => run.atMs - run.tickMs).sort((a, b) => a - b)
    expect(late[Math.floor(late.length / 2)]).toBeLessThanOrEqual(50)
    expect(ran[0]?.payload).toEqual({ n: made })
  })

  test('several schedulers share the ticks: each runs once', async () => {
    const at = bench({ every: 100 })
    const fleet = await Promise.all([1, 2, 3].map(() => at.start()))
    await at.telemetry.until('schedule.fired', (fired) => fired.length >= 15)
    await Promise.all(fleet.map((scheduler) => scheduler.stop()))
    const ticks = await ticksOf(at)
    expect(ticks).toEqual(ticks.map((_, i) => (ticks[0] ?? 0) + i * 100))
    expect(at.telemetry.of('schedule.fired').length).toBe(ticks.length)
    expect(at.telemetry.of('schedule.refused')).toEqual([])
  })

  test('between ticks it asks Redis nothing but what shows that it is alive', async () => {
    const at = bench({})
    await using _scheduler = await at.start()
    const calls = async () => {
      const info = await link.use('INFO', (client) => client.info('commandstats'))
      return Number(/cmdstat_evalsha:calls=(\d+)/.exec(info)?.[1] ?? 0)
    }
    const before = await calls()
    await Bun.sleep(700)
    expect((await calls()) - before).toBe(0)
  })

  test('fifty schedules with one tick are fired together', async () => {
    const definitions = Array.from({ length: 50 }, (_, i) => {
      const command = defineCommand({ type: `crowd-${i}`, stream: 'crowd', payload: z.object({}) })
      return [command, defineSchedule({ name: `crowd-${i}`, command, payload: {}, every: 1000 })]
    }).flat()
    const telemetry = new RecordedTelemetry()
    const catalogue = buildCatalogue(definitions)
    await using _scheduler = await bench({}).start({ catalogue, telemetry })
    await telemetry.until('schedule.fired', (fired) => fired.length >= 50)
    const fired = telemetry.of('schedule.fired').slice(0, 50)
    expect(new Set(fired.map((one) => one.schedule)).size).toBe(50)
    const entries = await link.use('XRANGE', (client) =>
      client.xrange(partitionKeys('crowd', 0).ready, '-', '+'),
    )
    const at = entries.slice(0, 50).map(([id]) => Number(id.split('-')[0]))
    expect(Math.max(...at) - Math.min(...at)).toBeLessThan(200)
  })
})

describe('after an outage', () => {
  test('latest runs the last tick and counts the others', async () => {
    const at = bench({ every: DAY_MS, catchUp: 'latest' })
    const from = await outage(at, 10 * DAY_MS)
    await using _scheduler = await at.start()
    await at.telemetry.until('schedule.fired')
    const last = Math.floor((from + 10 * DAY_MS) / DAY_MS) * DAY_MS
    expect(await ticksOf(at)).toEqual([last])
    expect(at.telemetry.of('schedule.fired')[0]).toEqual({ schedule: at.name, tickMs: last, missed: 9 })
    expect(await at.schedules.get(at.name)).toMatchObject({
      missedCount: 9,
      missed: [{ count: 9, firstMs: last - 9 * DAY_MS, lastMs: last - DAY_MS }],
      overlapped: [],
    })
    expect(at.telemetry.of('schedule.missed')).toEqual([
      { schedule: at.name, count: 9, firstMs: last - 9 * DAY_MS, lastMs: last - DAY_MS },
    ])
  })

  test('skip runs none and counts all', async () => {
    const at = bench({ cron: '0 0 1 1 *', catchUp: 'skip' })
    const from = await outage(at, 3 * 366 * DAY_MS)
    const missed = dueTicks(at.schedule.timetable, from, from + 3 * 366 * DAY_MS, 1).count
    expect(missed).toBeGreaterThanOrEqual(3)
    await using _scheduler = await at.start()
    await at.telemetry.until('schedule.refused')
    expect(at.telemetry.of('schedule.refused')[0]?.reason).toBe('left-out')
    expect(await ticksOf(at)).toEqual([])
    expect((await at.schedules.get(at.name)).missedCount).toBe(missed)
  })

  test('all runs every one in order, by several schedulers together', async () => {
    const at = bench({ every: 60_000, catchUp: 'all', catchUpCountMax: 5000 })
    const from = await outage(at, 1500 * 60_000)
    const fleet = await Promise.all([1, 2, 3].map(() => at.start()))
    await at.telemetry.until('schedule.fired', (fired) => fired.length >= 1500)
    await Promise.all(fleet.map((scheduler) => scheduler.stop()))
    const first = (Math.floor(from / 60_000) + 1) * 60_000
    const ticks = await ticksOf(at)
    expect(ticks).toEqual(ticks.map((_, i) => first + i * 60_000))
    expect(ticks.length).toBeGreaterThanOrEqual(1500)
    expect((await at.schedules.get(at.name)).missedCount).toBe(0)
  })

  test('all is bounded: what is older is counted as missed', async () => {
    const at = bench({ every: 3_600_000, catchUp: 'all', catchUpCountMax: 7 })
    await outage(at, 100 * 3_600_000)
    await using _scheduler = await at.start()
    await at.telemetry.until('schedule.fired', (fired) => fired.length >= 7)
    const report = await at.schedules.get(at.name)
    expect({ fired: report.firedCount, missed: report.missedCount }).toEqual({ fired: 7, missed: 93 })
    expect((await ticksOf(at)).length).toBe(7)
  })

  test('a restart with the same definition changes nothing', async () => {
    const at = bench({ every: DAY_MS })
    const from = await outage(at, 0)
    const epoch = await at.field('epoch')
    const scheduler = await at.start()
    await scheduler.stop()
    expect(await at.field('epoch')).toBe(epoch)
    expect(await at.field('watermark')).toBe(String(from))
  })
})

describe('overlap', () => {
  test('forbid leaves ticks out while a run is open, and says so', async () => {
    const at = bench({ every: 100, overlap: 'forbid' })
    await using _scheduler = await at.start()
    await at.telemetry.until('schedule.refused', (refused) => refused.length >= 3)
    expect((await ticksOf(at)).length).toBe(1)
    expect(new Set(at.telemetry.of('schedule.refused').map((one) => one.reason))).toEqual(
      new Set(['overlap']),
    )
    const { records } = partitionKeys(at.name, 0)
    await link.use('HSET', (client) => client.hset(records, 'x1', 'D'))
    await at.telemetry.until('schedule.fired', (fired) => fired.length >= 2)
    expect((await at.schedules.get(at.name)).overlappedCount).toBeGreaterThanOrEqual(3)
  })
})

describe('an operator', () => {
  test('pauses and resumes: ticks of the pause never run', async () => {
    const at = bench({ every: 100, catchUp: 'all' })
    await using _scheduler = await at.start()
    await at.telemetry.until('schedule.fired')
    expect(await at.schedules.pause(at.name)).toBe(true)
    expect(await at.schedules.pause(at.name)).toBe(false)
    const before = await ticksOf(at)
    const pausedUntilMs = (before.at(-1) ?? 0) + 600
    await until('the pause to last', async () => (await readServerTime(link)) > pausedUntilMs)
    expect(await ticksOf(at)).toEqual(before)
    expect(await at.schedules.get(at.name)).toMatchObject({ paused: true, state: 'paused', nextTicksMs: [] })
    const resumedMs = await readServerTime(link)
    expect(await at.schedules.resume(at.name)).toBe(true)
    const count = at.telemetry.of('schedule.fired').length
    await at.telemetry.until('schedule.fired', (fired) => fired.length > count + 2)
    const after = (await ticksOf(at)).slice(before.length)
    expect(Math.min(...after)).toBeGreaterThan(resumedMs)
    expect((await at.schedules.get(at.name)).missedCount).toBe(0)
  })

  test('runs one now, without any scheduler: the command is found, the watermark stays', async () => {
    const at = bench({ every: DAY_MS })
    await outage(at, 0)
    const before = await at.field('watermark')
    await at.schedules.pause(at.name)
    const { id, tickMs } = await at.schedules.runNow(at.name)
    const { stream, partition, token } = ids.parse(id)
    expect((await readStatus(link, partitionKeys(stream, partition), token)).state).toBe('accepted')
    expect(await ticksOf(at)).toEqual([tickMs])
    expect(await at.field('watermark')).toBe(before)
    expect((await at.schedules.get(at.name)).lastRuns).toEqual([{ id, tickMs }])
  })

  test('is refused a run now while one is open and runs must not overlap', async () => {
    const at = bench({ every: DAY_MS, overlap: 'forbid' })
    await at.schedules.runNow(at.name)
    expect(errorCode(await at.schedules.runNow(at.name).catch((error: unknown) => error))).toBe(
      'schedule.conflict',
    )
    expect((await ticksOf(at)).length).toBe(1)
    expect((await at.schedules.get(at.name)).state).toBe('unregistered')
    await using _scheduler = await at.start()
    expect(await at.schedules.get(at.name)).toMatchObject({ state: 'active', firedCount: 1 })
  })

  test('sees what comes next and what has run, by name', async () => {
    const at = bench({ cron: '0 3 * * *' })
    await using _scheduler = await at.start()
    const [report] = await at.schedules.list()
    expect(report).toMatchObject({ name: at.name, command: at.command.type, state: 'active', lastRuns: [] })
    const next = report?.nextTicksMs ?? []
    expect(next.length).toBe(5)
    expect(
      next.every((tick, i) => tick % DAY_MS === 3 * 3_600_000 && (i === 0 || tick > (next[i - 1] ?? 0))),
    ).toBe(true)
  })

  test('is told which schedule was meant', async () => {
    const at = bench({})
    const error = await at.schedules.pause(`${at.name}x`).catch((thrown: unknown) => thrown)
    expect(errorCode(error)).toBe('not-found')
    expect(String(error)).toContain(`Did you mean "${at.name}"?`)
  })
})

describe('two deployments', () => {
  /** The same name with another definition. */
  function otherDefinition(at: Bench, every: number): Catalogue {
    const schedule = defineSchedule({ name: at.name, command: at.command, payload: { n: 0 }, every } as never)
    return buildCatalogue([at.command, schedule])
  }

  test('the newer one fires; the older one stops with one alarm, and comes back when the newer has gone', async () => {
    const at = bench({ every: 100 })
    const registerEveryMs = 200
    await using old = await at.start({ registerEveryMs })
    await at.telemetry.until('schedule.fired')
    const newer = new RecordedTelemetry()
    const fresh = await at.start({
      ...{ catalogue: otherDefinition(at, 150), telemetry: newer, registerEveryMs },
    })
    await at.telemetry.until('alarm.raised')
    expect(at.telemetry.of('alarm.raised')).toEqual([
      {
        alarm: 'schedule-superseded',
        stream: at.name,
        detail: `Schedule "${at.name}" is defined otherwise by a newer deployment, and no longer fires from here.`,
      },
    ])
    expect(old.health().detail).toContain('1 are defined otherwise')
    const stoppedAt = at.telemetry.of('schedule.fired').length
    await newer.until('schedule.fired', (fired) => fired.length >= 6)
    expect(at.telemetry.of('schedule.fired').length).toBe(stoppedAt)
    expect((await at.schedules.get(at.name)).state).toBe('other-definition')

    await fresh.stop()
    await at.telemetry.until('schedule.fired', (fired) => fired.length > stoppedAt)
    expect(at.telemetry.of('alarm.raised').length).toBe(1)
    expect(newer.of('alarm.raised')).toEqual([])
  }, 30_000)
})

describe('faults', () => {
  test('a clock that went back raises one alarm and fires nothing', async () => {
    const at = bench({ every: 100 })
    await outage(at, 0)
    await at.field('watermark', (await readServerTime(link)) + 3_600_000)
    await using _scheduler = await at.start()
    await at.telemetry.until('alarm.raised')
    expect(at.telemetry.of('alarm.raised')[0]?.detail).toMatch(/it is 3(599|600) s behind the last tick/)
    expect(await ticksOf(at)).toEqual([])
  })

  test('state that vanished raises an alarm and starts anew', async () => {
    const at = bench({ every: 100 })
    await using _scheduler = await at.start()
    await at.telemetry.until('schedule.fired')
    await link.use('DEL', (client) => client.del(partitionKeys(at.name, 0).schedule(at.name)))
    await at.telemetry.until('alarm.raised')
    expect(at.telemetry.of('alarm.raised')[0]?.alarm).toBe('schedule-state-lost')
    const count = at.telemetry.of('schedule.fired').length
    await at.telemetry.until('schedule.fired', (fired) => fired.length > count)
  })

  test('one schedule that fails does not hold up the others', async () => {
    const good = bench({ every: 100 })
    const bad = bench({ every: 100 })
    const catalogue = buildCatalogue([good.command, good.schedule, bad.command, bad.schedule])
    const telemetry = new RecordedTelemetry()
    await using _scheduler = await good.start({ catalogue, telemetry })
    await telemetry.until('schedule.fired', (fired) => fired.some((one) => one.schedule === bad.name))
    const { ready } = partitionKeys(bad.name, 0)
    await link.use('SET', (client) => client.multi().del(ready).set(ready, 'not a stream').exec())
    await telemetry.until('service.failed')
    const count = (await ticksOf(good)).length
    const before = telemetry.of('schedule.fired').length
    await telemetry.until('schedule.fired', (fired) => fired.length >= before + 10)
    const ticks = await ticksOf(good)
    expect(ticks.length).toBeGreaterThanOrEqual(count + 10)
    expect(ticks).toEqual(ticks.map((_, i) => (ticks[0] ?? 0) + i * 100))
    expect(telemetry.of('service.failed').length).toBeLessThan(12)
  })

  test('Redis is killed and comes back: every tick runs once', async () => {
    await using server = await startTestRedis()
    const at = bench({ every: 100, catchUp: 'all' })
    const command = await server.open()
    const scheduler = new CronScheduler({
      command,
      catalogue: at.catalogue,
      clock: SYSTEM_CLOCK,
      telemetry: at.telemetry,
    })
    await scheduler.start()
    await at.telemetry.until('schedule.fired', (fired) => fired.length >= 3)
    await server.kill()
    await at.telemetry.until('service.failed')
    await server.restart()
    const seen = at.telemetry.of('schedule.fired').length
    await at.telemetry.until('schedule.fired', (fired) => fired.length >= seen + 10)
    await scheduler.stop()
    const reader = await server.open()
    const entries = await reader.use('XRANGE', (c) =>
      c.xrangeBuffer(partitionKeys(at.name, 0).ready, '-', '+'),
    )
    const ticks = entries.map(([, fields]) => decodeEntry(fields[1] ?? Buffer.alloc(0)).tickMs ?? 0)
    expect(ticks).toEqual(ticks.map((_, i) => (ticks[0] ?? 0) + i * 100))
  })

  test('a payload that its schema refuses keeps the process from starting, also when the schema is asynchronous', async () => {
    const refuse = z.object({ n: z.number() }).refine(async ({ n }) => n < 0, 'must be negative')
    const command = defineCommand({ type: 'choosy', stream: 'choosy', payload: refuse })
    const schedule = defineSchedule({ name: 'choosy', command, payload: { n: 1 }, every: 1000 })
    const catalogue = buildCatalogue([command, schedule])
    const error = await bench({})
      .start({ catalogue })
      .catch((thrown: unknown) => thrown)
    expect(errorCode(error)).toBe('definition.invalid')
    expect(String(error)).toContain('schedule "choosy"')
    expect(String(error)).toContain('must be negative')
  })
})
