/**
 * The only place that opens ioredis clients, each with the options its role needs.
 *
 *   command   settles, promotes, relays, commits; waits for its answer at most `commandTimeoutMs`, then dials again
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
 *
 * Behind Sentinel every dial asks a Sentinel for the primary and checks that the server says it is one; when Sentinel names
 * another one, connections to the old one are dropped at once, so that it is not written to when it wakes.
 */
import { Redis, type RedisOptions } from 'ioredis'
import { MillraceError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { addressOptions, isSentinelUrl } from './address.ts'
import { addMissingSubscriberCheck } from './quiet-tracing.ts'
import { SCRIPTS, type ScriptName } from './scripts.ts'
import { SentinelWatch } from './sentinel-watch.ts'
import { StreamMarks } from './stream-marks.ts'

addMissingSubscriberCheck()

export type ConnectionRole = 'command' | 'ingest' | 'reader' | 'subscriber'

export interface RedisAddress {
  /** Any form of REDIS_URL. */
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
  /** Opens the client of a link; a test may put another in its place. */
  readonly dial?: (options: ClientOptions) => Redis
}

/** For ioredis; replies come as they did before its version 6. */
export type ClientOptions = RedisOptions & { replyMapping: 'legacy' }

export const CONNECTION_DEFAULTS: { readonly blockMs: number; readonly commandTimeoutMs: number } = {
  blockMs: 2000,
  commandTimeoutMs: 3500,
}

/** So that a silent link is dropped within two seconds after its block, however late the timer. */
const SILENCE_GRACE_MS = 1500
const RECONNECT_MIN_MS = 20
const RECONNECT_SPREAD_MS = 130
/** A server that was paused never closes its side: drop ours without waiting for it. */
const DISCONNECT_WAIT_MS = 100
const CONNECT_LIMIT_MS = 3000
/** Behind Sentinel there is another server to try, so a dial, an answer of a Sentinel and a handshake get less time each. */
const SENTINEL_STEP_LIMIT_MS = 1000

export type Argument = string | Buffer | number

/** What can run a script by its name. */
export interface ScriptRunner {
  /** @throws MillraceError `redis.unavailable` (nothing ran), `redis.unknown` (it may have run), `admission.overloaded` (OOM) */
  run(name: ScriptName, keys: readonly string[], args: readonly Argument[]): Promise<unknown>
  /** The newest entry ids that this process has seen. */
  readonly marks: StreamMarks
}

/** One connection, with scripts run by name and errors already translated. */
export class RedisLink implements ScriptRunner {
  readonly role: ConnectionRole
  readonly client: Redis
  readonly marks: StreamMarks
  #lost = false
  #closed = false
  #generation = 0
  readonly #inFlight = new Set<(error: Error) => void>()

  constructor(
    role: ConnectionRole,
    options: ConnectionOptions,
    marks: StreamMarks = new StreamMarks(),
    sentinels?: SentinelWatch,
  ) {
    this.role = role
    this.marks = marks
    const { dial = (chosen: ClientOptions) => new Redis(chosen) } = options
    this.client = dial(clientOptions(role, options, sentinels))
    this.client.on('error', () => undefined)
    if (isSentinelUrl(options.address.url)) this.#persist()
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
      return await this.#settled(this.client.callBuffer('EVALSHA', scriptLine(script.digest, keys, args)))
    } catch (error) {
      if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT'))
        throw redisError(error, `script ${name}`)
    }
    return await this.evaluate(name, keys, args)
  }

  /** Runs a script by its source, for a server that can't have it yet. @throws as `run` */
  async evaluate(name: ScriptName, keys: readonly string[], args: readonly Argument[]): Promise<unknown> {
    const script = SCRIPTS[name]
    try {
      return await this.#settled(this.client.callBuffer('EVAL', scriptLine(script.source, keys, args)))
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

  /** Drops the connection and dials again; what was in flight fails as unknown. One that is being dialled is left alone. */
  reconnect(): void {
    const { status } = this.client
    // To disconnect while a Sentinel is being asked would end the client for good.
    if (status === 'connect' || status === 'ready') {
      this.client.disconnect(true)
      // Without waiting for the other side, which may be paused, and without sending what is still to be written.
      this.client.stream.destroy()
    }
    this.#failInFlight()
  }

  /** Calls whenever a connection has become usable, before others use it. Returns what ends that. */
  onReady(call: () => void): () => void {
    this.client.on('ready', call)
    return () => this.client.off('ready', call)
  }

  /** Where it is connected to, while it is. */
  get remote(): { readonly host: string; readonly port: number } | undefined {
    const { remoteAddress: host, remotePort: port } = this.client.stream ?? {}
    return host === undefined || port === undefined ? undefined : { host, port }
  }

  /**
   * Behind Sentinel: a server that takes the connection and never shakes hands (paused, and named by a Sentinel that does
   * not know better yet) is left for the next dial, and a client that gave up is dialled again.
   */
  #persist(): void {
    this.client.on('connect', () => {
      const { stream } = this.client
      const limit = AbortSignal.timeout(SENTINEL_STEP_LIMIT_MS)
      limit.onabort = () => {
        if (this.client.status === 'connect' && this.client.stream === stream) this.reconnect()
      }
    })
    this.client.on('end', () => {
      const pause = AbortSignal.timeout(RECONNECT_MIN_MS + RECONNECT_SPREAD_MS)
      pause.onabort = () => {
        if (!this.#closed && this.client.status === 'end') this.client.connect().catch(() => undefined)
      }
    })
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
          if (isTimeout(error)) this.reconnect()
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
    this.#closed = true
    this.client.disconnect()
  }
}

/** Arguments may be thousands: lists are joined, not spread one by one. */
function scriptLine(script: string, keys: readonly string[], args: readonly Argument[]): Argument[] {
  const head: Argument[] = [script, keys.length]
  return head.concat(keys, args)
}

/** Opens connections by role and closes them all. */
export class RedisLinks {
  readonly options: ConnectionOptions
  /** Shared by all links: what one received, another may have to prove present. */
  readonly marks: StreamMarks = new StreamMarks()
  readonly #open = new Set<RedisLink>()
  #sentinels: SentinelWatch | undefined

  constructor(options: ConnectionOptions) {
    this.options = options
  }

  open(role: ConnectionRole): RedisLink {
    const { address, random } = this.options
    if (this.#sentinels === undefined && isSentinelUrl(address.url)) {
      const onPrimary = (host: string, port: number) => this.#leaveOthers(host, port)
      this.#sentinels = new SentinelWatch({ options: addressOptions(address.url), random, onPrimary })
    }
    const link = new RedisLink(role, this.options, this.marks, this.#sentinels)
    this.#open.add(link)
    return link
  }

  close(link: RedisLink): void {
    this.#open.delete(link)
    link.close()
  }

  closeAll(): void {
    this.#sentinels?.close()
    this.#sentinels = undefined
    for (const link of this.#open) link.close()
    this.#open.clear()
  }

  #leaveOthers(host: string, port: number): void {
    for (const link of this.#open) {
      const { remote } = link
      if (remote !== undefined && (remote.port !== port || remote.host !== host)) link.reconnect()
    }
  }
}

function clientOptions(
  role: ConnectionRole,
  options: ConnectionOptions,
  sentinels: SentinelWatch | undefined,
): ClientOptions {
  const isBehindSentinel = isSentinelUrl(options.address.url)
  const retryMs = () => RECONNECT_MIN_MS + options.random() * RECONNECT_SPREAD_MS
  return {
    ...addressOptions(options.address.url),
    protocol: 2,
    replyMapping: 'legacy',
    connectionName: `millrace-${role}`,
    autoResendUnfulfilledCommands: false,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    connectTimeout: isBehindSentinel ? SENTINEL_STEP_LIMIT_MS : CONNECT_LIMIT_MS,
    disconnectTimeout: DISCONNECT_WAIT_MS,
    ...(isBehindSentinel
      ? {
          sentinelCommandTimeout: SENTINEL_STEP_LIMIT_MS,
          sentinelRetryStrategy: retryMs,
          natMap: (address: string) => sentinels?.successorOf(address) ?? null,
        }
      : {}),
    keepAlive: 10_000,
    noDelay: true,
    retryStrategy: retryMs,
    reconnectOnError: (error) => (error.message.startsWith('READONLY') ? 1 : false),
    ...(role === 'subscriber' ? {} : { socketTimeout: options.blockMs + SILENCE_GRACE_MS }),
    ...(role === 'command' || role === 'ingest' ? { commandTimeout: options.commandTimeoutMs } : {}),
  }
}

/** A connection that gives no answer in time may never give one again: whoever asks next needs another. */
function isTimeout(error: unknown): boolean {
  return error instanceof Error && error.message === 'Command timed out'
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
