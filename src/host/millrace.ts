/**
 * One process of a fleet: from settings and definitions to a running role, and back to nothing.
 *
 *   discover ─▶ Redis (ours or theirs) ─▶ check the server ─▶ join the fleet ─▶ the role's services
 *
 * Nothing is written before the server was found fit, and nothing listens before the definitions agree with the fleet.
 */
import { type Environment, readEnvironment } from '../config/environment.ts'
import type { ListenerName } from '../config/identity-checks.ts'
import {
  type GivenSettings,
  givenInCode,
  resolveSettings,
  SETTING_NAMES,
  type Settings,
  type UnsafeName,
} from '../config/settings.ts'
import { MillraceError } from '../contracts/errors.ts'
import type { Lease, LeaseOptions } from '../contracts/lease.ts'
import { type Logger, SILENT_LOGGER } from '../contracts/logger.ts'
import { checkKnownOptions } from '../contracts/names.ts'
import type { RateLimitRule } from '../contracts/rate-limit.ts'
import type { TelemetryListener } from '../contracts/telemetry.ts'
import { Leases } from '../leases/leases.ts'
import { type Definition, versionKey } from '../policies/catalogue.ts'
import { SYSTEM_CLOCK } from '../runtime/clock.ts'
import { HeartbeatThread } from '../runtime/heartbeat.ts'
import { Supervisor } from '../runtime/supervisor.ts'
import { TelemetryHub } from '../runtime/telemetry-hub.ts'
import { standingLeases } from './ambient-lease.ts'
import { Foundation } from './foundation.ts'
import { openIdentity } from './identity.ts'
import { type ProcessLogger, wrapLogger } from './process-logger.ts'
import { checkRole, listenersOf, type Role, type RoleUrls, startRole } from './roles.ts'
import { logTelemetry } from './telemetry-log.ts'

export interface MillraceOptions
  extends Partial<Omit<Settings, 'redisUrl' | 'redisServer' | 'allowUnsafe' | 'logLevel' | 'rateLimits'>> {
  /** Default `all`: the four roles in one process. */
  readonly role?: Role
  /** What the process serves. Default: the modules of `workersFolder`. */
  readonly definitions?: Iterable<Definition>
  readonly redisUrl?: string
  readonly redisServer?: string
  readonly allowUnsafe?: readonly UnsafeName[]
  /** Rules, or the text that MILLRACE_RATE_LIMITS would hold. Default: requests are not limited. */
  readonly rateLimits?: readonly RateLimitRule[] | string
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
  /** Listeners that ask for a credential. */
  readonly asking: readonly ListenerName[]
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
    settings: resolveSettings({ code: givenInCode(SETTING_NAMES, options), environment }),
    definitions: options.definitions,
    logger: wrapLogger(options.logger ?? SILENT_LOGGER, 'debug'),
    onTelemetry: options.onTelemetry,
  })
  await host.start()
  return host
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
  readonly #foundation: Foundation
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
    const { role, settings, definitions, logger } = options
    this.#foundation = new Foundation({
      ...{ supervisor: this.#supervisor, telemetry: this.#telemetry, clock: SYSTEM_CLOCK },
      ...{ role, settings, definitions, logger },
      mayJoin: role !== 'all',
      accepts: role === 'api' || role === 'all',
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
    this.#foundation.abandon()
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
    const { files, redis, ...laid } = await this.#foundation.lay()
    const { links, catalogue } = laid
    const leases = await supervisor.run(standingLeases(new Leases({ links, clock, telemetry })))
    this.#leases = leases
    const { command } = laid
    const listeners = listenersOf(role)
    const parts = { supervisor, settings, command, catalogue, listeners, clock, telemetry }
    const identity = await openIdentity(parts)
    const urls = await startRole(role, {
      ...laid,
      supervisor,
      settings,
      leases,
      identity,
      heartbeatThread,
      clock,
      telemetry,
      logger,
    })
    this.#summary = {
      role,
      urls,
      redis,
      durability: settings.durability,
      asking: identity.asking,
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
}

/** For `millrace start`: settings from flags and the environment. */
export function settingsFrom(flags: GivenSettings, environment: Environment = readEnvironment()): Settings {
  return resolveSettings({ flags, environment })
}
