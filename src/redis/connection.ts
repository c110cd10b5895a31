/**
 * The only place that opens ioredis clients, each with the options its role needs.
 *
 *   command   settles, promotes, relays, commits; waits for its answer at most `commandTimeoutMs`
 *   ingest    appends for producers; never queues while Redis is away
 *   reader    one blocking read at a time
 *   subscriber  pub/sub
 *
 * A socket on which an answer is due, and that stays silent for the length of a block and 2 s more, is dropped and dialled
 * again: a link can go silent without being closed, and a command that timed out would leave it as it is.
 *
 * No role resends by itself after a reconnect: ioredis would run a write twice and report plain success. Whatever was in
 * flight when a connection died is *unknown*, and every write is a script that can be sent again. No role keeps an
 * offline queue: it has no bound.
 */
import { isIP } from 'node:net'
import { Redis, type RedisOptions } from 'ioredis'
import { MillraceError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { addMissingSubscriberCheck } from './quiet-tracing.ts'
import { SCRIPTS, type ScriptName } from './scripts.ts'

addMissingSubscriberCheck()

export type ConnectionRole = 'command' | 'ingest' | 'reader' | 'subscriber'

export interface RedisAddress {
  /** `redis://`, `rediss://` (TLS) with user and password, or `unix:///path/to.sock`. */
  readonly url: string
}

export interface ConnectionOptions {
  readonly address: RedisAddress
  readonly telemetry: Telemetry
  /** Uniform in [0, 1); spreads reconnects. */
  readonly random: () => number
  /** How long a reader blocks; a socket on which an answer is due may stay silent 2 s longer. */
  readonly blockMs: number
  readonly commandTimeoutMs: number
}

export const CONNECTION_DEFAULTS: { readonly blockMs: number; readonly commandTimeoutMs: number } = {
  blockMs: 2000,
  commandTimeoutMs: 5000,
}

const SILENCE_GRACE_MS = 2000
const RECONNECT_MIN_MS = 20
const RECONNECT_SPREAD_MS = 130

type Argument = string | Buffer | number

/** One connection, with scripts run by name and errors already translated. */
export class RedisLink {
  readonly role: ConnectionRole
  readonly client: Redis
  #lost = false
  #generation = 0
  readonly #inFlight = new Set<(error: Error) => void>()

  constructor(role: ConnectionRole, options: ConnectionOptions) {
    this.role = role
    this.client = new Redis(clientOptions(role, options))
    this.client.on('error', () => undefined)
    this.client.on('close', () => {
      this.#failInFlight()
      if (this.#lost || this.client.status === 'end') return
      this.#lost = true
      options.telemetry.emit('connection.lost', { role, error: 'connection closed' })
    })
    this.client.on('ready', () => {
      this.#generation += 1
      if (!this.#lost) return
      this.#lost = false
      options.telemetry.emit('connection.restored', { role })
    })
  }

  /** How often this link has been connected: changes with every reconnect. */
  get generation(): number {
    return this.#generation
  }

  /** True while commands can be sent. */
  get ready(): boolean {
    return this.client.status === 'ready'
  }

  /**
   * Resolves when the connection is usable.
   *
   * @throws MillraceError `redis.unavailable` after `waitMs`
   */
  async whenReady(waitMs: number, signal?: AbortSignal): Promise<void> {
    if (this.ready) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const timeout = AbortSignal.timeout(waitMs)
    const limit = signal === undefined ? timeout : AbortSignal.any([signal, timeout])
    let lastError = 'no answer'
    const onReady = () => resolve()
    const onError = (error: Error) => {
      lastError = error.message
    }
    const onLimit = () =>
      reject(
        new MillraceError(
          'redis.unavailable',
          `Redis is not reachable: ${lastError}. Start it, or mend REDIS_URL; without REDIS_URL a server of our own is started.`,
        ),
      )
    const onEnd = () => reject(new MillraceError('redis.unavailable', 'The connection was closed.'))
    this.client.once('ready', onReady)
    this.client.once('end', onEnd)
    this.client.on('error', onError)
    limit.addEventListener('abort', onLimit, { once: true })
    try {
      await promise
    } finally {
      this.client.off('ready', onReady)
      this.client.off('end', onEnd)
      this.client.off('error', onError)
      limit.removeEventListener('abort', onLimit)
    }
  }

  /**
   * Runs a script by its digest, loading it when the server does not have it. Replies hold Buffers for strings.
   *
   * @throws MillraceError `redis.unavailable` (nothing ran), `redis.unknown` (it may have run), `admission.overloaded` (OOM)
   */
  async run(name: ScriptName, keys: readonly string[], args: readonly Argument[]): Promise<unknown> {
    const script = SCRIPTS[name]
    try {
      return await this.#settled(
        this.client.callBuffer('EVALSHA', [script.digest, keys.length, ...keys, ...args]),
      )
    } catch (error) {
      if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT'))
        throw redisError(error, `script ${name}`)
    }
    try {
      return await this.#settled(
        this.client.callBuffer('EVAL', [script.source, keys.length, ...keys, ...args]),
      )
    } catch (error) {
      throw redisError(error, `script ${name}`)
    }
  }

  /** Runs `work` on the client and translates what it throws. For the stores of this floor. */
  async use<Result>(what: string, work: (client: Redis) => Promise<Result>): Promise<Result> {
    try {
      return await this.#settled(work(this.client))
    } catch (error) {
      throw redisError(error, what)
    }
  }

  /** Drops the connection and dials again; what was in flight fails as unknown. */
  reconnect(): void {
    this.client.disconnect(true)
    this.#failInFlight()
  }

  /**
   * A promise that settles also when the connection dies. ioredis 6.0.0 forgets what was in flight when it may not resend
   * (its issue 2193).
   */
  #settled<Result>(work: Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#inFlight.add(reject)
      work.then(
        (result) => {
          this.#inFlight.delete(reject)
          resolve(result)
        },
        (error: unknown) => {
          this.#inFlight.delete(reject)
          reject(error)
        },
      )
    })
  }

  #failInFlight(): void {
    const lost = [...this.#inFlight]
    this.#inFlight.clear()
    for (const reject of lost) reject(new Error('the connection was lost before the answer came'))
  }

  close(): void {
    this.client.disconnect()
  }
}

