/**
 * What to do about the ticks that are due: which run, which are left out and counted as missed. Pure.
 *
 * A tick is missed when a newer one is due as well, and, under `skip`, also when it is late by more than a few seconds:
 * so late comes only a fleet in which no scheduler ran. Under `all` the newest `catchUpCountMax` ticks run, oldest first.
 */
import type { ScheduleDefinition } from '../contracts/schedule.ts'
import { dueTicks, nextTick } from './timetable.ts'

/** A tick that is at most this late runs under `skip`: a reconnect or a restart of Redis does not make it a missed one. */
export const ON_TIME_MS = 5000

/** Neighbouring ticks that were left out. */
export interface MissedTicks {
  readonly count: number
  /** Zero when there is none. */
  readonly firstMs: number
  readonly lastMs: number
}

export const NONE_MISSED: MissedTicks = { count: 0, firstMs: 0, lastMs: 0 }

export interface TickPlan {
  /** The watermark this plan was made for. */
  readonly afterMs: number
  /** Ticks left out before the first that runs. */
  readonly missed: MissedTicks
  /** The newest of them, when none runs: the watermark moves to it. */
  readonly missedThroughMs: number | undefined
  /** Ticks that run, ascending. */
  readonly run: readonly number[]
}

type CatchUp = Pick<ScheduleDefinition, 'timetable' | 'catchUp' | 'catchUpCountMax'>

/** Undefined when nothing is due. */
export function planTicks(schedule: CatchUp, watermarkMs: number, nowMs: number): TickPlan | undefined {
  const { timetable, catchUp, catchUpCountMax } = schedule
  const runMax = catchUp === 'all' ? catchUpCountMax : 1
  const due = dueTicks(timetable, watermarkMs, nowMs, runMax + 1)
  const newestMs = due.newest.at(-1)
  if (newestMs === undefined) return undefined
  const missedThrough = (count: number, lastMs: number): MissedTicks => ({
    count,
    firstMs: nextTick(timetable, watermarkMs) ?? lastMs,
    lastMs,
  })
  const leaveOut = (count: number, lastMs: number): TickPlan => ({
    afterMs: watermarkMs,
    missed: missedThrough(count, lastMs),
    missedThroughMs: lastMs,
    run: [],
  })
  const [oldestMs = newestMs] = due.newest
  if (!due.complete) return leaveOut(due.count - runMax, oldestMs)
  if (catchUp === 'skip' && nowMs - newestMs > ON_TIME_MS) return leaveOut(due.count, newestMs)
  const run = due.newest.slice(-runMax)
  const missed = due.count > run.length ? missedThrough(due.count - run.length, oldestMs) : NONE_MISSED
  return { afterMs: watermarkMs, missed, missedThroughMs: undefined, run }
}
