/** A run of the benchmark: one scenario after another, each on a stage of its own, and what they measured. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { RunError } from '../fleet/failure.ts'
import { Progress, tellAs } from '../fleet/progress.ts'
import { REDIS_SERVER } from '../fleet/redis-server.ts'
import type { BenchOptions } from './options.ts'
import { installPeers } from './peers.ts'
import { type BenchResult, jsonReport, markdownReport, rowLine } from './report.ts'
import type { Row, Scenario } from './scenario.ts'
import { readSetting } from './setting.ts'
import { Stage } from './stage.ts'

const SECONDS = { full: 5, quick: 2 }

export class Bench {
  readonly #options: BenchOptions
  readonly #abort = new AbortController()
  readonly #folder: string = mkdtempSync(join(tmpdir(), 'millrace-bench-'))
  readonly #progress: Progress = new Progress('bench', () => ({ share: this.#share, parts: [this.#doing] }))
  #stage: Stage | undefined
  #peersFolder: string | undefined
  #share = 0
  #doing = 'starting'

  constructor(options: BenchOptions) {
    this.#options = options
  }

  interrupt(): void {
    this.#abort.abort(new RunError('interrupted', 'interrupted'))
  }

  abandon(): void {
    this.#stage?.abandon()
  }

  /** Ends what was started; safe at any moment, and twice. */
  async end(): Promise<void> {
    this.#progress.stop()
    this.interrupt()
    await this.#stage?.close()
    this.#stage = undefined
    if (this.#options.keep) tell(`data and logs are in ${this.#folder}`)
    else rmSync(this.#folder, { recursive: true, force: true })
  }

  /** Answers the exit code. */
  async run(): Promise<number> {
    const { scenarios, quick, gate, withPeers } = this.#options
    if (Bun.which(REDIS_SERVER) === null) {
      throw new RunError(
        'unavailable',
        `There is no ${REDIS_SERVER}: install redis-server, or name one with MILLRACE_REDIS_SERVER (./scripts/test does both).`,
      )
    }
    const setting = readSetting(quick)
    if (setting.loadBefore > setting.machine.cores / 2) {
      tell(
        `the load of this machine is ${setting.loadBefore}: something else is running, and figures will tell it`,
      )
    }
    if (withPeers) {
      tell('installing peers in scripts/bench/peers')
      this.#peersFolder = await installPeers(this.#abort.signal)
    }
    this.#progress.start()
    const rows: Row[] = []
    // What the others measured is worth keeping: they may have taken many minutes.
    const failed: string[] = []
    for (const [i, scenario] of scenarios.entries()) {
      this.#share = i / scenarios.length
      try {
        rows.push(...(await this.#play(scenario)))
      } catch (error) {
        if (this.#abort.signal.aborted) throw error
        failed.push(scenario.name)
        tell(`${scenario.name} failed: ${error instanceof Error ? error.message : String(error)}`)
      }
    }
    this.#progress.stop()
    await this.#write({ setting, scenarios: rows, failed })
    const missed = rows.filter(({ pass }) => !pass).map(({ name }) => name)
    if (missed.length > 0) tell(`missed: ${missed.join(', ')}`)
    if (failed.length > 0) {
      tell(`failed, so there is no figure: ${failed.join(', ')}`)
      return 1
    }
    if (missed.length === 0) tell(`all ${rows.length} budgets met`)
    return missed.length > 0 && gate ? 1 : 0
  }

  async #play(scenario: Scenario): Promise<readonly Row[]> {
    const { quick, seconds = quick ? SECONDS.quick : SECONDS.full } = this.#options
    const stage = new Stage({
      folder: join(this.#folder, scenario.name),
      quick,
      seconds,
      signal: this.#abort.signal,
      peersFolder: this.#peersFolder,
      tell: (line) => {
        this.#doing = line
      },
    })
    this.#stage = stage
    this.#doing = scenario.name
    try {
      const rows = await scenario.play(stage)
      for (const row of rows) this.#progress.say(rowLine(row))
      return rows
    } finally {
      await stage.close()
      this.#stage = undefined
    }
  }

  async #write(result: BenchResult): Promise<void> {
    const { json, markdown } = this.#options
    if (json !== undefined) await Bun.write(json === '-' ? Bun.stdout : json, jsonReport(result))
    if (markdown !== undefined)
      await Bun.write(markdown === '-' ? Bun.stdout : markdown, markdownReport(result))
  }
}

export function tell(line: string): void {
  tellAs('bench', line)
}