/** Opens connections by role and closes them all. */
export class RedisLinks {
  readonly options: ConnectionOptions
  readonly #open = new Set<RedisLink>()

  constructor(options: ConnectionOptions) {
    this.options = options
  }

  open(role: ConnectionRole): RedisLink {
    const link = new RedisLink(role, this.options)
    this.#open.add(link)
    return link
  }

  close(link: RedisLink): void {
    this.#open.delete(link)
    link.close()
  }

  closeAll(): void {
    for (const link of this.#open) link.close()
    this.#open.clear()
  }
}

function clientOptions(
  role: ConnectionRole,
  options: ConnectionOptions,
): RedisOptions & { replyMapping: 'legacy' } {
  return {
    ...addressOptions(options.address.url),
    protocol: 2,
    replyMapping: 'legacy',
    connectionName: `millrace-${role}`,
    autoResendUnfulfilledCommands: false,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    connectTimeout: 3000,
    keepAlive: 10_000,
    noDelay: true,
    retryStrategy: () => RECONNECT_MIN_MS + options.random() * RECONNECT_SPREAD_MS,
    reconnectOnError: (error) => (error.message.startsWith('READONLY') ? 1 : false),
    ...(role === 'subscriber' ? {} : { socketTimeout: options.blockMs + SILENCE_GRACE_MS }),
    ...(role === 'command' || role === 'ingest' ? { commandTimeout: options.commandTimeoutMs } : {}),
  }
}

/** Splits a Redis URL into ioredis options. */
export function addressOptions(url: string): RedisOptions {
  if (url.startsWith('unix://')) return { path: url.slice('unix://'.length) }
  if (url.startsWith('/')) return { path: url }
  let parsed: URL
  try {
    parsed = new URL(url)
  } catch (cause) {
    throw new MillraceError(
      'config.invalid',
      'REDIS_URL is not a URL. Use redis://[user:password@]host:port[/db].',
      {
        cause,
      },
    )
  }
  if (parsed.protocol !== 'redis:' && parsed.protocol !== 'rediss:') {
    throw new MillraceError(
      'config.invalid',
      `REDIS_URL starts with "${parsed.protocol}//". Use redis://, rediss:// (TLS) or unix://.`,
    )
  }
  const database = parsed.pathname.length > 1 ? Number(parsed.pathname.slice(1)) : 0
  if (!Number.isInteger(database) || database < 0) {
    throw new MillraceError(
      'config.invalid',
      `REDIS_URL names database "${parsed.pathname.slice(1)}"; use a number.`,
    )
  }
  const host = parsed.hostname.replace(/^\[|\]$/g, '') || '127.0.0.1'
  return {
    host,
    port: parsed.port === '' ? 6379 : Number(parsed.port),
    db: database,
    ...(parsed.username === '' ? {} : { username: decodeURIComponent(parsed.username) }),
    ...(parsed.password === '' ? {} : { password: decodeURIComponent(parsed.password) }),
    ...(parsed.protocol === 'rediss:' ? { tls: isIP(host) === 0 ? { servername: host } : {} } : {}),
  }
}

/** What ioredis says of a connection that is away. */
const NOT_CONNECTED = "Stream isn't writeable"
const NOT_SENT = [NOT_CONNECTED, 'LOADING', 'MASTERDOWN', 'READONLY', 'NOREPLICAS', 'MISCONF', 'BUSY ']

/**
 * Translates what ioredis throws. `ReplyError.command.args` holds payloads and AUTH arguments, so the original object
 * never travels on: only its first line does.
 */
export function redisError(error: unknown, what: string): MillraceError {
  if (error instanceof MillraceError) return error
  const text = (error instanceof Error ? error.message : String(error)).split('\n', 1)[0]?.slice(0, 300) ?? ''
  if (text.startsWith('OOM') || text.includes('-OOM ')) {
    return new MillraceError(
      'admission.overloaded',
      `Redis is out of memory (${what}). Nothing was stored.`,
      {
        retryAfterS: 5,
      },
    )
  }
  if (NOT_SENT.some((start) => text.includes(start))) {
    const why = text.startsWith(NOT_CONNECTED) ? 'it is not reachable' : text
    return new MillraceError('redis.unavailable', `Redis can't serve ${what} now: ${why}`, {
      retryAfterS: 1,
    })
  }
  return new MillraceError('redis.unknown', `No certain answer from Redis for ${what}: ${text}`, {
    retryAfterS: 1,
  })
}
