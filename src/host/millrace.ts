/**
 * One process of a fleet: from settings and definitions to a running role, and back to nothing.
 *
 *   discover ─▶ Redis (ours or theirs) ─▶ check the server ─▶ join the fleet ─▶ the role's services
 *
 * Nothing is written before the server was found fit, and nothing listens before the definitions agree with the fleet.
 */
import { type Environment, readEnvironment } from '../config/environment.ts'
import {
  type GivenSettings,
  resolveSettings,
  SETTING_NAMES,
  type Settings,
  type UnsafeName,
} from '../config/settings.ts'
import { MillraceError } from '../contracts/errors.ts'
import type { Lease, LeaseOptions } from '../contracts/lease.ts'
import { type Logger, SILENT_LOGGER } from '../contracts/logger.ts'
import { checkKnownOptions } from '../contracts/names.ts'
import type { TelemetryListener } from '../contracts/telemetry.ts'
import { prepareSchedules } from '../cron/prepared-schedule.ts'
import { Leases } from '../leases/leases.ts'
import { buildCatalogue, type Definition, versionKey } from '../policies/catalogue.ts'
import { shownAddress } from '../redis/address.ts'
import { SYSTEM_CLOCK } from '../runtime/clock.ts'
import { HeartbeatThread } from '../runtime/heartbeat.ts'
import { Supervisor } from '../runtime/supervisor.ts'
import { TelemetryHub } from '../runtime/telemetry-hub.ts'
import { standingLeases } from './ambient-lease.ts'
import { Connections } from './connections.ts'
import { type Discovery, discover } from './discover.ts'
import { ManagedRedis } from './managed-redis.ts'
import { type ProcessLogger, wrapLogger } from './process-logger.ts'
import { checkRole, type Role, type RoleUrls, startRole } from './roles.ts'
import { logTelemetry } from './telemetry-log.ts'

export interface MillraceOptions
  extends Partial<Omit<Settings, 'redisUrl' | 'redisServer' | 'allowUnsafe' | 'logLevel'>> {
  /** Default `all`: the four roles in one process. */
  readonly role?: Role
  /** What the process serves. Default: the modules of `workersFolder`. */
  readonly definitions?: Iterable<Definition>
  readonly redisUrl?: string
  readonly redisServer?: string
  readonly allowUnsafe?: readonly UnsafeName[]
  /** Default: says nothing. */
  readonly logger?: Logger
  /** Sees all telemetry, from the first moment. */
  readonly onTelemetry?: TelemetryListener
}

/** What a started process says about itself. */
export interface MillraceSummary {
  readonly role: Role
  readonly urls: RoleUrls
  /** Such as `redis-server 7.0.15, our own (process 4711), data in …`; never a password. */
  readonly redis: string
  readonly durability: Settings['durability']
  /** Modules that were loaded; empty when definitions were given. */
  readonly files: readonly string[]
  readonly counts: {
    readonly commands: number
    readonly handlers: number
    readonly projections: number
    readonly schedules: number
  }
  /** Types that producers may post and no handler here takes: their commands wait for a worker that does. */
  readonly unhandled: readonly string[]
}

/** A running process. Stopping twice is fine. */
export interface Millrace extends AsyncDisposable {
  readonly summary: MillraceSummary
  readonly urls: RoleUrls
  /** Finishes what was begun within `drainLimitMs`, ends every connection and the managed Redis. */
  stop(): Promise<void>
  /**
   * Waits until this process holds the lease of this name: 1-63 characters of a-z, 0-9, "_" and "-". The same lease in all
   * processes on this Redis. Inside handlers use the exported `lease`.
   *
   * @throws MillraceError `definition.invalid`, `config.unknown-option`; `lease.held`, `redis.unavailable`, `redis.unknown`
   * when `waitMs` is over; `service.stopped`; or the reason of `signal`
   */
  lease(name: string, options?: LeaseOptions): Promise<Lease>
  /** Returns the function that unsubscribes. */
  subscribe(listener: TelemetryListener): () => void
}

/** The managed Redis writes everything before it ends; it gets this long beside the drain. */
const REDIS_STOP_LIMIT_MS = 20_000

const KNOWN_OPTIONS = [
  ...SETTING_NAMES.filter((name) => name !== 'logLevel'),
  'role',
  'definitions',
  'logger',
  'onTelemetry',
]

/**
 * Starts a role in this process: the same as `millrace start`, but without its logs and signals. What is not given comes
 * from the environment, else from the defaults.
 *
 * @throws MillraceError every mistake in settings, definitions or the server, as one sentence
 */
export async function startMillrace(options: MillraceOptions = {}): Promise<Millrace> {
  checkKnownOptions('startMillrace', options, KNOWN_OPTIONS)
  const environment = readEnvironment()
  const host = new MillraceHost({
    role: checkRole(options.role ?? 'all'),
    settings: resolveSettings({ code: codeSettings(options), environment }),
    definitions: options.definitions,
    logger: wrapLogger(options.logger ?? SILENT_LOGGER, 'debug'),
    onTelemetry: options.onTelemetry,
  })
  await host.start()
  return host
}

function codeSettings(options: MillraceOptions): GivenSettings {
  const given: Record<string, string> = {}
  for (const name of SETTING_NAMES) {
    const value: unknown = name in options ? options[name as keyof MillraceOptions] : undefined
    if (value === undefined) continue
    given[name] = Array.isArray(value) ? value.join(',') : String(value)
  }
  return given
}

