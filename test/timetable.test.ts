/** When schedules tick: refusals in plain words, changes of clocks, catch-up, and properties that hold for any timetable. */
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { z } from 'zod'
import { defineCommand } from '../src/contracts/command.ts'
import { errorCode } from '../src/contracts/errors.ts'
import { defineSchedule, type Timetable } from '../src/contracts/schedule.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { ON_TIME_MS, planTicks } from '../src/policies/catch-up.ts'
import { checkTimetable, dueTicks, nextTick, nextTicks, WALK_COUNT_MAX } from '../src/policies/timetable.ts'

const every = (periodMs: number): Timetable => ({ kind: 'every', periodMs })
const cron = (expression: string, timeZone = 'UTC'): Timetable => ({ kind: 'cron', expression, timeZone })
const utc = (text: string): number => Date.parse(`${text}Z`)
const shown = (ticks: readonly number[]): string[] =>
  ticks.map((tick) => new Date(tick).toISOString().slice(0, 16))

function refusal(timetable: Timetable): string {
  try {
    checkTimetable('nightly', timetable)
  } catch (error) {
    expect(errorCode(error)).toBe('definition.invalid')
    return (error as Error).message
  }
  return 'accepted'
}

describe('what is refused, and what it says', () => {
  test('six fields, with the way to say seconds', () => {
    expect(refusal(cron('*/5 * * * * *'))).toContain('six fields; use five (minute hour day month weekday)')
    expect(refusal(cron('*/5 * * * * *'))).toContain('every: 5000')
  })
  test('four fields, or none', () => {
    expect(refusal(cron('* * * *'))).toContain('has 4 fields; use five')
    expect(refusal(cron(' '))).toContain('has 0 fields')
  })
  test('values out of range, and words nobody knows', () => {
    expect(refusal(cron('61 * * * *'))).toContain('is not a cron expression')
    expect(refusal(cron('@reboot'))).toContain('is not a cron expression')
    expect(refusal(cron('H 3 * * *'))).toContain('is not a cron expression')
  })
  test('a day that no month has', () => {
    expect(refusal(cron('0 0 30 2 *'))).toContain('never ticks')
  })
  test('a time zone that does not exist, with the one that was meant', () => {
    expect(refusal(cron('0 3 * * *', 'Europe/Berlln'))).toContain('Did you mean "Europe/Berlin"?')
    expect(refusal(cron('0 3 * * *', ''))).toContain('Use an IANA name')
    expect(refusal(cron('0 3 * * *', '+02:00'))).toContain('no time zone "+02:00"')
  })
  test('what is usable is taken', () => {
    for (const expression of [
      '0 3 * * *',
      '@daily',
      '*/5 9-17 * * MON-FRI',
      '0 0 29 2 *',
      '  0   3 * * * ',
    ]) {
      expect(refusal(cron(expression, 'Europe/Berlin'))).toBe('accepted')
    }
    expect(refusal(every(100))).toBe('accepted')
  })
  test('a catalogue with such a schedule is refused at start', () => {
    const command = defineCommand({ type: 'tidy', payload: z.object({}) })
    const nightly = defineSchedule({ name: 'nightly', command, payload: {}, cron: '0 3 * * * *' })
    expect(() => buildCatalogue([command, nightly])).toThrow('six fields')
  })
})

