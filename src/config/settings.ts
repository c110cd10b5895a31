/**
 * What a process is told before it starts: one table of settings, each with its flag, its variable, its default and its
 * check. Code goes before flags, flags before the environment, the environment before defaults; all take the same path,
 * and the first mistake is one sentence that says what to do.
 */
import { resolve } from 'node:path'
import { DURABILITIES, type Durability } from '../contracts/durability.ts'
import { MillraceError } from '../contracts/errors.ts'
import { parseRateLimits, type RateLimit } from '../policies/rate-limit-rules.ts'
import { addressOptions } from '../redis/address.ts'
import { type ServerTolerance, TOLERANCES } from '../redis/server-check.ts'
import { CONSUMER_DEFAULTS } from '../runtime/consumer-options.ts'
import { TAILS_DEFAULTS } from '../tails/tails.ts'
import type { Environment, Variable } from './environment.ts'
import { checkIdentity } from './identity-checks.ts'
import { IDENTITY_SETTINGS, type IdentitySettings, readIdentitySettings } from './identity-settings.ts'
import { parseOrigins } from './origins.ts'
import { QUOTA_SETTINGS, type QuotaSettings, readQuotaSettings } from './quota-settings.ts'
import { listOf, oneOf, parseText, whole } from './setting-values.ts'

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error', 'silent'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

/** What is refused at start unless it is allowed by this name. */
export type UnsafeName = 'public-bind' | 'public-admin' | ServerTolerance
const UNSAFE_NAMES: readonly UnsafeName[] = ['public-bind', 'public-admin', ...TOLERANCES]

export interface Settings extends IdentitySettings, QuotaSettings {
  /** `redis://`, `rediss://`, `unix://`, `redis+sentinel://` or `rediss+sentinel://`; undefined means a redis-server child of our own. */
  readonly redisUrl: string | undefined
  readonly host: string
  /** 0 takes any free port. */
  readonly port: number
  readonly adminHost: string
  readonly adminPort: number
  /** Absolute. Holds `redis/`, the managed server's data. */
  readonly dataFolder: string
  /** Absolute. */
  readonly workersFolder: string
  readonly logLevel: LogLevel
  readonly durability: Durability
  /** For durability `replicated`: as many replicas must have what is accepted. */
  readonly replicas: number
  /** How long they may take to say so. */
  readonly replicaWaitMs: number
  /** How long a stopping process may finish what it has begun. */
  readonly drainLimitMs: number
  /** Most commands in the hands of one process. */
  readonly inFlightMax: number
  readonly idempotencyWindowMs: number
  readonly idempotencyRecordsMax: number
  /** Event tails that one API process serves at once. */
  readonly tailsMax: number
  /** Bytes of events that a tail holds for its reader. */
  readonly tailBytesMax: number
  /** After this much silence a tail says that it is still there. */
  readonly tailHeartbeatMs: number
  readonly allowUnsafe: ReadonlySet<UnsafeName>
  /** The program that the managed server runs; undefined means `redis-server`, else `valkey-server`, on PATH. */
  readonly redisServer: string | undefined
  /** How long a starting process waits for a Redis that does not answer yet. */
  readonly redisWaitMs: number
  /** The longest wait for a command's end that a request is granted. */
  readonly commandWaitMaxMs: number
  /** Commands for one worker, in what autoscalers are told. */
  readonly autoscaleTarget: number
  /** Origins whose pages may use the public listener; `*` alone for all, empty for none. */
  readonly corsOrigins: readonly string[]
  /** Empty: requests are not limited. */
  readonly rateLimits: readonly RateLimit[]
  readonly rateLimitHeaders: RateLimitHeaders
}

/** `both`: `X-RateLimit-…` beside the standard's. */
export const RATE_LIMIT_HEADERS = ['standard', 'both'] as const
export type RateLimitHeaders = (typeof RATE_LIMIT_HEADERS)[number]

export type SettingName = keyof Settings

/** Settings by what needs them. */
export type FoundationSettings = Pick<
  Settings,
  'redisUrl' | 'redisServer' | 'dataFolder' | 'workersFolder' | 'durability'
>
export type ConnectionSettings = Pick<
  Settings,
  'durability' | 'replicas' | 'replicaWaitMs' | 'redisWaitMs' | 'allowUnsafe'
>
export type EntranceSettings = Pick<
  Settings,
  'durability' | 'redisWaitMs' | 'idempotencyWindowMs' | 'idempotencyRecordsMax'
> &
  QuotaSettings
