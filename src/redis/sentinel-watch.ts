/**
 * Listens to every Sentinel for the news that another server is the primary now: `+promoted-slave` from the one that leads
 * the failover, as soon as the new primary takes writes, and `+switch-master` from each, when it has heard of it.
 *
 * A connection to a primary that crashed breaks by itself. One to a primary that was paused or cut off does not: without
 * this news it would be written to when it comes back, by whoever did not notice, until it is told that it is a replica.
 * That every dial asks a Sentinel is ioredis's own doing; this is about leaving in time, and about the moment in which the
 * others still answer with the old address: for a while, that is read as the new one.
 */
import { Redis, type RedisOptions } from 'ioredis'

export interface SentinelWatchParts {
  /** As `addressOptions` splits an address of Sentinels. */
  readonly options: RedisOptions
  /** Uniform in [0, 1). */
  readonly random: () => number
  readonly onPrimary: (host: string, port: number) => void
}

const CHANNELS = ['+promoted-slave', '+switch-master'] as const
/** Sentinels tell each other at least every 2 s. */
const SUCCESSION_MS = 10_000
const RETRY_MIN_MS = 250
const RETRY_SPREAD_MS = 500
const CONNECT_LIMIT_MS = 1000

export class SentinelWatch {
  readonly #clients: readonly Redis[]
  /** Every Sentinel tells the same news; it is acted on once. */
  #succession: Succession | undefined

  constructor({ options, random, onPrimary }: SentinelWatchParts) {
    const { sentinels, name, sentinelUsername, sentinelPassword, sentinelTLS } = options
    this.#clients = (sentinels ?? []).map((endpoint) => {
      const client = new Redis({
        host: endpoint.host ?? '127.0.0.1',
        port: endpoint.port ?? 26_379,
        ...(sentinelUsername ? { username: sentinelUsername } : {}),
        ...(sentinelPassword ? { password: sentinelPassword } : {}),
        ...(sentinelTLS === undefined ? {} : { tls: sentinelTLS }),
        protocol: 2,
        enableReadyCheck: false,
        enableOfflineQueue: false,
        autoResendUnfulfilledCommands: false,
        autoResubscribe: false,
        maxRetriesPerRequest: 0,
        connectTimeout: CONNECT_LIMIT_MS,
        disconnectTimeout: 100,
        keepAlive: 10_000,
        retryStrategy: () => RETRY_MIN_MS + random() * RETRY_SPREAD_MS,
      })
      client.on('error', () => undefined)
      client.on('ready', () => {
        client.subscribe(...CHANNELS).catch(() => undefined)
      })
      client.on('message', (channel: string, text: string) => {
        const news = channel === '+switch-master' ? readSwitch(text) : readPromotion(text)
        if (news !== undefined && news.name === name) this.#hear(news, onPrimary)
      })
      return client
    })
  }

  /** The server to dial when a Sentinel names `<host>:<port>`; null for that one itself. */
  successorOf(address: string): { readonly host: string; readonly port: number } | null {
    const news = this.#succession
    return news?.old === address ? { host: news.host, port: news.port } : null
  }

  #hear(news: Succession, onPrimary: SentinelWatchParts['onPrimary']): void {
    const { host, port, old } = news
    const last = this.#succession
    if (last?.old === old && last.host === host && last.port === port) return
    this.#succession = news
    AbortSignal.timeout(SUCCESSION_MS).onabort = () => {
      if (this.#succession === news) this.#succession = undefined
    }
    onPrimary(host, port)
  }

  close(): void {
    for (const client of this.#clients) client.disconnect()
  }
}

/** Who follows whom as the primary of this name. */
interface Succession {
  readonly name: string
  /** `<host>:<port>` */
  readonly old: string
  readonly host: string
  readonly port: number
}

/** `<name> <old host> <old port> <new host> <new port>` */
function readSwitch(text: string): Succession | undefined {
  const [name = '', oldHost, oldPort, host = '', port = ''] = text.split(' ')
  return /^\d+$/.test(port) ? { name, old: `${oldHost}:${oldPort}`, host, port: Number(port) } : undefined
}

/** `slave <its name> <new host> <new port> @ <name> <old host> <old port>` */
function readPromotion(text: string): Succession | undefined {
  const [, , host = '', port = '', at, name = '', oldHost, oldPort] = text.split(' ')
  if (at !== '@' || !/^\d+$/.test(port)) return undefined
  return { name, old: `${oldHost}:${oldPort}`, host, port: Number(port) }
}
