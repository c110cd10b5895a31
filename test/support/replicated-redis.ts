/**
 * A primary with replicas, and Sentinels if wanted: real processes on loopback ports, which can be killed, paused and
 * started again one by one, gone afterwards.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import type { Telemetry } from '../../src/contracts/telemetry.ts'
import { type ConnectionRole, type RedisLink, RedisLinks } from '../../src/redis/connection.ts'
import { countFollowing, parseReplication } from '../../src/redis/replication.ts'
import { freePort } from './free-port.ts'
import { SILENT_TELEMETRY } from './telemetry.ts'
import { until } from './until.ts'

const BINARY = Bun.env['MILLRACE_REDIS_SERVER'] ?? 'redis-server'

/** TLS, and the same password for servers and Sentinels. */
interface Secured {
  /** Files. */
  readonly certificate: string
  readonly key: string
  readonly password: string
}

/** One server or Sentinel process. */
export interface TestServer {
  readonly secured: Secured | undefined
  readonly port: number
  readonly pid: number
  readonly folder: string
  /** SIGKILL. */
  kill(): Promise<void>
  /** SIGSTOP. */
  pause(): void
  /** SIGCONT. */
  resume(): void
  /** Starts it again on the same folder and port. */
  restart(): void
}

export interface ReplicatedRedis extends AsyncDisposable {
  /** Fit for REDIS_URL: by the Sentinels when there are some, else the first server. */
  readonly url: string
  /** The first one started as the primary. */
  readonly servers: readonly TestServer[]
  readonly sentinels: readonly TestServer[]
  /** Connections by `url`, closed with everything. */
  readonly links: RedisLinks
  open(role?: ConnectionRole): Promise<RedisLink>
  /** The server that says it is the primary, among those that answer. */
  primary(): Promise<TestServer>
  /** Runs one command on one server, outside the product's connections. */
  ask(server: TestServer, ...command: readonly string[]): Promise<unknown>
  /** When the Sentinel that led the last failover had a new primary, ms since 1970. */
  promotedAtMs(): Promise<number>
  /** Resolves when `count` replicas follow the present primary. */
  untilFollowing(count: number): Promise<void>
}

export interface ReplicatedOptions {
  /** Default 1. */
  readonly replicas?: number
  /** Default 0. */
  readonly sentinels?: number
  readonly downAfterMs?: number
  /** More arguments for every redis-server. */
  readonly extra?: readonly string[]
  readonly telemetry?: Telemetry
  /** Needs a redis-server that was built with TLS. */
  readonly secured?: Secured
}

/** True when redis-server was built with TLS. */
export function isBuiltWithTls(): boolean {
  const { stdout } = Bun.spawnSync([BINARY, '--port', '0', '--tls-port', '1', '--save', ''])
  return stdout.toString().includes('No tls-cert-file configured')
}

const PRIMARY_NAME = 'mill'
const LOG = 'sentinel.log'
/** `4711:X 27 Nov 2026 21:12:16.677 # +promoted-slave slave …` */
const PROMOTED = /:X (.*?) [#*] \+promoted-slave/g

export async function startReplicatedRedis(options: ReplicatedOptions = {}): Promise<ReplicatedRedis> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-replicated-'))
  const started: Launched[] = []
  const end = async (): Promise<void> => {
    await Promise.all(started.map((each) => each.kill()))
    await rm(folder, { recursive: true, force: true })
  }
  try {
    return await launchAll(options, folder, started, end)
  } catch (error) {
    await end()
    throw error
  }
}

async function launchAll(
  options: ReplicatedOptions,
  folder: string,
  started: Launched[],
  end: () => Promise<void>,
): Promise<ReplicatedRedis> {
  const { replicas = 1, sentinels: sentinelCount = 0, downAfterMs = 1000, extra = [], secured } = options
  const serve = async (name: string, following?: number): Promise<TestServer> => {
    const port = freePort()
    const own = join(folder, name)
    await mkdir(own)
    const follow = following === undefined ? [] : ['--replicaof', `127.0.0.1 ${following}`]
    const command = [
      ...[BINARY, '--bind', '127.0.0.1', '--dir', own, '--save', '', ...portArguments(port, secured)],
      ...['--appendonly', 'yes', '--appendfsync', 'everysec', '--repl-diskless-sync-delay', '0'],
      ...['--repl-ping-replica-period', '1', '--loglevel', 'warning', ...extra, ...follow],
    ]
    return launched(new Launched(port, own, command, secured), started)
  }
  const first = await serve('server-0')
  const servers = [first]
  for (let i = 1; i <= replicas; i++) servers.push(await serve(`server-${i}`, first.port))
  await following(first, replicas)
  const sentinels: TestServer[] = []
  for (let i = 0; i < sentinelCount; i++) {
    const own = join(folder, `sentinel-${i}`)
    sentinels.push(await launchSentinel(own, first.port, downAfterMs, started, secured))
  }
  await Promise.all(sentinels.map((each) => untilWatching(each, replicas, sentinelCount - 1)))
  const hosts = sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',')
  const [scheme, user, query] =
    secured === undefined
      ? ['redis', '', '']
      : ['rediss', `:${secured.password}@`, `?sentinelPassword=${secured.password}`]
  const url =
    sentinelCount === 0
      ? `${scheme}://${user}127.0.0.1:${first.port}`
      : `${scheme}+sentinel://${user}${hosts}/${PRIMARY_NAME}${query}`
  const links = new RedisLinks({
    address: { url },
    telemetry: options.telemetry ?? SILENT_TELEMETRY,
    random: Math.random,
    blockMs: 2000,
    commandTimeoutMs: 5000,
  })
  const primary = async (): Promise<TestServer> => {
    for (const server of servers) {
      const role = await ask(server, 'ROLE').catch(() => undefined)
      if (Array.isArray(role) && role[0] === 'master') return server
    }
    throw new Error('no server says that it is the primary')
  }
  return {
    ...{ url, servers, sentinels, links, primary, ask },
    open: async (role = 'command') => {
      const link = links.open(role)
      await link.whenReady(10_000)
      return link
    },
    promotedAtMs: async () => {
      const logs = await Promise.all(sentinels.map((each) => Bun.file(join(each.folder, LOG)).text()))
      const times = logs.flatMap((log) => [...log.matchAll(PROMOTED)].map(([, at = '']) => Date.parse(at)))
      return Math.max(...times)
    },
    untilFollowing: async (count) => following(await primary(), count),
    [Symbol.asyncDispose]: async () => {
      links.closeAll()
      await end()
    },
  }
}

