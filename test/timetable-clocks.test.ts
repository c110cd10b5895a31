/**
 * Ticks around changes of clocks, held against a calculation that shares nothing with the product: every minute of several
 * days is written out by Intl in the zone's own words, and the three rules of the old cron are applied to what is read.
 *
 *   a local time that does not exist   runs once, shifted by the gap; several in one gap run once, as the
 *                                      first of them, and what lies between the change and that one is left out
 *   a local time that comes twice      runs the first time only, unless minute or hour is `*`: then both
 *   day and weekday both given         either is enough
 */
import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { dueTicks, nextTick, nextTicks } from '../src/policies/timetable.ts'

const MINUTE_MS = 60_000

interface Minute {
  readonly utcMs: number
  /** The wall's reading, as minutes since 1970 of a zone without changes. */
  readonly wall: number
}

interface Change {
  readonly zone: string
  readonly what: string
  readonly minutes: readonly Minute[]
}

function minutesOf(zone: string, fromMs: number, hours: number): Minute[] {
  const format = new Intl.DateTimeFormat('en-US', {
    ...{ timeZone: zone, hourCycle: 'h23', year: 'numeric', month: 'numeric', day: 'numeric' },
    ...{ hour: 'numeric', minute: 'numeric' },
  })
  return Array.from({ length: hours * 60 }, (_, i) => {
    const utcMs = fromMs + i * MINUTE_MS
    const read = Object.fromEntries(
      format.formatToParts(utcMs).map(({ type, value }) => [type, Number(value)]),
    )
    const { year = 0, month = 0, day = 0, hour = 0, minute = 0 } = read
    return { utcMs, wall: Date.UTC(year, month - 1, day, hour, minute) / MINUTE_MS }
  })
}

/** Zone, what its clocks do, and the UTC day on which they do it. */
const CHANGES: readonly (readonly [string, string, string])[] = [
  ['Europe/Berlin', 'an hour skipped', '2026-03-29'],
  ['Europe/Berlin', 'an hour twice', '2026-10-25'],
  ['America/New_York', 'an hour skipped', '2026-03-08'],
  ['America/New_York', 'an hour twice', '2026-11-01'],
  ['Australia/Lord_Howe', 'half an hour skipped', '2026-10-03'],
  ['Australia/Lord_Howe', 'half an hour twice', '2026-04-04'],
  ['Pacific/Chatham', 'an hour skipped, at a quarter to', '2026-09-26'],
  ['Pacific/Chatham', 'an hour twice, at a quarter to', '2026-04-04'],
  ['America/Santiago', 'midnight skipped', '2026-09-06'],
  ['America/Santiago', 'the hour before midnight twice', '2026-04-05'],
  ['Antarctica/Troll', 'two hours skipped', '2026-03-29'],
  ['Antarctica/Troll', 'two hours twice', '2026-10-25'],
  ['Asia/Kolkata', 'nothing', '2026-03-29'],
  ['Pacific/Apia', 'a whole day skipped', '2011-12-30'],
]

const changes: readonly Change[] = CHANGES.map(([zone, what, day]) => ({
  zone,
  what,
  minutes: minutesOf(zone, Date.parse(`${day}T00:00Z`) - 36 * 60 * MINUTE_MS, 96),
}))

interface Fields {
  readonly isWild: boolean
  matches(wall: number): boolean
}

function numbersOf(field: string, min: number, max: number): Set<number> {
  const found = new Set<number>()
  for (const part of field.split(',')) {
    const [range = '', step = '1'] = part.split('/')
    const [low = '', high = low] = range === '*' ? [String(min), String(max)] : range.split('-')
    for (let n = Number(low); n <= Number(high); n += Number(step)) found.add(n)
  }
  return found
}

function fieldsOf(expression: string): Fields {
  const [minute = '', hour = '', day = '', month = '', weekday = ''] = expression.split(' ')
  const [minutes, hours] = [numbersOf(minute, 0, 59), numbersOf(hour, 0, 23)]
  const [days, months] = [numbersOf(day, 1, 31), numbersOf(month, 1, 12)]
  const weekdays = numbersOf(weekday, 0, 6)
  return {
    // A range over all values is the wildcard by another name.
    isWild: minutes.size === 60 || hours.size === 24,
    matches: (wall) => {
      const at = new Date(wall * MINUTE_MS)
      const [onDay, onWeekday] = [days.has(at.getUTCDate()), weekdays.has(at.getUTCDay())]
      const either = day !== '*' && weekday !== '*' ? onDay || onWeekday : onDay && onWeekday
      const time = minutes.has(at.getUTCMinutes()) && hours.has(at.getUTCHours())
      return time && either && months.has(at.getUTCMonth() + 1)
    },
  }
}