describe('changes of clocks in Europe/Berlin', () => {
  const berlin = (expression: string) => cron(expression, 'Europe/Berlin')

  test('in spring a time that does not exist runs once, an hour later on the wall', () => {
    // 2026-03-29: 02:00 becomes 03:00.
    expect(shown(nextTicks(berlin('30 2 * * *'), utc('2026-03-28T12:00'), 2))).toEqual([
      '2026-03-29T01:30',
      '2026-03-30T00:30',
    ])
  })
  test('in spring the shifted tick is there also for who asks after the change', () => {
    for (const from of ['2026-03-29T01:00', '2026-03-29T01:10', '2026-03-29T01:29']) {
      expect(shown(nextTicks(berlin('30 2 * * *'), utc(from), 1))).toEqual(['2026-03-29T01:30'])
    }
    expect(shown(nextTicks(berlin('30 2 * * *'), utc('2026-03-29T01:30'), 1))).toEqual(['2026-03-30T00:30'])
  })
  test('in spring every hour that exists runs once', () => {
    expect(shown(nextTicks(berlin('0 * * * *'), utc('2026-03-29T00:00') - 1, 3))).toEqual([
      '2026-03-29T00:00',
      '2026-03-29T01:00',
      '2026-03-29T02:00',
    ])
  })
  test('in autumn a fixed time that comes twice runs the first time only, from wherever one looks', () => {
    // 2026-10-25: 03:00 becomes 02:00.
    for (const from of ['2026-10-25T00:30', '2026-10-25T00:45', '2026-10-25T01:29', '2026-10-25T01:30']) {
      expect(shown(nextTicks(berlin('30 2 * * *'), utc(from), 1))).toEqual(['2026-10-26T01:30'])
    }
    expect(shown(nextTicks(berlin('30 2 * * *'), utc('2026-10-24T12:00'), 1))).toEqual(['2026-10-25T00:30'])
  })
  test('in autumn every hour runs, the doubled one twice', () => {
    expect(shown(nextTicks(berlin('0 * * * *'), utc('2026-10-25T00:00') - 1, 3))).toEqual([
      '2026-10-25T00:00',
      '2026-10-25T01:00',
      '2026-10-25T02:00',
    ])
  })
  test('the time zone of the machine does not matter', () => {
    const code = `import { nextTick } from ${JSON.stringify(`${import.meta.dir}/../src/policies/timetable.ts`)}
      console.log(nextTick({ kind: 'cron', expression: '0 3 * * *', timeZone: 'UTC' }, 0))`
    for (const TZ of ['America/New_York', 'Asia/Kolkata']) {
      const child = Bun.spawnSync([process.execPath, '-e', code], { env: { ...Bun.env, TZ } })
      expect(child.stdout.toString().trim()).toBe(String(3 * 3_600_000))
    }
  })
})

const anyCron = fc
  .tuple(
    fc.oneof(
      fc.constant('*'),
      fc.integer({ min: 0, max: 59 }).map(String),
      fc.constantFrom('*/7', '0,30', '15-20'),
    ),
    fc.oneof(
      fc.constant('*'),
      fc.integer({ min: 0, max: 23 }).map(String),
      fc.constantFrom('1-4', '*/6', '2,3'),
    ),
    fc.oneof(fc.constant('*'), fc.integer({ min: 1, max: 31 }).map(String)),
    fc.constantFrom('*', '3', '10', '3-11'),
    fc.constantFrom('*', '0', '1-5'),
  )
  .map((fields) => fields.join(' '))
const anyZone = fc.constantFrom(
  'UTC',
  'Europe/Berlin',
  'America/New_York',
  'Asia/Kolkata',
  'Australia/Lord_Howe',
)
const anyTimetable: fc.Arbitrary<Timetable> = fc.oneof(
  fc.integer({ min: 100, max: 366 * 86_400_000 }).map(every),
  fc.tuple(anyCron, anyZone).map(([expression, zone]) => cron(expression, zone)),
)
/** Around now, and densely around the changes of clocks. */
const anyTime = fc.oneof(
  fc.integer({ min: utc('2020-01-01T00:00'), max: utc('2040-01-01T00:00') }),
  fc
    .constantFrom('2026-03-29T01:00', '2026-10-25T01:00', '2026-03-08T07:00', '2026-11-01T06:00')
    .chain((change) => fc.integer({ min: utc(change) - 3 * 3_600_000, max: utc(change) + 3 * 3_600_000 })),
)

