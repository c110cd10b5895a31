/**
 * One process of the product, `millrace start <role>`, with a log file of its own: started, waited for, signalled, ended.
 *
 *   launch ─▶ ready ─▶ … ─▶ kill (SIGKILL) or end (SIGTERM, SIGKILL when it takes too long)
 *                       └─▶ ends unasked: `onUnasked`
 */
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { RunError } from './failure.ts'

const ROOT = join(import.meta.dir, '../..')
const START_LIMIT_MS = 60_000
const STOP_LIMIT_MS = 30_000
const LOOK_MS = 20

export type Role = 'all' | 'api' | 'work' | 'project' | 'schedule'

export interface LaunchOptions {
  readonly name: string
  readonly role: Role
  /** Settings of the process, as flags. */
  readonly flags: readonly string[]
  /** Beside what the shell has; settings of Millrace itself are told by flags only. */
  readonly environment?: Readonly<Record<string, string>>
  readonly logFile: string
  readonly signal: AbortSignal
  /** Folder of an application that has the built package installed. Default: the sources of this checkout. */
  readonly application?: string
  /** Called as soon as the process is there, before it is ready. */
  readonly onSpawn?: (child: Subprocess) => void
}

export class RoleProcess {
  readonly name: string
  readonly role: Role
  readonly child: Subprocess
  readonly logFile: string
  #endExpected = false

  private constructor(options: LaunchOptions, child: Subprocess) {
    this.name = options.name
    this.role = options.role
    this.logFile = options.logFile
    this.child = child
  }

  /** Resolves when the process says that it is ready. */
  static async launch(options: LaunchOptions): Promise<RoleProcess> {
    const launched = RoleProcess.spawn(options)
    await launched.untilReady(options.signal)
    return launched
  }

  static spawn(options: LaunchOptions): RoleProcess {
    const log = openSync(options.logFile, 'a', 0o600)
    const main =
      options.application === undefined ? 'src/cli/main.ts' : 'node_modules/millrace/dist/cli/main.js'
    const child = Bun.spawn([process.execPath, main, 'start', options.role, ...options.flags], {
      cwd: options.application ?? ROOT,
      env: { ...cleanEnvironment(), ...options.environment },
      stdio: ['ignore', log, log],
    })
    closeSync(log)
    options.onSpawn?.(child)
    return new RoleProcess(options, child)
  }

  get pid(): number {
    return this.child.pid
  }

  get alive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null
  }

  /** True once somebody here asked it to end. */
  get endExpected(): boolean {
    return this.#endExpected
  }

  async untilReady(signal: AbortSignal): Promise<void> {
    const endMs = performance.now() + START_LIMIT_MS
    while (!/^millrace: ready/m.test(this.log())) {
      signal.throwIfAborted()
      if (!this.alive) {
        const { exitCode } = this.child
        const kind = exitCode === 78 ? 'config' : exitCode === 69 ? 'unavailable' : 'failed'
        throw new RunError(kind, `${this.name} did not start: ${this.lastWords()}`)
      }
      if (performance.now() > endMs) {
        const sentence = `${this.name} was not ready after ${START_LIMIT_MS / 1000} s: ${this.lastWords()}`
        throw new RunError('unavailable', sentence)
      }
      await Bun.sleep(LOOK_MS)
    }
  }

  /** Calls back when the process ends and nobody had asked it to. */
  watch(onUnasked: (sentence: string) => void): void {
    void this.child.exited.then((code) => {
      if (this.#endExpected) return
      onUnasked(`${this.name} ended with code ${code}, unasked (--keep keeps its log): ${this.lastWords()}`)
    })
  }

  /** From now on its end is nobody's fault. */
  expectEnd(): void {
    this.#endExpected = true
  }

  signal(name: 'SIGSTOP' | 'SIGCONT' | 'SIGTERM'): void {
    if (name === 'SIGTERM') this.#endExpected = true
    this.child.kill(name)
  }

  /** SIGKILL, as a crash would. */
  async kill(): Promise<void> {
    this.#endExpected = true
    this.child.kill('SIGKILL')
    await this.child.exited
  }

  /** SIGTERM; SIGKILL when that takes too long. Answers how it ended. */
  async end(limitMs: number = STOP_LIMIT_MS): Promise<number | null> {
    this.#endExpected = true
    this.child.kill('SIGTERM')
    const late = setTimeout(() => this.child.kill('SIGKILL'), limitMs)
    await this.child.exited
    clearTimeout(late)
    return this.child.exitCode
  }

  log(): string {
    return readFileSync(this.logFile, 'utf8')
  }

  /** `millrace: public      http://127.0.0.1:40123` */
  told(what: 'public' | 'admin'): string {
    const found = new RegExp(`^millrace: ${what} +(\\S+)`, 'm').exec(this.log())?.[1]
    if (found === undefined) {
      throw new RunError('failed', `${this.logFile} does not tell the ${what} address.`)
    }
    return found.replace(/\/+$/, '')
  }

  /** The last thing that it said about a mistake. */
  lastWords(): string {
    const lines = this.log().trim().split('\n')
    const sentences = lines.flatMap((line) => {
      if (line.startsWith('millrace: ')) return [line.slice('millrace: '.length)]
      return /^{"level":(50|60|"error")/.test(line)
        ? [String((JSON.parse(line) as { msg?: string }).msg)]
        : []
    })
    const telling = sentences.findLast((sentence) => !/^(ready|stopp|SIG| )/.test(sentence))
    const summary = /^(role|redis|durability|workers|public|admin) {2,}/
    return telling === undefined || summary.test(telling) ? 'it did not say why' : telling.slice(0, 500)
  }
}

/** Settings of the shell must not reach the processes; what they need is told by flags. */
function cleanEnvironment(): Record<string, string | undefined> {
  const kept = Object.entries(process.env).filter(
    ([name]) =>
      name === 'MILLRACE_REDIS_SERVER' || !/^(MILLRACE_|REDIS_URL|PORT$|HOST$|LOG_LEVEL$)/.test(name),
  )
  return Object.fromEntries(kept)
}
