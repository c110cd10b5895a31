/** One replay from the first record to the verdict: brings up what it needs, drives it, and ends what it started. */
import { version as ioredisVersion } from 'ioredis/package.json' with { type: 'json' }
import { version as millraceVersion } from '../../package.json' with { type: 'json' }
import { RunError } from '../fleet/failure.ts'
import { Ledger } from '../fleet/ledger.ts'
import { Producer } from '../fleet/producer.ts'
import { number, Progress } from '../fleet/progress.ts'
import { type Comparison, compareViews, ViewReader } from '../fleet/view-check.ts'
import { type Account, balance } from './account.ts'
import { recordBodies } from './bodies.ts'
import { folded, foldedByAll } from './folded.ts'
import { Killer } from './killer.ts'
import type { ReplayOptions } from './options.ts'
import { PlanFolder } from './plan.ts'
import { countRecords } from './records.ts'
import { countRedeliveries } from './redeliveries.ts'
import { expectedViews } from './reference.ts'
import { endLeftovers, Stack } from './stack.ts'
import { progression, tell } from './standing.ts'

const LOOK_MS = 1000
const CAUGHT_UP_LOOK_MS = 100
/** The views stand still for so long: they will not catch up any more. */
const STANDSTILL_MS = 60_000
const KILLS_BEGIN_SHARE = 0.1

/** What `--json` writes. Null: not asked for, or not to be seen from outside a target. */
export interface ReplayResult {
  readonly equal: boolean
  readonly records: number
  readonly accepted: number
  /** From the first POST of this run until every accepted record was in the views. */
  readonly seconds: number
  readonly perSecond: number
  /** From the first POST of this run until the last record was accepted. */
  readonly acceptSeconds: number
  readonly kills: number
  /** Entries that killed workers left pending. */
  readonly orphaned: number
  readonly redeliveries: number | null
  readonly viewsCompared: number | null
  readonly viewsDifferent: number | null
  readonly lost: number | null
  /** Of the lost. */
  readonly deadLetters: number | null
  readonly duplicated: number | null
  readonly requestsUnknown: number
  readonly requestsRefused: number
  readonly resumed: boolean
  readonly durability: string | null
  readonly workers: number | null
  readonly versions: { millrace: string; bun: string; redis: string | null; ioredis: string }
}

