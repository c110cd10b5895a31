/**
 * A stack of the replay's own: API, workers and projector as processes, with a redis-server child in the data folder.
 *
 *   api ──(owns the folder's redis-server)──▶ project ──▶ work 1 … n
 *
 * Workers start one after another, because a new one is recognised by the consumer names that appear with it. Each
 * process writes to a log file of its own. `processes.log` in the folder lists every process that was started, so that
 * a replay that goes on after a crash can end what the crash left running.
 */
import { appendFileSync, closeSync, existsSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { ReplayError } from './failure.ts'
import { RedisProbe } from './probe.ts'

const ROOT = join(import.meta.dir, '../..')
const START_LIMIT_MS = 60_000
const STOP_LIMIT_MS = 30_000

type Role = 'api' | 'project' | 'work'

/** One process of the stack. */
export interface StackProcess {
  readonly name: string
  readonly role: Role
  readonly child: Subprocess
  readonly logFile: string
  /** Consumer names that it brought along; empty for other roles. */
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
  readonly #running = new Set<StackProcess>()
  /** Started, but not yet ready, or on the way out. */
  readonly #children = new Set<Subprocess>()
  readonly #expectedEnds = new WeakSet<Subprocess>()
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
    throw new ReplayError('failed', 'The stack is not up.')
  }

  get workers(): StackProcess[] {
    return [...this.#running].filter(({ role }) => role === 'work')
  }

  get processes(): StackProcess[] {
    return [...this.#running]
  }

  /** Rejects when a process ends that nobody asked to end. */
  get failure(): Promise<never> {
    return this.#failure.promise
  }

  async start(): Promise<void> {
    mkdirSync(join(this.#options.folder, 'logs'), { recursive: true })
    const api = await this.#launch('api')
    this.#apiUrl = told(api.logFile, 'public')
    const address = JSON.parse(readFileSync(join(this.#options.folder, 'redis/address.json'), 'utf8')) as {
      url: string
    }
    this.#probe = await RedisProbe.open(address.url)
    this.#redisPid = (await this.#probe.facts()).pid
    await this.#launch('project')
    for (let i = 0; i < this.#options.workers; i++) await this.startWorker()
  }

  async startWorker(): Promise<StackProcess> {
    const before = await this.probe.beatingConsumers()
    const worker = await this.#launch('work')
    const endMs = performance.now() + START_LIMIT_MS
    for (;;) {
      this.#options.signal.throwIfAborted()
      const consumers = (await this.probe.beatingConsumers()).difference(before)
      if (consumers.size > 0) {
        const known = { ...worker, consumers }
        this.#running.delete(worker)
        this.#running.add(known)
        return known
      }
      if (performance.now() > endMs)
        throw new ReplayError('failed', `${worker.name} is up, but sends no heartbeats.`)
      await Bun.sleep(20)
    }
  }

  /** SIGKILL, as a crash would. */
  async kill(process: StackProcess): Promise<void> {
    this.#expectedEnds.add(process.child)
    this.#running.delete(process)
    process.child.kill('SIGKILL')
    await process.child.exited
  }

  /** Ends everything: workers and projector first, then the API, which takes its redis-server along. */
  async stop(): Promise<void> {
    const last = this.processes.filter(({ role }) => role === 'api').map(({ child }) => child)
    const first = [...this.#children].filter((child) => !last.includes(child))
    this.#probe?.close()
    await Promise.all(first.map((child) => this.#end(child)))
    await Promise.all(last.map((child) => this.#end(child)))
    this.#endRedis()
  }

  /** For an exit that waits for nothing. */
  abandon(): void {
    for (const child of this.#children) child.kill('SIGKILL')
    this.#endRedis()
  }

  /** The API ends its redis-server by itself, unless it was killed. */
  #endRedis(): void {
    const pid = this.#redisPid
    if (pid !== undefined && /redis|valkey/.test(commandLine(pid))) process.kill(pid, 'SIGTERM')
  }

  async #end(child: Subprocess): Promise<void> {
    this.#expectedEnds.add(child)
    child.kill('SIGTERM')
    const late = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS)
    await child.exited
    clearTimeout(late)
  }

  async #launch(role: Role): Promise<StackProcess> {
    const { folder, durability, signal } = this.#options
    this.#started += 1
    const name = `${role}-${this.#started}`
    const logFile = join(folder, 'logs', `${name}-${process.pid}.log`)
    const log = openSync(logFile, 'a', 0o600)
    const args = ['--data-dir', folder, '--workers-dir', join(ROOT, 'workers/flights')]
    const child = Bun.spawn(
      [
        process.execPath,
        ...['src/cli/main.ts', 'start', role, ...args],
        ...['--port', '0', '--admin-port', '0', '--durability', durability, '--log-level', 'info'],
      ],
      { cwd: ROOT, env: cleanEnvironment(), stdio: ['ignore', log, log] },
    )
    closeSync(log)
    this.#children.add(child)
    appendFileSync(join(folder, 'processes.log'), `${child.pid}\n`)
    await this.#untilReady(name, child, logFile, signal)
    const launched = {
      name,
      role,
      child,
      logFile,
      consumers: new Set<string>(),
    }
    this.#running.add(launched)
    void child.exited.then((code) => this.#onEnd(launched, code))
    return launched
  }

  async #untilReady(name: string, child: Subprocess, logFile: string, signal: AbortSignal): Promise<void> {
    const endMs = performance.now() + START_LIMIT_MS
    while (!/^millrace: ready/m.test(readFileSync(logFile, 'utf8'))) {
      signal.throwIfAborted()
      if (child.exitCode !== null || child.signalCode !== null) {
        this.#children.delete(child)
        const kind = child.exitCode === 78 ? 'config' : child.exitCode === 69 ? 'unavailable' : 'failed'
        throw new ReplayError(kind, `${name} did not start: ${lastWords(logFile)}`)
      }
      if (performance.now() > endMs) {
        throw new ReplayError(
          'unavailable',
          `${name} was not ready after ${START_LIMIT_MS / 1000} s: ${lastWords(logFile)}`,
        )
      }
      await Bun.sleep(20)
    }
  }

  #onEnd(process: StackProcess, code: number): void {
    this.#children.delete(process.child)
    if (this.#expectedEnds.has(process.child)) return
    this.#running.delete(process)
    const sentence = `${process.name} ended with code ${code}, unasked (--keep keeps its log): ${lastWords(process.logFile)}`
    this.#failure.reject(new ReplayError('failed', sentence))
  }
}

/** Settings of the shell must not reach the stack; what it needs is told by flags. */
function cleanEnvironment(): Record<string, string | undefined> {
  const kept = Object.entries(process.env).filter(
    ([name]) =>
      name === 'MILLRACE_REDIS_SERVER' || !/^(MILLRACE_|REDIS_URL|PORT$|HOST$|LOG_LEVEL$)/.test(name),
  )
  return Object.fromEntries(kept)
}

/** `millrace: public      http://127.0.0.1:40123` */
function told(logFile: string, what: string): string {
  const found = new RegExp(`^millrace: ${what} +(\\S+)`, 'm').exec(readFileSync(logFile, 'utf8'))?.[1]
  if (found === undefined) throw new ReplayError('failed', `${logFile} does not tell the ${what} address.`)
  return found.replace(/\/+$/, '')
}

/** The last thing that a process said about a mistake. */
function lastWords(logFile: string): string {
  const lines = readFileSync(logFile, 'utf8').trim().split('\n')
  const sentences = lines.flatMap((line) => {
    if (line.startsWith('millrace: ')) return [line.slice('millrace: '.length)]
    return /^{"level":(50|60|"error")/.test(line) ? [String((JSON.parse(line) as { msg?: string }).msg)] : []
  })
  const telling = sentences.findLast((sentence) => !/^(ready|stopp|SIG| )/.test(sentence))
  const summary = /^(role|redis|durability|workers|public|admin) {2,}/
  return telling === undefined || summary.test(telling) ? 'it did not say why' : telling.slice(0, 500)
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

export function commandLine(pid: number): string {
  return existsSync('/proc/self/cmdline') ? procCommand(pid) : psCommand(pid)
}

function procCommand(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
  } catch {
    return ''
  }
}

function psCommand(pid: number): string {
  return Bun.spawnSync(['ps', '-ww', '-o', 'command=', '-p', String(pid)]).stdout.toString()
}