export interface MillraceHostOptions {
  readonly role: Role
  readonly settings: Settings
  readonly definitions: Iterable<Definition> | undefined
  readonly logger: ProcessLogger
  readonly onTelemetry: TelemetryListener | undefined
}

export class MillraceHost implements Millrace {
  readonly #options: MillraceHostOptions
  readonly #telemetry: TelemetryHub = new TelemetryHub()
  readonly #supervisor: Supervisor
  #managed: ManagedRedis | undefined
  #leases: Leases | undefined
  #summary: MillraceSummary | undefined

  constructor(options: MillraceHostOptions) {
    this.#options = options
    this.#telemetry.subscribe(logTelemetry(options.logger, SYSTEM_CLOCK))
    if (options.onTelemetry !== undefined) this.#telemetry.subscribe(options.onTelemetry)
    this.#supervisor = new Supervisor({
      clock: SYSTEM_CLOCK,
      telemetry: this.#telemetry,
      drainLimitMs: options.settings.drainLimitMs,
    })
  }

  get summary(): MillraceSummary {
    if (this.#summary !== undefined) return this.#summary
    throw new MillraceError('service.stopped', 'The process has not started.')
  }

  get urls(): RoleUrls {
    return this.summary.urls
  }

  /** False when something had to be left behind while stopping. */
  get endedCleanly(): boolean {
    return this.#supervisor.endedCleanly
  }

  async lease(name: string, options: LeaseOptions = {}): Promise<Lease> {
    if (this.#leases !== undefined) return await this.#leases.acquire(name, options)
    throw new MillraceError('service.stopped', 'The process has not started.')
  }

  subscribe(listener: TelemetryListener): () => void {
    return this.#telemetry.subscribe(listener)
  }

  async start(): Promise<void> {
    try {
      await this.#start()
    } catch (error) {
      await this.stop()
      throw error
    }
  }

  stop(): Promise<void> {
    return this.#supervisor.stop()
  }

  /** For an exit that waits for nothing. */
  abandon(): void {
    this.#managed?.terminate()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  async #start(): Promise<void> {
    const { role, settings, logger } = this.#options
    const [clock, telemetry, supervisor] = [SYSTEM_CLOCK, this.#telemetry, this.#supervisor]
    await supervisor.start()
    // First of all: it loads on another processor meanwhile, and would be waited for otherwise.
    const works = role === 'work' || role === 'all'
    const heartbeatThread = works ? await supervisor.run(new HeartbeatThread()) : undefined
    const { catalogue, files } = await this.#definitions()
    const url = settings.redisUrl ?? (await this.#ownRedis())
    const accepts = role === 'api' || role === 'all'
    const connections = await supervisor.run(
      new Connections({ url, settings, accepts, catalogue, clock, telemetry }),
    )
    const { command, replication, lossWatch, ids, server } = connections.opened
    const { links } = connections
    const leases = await supervisor.run(standingLeases(new Leases({ links, clock, telemetry })))
    this.#leases = leases
    const health = this.#managed === undefined ? [] : [this.#managed]
    const urls = await startRole(role, {
      supervisor,
      settings,
      catalogue,
      links,
      command,
      replication,
      lossWatch,
      ids,
      leases,
      heartbeatThread,
      clock,
      telemetry,
      logger,
      health,
    })
    this.#summary = {
      role,
      urls,
      redis: `${server.product} ${server.version}, ${this.#redisPlace()}`,
      durability: settings.durability,
      files,
      counts: {
        commands: catalogue.commands.size,
        handlers: catalogue.handlers.size,
        projections: catalogue.projections.size,
        schedules: catalogue.schedules.size,
      },
      unhandled: [...catalogue.commands.values()]
        .filter((command) => !catalogue.handlers.has(versionKey(command)))
        .map((command) => command.type),
    }
  }

  async #definitions(): Promise<Discovery> {
    const { definitions, settings } = this.#options
    const discovery =
      definitions === undefined
        ? await discover(settings.workersFolder)
        : { catalogue: buildCatalogue(definitions), files: [] }
    // A payload that its command refuses is told by every role, not only by the one that fires.
    await prepareSchedules(discovery.catalogue)
    return discovery
  }

  async #ownRedis(): Promise<string> {
    const { role, settings, logger } = this.#options
    this.#managed = new ManagedRedis({
      dataFolder: settings.dataFolder,
      program: settings.redisServer,
      durability: settings.durability === 'fsync' ? 'fsync' : 'everysec',
      role,
      mayJoin: role !== 'all',
      clock: SYSTEM_CLOCK,
      telemetry: this.#telemetry,
      logger,
    })
    await this.#supervisor.run(this.#managed, { stopLimitMs: REDIS_STOP_LIMIT_MS })
    return this.#managed.url
  }

  #redisPlace(): string {
    const { settings } = this.#options
    if (this.#managed === undefined) return `at ${shownAddress(settings.redisUrl ?? '')}`
    if (this.#managed.standing === 'guest') return `joined, data in ${settings.dataFolder}`
    return `our own (process ${this.#managed.pid}), data in ${settings.dataFolder}`
  }
}

/** For `millrace start`: settings from flags and the environment. */
export function settingsFrom(flags: GivenSettings, environment: Environment = readEnvironment()): Settings {
  return resolveSettings({ flags, environment })
}