describe('for any timetable and time', () => {
  test('the next tick is later than the time asked for', () => {
    fc.assert(
      fc.property(anyTimetable, anyTime, (timetable, afterMs) => {
        const tick = nextTick(timetable, afterMs)
        return tick === undefined || (tick > afterMs && Number.isInteger(tick))
      }),
      { numRuns: 1000 },
    )
  })
  test('the ticks do not depend on where one starts to look', () => {
    fc.assert(
      fc.property(
        anyTimetable,
        anyTime,
        fc.double({ min: 0, max: 0.999, noNaN: true }),
        (timetable, afterMs, part) => {
          const tick = nextTick(timetable, afterMs)
          if (tick === undefined) return true
          const between = Math.floor(afterMs + (tick - 1 - afterMs) * part)
          return nextTick(timetable, between) === tick
        },
      ),
      { numRuns: 2000 },
    )
  })
  test('what is due is what one meets by going from tick to tick', () => {
    fc.assert(
      fc.property(
        anyTimetable,
        anyTime,
        fc.integer({ min: 0, max: 40 }),
        fc.integer({ min: 1, max: 10 }),
        (timetable, afterMs, steps, kept) => {
          const ticks = nextTicks(timetable, afterMs, steps)
          const untilMs = ticks.at(-1) ?? afterMs
          const due = dueTicks(timetable, afterMs, untilMs, kept)
          expect(due).toEqual({ count: ticks.length, newest: ticks.slice(-kept), complete: true })
        },
      ),
      { numRuns: 500 },
    )
  })
  test('every due tick either runs or is counted as missed, in order', () => {
    fc.assert(
      fc.property(
        anyTimetable,
        anyTime,
        fc.integer({ min: 0, max: 30 }),
        fc.constantFrom('skip', 'latest', 'all'),
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 0, max: 20_000 }),
        (timetable, afterMs, steps, catchUp, catchUpCountMax, lateMs) => {
          const last = nextTicks(timetable, afterMs, steps).at(-1) ?? afterMs
          const nowMs = last + lateMs
          const due = dueTicks(timetable, afterMs, nowMs, 1000)
          const plan = planTicks({ timetable, catchUp, catchUpCountMax }, afterMs, nowMs)
          if (due.count === 0) return plan === undefined
          if (plan === undefined) return false
          expect(plan.missed.count + plan.run.length).toBe(due.count)
          const left = due.newest.slice(0, plan.missed.count)
          if (left.length > 0)
            expect([plan.missed.firstMs, plan.missed.lastMs]).toEqual([left[0], left.at(-1)] as never)
          expect([...plan.run]).toEqual(plan.run.length === 0 ? [] : due.newest.slice(-plan.run.length))
          expect(plan.run.length).toBeLessThanOrEqual(catchUp === 'all' ? catchUpCountMax : 1)
          if (plan.run.length === 0) expect(plan.missedThroughMs).toBe(due.newest.at(-1))
          if (catchUp !== 'skip') expect(plan.run.at(-1)).toBe(due.newest.at(-1))
          return true
        },
      ),
      { numRuns: 500 },
    )
  })
})

describe('catch-up', () => {
  const hourly = cron('0 * * * *')
  const from = utc('2026-01-01T00:00')

  test('skip runs a tick that is a few seconds late, and none that was missed', () => {
    const schedule = { timetable: hourly, catchUp: 'skip', catchUpCountMax: 1000 } as const
    const tick = utc('2026-01-01T05:00')
    expect(planTicks(schedule, from, tick + ON_TIME_MS)).toMatchObject({ missed: { count: 4 }, run: [tick] })
    expect(planTicks(schedule, from, tick + ON_TIME_MS + 1)).toMatchObject({
      missed: { count: 5, firstMs: from + 3_600_000, lastMs: tick },
      missedThroughMs: tick,
      run: [],
    })
  })
  test('years of a minutely cron are left out in bounded steps that lose no count', () => {
    const schedule = { timetable: cron('* * * * *'), catchUp: 'all', catchUpCountMax: 10 } as const
    const nowMs = from + 450_000 * 60_000
    let watermarkMs = from
    let missed = 0
    let steps = 0
    for (;;) {
      const plan = planTicks(schedule, watermarkMs, nowMs)
      if (plan === undefined) throw new Error('nothing is due')
      missed += plan.missed.count
      steps += 1
      if (plan.run.length > 0) {
        expect(plan.run.length).toBe(10)
        expect(plan.run.at(-1)).toBe(nowMs)
        break
      }
      watermarkMs = plan.missedThroughMs ?? Number.NaN
    }
    expect(missed + 10).toBe(450_000)
    expect(steps).toBe(Math.ceil(450_000 / WALK_COUNT_MAX))
  })
})