function portArguments(port: number, secured: Secured | undefined): string[] {
  if (secured === undefined) return ['--port', String(port)]
  const { certificate, key, password } = secured
  return [
    ...['--port', '0', '--tls-port', String(port), '--tls-replication', 'yes', '--tls-auth-clients', 'no'],
    ...['--tls-cert-file', certificate, '--tls-key-file', key, '--tls-ca-cert-file', certificate],
    ...['--requirepass', password, '--masterauth', password],
  ]
}

class Launched implements TestServer {
  readonly secured: Secured | undefined
  readonly port: number
  readonly folder: string
  readonly #command: readonly string[]
  #child: Bun.Subprocess<'ignore', 'ignore', 'ignore'>

  constructor(port: number, folder: string, command: readonly string[], secured: Secured | undefined) {
    this.secured = secured
    this.port = port
    this.folder = folder
    this.#command = command
    this.#child = this.#launch()
  }

  get pid(): number {
    return this.#child.pid
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#child.exited
  }

  pause(): void {
    this.#child.kill('SIGSTOP')
  }

  resume(): void {
    this.#child.kill('SIGCONT')
  }

  restart(): void {
    this.#child = this.#launch()
  }

  #launch(): Bun.Subprocess<'ignore', 'ignore', 'ignore'> {
    return Bun.spawn([...this.#command], { stdio: ['ignore', 'ignore', 'ignore'] })
  }
}

async function launched(server: Launched, started: Launched[]): Promise<TestServer> {
  started.push(server)
  await until(`port ${server.port} to answer`, async () => {
    return (await ask(server, 'PING').catch(() => undefined)) === 'PONG'
  })
  return server
}

async function launchSentinel(
  folder: string,
  primaryPort: number,
  downAfterMs: number,
  started: Launched[],
  secured: Secured | undefined,
): Promise<TestServer> {
  const port = freePort()
  await mkdir(folder)
  const file = join(folder, 'sentinel.conf')
  await Bun.write(
    file,
    [
      ...(secured === undefined ? [`port ${port}`] : securedSentinel(port, secured)),
      'bind 127.0.0.1',
      `dir ${folder}`,
      `logfile ${join(folder, LOG)}`,
      `sentinel monitor ${PRIMARY_NAME} 127.0.0.1 ${primaryPort} 2`,
      `sentinel down-after-milliseconds ${PRIMARY_NAME} ${downAfterMs}`,
      `sentinel failover-timeout ${PRIMARY_NAME} 5000`,
      `sentinel parallel-syncs ${PRIMARY_NAME} 4`,
      ...(secured === undefined ? [] : [`sentinel auth-pass ${PRIMARY_NAME} ${secured.password}`]),
      '',
    ].join('\n'),
  )
  return launched(new Launched(port, folder, [BINARY, file, '--sentinel'], secured), started)
}

function securedSentinel(port: number, { certificate, key, password }: Secured): string[] {
  return [
    ...['port 0', `tls-port ${port}`, 'tls-replication yes', 'tls-auth-clients no'],
    ...[`tls-cert-file ${certificate}`, `tls-key-file ${key}`, `tls-ca-cert-file ${certificate}`],
    ...[`requirepass ${password}`, `sentinel sentinel-pass ${password}`],
  ]
}

/** A Sentinel that knows all replicas and all other Sentinels can take part in a failover. */
async function untilWatching(sentinel: TestServer, replicas: number, others: number): Promise<void> {
  await until('a Sentinel to know the others', async () => {
    const reply = await ask(sentinel, 'SENTINEL', 'MASTER', PRIMARY_NAME)
    const words = Array.isArray(reply) ? reply.map(String) : []
    const field = (name: string): string => words[words.indexOf(name) + 1] ?? ''
    return (
      field('flags') === 'master' &&
      Number(field('num-slaves')) >= replicas &&
      Number(field('num-other-sentinels')) >= others
    )
  })
}

async function following(primary: TestServer, count: number): Promise<void> {
  await until(`${count} replicas to follow`, async () => {
    const text = await ask(primary, 'INFO', 'replication').catch(() => '')
    return countFollowing(parseReplication(String(text))) >= count
  })
}

async function ask(server: TestServer, ...command: readonly string[]): Promise<unknown> {
  const { secured } = server
  const client = new Redis({
    host: '127.0.0.1',
    port: server.port,
    ...(secured === undefined
      ? {}
      : { tls: { ca: await Bun.file(secured.certificate).text() }, password: secured.password }),
    protocol: 2,
    enableReadyCheck: false,
    connectTimeout: 1000,
    commandTimeout: 2000,
    retryStrategy: () => null,
  })
  client.on('error', () => undefined)
  try {
    const [name = '', ...args] = command
    return await client.call(name, ...args)
  } finally {
    client.disconnect()
  }
}
