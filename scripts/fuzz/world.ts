/**
 * The processes of a run: a redis-server with a password, and an API process that knows it from its environment. Before, a process
 * of all roles works through a few commands, so that there are views, dead letters and ended commands to ask for.
 */
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { RunError } from '../fleet/failure.ts'
import { freePorts } from '../fleet/free-ports.ts'
import { RedisServer } from '../fleet/redis-server.ts'
import { type Role, RoleProcess } from '../fleet/role-process.ts'
import type { Ground } from './ground.ts'

export interface WorldOptions {
  readonly folder: string
  readonly signal: AbortSignal
  readonly logLevel: 'debug' | 'info'
}

const APP: string = join(import.meta.dir, 'app/fuzz')
const DONE = 40
const DEAD = 400
const WAITING = 60
const KEYS = 30
const LOOK_MS = 50
const SETTLE_LIMIT_MS = 60_000
const FULL = '1mb'

export class World {
  /** The password of Redis: no answer and no line of a log may hold it. */
  readonly secret: string = `secret-${crypto.randomUUID()}`
  readonly #options: WorldOptions
  #server: RedisServer | undefined
  #redis: Redis | undefined
  #api: RoleProcess | undefined
  #ground: Ground | undefined

  constructor(options: WorldOptions) {
    this.#options = options
    mkdirSync(options.folder, { recursive: true, mode: 0o700 })
  }

