/**
 * A primary with two replicas and three Sentinels, as processes: the primary can be killed, another one takes its place, and
 * the old one comes back as a replica.
 */
import { closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { RedisClient, type Subprocess } from 'bun'
import { RunError } from '../fleet/failure.ts'
import { freePorts } from '../fleet/free-ports.ts'
import { REDIS_SERVER, RedisServer } from '../fleet/redis-server.ts'

const NAME = 'mill'
const SENTINELS = 3
const REPLICAS = 2
const WAIT_LIMIT_MS = 60_000
/** A Sentinel tries the same primary again only after twice this time. */
export const FAILOVER_TIMEOUT_MS = 3000
const TURN_BY_HAND_AFTER_MS = 15_000
const LOOK_MS = 50

export const DOWN_AFTER_MS = 1000
/** What every server of the trio runs with. */
export const REPLICATION: readonly string[] = [
  ...['--repl-diskless-sync-delay', '0', '--repl-ping-replica-period', '1'],
]

export interface SentinelTrioOptions {
  readonly folder: string
  readonly fsync: 'everysec' | 'always'
  readonly signal: AbortSignal
}

export class SentinelTrio {
  readonly #options: SentinelTrioOptions
  readonly #servers: RedisServer[]
  readonly #sentinels: { readonly port: number; readonly child: Subprocess }[] = []

  private constructor(options: SentinelTrioOptions, primary: RedisServer) {
    this.#options = options
    this.#servers = [primary]
  }

  static async open(primary: RedisServer, options: SentinelTrioOptions): Promise<SentinelTrio> {
    const trio = new SentinelTrio(options, primary)
    const ports = await freePorts(REPLICAS + SENTINELS)
    for (const [i, port] of ports.slice(0, REPLICAS).entries()) {
      const { folder, fsync, signal } = options
      const replica = new RedisServer({
        ...{ folder: join(folder, `replica-${i + 1}`), port, fsync, signal, settings: REPLICATION },
      })
      trio.#servers.push(replica)
      await replica.start(['--replicaof', `127.0.0.1 ${primary.port}`])
    }
    await trio.untilFollowing(primary)
    for (const port of ports.slice(REPLICAS)) trio.#launchSentinel(port, primary.port)
    await trio.#untilWatching()
    return trio
  }

  get url(): string {
    return `redis+sentinel://${this.#sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',')}/${NAME}`
  }

  replicasOf(primary: RedisServer): RedisServer[] {
    return this.#servers.filter((server) => server !== primary)
  }

  /** The server that Sentinel has put in the place of `old`. */
  async successorOf(old: RedisServer): Promise<RedisServer> {
    return await this.#until('no other primary was chosen', async () => {
      const reply = (await this.#ask('get-master-addr-by-name')) as string[]
      const found = this.#servers.find((server) => server.port === Number(reply[1]))
      if (found === undefined || found === old) return undefined
      const role = await ask(found.port, 'ROLE', [])
      return Array.isArray(role) && role[0] === 'master' ? found : undefined
    })
  }

  /**
   * Until all replicas follow and have what the primary has. Sentinel may take its time to turn one to the new primary, when a
   * failover follows soon upon another; after a while it is turned by hand, as an operator would.
   */
  async untilFollowing(primary: RedisServer): Promise<void> {
    const byHandMs = performance.now() + TURN_BY_HAND_AFTER_MS
    await this.#until('the replicas do not follow', async () => {
      const text = String(await ask(primary.port, 'INFO', ['replication']))
      const following = [...text.matchAll(/state=online,\w+=\d+,lag=[01]\b/g)].length
      if (following >= REPLICAS) return primary
      if (performance.now() > byHandMs) await this.#turnTo(primary)
      return undefined
    })
  }

  async #turnTo(primary: RedisServer): Promise<void> {
    for (const { port } of this.replicasOf(primary)) {
      const role = await ask(port, 'ROLE', [])
      if (Array.isArray(role) && role[0] === 'slave' && Number(role[2]) === primary.port) continue
      await ask(port, 'REPLICAOF', ['127.0.0.1', String(primary.port)])
    }
  }

  async close(): Promise<void> {
    for (const { child } of this.#sentinels) child.kill('SIGKILL')
    await Promise.all(this.#sentinels.map(({ child }) => child.exited))
    await Promise.all(this.#servers.map((server) => server.end()))
  }

  #launchSentinel(port: number, primaryPort: number): void {
    const folder = join(this.#options.folder, `sentinel-${port}`)
    mkdirSync(folder, { recursive: true })
    const file = join(folder, 'sentinel.conf')
    const lines = [
      `port ${port}`,
      'bind 127.0.0.1',
      `dir ${folder}`,
      `sentinel monitor ${NAME} 127.0.0.1 ${primaryPort} 2`,
      `sentinel down-after-milliseconds ${NAME} ${DOWN_AFTER_MS}`,
      `sentinel failover-timeout ${NAME} ${FAILOVER_TIMEOUT_MS}`,
      `sentinel parallel-syncs ${NAME} 4`,
    ]
    writeFileSync(file, `${lines.join('\n')}\n`)
    const log = openSync(join(folder, 'sentinel.log'), 'a', 0o600)
    const child = Bun.spawn([REDIS_SERVER, file, '--sentinel'], { stdio: ['ignore', log, log] })
    closeSync(log)
    this.#sentinels.push({ port, child })
  }

  /** A Sentinel that knows all replicas and all others can take part in a failover. */
  async #untilWatching(): Promise<void> {
    for (const { port } of this.#sentinels) {
      await this.#until('a Sentinel does not know the others', async () => {
        const words = ((await ask(port, 'SENTINEL', ['MASTER', NAME])) as unknown[]).map(String)
        const field = (name: string): string => words[words.indexOf(name) + 1] ?? ''
        const knows =
          Number(field('num-slaves')) >= REPLICAS && Number(field('num-other-sentinels')) >= SENTINELS - 1
        return knows && field('flags') === 'master' ? port : undefined
      })
    }
  }

  async #ask(what: string): Promise<unknown> {
    for (const { port } of this.#sentinels) {
      const reply = await ask(port, 'SENTINEL', [what, NAME]).catch(() => undefined)
      if (reply !== undefined) return reply
    }
    return []
  }

  async #until<Found>(complaint: string, look: () => Promise<Found | undefined>): Promise<Found> {
    const endMs = performance.now() + WAIT_LIMIT_MS
    for (;;) {
      this.#options.signal.throwIfAborted()
      const found = await look().catch(() => undefined)
      if (found !== undefined) return found
      if (performance.now() > endMs)
        throw new RunError('failed', `${complaint} after ${WAIT_LIMIT_MS / 1000} s.`)
      await Bun.sleep(LOOK_MS)
    }
  }
}

async function ask(port: number, command: string, args: readonly string[]): Promise<unknown> {
  const client = new RedisClient(`redis://127.0.0.1:${port}`, {
    connectionTimeout: 1000,
    autoReconnect: false,
  })
  try {
    await client.connect()
    const reply: unknown = await client.send(command, [...args])
    // RESP3 answers a map where RESP2 lists names and values.
    return isMap(reply) ? Object.entries(reply).flat() : reply
  } finally {
    client.close()
  }
}

function isMap(reply: unknown): reply is object {
  return typeof reply === 'object' && reply !== null && !Array.isArray(reply)
}
