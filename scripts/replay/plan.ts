/**
 * The folder of a replay: what was begun there, so that it can go on after a crash of everything.
 *
 *   replay.json    run id, rows, durability, target; who works on it now
 *   ledger         accepted rows with their command ids
 *   processes.log  processes that were started
 *   logs/, redis/  of the stack
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { commandLine } from '../fleet/command-line.ts'
import { RunError } from '../fleet/failure.ts'
import type { ReplayOptions } from './options.ts'

export interface Plan {
  readonly runId: string
  readonly rows: number
  readonly durability: 'everysec' | 'fsync'
  readonly target: string | undefined
  /** Before the first command of the run, ms since 1970. */
  readonly baseMs: number
  /** The replay that works on it. */
  readonly pid: number
}

const DAY_MS = 86_400_000

export class PlanFolder {
  readonly path: string
  readonly plan: Plan
  /** True when an earlier run had begun here. */
  readonly resumed: boolean
  readonly #temporary: boolean

  constructor(options: ReplayOptions, rowsMax: number) {
    const { resumeFolder } = options
    this.#temporary = resumeFolder === undefined && !options.keep
    this.path = resumeFolder ?? mkdtempSync(join(tmpdir(), 'millrace-replay-'))
    mkdirSync(this.path, { recursive: true, mode: 0o700 })
    const before = this.#read()
    this.resumed = before !== undefined
    if (before === undefined) {
      this.plan = {
        runId: crypto.randomUUID().slice(0, 8),
        rows: Math.min(rowsMax, options.limitRows ?? rowsMax),
        durability: options.durability,
        target: options.target,
        baseMs: Date.now() - DAY_MS,
        pid: process.pid,
      }
    } else {
      this.#checkSame(before, options, rowsMax)
      this.plan = { ...before, pid: process.pid }
    }
    this.#write()
  }

  file(name: string): string {
    return join(this.path, name)
  }

  /** Removes a temporary folder; one that was asked for stays. Answers whether it is gone. */
  clean(): boolean {
    if (this.#temporary) rmSync(this.path, { recursive: true, force: true })
    return this.#temporary
  }

  #read(): Plan | undefined {
    if (!existsSync(this.file('replay.json'))) return undefined
    const plan = JSON.parse(readFileSync(this.file('replay.json'), 'utf8')) as Plan
    if (plan.pid !== process.pid && /replay\.ts/.test(commandLine(plan.pid))) {
      throw new RunError(
        'config',
        `Another replay (process ${plan.pid}) works in ${this.path}; wait or end it.`,
      )
    }
    return plan
  }

  #checkSame(before: Plan, options: ReplayOptions, rowsMax: number): void {
    const rows = Math.min(rowsMax, options.limitRows ?? before.rows)
    const same =
      rows === before.rows && options.target === before.target && options.durability === before.durability
    if (same) return
    throw new RunError(
      'usage',
      `${this.path} holds a replay of ${before.rows} records, durability ${before.durability}${before.target === undefined ? '' : `, target ${before.target}`}: go on with the same --limit, --durability and --target, or use another folder.`,
    )
  }

  #write(): void {
    const draft = this.file(`replay.json.${process.pid}`)
    writeFileSync(draft, `${JSON.stringify(this.plan, null, 2)}\n`, { mode: 0o600, flush: true })
    renameSync(draft, this.file('replay.json'))
  }
}
