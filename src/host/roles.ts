/**
 * What each role runs, in the order in which it starts; it stops in reverse.
 *
 *   every role   admin listener, dead letters
 *   project      projectors
 *   work         consumer, singletons
 *   schedule     cron scheduler
 *   api          view reader, command bus, public listener, event tails
 *   all          the four in one process
 *
 * So tails end and the door closes first, then no tick fires any more, then the workers drain into projections that still run.
 */
import { aggregateHandler } from '../aggregates/aggregate-handler.ts'
import { EndWatch } from '../commands/end-watch.ts'
import type { ListenerName } from '../config/identity-checks.ts'
import { MillraceError } from '../contracts/errors.ts'
import type { HandlerDefinition } from '../contracts/handler.ts'
import type { HealthSource } from '../contracts/health.ts'
import { nearest } from '../contracts/names.ts'
import { CronScheduler } from '../cron/cron-scheduler.ts'
import type { Metrics } from '../http/metrics.ts'
import { createPublicApp } from '../http/public-app.ts'
import { HttpServer } from '../http/server.ts'
import { Singletons } from '../leases/singletons.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import { ProjectorSet } from '../projections/projector-set.ts'
import { ViewReader } from '../projections/view-reader.ts'
import type { RedisLink } from '../redis/connection.ts'
import type { Clock } from '../runtime/clock.ts'
import { Consumer } from '../runtime/consumer.ts'
import { Heartbeat, type HeartbeatOptions } from '../runtime/heartbeat.ts'
import type { Service } from '../runtime/service.ts'
import { Tails } from '../tails/tails.ts'
import { AdminListener, type ProcessHealth } from './admin-listener.ts'
import { openEntrance } from './command-entrance.ts'
import { openRateLimits } from './rate-limiting.ts'
import type { RoleGround } from './role-ground.ts'

export const ROLES = ['all', 'api', 'work', 'project', 'schedule'] as const
export type Role = (typeof ROLES)[number]

/** @throws MillraceError `config.invalid` */
export function checkRole(role: string): Role {
  const found = ROLES.find((known) => known === role)
  if (found !== undefined) return found
  const near = nearest(role, ROLES)
  const hint = near === undefined ? '' : ` Did you mean "${near}"?`
  throw new MillraceError('config.invalid', `There is no role "${role}"; use ${ROLES.join(', ')}.${hint}`)
}

export function listenersOf(role: Role): readonly ListenerName[] {
  return role === 'all' || role === 'api' ? ['public', 'admin'] : ['admin']
}

/** Of the drain limit: for answers under way, then for handlers; the rest is for settling and handing back. */
const ANSWERS_SHARE = 0.25
const HANDLERS_SHARE = 0.6
const SINGLETONS_SHARE = 0.1

const SETTLE_LIMIT_MS = 5000
const SETTLE_LOOK_MS = 10

/** Where a role listens. */
export interface RoleUrls {
  /** Absent for roles without a public listener. */
  readonly public: string | undefined
  readonly admin: string
}

/** Starts the services of a role. */
export async function startRole(role: Role, ground: RoleGround): Promise<RoleUrls> {
  const start = new RoleStart(ground)
  const admin = await start.admin()
  const runs = (part: Role): boolean => role === 'all' || role === part
  if (runs('project')) await start.projectors()
  if (runs('work')) await start.consumer(role)
  if (runs('work')) await start.singletons()
  if (runs('schedule')) await start.scheduler()
  const api = runs('api') ? await start.api(admin.metrics) : undefined
  await start.finished()
  return { public: api, admin: admin.url }
}

/** The services of one role as they come to life, and what its listeners tell about them. */
class RoleStart {
  readonly #ground: RoleGround
  readonly #sources: HealthSource[]
  readonly #health: ProcessHealth
  #started = false