  get ground(): Ground {
    if (this.#ground === undefined) throw new Error('The world was not opened.')
    return this.#ground
  }

  get redis(): Redis {
    if (this.#redis === undefined) throw new Error('The world was not opened.')
    return this.#redis
  }

  get api(): RoleProcess {
    if (this.#api === undefined) throw new Error('The world was not opened.')
    return this.#api
  }

  async open(): Promise<void> {
    const { folder, signal } = this.#options
    const [port = 0] = await freePorts(1)
    const server = new RedisServer({ folder: join(folder, 'redis'), port, fsync: 'everysec', signal })
    this.#server = server
    await server.start()
    this.#redis = new Redis({
      host: '127.0.0.1',
      port,
      password: this.secret,
      protocol: 2,
      lazyConnect: true,
    })
    this.#redis.on('error', () => undefined)
    const bare = new Redis(server.url, { protocol: 2 })
    await bare.config('SET', 'requirepass', this.secret)
    bare.disconnect()
    const seeded = await this.#launch('all', port)
    const seeds = await this.#seed(seeded)
    await seeded.end()
    const api = await this.#launch('api', port)
    this.#ground = await this.#look(api, seeds)
  }

  async close(): Promise<void> {
    await this.#api?.end()
    this.#redis?.disconnect()
    this.#server?.abandon()
  }

  abandon(): void {
    this.#api?.child.kill('SIGKILL')
    this.#server?.abandon()
  }

  /** What the process holds in memory. */
  residentBytes(): number {
    const pages = Number(readFileSync(`/proc/${this.api.pid}/statm`, 'utf8').split(' ')[1])
    return pages * 4096
  }

  /** Fills Redis, or gives it room; resolves when the process has noticed. Answers ids that were accepted meanwhile. */
  async press(isFull: boolean): Promise<string[]> {
    await this.redis.config('SET', 'maxmemory', isFull ? FULL : '0')
    const accepted: string[] = []
    await this.#until('the process to see how full Redis is', async () => {
      const answer = await post(this.ground.publicPort, 'kept.note', { mark: 'probe' })
      if (answer.status === 202) accepted.push(((await answer.json()) as { id: string }).id)
      return (answer.status === 503) === isFull
    })
    return accepted
  }

  async #launch(role: Role, port: number): Promise<RoleProcess> {
    const { folder, signal, logLevel } = this.#options
    const launched = await RoleProcess.launch({
      name: role,
      role,
      flags: ['--workers-dir', APP, '--port', '0', '--admin-port', '0', '--log-level', logLevel],
      environment: { REDIS_URL: `redis://:${this.secret}@127.0.0.1:${port}` },
      logFile: join(folder, `${role}.log`),
      signal,
      onSpawn: () => undefined,
    })
    this.#api = launched
    return launched
  }

  async #seed(process: RoleProcess): Promise<{
    readonly ended: string[]
    readonly dead: string[]
    readonly waiting: string[]
    readonly behind: string
  }> {
    const port = portOf(process.told('public'))
    const send = async (type: string, payload: object, query = ''): Promise<string> =>
      ((await (await post(port, type, payload, query)).json()) as { id: string }).id
    const ended: string[] = []
    const dead: string[] = []
    const waiting: string[] = []
    for (let i = 0; i < DONE; i++) ended.push(await send('worked.count', { name: `view-${i % 9}` }))
    for (let i = 0; i < DEAD; i++) dead.push(await send('worked.fail', { n: i }))
    for (let i = 0; i < WAITING; i++)
      waiting.push(await send('kept.note', { mark: `w${i}` }, '?delayMs=864000000'))
    const behind = await send('worked.count', { name: 'view-0' }, '?delayMs=864000000')
    await this.#until('the first commands to end', async () => {
      const last = [ended.at(-1), dead.at(-1)].map(async (id) => {
        const { status } = (await (await fetch(`http://127.0.0.1:${port}/v1/commands/${id}`)).json()) as {
          status: string
        }
        return status === 'done' || status === 'dead'
      })
      return (await Promise.all(last)).every(Boolean)
    })
    return { ended, dead, waiting, behind }
  }

  async #look(
    api: RoleProcess,
    seeds: Pick<Ground, 'ended' | 'dead' | 'waiting' | 'behind'>,
  ): Promise<Ground> {
    const [publicUrl, adminUrl] = [api.told('public'), api.told('admin')]
    type Page = { readonly data: { readonly key: string }[]; readonly page: { readonly next: string } }
    const views = (await (await fetch(`${publicUrl}/v1/views/counts?limit=2`)).json()) as Page
    const dead = (await (await fetch(`${adminUrl}/v1/dead-letters?limit=2`)).json()) as Page
    const plan = { filter: { to: '2001-01-01T00:00:00Z' }, dryRun: true }
    const started = await fetch(`${adminUrl}/v1/dead-letters:purge`, {
      ...{ method: 'POST', body: JSON.stringify(plan) },
      headers: { 'content-type': 'application/json' },
    })
    const keys: string[] = []
    for (let i = 0; i < KEYS; i++) {
      const made = await fetch(`${adminUrl}/v1/keys`, {
        ...{ method: 'POST', body: JSON.stringify({ label: `key ${i}`, scopes: ['commands:write'] }) },
        headers: { 'content-type': 'application/json' },
      })
      keys.push(((await made.json()) as { readonly id: string }).id)
    }
    const operation = (await started.json()) as { readonly id: string }
    return {
      ...seeds,
      ...{ publicPort: portOf(publicUrl), adminPort: portOf(adminUrl) },
      viewKeys: ['view-1', 'view-2', ...views.data.map(({ key }) => key)],
      ...{ viewCursor: views.page.next, deadCursor: dead.page.next },
      operations: [operation.id],
      keys,
    }
  }

  async #until(what: string, test: () => Promise<boolean>): Promise<void> {
    const endMs = performance.now() + SETTLE_LIMIT_MS
    while (!(await test())) {
      this.#options.signal.throwIfAborted()
      if (performance.now() > endMs) throw new RunError('unavailable', `waited in vain for ${what}`)
      await Bun.sleep(LOOK_MS)
    }
  }
}

function post(port: number, type: string, payload: object, query = ''): Promise<Response> {
  return fetch(`http://127.0.0.1:${port}/v1/commands/${type}${query}`, {
    ...{ method: 'POST', body: JSON.stringify(payload) },
    headers: { 'content-type': 'application/json' },
  })
}

function portOf(url: string): number {
  return Number(new URL(url).port)
}