export type ProducerSettings = FoundationSettings &
  ConnectionSettings &
  EntranceSettings &
  Pick<Settings, 'drainLimitMs'>

export interface SettingSource<Value> {
  readonly variable: Variable
  /** As the command line takes it, such as `--port <number>`. */
  readonly flag: string
  readonly help: string
  /** Used as if it had been given. */
  readonly fallback: string | undefined
  /** `where` names the variable, flag or option that the text came from. */
  readonly parse: (text: string | undefined, where: string) => Value
}

export const SETTINGS: { readonly [Name in SettingName]: SettingSource<Settings[Name]> } = {
  redisUrl: {
    variable: 'REDIS_URL',
    flag: '--redis-url <url>',
    help: 'Redis 7.0 or newer: redis://, rediss:// (TLS), unix:// or redis+sentinel://host,host/name; without it a redis-server child is started',
    fallback: undefined,
    parse: parseRedisUrl,
  },
  host: {
    variable: 'HOST',
    flag: '--host <address>',
    help: 'address of the public listener',
    fallback: '127.0.0.1',
    parse: parseText,
  },
  port: {
    variable: 'PORT',
    flag: '--port <number>',
    help: 'port of the public listener, 0 for any free one',
    fallback: '8080',
    parse: whole(0, 65_535),
  },
  adminHost: {
    variable: 'MILLRACE_ADMIN_HOST',
    flag: '--admin-host <address>',
    help: 'address of the admin listener',
    fallback: '127.0.0.1',
    parse: parseText,
  },
  adminPort: {
    variable: 'MILLRACE_ADMIN_PORT',
    flag: '--admin-port <number>',
    help: 'port of the admin listener, 0 for any free one',
    fallback: '9090',
    parse: whole(0, 65_535),
  },
  dataFolder: {
    variable: 'MILLRACE_DATA_DIR',
    flag: '--data-dir <folder>',
    help: 'where the redis-server child keeps its data',
    fallback: '.millrace',
    parse: (text, where) => resolve(parseText(text, where)),
  },
  workersFolder: {
    variable: 'MILLRACE_WORKERS_DIR',
    flag: '--workers-dir <folder>',
    help: 'folder of the modules that define commands, handlers, views and schedules',
    fallback: 'workers',
    parse: (text, where) => resolve(parseText(text, where)),
  },
  logLevel: {
    variable: 'LOG_LEVEL',
    flag: '--log-level <level>',
    help: LOG_LEVELS.join(', '),
    fallback: 'info',
    parse: oneOf(LOG_LEVELS),
  },
  durability: {
    variable: 'MILLRACE_DURABILITY',
    flag: '--durability <tier>',
    help: 'what an accepted command survives: everysec (a process crash), fsync (a machine crash too) or replicated (a failover too)',
    fallback: 'everysec',
    parse: oneOf(DURABILITIES),
  },
  replicas: {
    variable: 'MILLRACE_REPLICAS',
    flag: '--replicas <number>',
    help: 'for durability replicated: replicas that must have what is accepted; all that may become the primary',
    fallback: '1',
    parse: whole(1, 16),
  },
  replicaWaitMs: {
    variable: 'MILLRACE_REPLICA_WAIT_MS',
    flag: '--replica-wait-ms <number>',
    help: 'how long they may take to confirm it; then the answer is 503 stored-unconfirmed',
    fallback: '1000',
    // Less than what a connection waits for any answer.
    parse: whole(10, 3000),
  },
  drainLimitMs: {
    variable: 'MILLRACE_DRAIN_LIMIT_MS',
    flag: '--drain-limit-ms <number>',
    help: 'how long a stopping process may finish what it has begun',
    fallback: '20000',
    parse: whole(100, 3_600_000),
  },
  inFlightMax: {
    variable: 'MILLRACE_IN_FLIGHT_MAX',
    flag: '--in-flight-max <number>',
    help: 'most commands that one worker process has running or ready to run',
    fallback: String(CONSUMER_DEFAULTS.inFlightMax),
    parse: whole(2, 100_000),
  },
  idempotencyWindowMs: {
    variable: 'MILLRACE_IDEMPOTENCY_WINDOW_MS',
    flag: '--idempotency-window-ms <number>',
    help: 'how long an idempotency key is remembered at least; the same for every API process',
    fallback: '86400000',
    parse: whole(60_000, 30 * 86_400_000),
  },
  idempotencyRecordsMax: {
    variable: 'MILLRACE_IDEMPOTENCY_RECORDS_MAX',
    flag: '--idempotency-records-max <number>',
    help: 'keys remembered per window, about 51 bytes of Redis each; beyond it keyed commands get 503',
    fallback: '4000000',
    parse: whole(64, 1_000_000_000),
  },
  tailsMax: {
    variable: 'MILLRACE_TAILS_MAX',
    flag: '--tails-max <number>',
    help: 'event tails (GET /v1/events/…) that one API process serves at once; beyond it 503',
    fallback: String(TAILS_DEFAULTS.tailsMax),
    parse: whole(0, 100_000),
  },
  tailBytesMax: {
    variable: 'MILLRACE_TAIL_BYTES_MAX',
    flag: '--tail-bytes-max <number>',
    help: 'bytes of events that each event tail holds for its reader',
    fallback: String(TAILS_DEFAULTS.bytesMax),
    parse: whole(1024, 64 * 1024 * 1024),
  },
  tailHeartbeatMs: {
    variable: 'MILLRACE_TAIL_HEARTBEAT_MS',
    flag: '--tail-heartbeat-ms <number>',
    help: 'after this much silence an event tail says that it is still there',
    fallback: '15000',
    parse: whole(1000, 600_000),
  },
  allowUnsafe: {
    variable: 'MILLRACE_ALLOW_UNSAFE',
    flag: '--allow-unsafe <names>',
    help: `comma-separated: ${UNSAFE_NAMES.join(', ')}`,
    fallback: '',
    parse: parseUnsafe,
  },
  redisServer: {
    variable: 'MILLRACE_REDIS_SERVER',
    flag: '--redis-server <path>',
    help: 'program of the redis-server child (default: redis-server, else valkey-server, on PATH)',
    fallback: undefined,
    parse: (text) => text,
  },
  redisWaitMs: {
    variable: 'MILLRACE_REDIS_WAIT_MS',
    flag: '--redis-wait-ms <number>',
    help: 'how long a starting process waits for a Redis that does not answer yet',
    fallback: '10000',
    parse: whole(0, 3_600_000),
  },
  ...IDENTITY_SETTINGS,
  ...QUOTA_SETTINGS,
  commandWaitMaxMs: {
    variable: 'MILLRACE_COMMAND_WAIT_MAX_MS',
    flag: '--command-wait-max-ms <number>',
    help: 'longest wait for the end of a command that Prefer: wait is granted, whole seconds; 0 for none',
    fallback: '30000',
    // With what the server adds, below the longest idle time-out that Bun knows.
    parse: whole(0, 240_000),
  },
  autoscaleTarget: {
    variable: 'MILLRACE_AUTOSCALE_TARGET',
    flag: '--autoscale-target <number>',
    help: 'commands that one worker is meant to have before it, in answers to autoscalers that name no other number',
    fallback: '1000',
    parse: whole(1, 1_000_000_000),
  },
  corsOrigins: {
    variable: 'MILLRACE_CORS_ORIGINS',
    flag: '--cors-origins <origins>',
    help: 'comma-separated origins whose pages may use the public listener, such as https://app.example; * for all',
    fallback: '',
    parse: parseOrigins,
  },
  rateLimits: {
    variable: 'MILLRACE_RATE_LIMITS',
    flag: '--rate-limits <rules>',
    help: 'such as "api: 100 in 60s by credential; writes: 50/s burst 100 by tenant on command.send"; none unless given',
    fallback: '',
    parse: (text, where) => parseRateLimits(text ?? '', where),
  },
  rateLimitHeaders: {
    variable: 'MILLRACE_RATE_LIMIT_HEADERS',
    flag: '--rate-limit-headers <which>',
    help: 'standard (RateLimit, RateLimit-Policy), or both (X-RateLimit-* too)',
    fallback: 'standard',
    parse: oneOf(RATE_LIMIT_HEADERS),
  },
}

