/** What is told of the health routes, which both listeners have and which need no credential. */
import {
  type AnswerEntry,
  inQuery,
  json,
  list,
  object,
  type Parameter,
  type RouteEntry,
  type RouteFamily,
  ref,
  TEXT,
  told,
  YES_OR_NO,
} from './route-entry.ts'

const verbose: Parameter = inQuery('verbose', 'Name each service with a sentence.', YES_OR_NO)

const good: AnswerEntry = { status: 200, description: 'Yes.', contents: json(ref('HealthReport')) }
const bad: AnswerEntry = {
  status: 503,
  description: 'Not now.',
  headers: ['Retry-After'],
  contents: json(ref('HealthReport')),
}

const entry = (route: string, path: string, summary: string, answers: AnswerEntry[]): RouteEntry => ({
  ...{ route, method: 'GET', path, summary, parameters: [verbose], answers },
  problems: ['malformed-request', 'internal-error'],
  scope: undefined,
})

export const HEALTH_ROUTES: RouteFamily = {
  name: 'Health',
  description: 'For whoever keeps processes alive and sends them requests.',
  routes: [
    entry('health.live', '/livez', 'Does this process answer?', [good]),
    entry('health.startup', '/startupz', 'Has everything started?', [good, bad]),
    entry('health.ready', '/readyz', 'Shall requests be sent here?', [good, bad]),
  ],
  schemas: {
    HealthReport: object(
      {
        ok: YES_OR_NO,
        checks: told(
          list(object({ name: TEXT, ready: YES_OR_NO, detail: TEXT })),
          'With `verbose`, one for each service.',
        ),
      },
      ['checks'],
    ),
  },
}
