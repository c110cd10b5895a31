/** The public app: commands, views, events, health. Nothing here looks into the system; that is the admin app's. */
import type { CommandBus } from '../commands/command-bus.ts'
import type { EndWatch } from '../commands/end-watch.ts'
import type { HealthSource } from '../contracts/health.ts'
import { checkKnownOptions } from '../contracts/names.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Tails } from '../tails/tails.ts'
import { Access } from './access.ts'
import type { Answers } from './answers.ts'
import { closeApp, openApp } from './app-frame.ts'
import { BODY_BOUNDS_DEFAULTS, BodyReader } from './body-reader.ts'
import { ACCEPT_POST, addCommandRoutes, COMMAND_BOUNDS_DEFAULTS } from './command-routes.ts'
import { CrossOriginApp, type CrossOrigins } from './cross-origin.ts'
import { DirectRoutes } from './direct-routes.ts'
import { addEventRoutes } from './event-routes.ts'
import { type Guard, guardedApp } from './guard.ts'
import { addHealthRoutes } from './health-routes.ts'
import { type RateLimitParts, RateLimits } from './rate-limits.ts'
import { addReferenceRoutes } from './reference-routes.ts'
import type { HttpApp } from './server.ts'
import { addViewRoutes, type ServedAddress, type ViewSource } from './view-routes.ts'

export interface PublicAppOptions {
  /** Bytes of the body of one command. Default 256 KiB. */
  readonly bodyBytesMax: number
  /** Bytes of a bulk body. Default 8 MiB. */
  readonly bulkBytesMax: number
  /** Commands in a bulk body. Default 10 000. */
  readonly bulkItemsMax: number
  /** Requests with a body that are handled at once. Default 10 000. */
  readonly requestsMax: number
  /** Bytes of their bodies together. Default 256 MiB. */
  readonly requestBytesMax: number
  /** How long a request with Millrace-After waits. Default 10 s. */
  readonly viewWaitMs: number
  /** The longest wait for a command's end that Prefer is granted. Default 30 s. */
  readonly commandWaitMaxMs: number
  /** Origins whose pages may use the API; `*` for all. Default none. */
  readonly corsOrigins: CrossOrigins
  /** After this much silence an event tail says that it is still there. Default 15 s. */
  readonly heartbeatMs: number
  /** How many of them wait at once. Default 1000. */
  readonly viewWaitsMax: number
}

const PUBLIC_APP_DEFAULTS: PublicAppOptions = {
  ...COMMAND_BOUNDS_DEFAULTS,
  requestsMax: BODY_BOUNDS_DEFAULTS.requestsMax,
  requestBytesMax: BODY_BOUNDS_DEFAULTS.bytesMax,
  viewWaitMs: 10_000,
  commandWaitMaxMs: 30_000,
  corsOrigins: [],
  heartbeatMs: 15_000,
  viewWaitsMax: 1000,
}

export interface PublicAppParts<Address extends ServedAddress = ServedAddress> {
  readonly bus: CommandBus
  readonly ends: EndWatch
  readonly catalogue: Catalogue
  readonly views: ViewSource<Address>
  readonly tails: Tails
  readonly ids: CommandIds
  readonly clock: Clock
  readonly telemetry: Telemetry
  /** What `/readyz` asks; asked at each request. */
  readonly health: () => readonly HealthSource[]
  readonly started: () => boolean
  readonly draining: () => boolean
  /** Undefined: everybody may do everything. */
  readonly guard?: Guard | undefined
  /** Undefined: none, and nothing of them on the way of a request. */
  readonly limits?: RateLimitParts | undefined
  readonly options?: Partial<PublicAppOptions>
}

export interface PublicApp {
  readonly app: HttpApp
  readonly answers: Answers
  readonly bodies: BodyReader
  /** Of Hono and direct ones, to be held against what is told of them. */
  readonly routes: readonly { readonly method: string; readonly path: string }[]
}

export function createPublicApp<Address extends ServedAddress>(parts: PublicAppParts<Address>): PublicApp {
  checkKnownOptions('createPublicApp', parts.options ?? {}, Object.keys(PUBLIC_APP_DEFAULTS))
  const options: PublicAppOptions = { ...PUBLIC_APP_DEFAULTS, ...parts.options }
  const { bus, ends, catalogue, views, clock, telemetry, health, started, draining, guard } = parts
  const access = guard && new Access(guard.streamOfType)
  const limits = parts.limits && new RateLimits(parts.limits)
  const frame = openApp(telemetry, access, limits)
  const { app, answers } = frame
  const bodies = new BodyReader({ requestsMax: options.requestsMax, bytesMax: options.requestBytesMax })
  const direct = new DirectRoutes(app)
  const { commandWaitMaxMs, corsOrigins, viewWaitMs, viewWaitsMax } = options
  const source = { bus, ends, bodies, answers, clock, access, limits }
  addCommandRoutes(app, direct, { ...source, commandWaitMaxMs, bounds: options })
  addViewRoutes(app, direct, { views, answers, viewWaitMs, viewWaitsMax })
  const { tails, ids } = parts
  addEventRoutes(app, { tails, ids, answers, clock, telemetry, heartbeatMs: options.heartbeatMs })
  addHealthRoutes(app, { answers, sources: health, started, draining })
  const front = { credentials: guard !== undefined, limited: limits !== undefined }
  addReferenceRoutes(app, { answers, listener: 'public', catalogue, ...front })
  closeApp(frame, ACCEPT_POST)
  limits?.check(answers.routes)
  const guarded = guard === undefined ? direct : guardedApp(direct, direct, guard, answers)
  const isOpen = corsOrigins.length === 0
  const open = isOpen ? guarded : new CrossOriginApp(guarded, corsOrigins)
  return { app: open, answers, bodies, routes: app.routes }
}
