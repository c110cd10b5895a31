/**
 * The processes of a scenario: started, recognised, struck and ended here, and nowhere else.
 *
 * Workers start one after another: a new one is recognised by the consumer names that appear with it. A process that
 * ends without having been asked to fails the scenario, unless the scenario says that its commands do that.
 */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { RunError } from '../fleet/failure.ts'
import { type Role, RoleProcess } from '../fleet/role-process.ts'
import type { Partition, RedisProbe } from './probe.ts'

const APP = join(import.meta.dir, 'app')
const RECOGNISE_LIMIT_MS = 60_000
const START_ATTEMPTS_MAX = 5
const START_PAUSE_MS = 300

export interface FleetOptions {
  readonly folder: string
  /** Folder below `app` whose modules the processes load. */
  readonly app: string
  readonly redisUrl: string
  readonly durability: string
  readonly inFlightMax: number
  readonly baseMs: number
  readonly probe: RedisProbe
  readonly streams: readonly string[]
  readonly signal: AbortSignal
}

export interface StartOptions {
  /** Instead of the fleet's. */
  readonly app?: string
  readonly redisUrl?: string
  readonly flags?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
}

export interface Worker {
  readonly process: RoleProcess
  /** Empty while it could not be recognised, because Redis was away. */
  consumers: ReadonlySet<string>
  paused: boolean
  /** When it was ready, when it was ended from here, and the pauses in between: ms since 1970 by the harness's monotonic clock. */
  readonly readyAtMs: number
  endedAtMs: number
  readonly pauses: { readonly fromMs: number; toMs: number }[]
}

/** True when a worker ran all the time, without a pause and not fresh from its start. */
export function ranThrough(worker: Worker, fromMs: number, toMs: number): boolean {
  const isUp = worker.readyAtMs <= fromMs && worker.endedAtMs >= toMs
  return isUp && worker.pauses.every((pause) => pause.toMs <= fromMs || pause.fromMs >= toMs)
}

export class Fleet {
  readonly #options: FleetOptions
  readonly #processes = new Set<RoleProcess>()
  readonly #workers = new Set<Worker>()
  readonly #failure = Promise.withResolvers<never>()
  #starts: Promise<unknown> = Promise.resolve()
  #started = 0
  #ending = false
  /** Processes that ended by themselves where that was expected. */
  crashes = 0
  /** Set by scenarios whose commands end their own process: it is counted, and another one starts. */
  crashesExpected = false
  onCrash: ((worker: Worker) => void) | undefined

  constructor(options: FleetOptions) {
    this.#options = options
    this.#failure.promise.catch(() => undefined)
    mkdirSync(this.logsFolder, { recursive: true })
    mkdirSync(this.journalsFolder, { recursive: true })
  }

