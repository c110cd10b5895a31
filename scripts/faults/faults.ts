/** A run of faults: one scenario after another, each in an arena of its own, and what they found. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { errorText, RunError } from '../fleet/failure.ts'
import { number, Progress, tellAs } from '../fleet/progress.ts'
import { REDIS_SERVER } from '../fleet/redis-server.ts'
import { Arena } from './arena.ts'
import type { FaultsOptions } from './options.ts'
import { Random } from './random.ts'
import type { FaultsResult, ScenarioResult } from './result.ts'
import type { Scenario } from './scenario.ts'
import { scaled } from './size.ts'

export class Faults {
  readonly #options: FaultsOptions
  readonly #abort = new AbortController()
  readonly #folder: string = mkdtempSync(join(tmpdir(), 'millrace-faults-'))
  readonly #progress: Progress = new Progress('faults', () => ({
    share: this.#arena?.progressShare() ?? 0,
    parts: this.#arena?.progressParts() ?? ['waiting'],
  }))
  #arena: Arena | undefined

  constructor(options: FaultsOptions) {
    this.#options = options
  }

  interrupt(): void {
    this.#abort.abort(new RunError('interrupted', 'interrupted'))
  }

  abandon(): void {
    this.#arena?.abandon()
  }

  /** Ends what was started; safe at any moment, and twice. */
  async end(): Promise<void> {
    this.#progress.stop()
    this.interrupt()
    await this.#arena?.close()
    this.#arena = undefined
    if (this.#options.keep) tell(`data, journals and logs are in ${this.#folder}`)
    else rmSync(this.#folder, { recursive: true, force: true })
  }

  /** Answers the exit code. */
  async run(): Promise<number> {
    const { scenarios, seed, slackMs } = this.#options
    if (Bun.which(REDIS_SERVER) === null) {
      throw new RunError(
        'unavailable',
        `There is no ${REDIS_SERVER}: install redis-server, or name one with MILLRACE_REDIS_SERVER (./scripts/test does both).`,
      )
    }
    tell(`seed ${seed}`)
    this.#progress.start()
    const results: ScenarioResult[] = []
    for (const scenario of scenarios) results.push(await this.#play(scenario))
    this.#progress.stop()
    await this.#write({ seed, slackMs, scenarios: results })
    const broken = results.filter(({ pass }) => pass === false).map(({ name }) => name)
    const shown = results.filter(({ pass }) => pass === true).length
    tell(
      `${shown} of ${results.length} scenarios hold${broken.length > 0 ? `; broken: ${broken.join(', ')}` : ''}`,
    )
    // A run that showed nothing at all has failed, whatever the reasons.
    return broken.length > 0 || shown === 0 ? 1 : 0
  }

  async #play(scenario: Scenario): Promise<ScenarioResult> {
    const { commands, seconds, seed, keep, slackMs } = this.#options
    const arena = new Arena({
      name: scenario.name,
      folder: join(this.#folder, scenario.name),
      size: scaled(scenario.full, { commands, seconds }),
      random: new Random(seed).fork(scenario.name),
      signal: this.#abort.signal,
      keep,
      slackMs,
      say: (line) => this.#progress.say(line),
    })
    this.#arena = arena
    const reason = await scenario.skip?.()
    if (reason !== undefined) arena.skipped.push(`${scenario.name}: ${reason}`)
    else await this.#attempt(scenario, arena)
    const result = { ...arena.result(), ...(reason === undefined ? {} : { pass: null }) }
    await arena.close()
    this.#arena = undefined
    this.#report(result)
    return result
  }

  /** What goes wrong with the harness or a process counts as broken; an interruption ends everything. */
  async #attempt(scenario: Scenario, arena: Arena): Promise<void> {
    try {
      await scenario.run(arena)
    } catch (error) {
      this.#abort.signal.throwIfAborted()
      arena.broke(error instanceof RunError ? error.message : `the scenario failed: ${errorText(error)}`)
      if (!(error instanceof RunError) && error instanceof Error) tell(error.stack ?? '')
    }
  }

  #report(result: ScenarioResult): void {
    const { name, pass, accepted, done, dead, lost, duplicateEffects, seconds } = result
    const { handlerCalls, duplicateHandlerCalls, pending, leakedConsumers, recoveryMs } = result
    const verdict = pass === null ? 'skipped' : pass ? 'holds' : 'BROKEN'
    const faults = [
      ...(result.workerKills > 0 ? [`${result.workerKills} kills`] : []),
      ...(result.pauses > 0 ? [`${result.pauses} pauses`] : []),
      ...(result.redisKills > 0 ? [`${result.redisKills} Redis kills`] : []),
    ]
    this.#progress.say(
      `${name}: ${verdict} after ${seconds} s${faults.length > 0 ? `, ${faults.join(', ')}` : ''}`,
    )
    for (const reason of result.skipped) this.#progress.say(`  skipped: ${reason}`)
    if (pass === null) return
    const figures = [
      `${number(accepted)} accepted`,
      `${number(done)} done`,
      `${dead} dead`,
      `${lost} lost`,
      `${duplicateEffects} duplicate effects`,
      `${number(handlerCalls)} handler calls (${number(duplicateHandlerCalls)} repeated)`,
      `${pending} pending`,
      ...(leakedConsumers === null ? [] : [`${leakedConsumers} names left`]),
      ...(result.orderViolations === null ? [] : [`${result.orderViolations} order violations`]),
      ...(recoveryMs === null
        ? []
        : [`recovery p50 ${recoveryMs.p50} p99 ${recoveryMs.p99} max ${recoveryMs.max} ms`]),
    ]
    this.#progress.say(`  ${figures.join(', ')}`)
    const details = Object.entries(result.details).map(([key, value]) => `${key} ${JSON.stringify(value)}`)
    if (details.length > 0) this.#progress.say(`  ${details.join(', ')}`)
    for (const sentence of result.broken) this.#progress.say(`  BROKEN: ${sentence}`)
  }

  async #write(result: FaultsResult): Promise<void> {
    const { json } = this.#options
    if (json === undefined) return
    const text = `${JSON.stringify(result)}\n`
    if (json === '-') await Bun.write(Bun.stdout, text)
    else await Bun.write(json, text)
  }
}

export function tell(line: string): void {
  tellAs('faults', line)
}