function expected(expression: string, { minutes }: Change): number[] {
  const { isWild, matches } = fieldsOf(expression)
  const ticks = new Set<number>()
  let highest = Number.NEGATIVE_INFINITY
  let shiftedMs = Number.NEGATIVE_INFINITY
  for (const { utcMs, wall } of minutes) {
    for (let lost = highest + 1; Number.isFinite(highest) && lost < wall; lost++) {
      if (!matches(lost)) continue
      shiftedMs = utcMs + (lost - highest - 1) * MINUTE_MS
      ticks.add(shiftedMs)
      break
    }
    if (utcMs >= shiftedMs && matches(wall) && (wall > highest || isWild)) ticks.add(utcMs)
    highest = Math.max(highest, wall)
  }
  return [...ticks].toSorted((a, b) => a - b)
}

/** The middle part: at the edges the reference can't know what came before. */
function inside(ticks: readonly number[], { minutes }: Change): number[] {
  const [from, to] = [minutes[12 * 60]?.utcMs ?? 0, minutes[84 * 60]?.utcMs ?? 0]
  return ticks.filter((tick) => tick > from && tick <= to)
}

function ticksOf(expression: string, change: Change): number[] {
  const [from, to] = [change.minutes[12 * 60]?.utcMs ?? 0, change.minutes[84 * 60]?.utcMs ?? 0]
  const timetable = { kind: 'cron', expression, timeZone: change.zone } as const
  const { count } = dueTicks(timetable, from, to, 1)
  return nextTicks(timetable, from, count)
}

const shown = (ticks: readonly number[]) => ticks.map((tick) => new Date(tick).toISOString().slice(5, 16))

test.each(changes.map((change) => [change.zone, change.what, change] as const))(
  '%s, %s: fixed times, steps, ranges and wildcards',
  (_zone, _what, change) => {
    for (const expression of [
      ...[
        '0 0 * * *',
        '30 0 * * *',
        '0 1 * * *',
        '45 1 * * *',
        '0 2 * * *',
        '15 2 * * *',
        '30 2 * * *',
        '59 2 * * *',
      ],
      ...[
        '0 3 * * *',
        '50 2 * * *',
        '30 23 * * *',
        '0 * * * *',
        '30 * * * *',
        '15,45 * * * *',
        '*/10 * * * *',
      ],
      ...[
        '* 2 * * *',
        '*/15 2 * * *',
        '*/20 1-3 * * *',
        '0 */2 * * *',
        '0,30 1,2,3 * * *',
        '30 2 * * 0',
        '0 2 29 * 1',
      ],
    ]) {
      expect([expression, ...shown(ticksOf(expression, change))]).toEqual([
        expression,
        ...shown(inside(expected(expression, change), change)),
      ])
    }
  },
)

const anyField = (min: number, max: number): fc.Arbitrary<string> =>
  fc.oneof(
    fc.constant('*'),
    fc.integer({ min, max }).map(String),
    fc
      .tuple(fc.integer({ min, max }), fc.integer({ min, max }))
      .map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`),
    fc.uniqueArray(fc.integer({ min, max }), { minLength: 2, maxLength: 4 }).map((all) => all.join(',')),
  )

test('for any expression, in every one of these zones', () => {
  const seed = Number(Bun.env['MILLRACE_TEST_SEED'] ?? Date.now() % 1_000_000)
  console.log(`changes of clocks: seed ${seed}`)
  fc.assert(
    fc.property(
      fc.constantFrom(...changes.keys()),
      anyField(0, 59),
      fc.oneof(anyField(0, 23), fc.integer({ min: 0, max: 4 }).map(String)),
      fc.constantFrom('*', '*', '*', '29', '25'),
      fc.constantFrom('*', '*', '*', '0', '6'),
      fc.double({ min: 0, max: 0.999, noNaN: true }),
      (at, minute, hour, day, weekday, part) => {
        const change = changes[at]
        if (change === undefined) return
        const expression = `${minute} ${hour} ${day} * ${weekday}`
        const asked = (change.minutes[12 * 60]?.utcMs ?? 0) + part * 72 * 60 * MINUTE_MS
        const told = nextTick({ kind: 'cron', expression, timeZone: change.zone }, Math.floor(asked))
        const right = expected(expression, change).find((tick) => tick > asked)
        if (right !== undefined) expect(shown([told ?? 0])).toEqual(shown([right]))
        expect(shown(ticksOf(expression, change))).toEqual(
          shown(inside(expected(expression, change), change)),
        )
      },
    ),
    { numRuns: 1500, seed },
  )
})
