/**
 * The admin listener of a process, with the metrics and the dead letters behind it. It is there before the role's services
 * and after them, so that a start can be watched and a drain too.
 */
import { isLoopback } from '../config/loopback.ts'
import type { HealthSource } from '../contracts/health.ts'
import { Schedules } from '../cron/schedules.ts'
import { DeadLetters } from '../dead-letters/dead-letters.ts'
import { createAdminApp } from '../http/admin-app.ts'
import { Metrics } from '../http/metrics.ts'
import { HttpServer } from '../http/server.ts'
import { readOverviews } from '../http/stream-routes.ts'
import { Service } from '../runtime/service.ts'
import type { RoleGround } from './role-ground.ts'

/** What a listener tells about its process. */
export interface ProcessHealth {
  readonly health: () => readonly HealthSource[]
  readonly started: () => boolean
  readonly draining: () => boolean
}

const STOP_LIMIT_MS = 1000

export class AdminListener extends Service {
  readonly metrics: Metrics
  readonly #deadLetters: DeadLetters
  readonly #server: HttpServer

  constructor(ground: RoleGround, health: ProcessHealth) {
    super('admin listener')
    const { settings, catalogue, command, ids, clock, telemetry, identity } = ground
    const streams = () => readOverviews(command, catalogue.streams)
    this.metrics = new Metrics({ catalogue, telemetry, streams })
    const schedules = new Schedules({ command, catalogue, ids })
    this.#deadLetters = new DeadLetters({ command, catalogue, ids, clock, telemetry })
    const { keys, guards } = identity
    const sources = { schedules, deadLetters: this.#deadLetters, keys, metrics: this.metrics }
    const { adminHost: host, adminPort: port, autoscaleTarget } = settings
    const { app } = createAdminApp({
      ...{ command, catalogue, ...sources, telemetry, ...health, autoscaleTarget },
      isLocal: isLoopback(host),
      guard: guards.admin,
    })
    this.#server = new HttpServer({
      ...{ name: this.name, app, host, port, clock, telemetry },
      stopLimitMs: STOP_LIMIT_MS,
    })
  }

  get url(): string {
    return this.#server.url
  }

  protected override async onStart(): Promise<void> {
    await this.#deadLetters.start()
    await this.#server.start()
  }

  protected override async onStop(): Promise<void> {
    await this.#server.stop()
    await this.#deadLetters.stop()
    this.metrics.close()
  }
}
