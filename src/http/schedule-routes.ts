/** Schedules for operators: what ticks when, run one now, pause, resume. */
import type { Hono } from 'hono'
import type { ScheduleReport, Schedules } from '../cron/schedules.ts'
import type { MissedTicks } from '../policies/catch-up.ts'
import { type Answers, jsonResponse } from './answers.ts'
import type { HttpEnv } from './http-env.ts'

export type ScheduleSource = Pick<Schedules, 'list' | 'get' | 'runNow' | 'pause' | 'resume'>

export interface ScheduleRouteParts {
  readonly schedules: ScheduleSource
  readonly answers: Answers
}

export function addScheduleRoutes(app: Hono<HttpEnv>, { schedules, answers }: ScheduleRouteParts): void {
  app.get(
    '/v1/schedules',
    answers.on('schedule.list', async () => {
      const data = (await schedules.list()).map(told)
      return jsonResponse({ data, page: { next: null, prev: null } })
    }),
  )
  app.get(
    '/v1/schedules/:name',
    answers.on('schedule.show', async (c) =>
      jsonResponse(told(await schedules.get(c.req.param('name') ?? ''))),
    ),
  )
  app.post(
    '/v1/schedules/:name/run',
    answers.on('schedule.run', async (c) => {
      const { id, tickMs } = await schedules.runNow(c.req.param('name') ?? '')
      return jsonResponse({ id, tick: timeText(tickMs) }, 202)
    }),
  )
  app.post(
    '/v1/schedules/:name/pause',
    answers.on('schedule.pause', async (c) => {
      const name = c.req.param('name') ?? ''
      const changed = await schedules.pause(name)
      return jsonResponse({ name, paused: true, changed })
    }),
  )
  app.post(
    '/v1/schedules/:name/resume',
    answers.on('schedule.resume', async (c) => {
      const name = c.req.param('name') ?? ''
      const changed = await schedules.resume(name)
      return jsonResponse({ name, paused: false, changed })
    }),
  )
}

/** Times as people and programs read them. */
function told(report: ScheduleReport): object {
  const { nextTicksMs, decidedThroughMs, lastRuns, missed, overlapped, ...rest } = report
  return {
    ...rest,
    nextTicks: nextTicksMs.map(timeText),
    decidedThrough: decidedThroughMs === undefined ? null : timeText(decidedThroughMs),
    lastRuns: lastRuns.map(({ id, tickMs }) => ({ id, tick: timeText(tickMs) })),
    missed: missed.map(rangeText),
    overlapped: overlapped.map(rangeText),
  }
}

function rangeText({ count, firstMs, lastMs }: MissedTicks): object {
  return { first: timeText(firstMs), last: timeText(lastMs), count }
}

function timeText(ms: number): string {
  return new Date(ms).toISOString()
}