export class Replay {
  readonly #options: ReplayOptions
  readonly #abort = new AbortController()
  readonly #progress: Progress = new Progress('replay', () =>
    progression({
      total: this.#folder?.plan.rows ?? 0,
      accepted: this.#ledger?.acceptedCount ?? 0,
      acceptedNow: (this.#ledger?.acceptedCount ?? 0) - this.#acceptedBefore,
      folded: this.#folded,
      kills: this.#killer?.kills ?? 0,
      seconds: (performance.now() - this.#startMs) / 1000,
    }),
  )
  #folder: PlanFolder | undefined
  #ledger: Ledger | undefined
  #stack: Stack | undefined
  #killer: Killer | undefined
  #looking: ReturnType<typeof setInterval> | undefined
  #acceptedBefore = 0
  #startMs = performance.now()
  #folded = 0

  constructor(options: ReplayOptions) {
    this.#options = options
  }

  interrupt(): void {
    this.#abort.abort(new RunError('interrupted', 'interrupted'))
  }

  abandon(): void {
    this.#stack?.abandon()
  }

  /** Ends what was started; safe at any moment, and twice. */
  async end(): Promise<void> {
    clearInterval(this.#looking)
    this.#progress.stop()
    this.interrupt()
    await this.#killer?.stop()
    await this.#stack?.stop()
    this.#stack = undefined
    await this.#ledger?.flush()
    const folder = this.#folder
    this.#folder = undefined
    if (folder !== undefined && !folder.clean()) tell(`data and logs are in ${folder.path}`)
  }

  /** Answers the exit code. */
  async run(): Promise<number> {
    const folder = new PlanFolder(this.#options, await countRecords())
    this.#folder = folder
    const { plan } = folder
    const ledger = new Ledger(folder.file('ledger'), plan.rows, plan.baseMs)
    this.#ledger = ledger
    this.#acceptedBefore = ledger.acceptedCount
    const baseUrl = plan.target ?? (await this.#bringUp(folder))
    const reader = new ViewReader(baseUrl, this.#abort.signal)
    if (plan.target !== undefined && !folder.resumed) await checkEmpty(reader, plan.target)
    const result = await this.#guard(this.#drive(folder, ledger, reader, baseUrl))
    await this.#tell(result)
    return result.equal ? 0 : 1
  }

  async #bringUp(folder: PlanFolder): Promise<string> {
    const { workers } = this.#options
    const left = folder.resumed ? await endLeftovers(folder.path) : 0
    if (folder.resumed) {
      const known = number(this.#acceptedBefore)
      tell(
        `going on in ${folder.path}, ${known} records are in${left > 0 ? `; ended ${left} left-over processes` : ''}`,
      )
    }
    tell(`starting redis-server, API, projector and ${workers} workers`)
    const stack = new Stack({
      folder: folder.path,
      workers,
      durability: folder.plan.durability,
      signal: this.#abort.signal,
    })
    this.#stack = stack
    await stack.start()
    return stack.apiUrl
  }

  /** Fails as soon as a process of the stack does. */
  async #guard<Result>(work: Promise<Result>): Promise<Result> {
    return await (this.#stack === undefined ? work : Promise.race([work, this.#stack.failure]))
  }

  async #drive(
    folder: PlanFolder,
    ledger: Ledger,
    reader: ViewReader,
    baseUrl: string,
  ): Promise<ReplayResult> {
    const { plan, resumed } = folder
    const { bodyRows, requestsMax, ratePerSecond } = this.#options
    const { signal } = this.#abort
    const producer = new Producer({
      ...{
        baseUrl,
        ledger,
        runId: plan.runId,
        bodies: recordBodies(ledger, plan.rows, bodyRows),
        requestsMax,
        ratePerSecond,
        signal,
      },
    })
    this.#progress.start()
    const startMs = performance.now()
    this.#startMs = startMs
    this.#looking = setInterval(() => void this.#look(reader), LOOK_MS)
    this.#startKilling(ledger, plan.rows)
    await producer.run()
    const acceptSeconds = secondsSince(startMs)
    await this.#untilFolded(reader, ledger.acceptedCount)
    const seconds = secondsSince(startMs)
    clearInterval(this.#looking)
    await this.#killer?.stop()
    this.#progress.stop()
    const seen = await this.#examine(ledger, reader)
    const { comparison, account } = seen
    const clean = (account?.lost ?? 0) + (account?.duplicated ?? 0) + (comparison?.different ?? 0) === 0
    return {
      equal: clean && ledger.acceptedCount === plan.rows,
      records: plan.rows,
      accepted: ledger.acceptedCount,
      seconds,
      perSecond: Math.round((ledger.acceptedCount - this.#acceptedBefore) / seconds),
      acceptSeconds,
      kills: this.#killer?.kills ?? 0,
      orphaned: this.#killer?.orphaned ?? 0,
      redeliveries: this.#stack === undefined ? null : await this.#countRedeliveries(folder),
      viewsCompared: comparison?.compared ?? null,
      viewsDifferent: comparison?.different ?? null,
      lost: account?.lost ?? null,
      duplicated: account?.duplicated ?? null,
      deadLetters: seen.deadLetters ?? null,
      requestsUnknown: producer.unknown,
      requestsRefused: producer.refused,
      resumed,
      durability: plan.target === undefined ? plan.durability : null,
      workers: plan.target === undefined ? this.#options.workers : null,
      versions: {
        millrace: millraceVersion,
        bun: Bun.version,
        redis: seen.redisVersion,
        ioredis: ioredisVersion,
      },
    }
  }

  /** Of this run, not of an interrupted one before it. */
  async #countRedeliveries(folder: PlanFolder): Promise<number> {
    return await countRedeliveries(folder.file('logs'), (name) => name.endsWith(`-${process.pid}.log`))
  }

  #startKilling(ledger: Ledger, rows: number): void {
    const { killEveryMs } = this.#options
    const stack = this.#stack
    if (killEveryMs === undefined || stack === undefined) return
    const beginAt = this.#acceptedBefore + (rows - this.#acceptedBefore) * KILLS_BEGIN_SHARE
    const killer = new Killer({
      stack,
      everyMs: killEveryMs,
      mayBegin: () => ledger.acceptedCount >= beginAt,
      onKill: (worker, pending) =>
        this.#progress.say(
          `killed ${worker.process.name} (process ${worker.process.pid}), ${pending} entries pending`,
        ),
    })
    this.#killer = killer
    killer.start().catch((error: unknown) => this.#abort.abort(error))
  }

  async #look(reader: ViewReader): Promise<void> {
    this.#folded = await folded(reader, 'flight-days').catch(() => this.#folded)
  }

  /** Until every projection has folded every accepted record, or stands still. */
  async #untilFolded(reader: ViewReader, accepted: number): Promise<void> {
    let movedAtMs = performance.now()
    for (;;) {
      const count = await foldedByAll(reader)
      if (count !== this.#folded) movedAtMs = performance.now()
      this.#folded = count
      if (count >= accepted) return
      if (performance.now() - movedAtMs > STANDSTILL_MS) {
        tell(`the views stand still at ${number(count)} of ${number(accepted)} records`)
        return
      }
      this.#abort.signal.throwIfAborted()
      await Bun.sleep(CAUGHT_UP_LOOK_MS)
    }
  }

  async #examine(
    ledger: Ledger,
    reader: ViewReader,
  ): Promise<{
    comparison?: Comparison
    account?: Account
    deadLetters?: number
    redisVersion: string | null
  }> {
    const stack = this.#stack
    const redisVersion = stack === undefined ? null : (await stack.probe.facts()).version
    if (!this.#options.verify) return { redisVersion }
    tell('comparing the views with the records')
    const comparison = await compareViews(reader, await expectedViews(this.#folder?.plan.rows ?? 0))
    for (const sentence of comparison.differences) tell(sentence)
    if (stack === undefined) return { comparison, redisVersion }
    const account = await balance(ledger, stack.probe)
    return { comparison, account, deadLetters: await stack.probe.deadLetters(), redisVersion }
  }

  async #tell(result: ReplayResult): Promise<void> {
    const { json } = this.#options
    for (const line of sentences(result)) tell(line)
    if (json === undefined) return
    const text = `${JSON.stringify(result)}\n`
    if (json === '-') await Bun.write(Bun.stdout, text)
    else await Bun.write(json, text)
  }
}

/** Views that are there before the first record would be counted as ours. */
async function checkEmpty(reader: ViewReader, target: string): Promise<void> {
  const before = await folded(reader, 'flight-days')
  if (before === 0) return
  throw new RunError(
    'usage',
    `${target} has ${number(before)} flights already; the views of a replay can only be checked where there were none.`,
  )
}

function secondsSince(startMs: number): number {
  return Math.round(performance.now() - startMs) / 1000
}

function sentences(result: ReplayResult): string[] {
  const { accepted, records, seconds, perSecond, kills, orphaned, redeliveries } = result
  const lines = [
    `${number(accepted)} of ${number(records)} records in ${seconds} s, ${number(perSecond)} per second, views included`,
  ]
  if (redeliveries !== null) {
    lines.push(
      `${kills} kills left ${number(orphaned)} entries pending; ${number(redeliveries)} were delivered again`,
    )
  }
  if (result.viewsCompared !== null) {
    lines.push(`${number(result.viewsCompared)} views compared, ${result.viewsDifferent} different`)
  }
  if (result.lost !== null) {
    lines.push(
      `${result.lost} commands lost (${result.deadLetters} dead letters), ${result.duplicated} duplicated`,
    )
  }
  return [...lines, result.equal ? 'all equal' : 'NOT EQUAL']
}
