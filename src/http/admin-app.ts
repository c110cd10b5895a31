/**
 * The admin app: health, metrics, streams, dead letters, schedules. Whatever the command line or a dashboard does is a
 * call here. Without a guard it asks for no credentials, and belongs on loopback.
 */
import type { HealthSource } from '../contracts/health.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { DeadLetters } from '../dead-letters/dead-letters.ts'
import type { ApiKeys } from '../identity/api-keys.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import type { RedisLink } from '../redis/connection.ts'
import { Access } from './access.ts'
import type { Answers } from './answers.ts'
import { closeApp, openApp } from './app-frame.ts'
import { addAutoscaleRoutes } from './autoscale-routes.ts'
import { BODY_BOUNDS_DEFAULTS, BodyReader } from './body-reader.ts'
import { ADMIN_ACCEPT_POST, addDeadLetterRoutes } from './dead-letter-routes.ts'
import { DirectRoutes } from './direct-routes.ts'
import { type Guard, guardedApp } from './guard.ts'
import { addHealthRoutes } from './health-routes.ts'
import { addKeyRoutes } from './key-routes.ts'
import type { Metrics } from './metrics.ts'
import { ownPagesOnly } from './own-pages.ts'
import { addReferenceRoutes } from './reference-routes.ts'
import { addScheduleRoutes, type ScheduleSource } from './schedule-routes.ts'
import type { HttpApp } from './server.ts'
import { addStreamRoutes } from './stream-routes.ts'

export interface AdminAppParts {
  readonly command: RedisLink
  readonly catalogue: Catalogue
  readonly schedules: ScheduleSource
  readonly deadLetters: DeadLetters
  readonly keys: ApiKeys
  readonly metrics: Metrics
  readonly telemetry: Telemetry
  /** What `/readyz` asks; asked at each request. */
  readonly health: () => readonly HealthSource[]
  readonly started: () => boolean
  readonly draining: () => boolean
  /** Undefined: whoever reaches it may do everything. */
  readonly guard?: Guard | undefined
  /** Commands for one worker, for autoscalers that ask for no other number. Default 1000. */
  readonly autoscaleTarget?: number
  /** True when only this machine reaches the listener. */
  readonly isLocal?: boolean
}

const AUTOSCALE_TARGET = 1000
/** Health and reference are for everybody. */
const OWN_PATHS = ['/v1/*', '/metrics']

export interface AdminApp {
  readonly app: HttpApp
  readonly answers: Answers
  /** To be held against what is told of them. */
  readonly routes: readonly { readonly method: string; readonly path: string }[]
}

export function createAdminApp(parts: AdminAppParts): AdminApp {
  const { command, catalogue, schedules, deadLetters, keys, metrics, telemetry } = parts
  const { health, started, draining, guard } = parts
  const frame = openApp(telemetry, guard && new Access(guard.streamOfType))
  const { app, answers } = frame
  const bodies = new BodyReader(BODY_BOUNDS_DEFAULTS)
  const ownPages = ownPagesOnly(answers, parts.isLocal ?? false)
  for (const path of OWN_PATHS) app.use(path, ownPages)
  addHealthRoutes(app, { answers, sources: health, started, draining })
  addStreamRoutes(app, { command, streams: catalogue.streams, answers })
  const { autoscaleTarget = AUTOSCALE_TARGET } = parts
  addAutoscaleRoutes(app, { command, streams: catalogue.streams, answers, autoscaleTarget })
  addScheduleRoutes(app, { schedules, answers })
  addDeadLetterRoutes(app, { deadLetters, bodies, answers })
  addKeyRoutes(app, { keys, bodies, answers })
  app.get(
    '/metrics',
    answers.on('metrics', async (c) => {
      const { text, contentType } = await metrics.scrape(c.req.raw.headers.get('accept'))
      return new Response(text, { headers: { 'content-type': contentType, 'cache-control': 'no-store' } })
    }),
  )
  metrics.watchListener({ listener: 'admin', answers, bodies })
  const credentials = guard !== undefined
  addReferenceRoutes(app, { answers, listener: 'admin', catalogue, credentials, limited: false })
  closeApp(frame, ADMIN_ACCEPT_POST)
  const direct = new DirectRoutes(app)
  const guarded = guard === undefined ? direct : guardedApp(direct, direct, guard, answers)
  return { app: guarded, answers, routes: app.routes.filter(({ method }) => method !== 'ALL') }
}
