/** Schedules while deployments change and workers die: the newer definition holds whatever the clocks do; runs never overlap. */
import { expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { z } from 'zod'
import { SHIM_MISSING, steppedClock } from '../scripts/fleet/clock-shim.ts'
import { defineCommand } from '../src/contracts/command.ts'
import { defineSchedule } from '../src/contracts/schedule.ts'
import { CronScheduler } from '../src/cron/cron-scheduler.ts'
import { buildCatalogue, type Catalogue } from '../src/policies/catalogue.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { decodeEntry, unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { readSchedule, readServerTime } from '../src/redis/schedule-store.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { Close, Closed, onClose } from './fixtures/closing/closing.ts'
import { testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { until } from './support/until.ts'

const ROOT = join(import.meta.dir, '..')
const KEYS = partitionKeys('main', 0)
const tick = defineCommand({ type: 'clock.tick', payload: z.object({ version: z.string() }) })

/** Looks come often here, so that a test need not wait for 15 s of silence. */
const REGISTER_EVERY_MS = 250

function deployment(version: string, timing: object): Catalogue {
  const all = { name: 'rolling', command: tick, payload: { version }, catchUp: 'all', ...timing }
  return buildCatalogue([tick, defineSchedule(all as never)])
}

interface Deployed extends AsyncDisposable {
  readonly telemetry: RecordedTelemetry
  readonly fired: () => number
}

async function deploy(command: RedisLink, catalogue: Catalogue): Promise<Deployed> {
  const telemetry = new RecordedTelemetry()
  const parts = { command, catalogue, clock: SYSTEM_CLOCK, telemetry, registerEveryMs: REGISTER_EVERY_MS }
  const scheduler = new CronScheduler(parts)
  await scheduler.start()
  return {
    telemetry,
    fired: () => telemetry.of('schedule.fired').length,
    [Symbol.asyncDispose]: () => scheduler.stop(),
  }
}

async function ranBy(link: RedisLink): Promise<{ version: string; tickMs: number }[]> {
  const rows = await link.client.xrangeBuffer(KEYS.ready, '-', '+')
  return rows.map(([, fields]) => {
    const entry = decodeEntry(fields[1] ?? Buffer.alloc(0))
    return { ...(unpackPayloadOf(entry) as { version: string }), tickMs: entry.tickMs ?? 0 }
  })
}

test('a rolling deployment, its rollback and a third one: never two definitions at once, no tick twice', async () => {
  await using redis = await startTestRedis()
  const link = await redis.open()
  const open = () => redis.open()
  const [first, second] = [deployment('1', { every: 100 }), deployment('2', { every: 150 })]
  const old = [await deploy(await open(), first), await deploy(await open(), first)]
  await until('the first one to tick', () => old.reduce((sum, one) => sum + one.fired(), 0) >= 5)

  // Both run side by side for many rounds: the newer holds.
  const fresh = [await deploy(await open(), second)]
  for (const one of old) await one.telemetry.until('alarm.raised')
  const stopped = old.map((one) => one.fired())
  await until('the second one to tick', () => (fresh[0]?.fired() ?? 0) >= 10)
  expect(old.map((one) => one.fired())).toEqual(stopped)

  // Rolled back: the second's scheduler goes, and the first takes the schedule up again by itself.
  await fresh[0]?.[Symbol.asyncDispose]()
  await until('the first one to tick again', () => old.some((one, i) => one.fired() >= (stopped[i] ?? 0) + 5))
  expect(old.map((one) => one.telemetry.of('alarm.raised').length)).toEqual([1, 1])

  // Only the time zone changes; it is another timetable, so nothing of the past is due by it.
  const changedMs = await readServerTime(link)
  const third = await deploy(await open(), deployment('3', { cron: '* * * * *', timeZone: 'Asia/Kolkata' }))
  const fourth = await deploy(await open(), deployment('4', { cron: '* * * * *', timeZone: 'Asia/Tokyo' }))
  await third.telemetry.until('alarm.raised')
  const { watermarkMs = 0 } = await readSchedule(link, KEYS, 'rolling')
  expect(watermarkMs).toBeGreaterThanOrEqual(changedMs)
  expect(third.fired() + fourth.fired()).toBeLessThanOrEqual(1)
  for (const one of [...old, third, fourth]) await one[Symbol.asyncDispose]()

  const ran = await ranBy(link)
  const ticks = ran.map(({ tickMs }) => tickMs)
  expect(ticks).toEqual(ticks.toSorted((a, b) => a - b))
  expect(new Set(ticks).size).toBe(ticks.length)
  const turns = ran.map(({ version }) => version).filter((version, i, all) => version !== all[i - 1])
  expect(turns.slice(0, 3)).toEqual(['1', '2', '1'])
}, 60_000)

const STEPS = 'steps of the clock of Redis do not hand a schedule back to the definition that was replaced'

test.skipIf(SHIM_MISSING !== undefined)(
  SHIM_MISSING === undefined ? STEPS : `${STEPS} (skipped: ${SHIM_MISSING})`,
  async () => {
    await using clock = await steppedClock()
    await using redis = await startTestRedis([], clock.env)
    const link = await redis.open()
    await using old = await deploy(await redis.open(), deployment('1', { every: 100 }))
    await until('the first one to tick', () => old.fired() > 0)
    await using fresh = await deploy(await redis.open(), deployment('2', { every: 150 }))
    await old.telemetry.until('alarm.raised')
    const stopped = old.fired()
    for (const aheadMs of [60_000, 120_000, 180_000]) {
      await clock.step(aheadMs)
      const seen = fresh.fired()
      await until('the second one to go on', () => fresh.fired() > seen + 405)
    }
    await clock.step(180_000 - 3_600_000)
    await fresh.telemetry.until('alarm.raised')
    const backMs = await readServerTime(link)
    await until('eight looks', async () => (await readServerTime(link)) > backMs + 8 * REGISTER_EVERY_MS)
    expect(old.fired()).toBe(stopped)
    expect(old.telemetry.of('alarm.raised').map(({ alarm }) => alarm)).toContain('schedule-superseded')
    expect(fresh.telemetry.of('alarm.raised').map(({ alarm }) => alarm)).toEqual(['schedule-clock-behind'])
  },
  60_000,
)

test('runs that must not overlap do not when a worker dies in one: the next tick waits for its second run', async () => {
  await using redis = await startTestRedis(['--appendfsync', 'everysec'])
  const schedule = defineSchedule({
    ...{
      name: 'closing',
      command: Close,
      payload: { folder: redis.directory },
      every: 100,
      overlap: 'forbid',
    },
  })
  const fleet = await testFleet(redis, [Close, Closed, onClose, schedule])
  const workers: Subprocess[] = []
  const work = () =>
    workers.push(
      Bun.spawn(
        [process.execPath, 'src/cli/main.ts', 'start', 'work', '--redis-url', redis.url, '--admin-port', '0'],
        {
          cwd: ROOT,
          env: { ...Bun.env, MILLRACE_WORKERS_DIR: join(ROOT, 'test/fixtures/closing'), LOG_LEVEL: 'silent' },
          stdio: ['ignore', 'ignore', 'ignore'],
        },
      ),
    )
  const { link: command, catalogue, telemetry } = fleet
  await using scheduler = new CronScheduler({ command, catalogue, clock: SYSTEM_CLOCK, telemetry })
  try {
    work()
    work()
    await scheduler.start()
    await until('four runs', async () => (await fleet.events('closing')).length >= 4)
    await scheduler.stop()
  } finally {
    for (const worker of workers) worker.kill('SIGKILL')
    await Promise.all(workers.map((worker) => worker.exited))
  }
  const crashedTick = Number(readFileSync(join(redis.directory, 'crashed'), 'utf8'))
  const runs = (await fleet.events('closing')).map(
    ({ entry }) => unpackPayloadOf(entry) as { tickMs: number; startedMs: number; endedMs: number },
  )
  expect(workers.filter((worker) => worker.signalCode === 'SIGKILL').length).toBe(2)
  expect(runs[0]?.tickMs).toBe(crashedTick)
  for (const [i, run] of runs.entries()) {
    if (i > 0) expect(run.startedMs).toBeGreaterThanOrEqual(runs[i - 1]?.endedMs ?? 0)
    if (i > 0) expect(run.tickMs).toBeGreaterThan(runs[i - 1]?.tickMs ?? 0)
  }
  const state = await readSchedule(fleet.link, partitionKeys('closing', 0), 'closing')
  expect(state.overlapped.reduce((sum, { count }) => sum + count, 0)).toBe(state.overlappedCount)
  expect(state.overlappedCount).toBeGreaterThan(10)
}, 60_000)
