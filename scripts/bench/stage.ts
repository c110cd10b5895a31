/**
 * Where one scenario plays: a folder, redis-servers, processes of the product, baselines. Everything that was started here
 * ends with the stage, whatever happened.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { freePorts } from '../fleet/free-ports.ts'
import { RedisServer } from '../fleet/redis-server.ts'
import { type Role, RoleProcess } from '../fleet/role-process.ts'
import { Subject, type SubjectOptions } from './subject.ts'

export interface StageOptions {
  readonly folder: string
  readonly quick: boolean
  /** How long a measurement by time lasts. */
  readonly seconds: number
  readonly signal: AbortSignal
  /** The folder of the peers' packages; undefined without them. */
  readonly peersFolder: string | undefined
  readonly tell: (line: string) => void
}

export interface RoleOptions {
  readonly redis: RedisServer
  /** Folder of its modules, in `app/` or in the application. */
  readonly app: string
  readonly flags?: readonly string[]
  /** An application that has the built package installed. Default: this checkout, from source. */
  readonly application?: string
}

/** Folder of the modules that the product's processes load. */
const APP: string = join(import.meta.dir, 'app')

/** Rewriting the log forks in the middle of a round: here nobody's does. */
const REDIS_SETTINGS = ['--auto-aof-rewrite-percentage', '0']

export class Stage {
  readonly folder: string
  readonly quick: boolean
  readonly seconds: number
  readonly signal: AbortSignal
  readonly peersFolder: string | undefined
  readonly tell: StageOptions['tell']
  readonly #redises: RedisServer[] = []
  readonly #clients: Redis[] = []
  readonly #roles = new Set<RoleProcess>()
  readonly #subjects = new Set<Subject>()
  #count = 0

  constructor({ folder, quick, seconds, signal, peersFolder, tell }: StageOptions) {
    this.folder = folder
    this.quick = quick
    this.seconds = seconds
    this.signal = signal
    this.peersFolder = peersFolder
    this.tell = tell
    mkdirSync(folder, { recursive: true, mode: 0o700 })
  }

  /** A redis-server with its log of commands written every second. */
  async redis(settings: readonly string[] = []): Promise<RedisServer> {
    const [port = 0] = await freePorts(1)
    const server = new RedisServer({
      folder: join(this.folder, `redis-${this.#next()}`),
      port,
      fsync: 'everysec',
      signal: this.signal,
      settings: [...REDIS_SETTINGS, ...settings],
    })
    this.#redises.push(server)
    await server.start()
    return server
  }

  /** A connection of the benchmark's own. */
  client(server: RedisServer, db = 0): Redis {
    const client = new Redis(server.url, { db, protocol: 2, replyMapping: 'legacy' })
    client.on('error', () => undefined)
    this.#clients.push(client)
    return client
  }

  /** `millrace start <role>` with the modules of `app/<app>`; resolves when it says that it is ready. */
  async role(role: Role, options: RoleOptions): Promise<RoleProcess> {
    const launched = this.launch(role, options)
    await launched.untilReady(this.signal)
    return launched
  }

  /** The same, without waiting for anything. */
  launch(role: Role, { redis, app, flags = [], application }: RoleOptions): RoleProcess {
    const launched = RoleProcess.spawn({
      name: role,
      role,
      flags: [
        ...['--redis-url', redis.url, '--workers-dir', join(application ?? APP, app)],
        ...['--port', '0', '--admin-port', '0'],
        ...['--log-level', 'warn', ...flags],
      ],
      logFile: join(this.folder, `${role}-${this.#next()}.log`),
      signal: this.signal,
      ...(application === undefined ? {} : { application }),
    })
    this.#roles.add(launched)
    return launched
  }

  /** A script of `subjects/`; resolves at once. */
  subject(script: string, input: object, more: Pick<SubjectOptions, 'program'> = {}): Subject {
    const logFile = join(this.folder, `subject-${this.#next()}.log`)
    const subject = new Subject({ script, input, logFile, signal: this.signal, ...more })
    this.#subjects.add(subject)
    return subject
  }

  async end(ended: RoleProcess | Subject): Promise<void> {
    await ended.end()
    this.#subjects.delete(ended as Subject)
    this.#roles.delete(ended as RoleProcess)
  }

  async endRedis(server: RedisServer): Promise<void> {
    await server.end()
    rmSync(server.folder, { recursive: true, force: true })
  }

  async close(): Promise<void> {
    await Promise.all([...this.#subjects, ...this.#roles].map((process) => process.end()))
    for (const client of this.#clients) client.disconnect()
    for (const server of this.#redises) server.abandon()
  }

  /** For an exit that waits for nothing. */
  abandon(): void {
    for (const { child } of [...this.#subjects, ...this.#roles]) child.kill('SIGKILL')
    for (const server of this.#redises) server.abandon()
  }

  #next(): number {
    this.#count += 1
    return this.#count
  }
}
