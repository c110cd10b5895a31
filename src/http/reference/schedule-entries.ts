/** Schedules, on the admin listener: what ticks when, run one now, pause, resume. */
import type { JsonSchema } from '../../contracts/json-schema.ts'
import type { ProblemName } from '../problem.ts'
import {
  type AnswerEntry,
  COUNT,
  inPath,
  json,
  list,
  object,
  oneOf,
  type RouteEntry,
  type RouteFamily,
  ref,
  TEXT,
  TIME,
  told,
  YES_OR_NO,
} from './route-entry.ts'

const name = inPath('name', 'Name of the schedule.')
const READING: readonly ProblemName[] = ['not-found', 'temporary-reduced-capacity', 'internal-error']
const WRITING: readonly ProblemName[] = [...READING, 'outcome-unknown']

const act = (
  verb: string,
  summary: string,
  answer: AnswerEntry,
  problems: readonly ProblemName[],
): RouteEntry => ({
  route: `schedule.${verb}`,
  method: 'POST',
  path: `/v1/schedules/:name/${verb}`,
  ...{ summary, parameters: [name], answers: [answer], problems },
  scope: 'admin',
})

const switched: AnswerEntry = {
  status: 200,
  description: 'So it is now; `changed` tells whether it was before.',
  contents: json(object({ name: TEXT, paused: YES_OR_NO, changed: YES_OR_NO })),
}

const run = object({ id: told(TEXT, 'Id of the command.'), tick: TIME })
const ranges = list(object({ first: TIME, last: TIME, count: COUNT }))

const timetable: JsonSchema = {
  oneOf: [
    object({ kind: { type: 'string', const: 'cron' }, expression: TEXT, timeZone: TEXT }),
    object({ kind: { type: 'string', const: 'every' }, periodMs: COUNT }),
  ],
}

export const SCHEDULE_ROUTES: RouteFamily = {
  name: 'Schedules',
  description: 'What ticks when, what it has done, and by hand.',
  routes: [
    {
      route: 'schedule.list',
      method: 'GET',
      path: '/v1/schedules',
      summary: 'All schedules',
      answers: [
        {
          status: 200,
          description: 'All of them, by name.',
          contents: json(object({ data: list(ref('Schedule')), page: ref('OnlyPage') })),
        },
      ],
      problems: ['temporary-reduced-capacity', 'internal-error'],
      scope: 'admin',
    },
    {
      route: 'schedule.show',
      method: 'GET',
      path: '/v1/schedules/:name',
      summary: 'One schedule',
      parameters: [name],
      answers: [{ status: 200, description: 'The schedule.', contents: json(ref('Schedule')) }],
      problems: READING,
      scope: 'admin',
    },
    act(
      'run',
      'Run it now, beside its timetable',
      { status: 202, description: 'Its command is stored.', contents: json(run) },
      [...WRITING, 'schedule-conflict'],
    ),
    act('pause', 'Stop its ticks', switched, WRITING),
    act('resume', 'Let it tick again, from now on', switched, WRITING),
  ],
  schemas: {
    Schedule: object({
      name: TEXT,
      command: told(TEXT, 'Type of its command.'),
      stream: TEXT,
      timetable,
      catchUp: told(oneOf('skip', 'latest', 'all'), 'What becomes of ticks that were missed.'),
      overlap: oneOf('allow', 'forbid'),
      paused: YES_OR_NO,
      state: oneOf('active', 'paused', 'silent', 'clock-behind', 'unregistered', 'other-definition'),
      nextTicks: list(TIME),
      decidedThrough: told(
        { type: ['string', 'null'], format: 'date-time' },
        'The last tick that was decided.',
      ),
      lastRuns: told(list(run), 'Newest first.'),
      firedCount: COUNT,
      missedCount: COUNT,
      overlappedCount: COUNT,
      missed: ranges,
      overlapped: ranges,
    }),
  },
}
