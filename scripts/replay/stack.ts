/**
 * A stack of the replay's own: API, workers and projector as processes, with a redis-server child in the data folder.
 *
 *   api ──(owns the folder's redis-server)──▶ project ──▶ work 1 … n
 *
 * Workers start one after another, because a new one is recognised by the consumer names that appear with it. Each
 * process writes to a log file of its own. `processes.log` in the folder lists every process that was started, so that
 * a replay that goes on after a crash can end what the crash left running.
 */
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { commandLine } from '../fleet/command-line.ts'
import { RunError } from '../fleet/failure.ts'
import { type Role, RoleProcess } from '../fleet/role-process.ts'
import { RedisProbe } from './probe.ts'

const ROOT = join(import.meta.dir, '../..')
const START_LIMIT_MS = 60_000

/** A worker of the stack. */
export interface StackWorker {
  readonly process: RoleProcess
  /** Consumer names that it brought along. */
  readonly consumers: ReadonlySet<string>
}

export interface StackOptions {
  readonly folder: string
  readonly workers: number
  readonly durability: 'everysec' | 'fsync'
  readonly signal: AbortSignal
}

export class Stack {
  readonly #options: StackOptions
  readonly #workers = new Set<StackWorker>()
  /** Everything that was started and has not ended: not yet ready, running, or on the way out. */
  readonly #processes = new Set<RoleProcess>()
  readonly #failure = Promise.withResolvers<never>()
  #apiUrl = ''
  #probe: RedisProbe | undefined
  #redisPid: number | undefined
  #started = 0

  constructor(options: StackOptions) {
    this.#options = options
    this.#failure.promise.catch(() => undefined)
  }

  get apiUrl(): string {
    return this.#apiUrl
  }

  get probe(): RedisProbe {
    if (this.#probe !== undefined) return this.#probe
    throw new RunError('failed', 'The stack is not up.')
  }

  get workers(): StackWorker[] {
    return [...this.#workers]
  }

  /** Rejects when a process ends that nobody asked to end. */
  get failure(): Promise<never> {
    return this.#failure.promise
  }

  async start(): Promise<void> {
    mkdirSync(join(this.#options.folder, 'logs'), { recursive: true })
    const api = await this.#launch('api')
    this.#apiUrl = api.told('public')
    const address = JSON.parse(readFileSync(join(this.#options.folder, 'redis/address.json'), 'utf8')) as {
      url: string
    }
    this.#probe = await RedisProbe.open(address.url)
    this.#redisPid = (await this.#probe.facts()).pid
    await this.#launch('project')
    for (let i = 0; i < this.#options.workers; i++) await this.startWorker()
  }

  async startWorker(): Promise<StackWorker> {
    const before = await this.probe.beatingConsumers()
    const process = await this.#launch('work')
    const endMs = performance.now() + START_LIMIT_MS
    for (;;) {
      this.#options.signal.throwIfAborted()
      const consumers = (await this.probe.beatingConsumers()).difference(before)
      if (consumers.size > 0) {
        const worker = { process, consumers }
        this.#workers.add(worker)
        return worker
      }
      if (performance.now() > endMs)
        throw new RunError('failed', `${process.name} is up, but sends no heartbeats.`)
      await Bun.sleep(20)
    }
  }

  /** SIGKILL, as a crash would. */
  async kill(worker: StackWorker): Promise<void> {
    this.#workers.delete(worker)
    await worker.process.kill()
  }

  /** Ends everything: workers and projector first, then the API, which takes its redis-server along. */
  async stop(): Promise<void> {
    const all = [...this.#processes]
    this.#probe?.close()
    await Promise.all(all.filter(({ role }) => role !== 'api').map((process) => process.end()))
    await Promise.all(all.filter(({ role }) => role === 'api').map((process) => process.end()))
    this.#endRedis()
  }

  /** For an exit that waits for nothing. */
  abandon(): void {
    for (const { child } of this.#processes) child.kill('SIGKILL')
    this.#endRedis()
  }

  /** The API ends its redis-server by itself, unless it was killed. */
  #endRedis(): void {
    const pid = this.#redisPid
    if (pid !== undefined && /redis|valkey/.test(commandLine(pid))) process.kill(pid, 'SIGTERM')
  }

  async #launch(role: Role): Promise<RoleProcess> {
    const { folder, durability, signal } = this.#options
    this.#started += 1
    const name = `${role}-${this.#started}`
    const launched = RoleProcess.spawn({
      name,
      role,
      flags: [
        ...['--data-dir', folder, '--workers-dir', join(ROOT, 'workers/flights')],
        ...['--port', '0', '--admin-port', '0', '--durability', durability, '--log-level', 'info'],
      ],
      logFile: join(folder, 'logs', `${name}-${process.pid}.log`),
      signal,
      onSpawn: (child) => appendFileSync(join(folder, 'processes.log'), `${child.pid}\n`),
    })
    this.#processes.add(launched)
    void launched.child.exited.then(() => this.#processes.delete(launched))
    await launched.untilReady(signal)
    launched.watch((sentence) => this.#failure.reject(new RunError('failed', sentence)))
    return launched
  }
}

/** Ends processes of this folder that an interrupted replay left behind. Answers how many there were. */
export async function endLeftovers(folder: string): Promise<number> {
  const list = join(folder, 'processes.log')
  if (!existsSync(list)) return 0
  const pids = readFileSync(list, 'utf8').split('\n').filter(Boolean).map(Number)
  const alive = pids.filter((pid) => isOurs(pid, folder))
  for (const pid of alive) process.kill(pid, 'SIGKILL')
  while (alive.some((pid) => isOurs(pid, folder))) await Bun.sleep(20)
  return alive.length
}

/** By command line, never by the process id alone: ids are used again. */
function isOurs(pid: number, folder: string): boolean {
  const line = commandLine(pid)
  return line.includes('src/cli/main.ts start') && line.includes(`--data-dir ${folder}`)
}