export const SETTING_NAMES: readonly SettingName[] = Object.keys(SETTINGS) as SettingName[]

/** Those of a producer: it listens nowhere and handles nothing. */
export const PRODUCER_SETTING_NAMES: readonly (keyof ProducerSettings)[] = [
  'redisUrl',
  'redisServer',
  'dataFolder',
  'workersFolder',
  'durability',
  'replicas',
  'replicaWaitMs',
  'redisWaitMs',
  'allowUnsafe',
  'idempotencyWindowMs',
  'idempotencyRecordsMax',
  'tenantWaitingMax',
  'tenantWaitingBytesMax',
  'drainLimitMs',
]

/** Texts by setting: what came from code or from flags. */
export type GivenSettings = { readonly [Name in SettingName]?: string | undefined }

/** What a caller gave as options of its own types. */
export function givenInCode(names: readonly SettingName[], options: object): GivenSettings {
  const given: Record<string, string> = {}
  for (const name of names) {
    const value: unknown = (options as Readonly<Record<string, unknown>>)[name]
    if (value === undefined) continue
    given[name] = textOf(value)
  }
  return given
}

function textOf(value: unknown): string {
  if (!Array.isArray(value)) return String(value)
  return value.some((item) => typeof item === 'object') ? JSON.stringify(value) : value.join(',')
}