  get logsFolder(): string {
    return join(this.#options.folder, 'logs')
  }

  get journalsFolder(): string {
    return join(this.#options.folder, 'journals')
  }

  /** Every worker that was ever ready. */
  readonly history: Worker[] = []

  /** Workers that are up; paused ones included. */
  get workers(): Worker[] {
    return [...this.#workers].filter(({ process }) => process.alive)
  }

  get running(): Worker[] {
    return this.workers.filter(({ paused }) => !paused)
  }

  ofRole(role: Role): RoleProcess[] {
    return [...this.#processes].filter((process) => process.role === role && process.alive)
  }

  /** Rejects when a process ends that nobody asked to end. */
  get failure(): Promise<never> {
    return this.#failure.promise
  }

  async start(role: Role, options: StartOptions = {}): Promise<RoleProcess> {
    const started = this.#spawn(role, options)
    await started.untilReady(this.#options.signal)
    this.#watch(started)
    return started
  }

  /** One after another; resolves when the worker is up and recognised. */
  startWorker(options: StartOptions = {}): Promise<Worker> {
    const start = this.#starts.then(() => this.#startWorker(options))
    this.#starts = start.catch(() => undefined)
    return start
  }

  /** SIGKILL, as a crash would. */
  async kill(worker: Worker): Promise<void> {
    this.#workers.delete(worker)
    worker.endedAtMs = nowMs()
    await worker.process.kill()
  }

  /** SIGTERM. Answers the exit code. */
  async stop(worker: Worker, limitMs: number): Promise<number | null> {
    this.#workers.delete(worker)
    worker.endedAtMs = nowMs()
    return await worker.process.end(limitMs)
  }

  pause(worker: Worker): void {
    worker.paused = true
    worker.pauses.push({ fromMs: nowMs(), toMs: Number.POSITIVE_INFINITY })
    worker.process.signal('SIGSTOP')
  }

  resume(worker: Worker): void {
    worker.paused = false
    const pause = worker.pauses.at(-1)
    if (pause !== undefined) pause.toMs = nowMs()
    if (worker.process.alive) worker.process.signal('SIGCONT')
  }

  /** Lines of the logs that hold `text`, parsed, of processes whose name begins with `prefix`. */
  logLines(text: string, prefix = ''): Record<string, unknown>[] {
    const found: Record<string, unknown>[] = []
    for (const name of readdirSync(this.logsFolder)) {
      if (!name.startsWith(prefix)) continue
      for (const line of readFileSync(join(this.logsFolder, name), 'utf8').split('\n')) {
        if (!line.includes(text) || !line.endsWith('}')) continue
        found.push({ ...(JSON.parse(line) as Record<string, unknown>), process: name.replace('.log', '') })
      }
    }
    return found
  }

  /** Ends everything: first those that take no part in closing the door. */
  async end(): Promise<void> {
    this.#ending = true
    await this.#starts
    const alive = [...this.#processes].filter((process) => process.alive)
    for (const process of alive) process.signal('SIGCONT')
    await Promise.all(alive.map((process) => process.end()))
  }

  /** For an exit that waits for nothing. */
  abandon(): void {
    this.#ending = true
    for (const process of this.#processes) {
      process.expectEnd()
      if (process.alive) process.child.kill('SIGKILL')
    }
  }

  #spawn(role: Role, options: StartOptions): RoleProcess {
    const { folder, app, redisUrl, durability, inFlightMax, baseMs, signal } = this.#options
    if (this.#ending) throw new RunError('interrupted', 'The scenario is ending.')
    this.#started += 1
    const name = `${role}-${this.#started}`
    const process = RoleProcess.spawn({
      name,
      role,
      flags: [
        ...['--redis-url', options.redisUrl ?? redisUrl, '--workers-dir', join(APP, options.app ?? app)],
        ...['--data-dir', join(folder, 'data'), '--port', '0', '--admin-port', '0', '--log-level', 'info'],
        ...['--durability', durability, '--in-flight-max', String(inFlightMax), ...(options.flags ?? [])],
      ],
      environment: {
        FAULTS_JOURNAL: this.journalsFolder,
        FAULTS_PROCESS: name,
        FAULTS_BASE_MS: String(baseMs),
        ...options.environment,
      },
      logFile: join(this.logsFolder, `${name}.log`),
      signal,
    })
    this.#processes.add(process)
    return process
  }

  async #startWorker(options: StartOptions): Promise<Worker> {
    const places = await this.#places()
    const before = await this.#beating(places)
    const process = await this.#readyWorker(options)
    const worker: Worker = {
      ...{ process, consumers: new Set<string>(), paused: false, pauses: [] },
      ...{ readyAtMs: nowMs(), endedAtMs: Number.POSITIVE_INFINITY },
    }
    this.#workers.add(worker)
    this.history.push(worker)
    this.#watch(process, worker)
    const endMs = performance.now() + RECOGNISE_LIMIT_MS
    while (before !== undefined && worker.consumers.size === 0 && process.alive) {
      this.#options.signal.throwIfAborted()
      const now = await this.#beating(places.length > 0 ? places : await this.#places())
      if (now === undefined) break
      worker.consumers = now.difference(before)
      if (performance.now() > endMs) throw new RunError('failed', `${process.name} sends no heartbeats.`)
      if (worker.consumers.size === 0) await Bun.sleep(10)
    }
    return worker
  }

  /** One that meets Redis away while it starts ends with 69; as any supervisor would, another is started in its place. */
  async #readyWorker(options: StartOptions): Promise<RoleProcess> {
    for (let attempt = 1; ; attempt++) {
      const process = this.#spawn('work', options)
      try {
        await process.untilReady(this.#options.signal)
        return process
      } catch (error) {
        const isAway = error instanceof RunError && error.kind === 'unavailable' && !process.alive
        if (!isAway || attempt === START_ATTEMPTS_MAX) throw error
        await Bun.sleep(START_PAUSE_MS)
      }
    }
  }

  async #places(): Promise<Partition[]> {
    return await this.#options.probe.partitions(this.#options.streams).catch(() => [])
  }

  /** Undefined while Redis does not answer. */
  async #beating(places: readonly Partition[]): Promise<Set<string> | undefined> {
    return await this.#options.probe.beatingConsumers(places).catch(() => undefined)
  }

  #watch(process: RoleProcess, worker?: Worker): void {
    process.watch((sentence) => {
      if (worker !== undefined && this.crashesExpected) {
        this.#workers.delete(worker)
        this.crashes += 1
        this.onCrash?.(worker)
        return
      }
      this.#failure.reject(new RunError('failed', sentence))
    })
  }
}

function nowMs(): number {
  return performance.timeOrigin + performance.now()
}
