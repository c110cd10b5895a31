/**
 * When a schedule ticks. Pure: a timetable and a time in, ticks out.
 *
 * `every` ticks on the multiples of its period since 1970. Cron is Bun's parser, always with a time zone named: without
 * one it would silently use the machine's. At a change of clocks it follows the old cron: a local time that does not exist
 * runs once, shifted by the gap (several in one gap run once); a fixed local time that comes twice runs the first time; with
 * a wildcard for minute or hour it runs both.
 */
import { describeError, MillraceError } from '../contracts/errors.ts'
import { nearest } from '../contracts/names.ts'
import type { Timetable } from '../contracts/schedule.ts'

/** Ticks walked through in one call, so that a timetable can't hold the event loop for long (about 0.2 s of cron). */
export const WALK_COUNT_MAX = 200_000

/**
 * Refuses what never ticks or can't be read.
 *
 * @throws MillraceError `definition.invalid`
 */
export function checkTimetable(name: string, timetable: Timetable): void {
  if (timetable.kind === 'every') return
  const { expression, timeZone } = timetable
  checkTimeZone(name, timeZone)
  const fields = expression.trim().split(/\s+/)
  if (fields.length === 6) {
    throw invalid(
      name,
      `"${expression}" has six fields; use five (minute hour day month weekday). For a period in seconds write every: 5000 instead of cron.`,
    )
  }
  if (fields.length !== 5 && !expression.trim().startsWith('@')) {
    const count = expression.trim() === '' ? 0 : fields.length
    throw invalid(
      name,
      `"${expression}" has ${count} fields; use five (minute hour day month weekday), such as "0 3 * * *".`,
    )
  }
  let first: number | undefined
  try {
    first = nextTick(timetable, 0)
  } catch (error) {
    throw invalid(name, `"${expression}" is not a cron expression: ${describeError(error, 200)}.`)
  }
  if (first === undefined)
    throw invalid(name, `"${expression}" never ticks; is there such a day in that month?`)
}

function checkTimeZone(name: string, timeZone: string): void {
  try {
    Bun.cron.parse('0 0 * * *', 0, { tz: timeZone })
  } catch {
    const near = nearest(timeZone, Intl.supportedValuesOf('timeZone'))
    const hint = near === undefined ? 'Use an IANA name such as "Europe/Berlin".' : `Did you mean "${near}"?`
    throw invalid(name, `there is no time zone "${timeZone}". ${hint}`)
  }
}

function invalid(name: string, sentence: string): MillraceError {
  return new MillraceError('definition.invalid', `Schedule "${name}": ${sentence}`)
}

/** The first tick after `afterMs`; undefined when there is none. */
export function nextTick(timetable: Timetable, afterMs: number): number | undefined {
  if (timetable.kind === 'every') {
    return (Math.floor(afterMs / timetable.periodMs) + 1) * timetable.periodMs
  }
  // The parser tells a shifted tick only to who asks from before the gap; the answer must not depend on who asks when.
  if (aheadOfUtcMs(timetable.timeZone, afterMs) > aheadOfUtcMs(timetable.timeZone, afterMs - GAP_MS_MAX)) {
    let tick = cronAfter(timetable, afterMs - GAP_MS_MAX)
    while (tick !== undefined && tick <= afterMs) tick = cronAfter(timetable, tick)
    return tick
  }
  return cronAfter(timetable, afterMs)
}

type CronTimetable = Extract<Timetable, { kind: 'cron' }>

/** No zone has ever skipped more than a day (Samoa, 2011). */
const GAP_MS_MAX = 86_400_000

function cronAfter({ expression, timeZone }: CronTimetable, afterMs: number): number | undefined {
  return Bun.cron.parse(expression, afterMs, { tz: timeZone })?.getTime()
}

const zoneFormats = new Map<string, Intl.DateTimeFormat>()

/** How far a zone's wall clock is ahead of UTC at a time. */
function aheadOfUtcMs(timeZone: string, atMs: number): number {
  let format = zoneFormats.get(timeZone)
  if (format === undefined) {
    format = new Intl.DateTimeFormat('en-US', { timeZone, timeZoneName: 'longOffset' })
    zoneFormats.set(timeZone, format)
  }
  // Such as "1/1/2026, GMT-03:30"; plain "GMT" is no offset. Zones of the 19th century have seconds too.
  const match = /GMT([+-])(\d+):(\d+)/.exec(format.format(atMs))
  if (match === null) return 0
  const [, sign, hours, minutes] = match
  return (sign === '-' ? -1 : 1) * (Number(hours) * 60 + Number(minutes)) * 60_000
}

/** The tick after another one: a tick never lies where the parser's answer depends on who asks. */
function tickAfterTick(timetable: Timetable, tickMs: number): number | undefined {
  return timetable.kind === 'every' ? tickMs + timetable.periodMs : cronAfter(timetable, tickMs)
}

/** The next `count` ticks after `afterMs`. */
export function nextTicks(timetable: Timetable, afterMs: number, count: number): number[] {
  const ticks: number[] = []
  let tick = nextTick(timetable, afterMs)
  while (tick !== undefined && ticks.length < count) {
    ticks.push(tick)
    tick = tickAfterTick(timetable, tick)
  }
  return ticks
}

/** The ticks after one time up to and including another. */
export interface DueTicks {
  readonly count: number
  /** The newest of them, ascending, at most as many as asked for. */
  readonly newest: readonly number[]
  /** False when the walk stopped at `WALK_COUNT_MAX`: there are more up to that time. */
  readonly complete: boolean
}

export function dueTicks(
  timetable: Timetable,
  afterMs: number,
  untilMs: number,
  newestCountMax: number,
): DueTicks {
  return timetable.kind === 'every'
    ? multiplesBetween(timetable.periodMs, afterMs, untilMs, newestCountMax)
    : walk(timetable, afterMs, untilMs, newestCountMax)
}

function multiplesBetween(
  periodMs: number,
  afterMs: number,
  untilMs: number,
  newestCountMax: number,
): DueTicks {
  const last = Math.floor(untilMs / periodMs)
  const count = Math.max(0, last - Math.floor(afterMs / periodMs))
  const kept = Math.min(count, newestCountMax)
  const newest = Array.from({ length: kept }, (_, i) => (last - kept + 1 + i) * periodMs)
  return { count, newest, complete: true }
}

function walk(timetable: CronTimetable, afterMs: number, untilMs: number, newestCountMax: number): DueTicks {
  const ring: number[] = []
  let count = 0
  let tick = nextTick(timetable, afterMs)
  while (tick !== undefined && tick <= untilMs && count < WALK_COUNT_MAX) {
    ring[count % newestCountMax] = tick
    count += 1
    tick = tickAfterTick(timetable, tick)
  }
  const split = count % newestCountMax
  const newest = count <= newestCountMax ? ring : [...ring.slice(split), ...ring.slice(0, split)]
  return { count, newest, complete: tick === undefined || tick > untilMs }
}