export interface SettingLayers {
  /** From `startMillrace({…})`, named as there. */
  readonly code?: GivenSettings
  readonly flags?: GivenSettings
  readonly environment: Environment
}

/**
 * @throws MillraceError `config.invalid`
 */
export function resolveSettings(layers: SettingLayers): Settings {
  const read = readerOf(layers)
  const settings: Settings = {
    ...readProducerSettings(read),
    host: read('host'),
    port: read('port'),
    adminHost: read('adminHost'),
    adminPort: read('adminPort'),
    logLevel: read('logLevel'),
    inFlightMax: read('inFlightMax'),
    ...readIdentitySettings(read),
    commandWaitMaxMs: read('commandWaitMaxMs'),
    autoscaleTarget: read('autoscaleTarget'),
    corsOrigins: read('corsOrigins'),
    rateLimits: read('rateLimits'),
    rateLimitHeaders: read('rateLimitHeaders'),
    tailsMax: read('tailsMax'),
    tailBytesMax: read('tailBytesMax'),
    tailHeartbeatMs: read('tailHeartbeatMs'),
  }
  checkListeners(settings)
  checkIdentity(settings)
  checkReplicated(settings)
  return settings
}

/**
 * Nothing else is looked at: a process that sends commands may have a HOST and a PORT of its own.
 *
 * @throws MillraceError `config.invalid`
 */
export function resolveProducerSettings(layers: SettingLayers): ProducerSettings {
  const settings = readProducerSettings(readerOf(layers))
  checkReplicated(settings)
  return settings
}

type SettingReader = <Name extends SettingName>(name: Name) => Settings[Name]

function readerOf(layers: SettingLayers): SettingReader {
  return (name) => {
    const source = SETTINGS[name]
    const code = layers.code?.[name]
    if (code !== undefined) return source.parse(code, name)
    const flag = layers.flags?.[name]
    if (flag !== undefined) return source.parse(flag, source.flag.split(' ', 1)[0] ?? name)
    return source.parse(layers.environment.get(source.variable) ?? source.fallback, source.variable)
  }
}

function readProducerSettings(read: SettingReader): ProducerSettings {
  return {
    redisUrl: read('redisUrl'),
    dataFolder: read('dataFolder'),
    workersFolder: read('workersFolder'),
    durability: read('durability'),
    replicas: read('replicas'),
    replicaWaitMs: read('replicaWaitMs'),
    drainLimitMs: read('drainLimitMs'),
    idempotencyWindowMs: read('idempotencyWindowMs'),
    idempotencyRecordsMax: read('idempotencyRecordsMax'),
    ...readQuotaSettings(read),
    allowUnsafe: read('allowUnsafe'),
    redisServer: read('redisServer'),
    redisWaitMs: read('redisWaitMs'),
  }
}

function checkReplicated({ durability, redisUrl }: ProducerSettings): void {
  if (durability !== 'replicated' || redisUrl !== undefined) return
  throw new MillraceError(
    'config.invalid',
    'MILLRACE_DURABILITY is "replicated", and a redis-server of our own has no replicas: name a primary that has some with REDIS_URL, best by its Sentinels (redis+sentinel://…).',
  )
}

function checkListeners(settings: Settings): void {
  const { host, adminHost, port, adminPort } = settings
  if (port !== 0 && port === adminPort && host === adminHost) {
    throw new MillraceError(
      'config.invalid',
      `PORT and MILLRACE_ADMIN_PORT are both ${port}; give each its own.`,
    )
  }
}

/** The text is never repeated: it may hold a password. */
function parseRedisUrl(text: string | undefined): string | undefined {
  if (text === undefined) return undefined
  addressOptions(text)
  return text
}

function parseUnsafe(text: string | undefined, where: string): ReadonlySet<UnsafeName> {
  return new Set(listOf(UNSAFE_NAMES)(text, where))
}
