/** Which families of routes each listener has. The order is that of the pages. */
import { COMMAND_ROUTES } from './command-entries.ts'
import { DEAD_LETTER_ROUTES } from './dead-letter-entries.ts'
import { EVENT_ROUTES } from './event-entries.ts'
import { HEALTH_ROUTES } from './health-entries.ts'
import { KEY_ROUTES } from './key-entries.ts'
import { METRICS_ROUTES } from './metrics-entries.ts'
import { REFERENCE_ROUTES } from './reference-entries.ts'
import type { RouteEntry, RouteFamily } from './route-entry.ts'
import { SCHEDULE_ROUTES } from './schedule-entries.ts'
import { STREAM_ROUTES } from './stream-entries.ts'
import { VIEW_ROUTES } from './view-entries.ts'

export interface RouteTable {
  readonly title: string
  readonly description: string
  readonly families: readonly RouteFamily[]
}

export const PUBLIC_TABLE: RouteTable = {
  title: 'Millrace',
  description: 'Commands go in, views are read back.',
  families: [COMMAND_ROUTES, VIEW_ROUTES, EVENT_ROUTES, HEALTH_ROUTES, REFERENCE_ROUTES],
}

export const ADMIN_TABLE: RouteTable = {
  title: 'Millrace admin',
  description: 'What operators, dashboards and the command line use.',
  families: [
    ...[STREAM_ROUTES, DEAD_LETTER_ROUTES, SCHEDULE_ROUTES, KEY_ROUTES, METRICS_ROUTES].map(forOwnPages),
    HEALTH_ROUTES,
    REFERENCE_ROUTES,
  ],
}

/** Refuses browsers on behalf of other sites. */
function forOwnPages(family: RouteFamily): RouteFamily {
  const routes = family.routes.map((route): RouteEntry => {
    return { ...route, problems: [...route.problems, 'foreign-page'] }
  })
  return { ...family, routes }
}
