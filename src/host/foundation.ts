/**
 * What every process of a fleet stands on, whatever it does there: its definitions, a Redis (theirs or ours) that was found
 * fit, and connections to it. Nothing is written before the server was found fit.
 */
import type { ConnectionSettings, FoundationSettings } from '../config/settings.ts'
import type { HealthSource } from '../contracts/health.ts'
import type { Logger } from '../contracts/logger.ts'
import { prepareSchedules } from '../cron/prepared-schedule.ts'
import { buildCatalogue, type Catalogue, type Definition } from '../policies/catalogue.ts'
import { shownAddress } from '../redis/address.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { RedisLink, RedisLinks } from '../redis/connection.ts'
import type { LossWatch } from '../redis/loss-watch.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Supervisor } from '../runtime/supervisor.ts'
import type { TelemetryHub } from '../runtime/telemetry-hub.ts'
import { Connections, type Replication } from './connections.ts'
import { type Discovery, discover } from './discover.ts'
import { ManagedRedis } from './managed-redis.ts'

export interface FoundationParts {
  readonly supervisor: Supervisor
  readonly settings: FoundationSettings & ConnectionSettings
  /** Default: the modules of the workers folder. */
  readonly definitions: Iterable<Definition> | undefined
  /** What the process calls itself to others of the same data folder. */
  readonly role: string
  /** False: a data folder that another process owns is an error. */
  readonly mayJoin: boolean
  /** True for a process that takes commands in: it does not start where it could not keep its word. */
  readonly accepts: boolean
  readonly clock: Clock
  readonly telemetry: TelemetryHub
  readonly logger: Logger
}

export interface LaidFoundation {
  readonly catalogue: Catalogue
  /** Modules that were loaded; empty when definitions were given. */
  readonly files: readonly string[]
  readonly links: RedisLinks
  readonly command: RedisLink
  /** Undefined unless the tier is `replicated`. */
  readonly replication: Replication | undefined
  readonly lossWatch: LossWatch
  readonly ids: CommandIds
  /** Such as `redis-server 7.0.15, our own (process 4711), data in …`; never a password. */
  readonly redis: string
  readonly health: readonly HealthSource[]
}

/** The managed Redis writes everything before it ends; it gets this long beside the drain. */
const REDIS_STOP_LIMIT_MS = 20_000

export class Foundation {
  readonly #parts: FoundationParts
  #managed: ManagedRedis | undefined

  constructor(parts: FoundationParts) {
    this.#parts = parts
  }

  /**
   * Everything in it lives until the supervisor stops.
   *
   * @throws MillraceError every mistake in definitions or the server, as one sentence
   */
  async lay(): Promise<LaidFoundation> {
    const { supervisor, settings, accepts, clock, telemetry } = this.#parts
    const { catalogue, files } = await this.#definitions()
    const url = settings.redisUrl ?? (await this.#ownRedis())
    const connections = await supervisor.run(
      new Connections({ url, settings, accepts, catalogue, clock, telemetry }),
    )
    const { server, ...opened } = connections.opened
    return {
      ...opened,
      catalogue,
      files,
      links: connections.links,
      redis: `${server.product} ${server.version}, ${this.#redisPlace()}`,
      health: this.#managed === undefined ? [] : [this.#managed],
    }
  }

  /** For an exit that waits for nothing. */
  abandon(): void {
    this.#managed?.terminate()
  }

  async #definitions(): Promise<Discovery> {
    const { definitions, settings } = this.#parts
    const discovery =
      definitions === undefined
        ? await discover(settings.workersFolder)
        : { catalogue: buildCatalogue(definitions), files: [] }
    // A payload that its command refuses is told by every role, not only by the one that fires.
    await prepareSchedules(discovery.catalogue)
    return discovery
  }

  async #ownRedis(): Promise<string> {
    const { supervisor, settings, role, mayJoin, clock, telemetry, logger } = this.#parts
    this.#managed = new ManagedRedis({
      dataFolder: settings.dataFolder,
      program: settings.redisServer,
      durability: settings.durability === 'fsync' ? 'fsync' : 'everysec',
      role,
      mayJoin,
      clock,
      telemetry,
      logger,
    })
    await supervisor.run(this.#managed, { stopLimitMs: REDIS_STOP_LIMIT_MS })
    return this.#managed.url
  }

  #redisPlace(): string {
    const { settings } = this.#parts
    if (this.#managed === undefined) return `at ${shownAddress(settings.redisUrl ?? '')}`
    if (this.#managed.standing === 'guest') return `joined, data in ${settings.dataFolder}`
    return `our own (process ${this.#managed.pid}), data in ${settings.dataFolder}`
  }
}
