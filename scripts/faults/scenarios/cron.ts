/**
 * A schedule of ten ticks a second, six schedulers, two of them with clocks an hour off, kills and pauses, and a Redis whose
 * clock is set forward by a minute and back by an hour. Judged by Redis's time.
 */
import { clockOff, FAKETIME_MISSING, SHIM_MISSING, steppedClock } from '../../fleet/clock-shim.ts'
import type { Arena } from '../arena.ts'
import { sumHandlerCalls } from '../handler-calls.ts'
import { strikeRole } from '../role-strikes.ts'
import type { Scenario } from '../scenario.ts'
import { alarmsRaised } from '../verdicts.ts'
import { plainType, Workload } from '../workload.ts'

const PERIOD_MS = 100
const HOUR_MS = 3_600_000
const FORWARD_MS = 60_000
const SCHEDULERS_MS = [0, 0, 0, 0, HOUR_MS, -HOUR_MS]
/** When Redis's clock is set, as parts of the time. */
const FORWARD_AT = 0.4
const SILENCE_MS = 3000
const CAUGHT_UP_MS = 2000
const CATCH_UP_LIMIT_MS = 60_000
/** Ticks of two days, for the table of calls. */
const ROWS = 2_000_000

export const cron: Scenario = {
  name: 'cron',
  promise:
    'every 100 ms, six schedulers, kills, pauses, clocks off, Redis stepped: double 0, missed 0, wrong hour 0',
  full: { commands: 0, seconds: 100, workerKills: 20, pauses: 20, redisKills: 0, rounds: 1000 },
  skip: async () => SHIM_MISSING,
  async run(arena) {
    const clock = await steppedClock()
    arena.onClose(async () => await clock[Symbol.asyncDispose]())
    if (FAKETIME_MISSING !== undefined)
      arena.skipped.push(`cron: schedulers with clocks off (${FAKETIME_MISSING})`)
    const workload = new Workload({ rows: ROWS, keys: 1, bodyRows: 1, typeOf: plainType })
    await arena.open({
      ...{ workload, workers: 1, app: 'ticks', streams: ['ticks'], projectors: 0 },
      redis: { environment: clock.env },
    })
    const startedAtMs = await redisTime(arena)
    const environments = new Map<string, Readonly<Record<string, string>>>()
    const start = async (aheadMs: number): Promise<void> => {
      const environment = clockOff(aheadMs)
      const process = await arena.fleet.start('schedule', { environment })
      environments.set(process.name, environment)
    }
    await Promise.all(SCHEDULERS_MS.map(start))
    const { seconds } = arena.size
    const steps = async (): Promise<void> => {
      await Bun.sleep(seconds * 1000 * FORWARD_AT)
      await clock.step(FORWARD_MS)
    }
    const replace = async (victim: { readonly name: string }): Promise<void> => {
      const environment = environments.get(victim.name) ?? {}
      const process = await arena.fleet.start('schedule', { environment })
      environments.set(process.name, environment)
    }
    await arena.guard(Promise.all([strikeRole(arena, 'schedule', replace, seconds * 0.9), steps()]))
    await untilCaughtUp(arena)
    const silent = await stepBack(arena, clock)
    await untilCaughtUp(arena)
    judgeTicks(arena, await readTicks(arena), { startedAtMs, nowMs: await redisTime(arena), silent })
  },
}

/** Sets Redis an hour back for a while. Answers how many ticks were fired meanwhile. */
async function stepBack(
  arena: Arena,
  clock: { readonly aheadMs: number; step(aheadMs: number): Promise<void> },
): Promise<number> {
  const ahead = clock.aheadMs
  await clock.step(ahead - HOUR_MS)
  // What was on its way when the clock was set may still arrive.
  await Bun.sleep(500)
  const before = (await readTicks(arena)).length
  await Bun.sleep(SILENCE_MS)
  const after = (await readTicks(arena)).length
  await clock.step(ahead)
  return after - before
}

interface Facts {
  readonly startedAtMs: number
  readonly nowMs: number
  /** Ticks that were fired while Redis's clock was behind. */
  readonly silent: number
}

function judgeTicks(arena: Arena, fired: readonly number[], { startedAtMs, nowMs, silent }: Facts): void {
  const distinct = new Set(fired)
  const [first, last] = [Math.min(...distinct), Math.max(...distinct)]
  const expected = Math.round((last - first) / PERIOD_MS) + 1
  const missed = expected - distinct.size
  const doubled = fired.length - distinct.size
  const wrong = [...distinct].filter((tickMs) => tickMs > nowMs || tickMs < startedAtMs - PERIOD_MS).length
  const uneven = [...distinct].filter((tickMs) => tickMs % PERIOD_MS !== 0).length
  const alarms = alarmsRaised(arena.fleet)
  arena.check(
    distinct.size >= arena.size.rounds,
    `${distinct.size} ticks came about, not ${arena.size.rounds}`,
  )
  arena.check(missed === 0, `${missed} of ${expected} ticks were missed`)
  arena.check(doubled === 0, `${doubled} ticks were fired twice`)
  arena.check(wrong + uneven === 0, `${wrong + uneven} ticks of an hour that was not`)
  arena.check(silent === 0, `${silent} ticks were fired while the clock was behind the last one`)
  arena.check((alarms['schedule-clock-behind'] ?? 0) > 0, 'no alarm told of the clock that went back')
  const calls = sumHandlerCalls(arena.fleet.journalsFolder, ROWS, [], arena.baseMs)
  arena.check(calls.calls > 0, 'no handler call was written down: nothing was tested')
  arena.figures = {
    accepted: expected,
    done: distinct.size,
    lost: missed,
    duplicateEffects: doubled,
    handlerCalls: calls.calls,
    duplicateHandlerCalls: calls.duplicates,
  }
  Object.assign(arena.details, { expected, missed, doubled, wrongHour: wrong, alarms })
}

/** Until the newest tick lies close to Redis's time. */
async function untilCaughtUp(arena: Arena): Promise<void> {
  const isNear = async (): Promise<boolean> => {
    const newest = Math.max(0, ...(await readTicks(arena)))
    return (await redisTime(arena)) - newest < CAUGHT_UP_MS
  }
  arena.check(await arena.guard(arena.until(isNear, CATCH_UP_LIMIT_MS, 500)), 'the ticks never caught up')
}

async function readTicks(arena: Arena): Promise<number[]> {
  const found: number[] = []
  for (const place of arena.places) {
    for await (const page of arena.probe.events(place)) for (const { row } of page) found.push(row)
  }
  return found
}

async function redisTime(arena: Arena): Promise<number> {
  const [seconds, micros] = (await arena.probe.send('TIME', [])) as string[]
  return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
}