  constructor(ground: RoleGround) {
    this.#ground = ground
    this.#sources = [...ground.health, ...ground.identity.health]
    this.#health = {
      health: () => this.#sources,
      started: () => this.#started,
      draining: () => ground.supervisor.draining,
    }
  }

  /** Readers connect in the background: who is told that we are ready may rely on it, unless something is really stuck. */
  async finished(): Promise<void> {
    const { clock, supervisor } = this.#ground
    const endMs = clock.monotonicMs() + SETTLE_LIMIT_MS
    const isWell = (): boolean => this.#sources.every((source) => source.health().ready)
    while (!isWell() && !supervisor.draining && clock.monotonicMs() < endMs) await clock.sleep(SETTLE_LOOK_MS)
    this.#started = true
  }

  admin(): Promise<AdminListener> {
    return this.#ground.supervisor.run(new AdminListener(this.#ground, this.#health))
  }

  async projectors(): Promise<void> {
    const { links, command, catalogue, ids, clock, telemetry, logger } = this.#ground
    await this.#run(new ProjectorSet({ links, command, catalogue, ids, clock, telemetry, logger }))
  }

  /** A process of all roles may have nothing to handle; one that is there to work may not. */
  async consumer(role: Role): Promise<void> {
    const { settings, links, command, replication, catalogue, ids, clock, telemetry, logger } = this.#ground
    const { heartbeatThread } = this.#ground
    if (catalogue.handlers.size === 0 && (role === 'all' || catalogue.singletons.size > 0)) {
      await heartbeatThread?.stop()
      return
    }
    const options = {
      inFlightMax: settings.inFlightMax,
      drainLimitMs: Math.ceil(settings.drainLimitMs * HANDLERS_SHARE),
    }
    const handlers = runnableHandlers(catalogue, { link: command, clock })
    const rule = replication?.rule
    const makeHeartbeat = (chosen: HeartbeatOptions) => new Heartbeat(chosen, heartbeatThread)
    const parts = { links, command, catalogue, ids, clock, telemetry, logger, handlers, options, rule }
    await this.#run(new Consumer({ ...parts, makeHeartbeat }))
  }

  async singletons(): Promise<void> {
    const { catalogue, leases, clock, telemetry, logger } = this.#ground
    if (catalogue.singletons.size === 0) return
    const service = new Singletons({ singletons: catalogue.singletons, leases, clock, telemetry, logger })
    this.#sources.push(service)
    // They stop before the workers, and one that ignores its signal must not take the workers' time.
    const stopLimitMs = Math.ceil(this.#ground.settings.drainLimitMs * SINGLETONS_SHARE)
    await this.#ground.supervisor.run(service, { stopLimitMs })
  }

  async scheduler(): Promise<void> {
    const { command, catalogue, clock, telemetry } = this.#ground
    await this.#run(new CronScheduler({ command, catalogue, clock, telemetry }))
  }

  /** Answers where the public listener is. */
  async api(metrics: Metrics): Promise<string> {
    const { supervisor, settings, links, command, catalogue, ids, clock, telemetry } = this.#ground
    const { replication, lossWatch, identity } = this.#ground
    const parts = { settings, links, replication, lossWatch, catalogue, ids, clock, telemetry }
    const entrance = await openEntrance(parts)
    const views = await this.#run(new ViewReader({ links, command, catalogue, ids, clock, telemetry }))
    const bus = await this.#run(entrance)
    const ends = new EndWatch({ link: command, clock })
    const limits = await openRateLimits(this.#ground)
    const { tailsMax, tailBytesMax: bytesMax, tailHeartbeatMs: heartbeatMs } = settings
    const tails = new Tails({ links, command, catalogue, clock, telemetry, options: { tailsMax, bytesMax } })
    metrics.watchTails(tails)
    const { commandWaitMaxMs, corsOrigins } = settings
    const options = { commandWaitMaxMs, corsOrigins, heartbeatMs }
    const { app, answers, bodies } = createPublicApp({
      ...{
        bus,
        ends,
        catalogue,
        views,
        tails,
        ids,
        limits,
        clock,
        telemetry,
        options,
        guard: identity.guards.public,
      },
      ...this.#health,
    })
    if (limits !== undefined) metrics.watchLimits(limits.limiter.policies)
    metrics.watchWaiting(bus)
    metrics.watchListener({ listener: 'public', answers, bodies })
    const stopLimitMs = Math.ceil(settings.drainLimitMs * ANSWERS_SHARE)
    const { host, port } = settings
    const server = new HttpServer({ name: 'public listener', app, host, port, clock, telemetry, stopLimitMs })
    const { url } = await supervisor.run(server)
    // Stopped before the listener: who waits for the end of a command is answered that it was accepted.
    await supervisor.run(ends)
    // The same for tails, which have no end of their own.
    await this.#run(tails)
    return url
  }

  async #run<Kind extends Service & HealthSource>(service: Kind): Promise<Kind> {
    this.#sources.push(service)
    return this.#ground.supervisor.run(service)
  }
}

/** Aggregates decide inside handlers that load and append for them. */
function runnableHandlers(
  catalogue: Catalogue,
  parts: { readonly link: RedisLink; readonly clock: Clock },
): ReadonlyMap<string, HandlerDefinition> {
  const entries = [...catalogue.handlers].map(([key, handler]): [string, HandlerDefinition] => [
    key,
    handler.kind === 'handler' ? handler : aggregateHandler(handler, parts),
  ])
  return new Map(entries)
}
