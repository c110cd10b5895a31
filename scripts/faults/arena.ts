/**
 * Where a scenario takes place: one redis-server, the processes, the producer, the ledgers, and the verdict.
 *
 *   open ─▶ produce + faults ─▶ quiet ─▶ account ─▶ broken promises
 *
 * What a scenario finds broken goes to `broke`; the figures come from the ledgers and from Redis, never from what the
 * processes say about themselves.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { RunError } from '../fleet/failure.ts'
import { freePorts } from '../fleet/free-ports.ts'
import { Ledger } from '../fleet/ledger.ts'
import { Producer } from '../fleet/producer.ts'
import { number } from '../fleet/progress.ts'
import { RedisServer, type RedisServerOptions } from '../fleet/redis-server.ts'
import { compareViews, ViewReader } from '../fleet/view-check.ts'
import { collectEffects, type Effects } from './effects.ts'
import { Fleet } from './fleet.ts'
import { type HandlerCalls, sumHandlerCalls } from './handler-calls.ts'
import { keyOf, type Partition, RedisProbe } from './probe.ts'
import type { Random } from './random.ts'
import { type ScenarioResult, spreadOf } from './result.ts'
import type { ScaledSize } from './size.ts'
import { planStrikes, Striker } from './strikes.ts'
import type { Workload } from './workload.ts'

export interface ArenaOptions {
  readonly name: string
  readonly folder: string
  readonly size: ScaledSize
  readonly random: Random
  readonly signal: AbortSignal
  readonly keep: boolean
  /** Added to limits on time. */
  readonly slackMs: number
  readonly say: (line: string) => void
}

export interface OpenOptions {
  readonly workload: Workload
  readonly workers: number
  /** Folder below `app`. Default `steps`. */
  readonly app?: string
  /** Of the API, where it is another one. */
  readonly apiApp?: string
  readonly streams?: readonly string[]
  readonly durability?: 'everysec' | 'fsync' | 'replicated'
  readonly inFlightMax?: number
  readonly projectors?: number
  readonly apiFlags?: readonly string[]
  /** Where processes find Redis; default is the server itself. Called once it runs. */
  readonly redisUrl?: (redis: RedisServer) => Promise<string>
  readonly redis?: Partial<RedisServerOptions>
}

export interface ProduceOptions {
  /** Rows, default all. */
  readonly from?: number
  readonly to?: number
  /** Default: all rows over the seconds of the scenario. */
  readonly ratePerSecond?: number
  readonly requestsMax?: number
  /** Keeps step with the planned strikes, so that all of them fall under load. */
  readonly underStrikes?: boolean
}

/** Everything that was counted. */
export interface Account {
  readonly effects: Effects
  readonly calls: HandlerCalls
  readonly pending: number
  /** Undefined where nobody waited until their time was up. */
  readonly leaked: readonly string[] | undefined
  readonly viewsCompared: number
  readonly viewsDifferent: number
}

const IN_FLIGHT_MAX = 500
const DAY_MS = 86_400_000
/** How far the load may run ahead of the strikes, as a part of it. */
const AHEAD_SHARE = 0.05
const PACE_LOOK_MS = 20
const POST_LIMIT_MS = 15_000
const QUIET_LOOK_MS = 100
const QUIET_LIMIT_MS = 120_000
/** Names of the dead are kept for 30 s of silence. */
const LEAK_LIMIT_MS = 60_000
const LEAK_LOOK_MS = 1000

export class Arena {
  readonly name: string
  readonly size: ScaledSize
  readonly random: Random
  readonly signal: AbortSignal
  readonly folder: string
  readonly baseMs: number = Date.now() - DAY_MS
  readonly details: Record<string, unknown> = {}
  readonly skipped: string[] = []
  readonly broken: string[] = []
  readonly #options: ArenaOptions
  readonly #startedMs: number = performance.now()
  readonly #producers: Producer[] = []
  readonly #closers: (() => Promise<void> | void)[] = []
  #redis: RedisServer | undefined
  #probe: RedisProbe | undefined
  #fleet: Fleet | undefined
  #striker: Striker | undefined
  #ledger: Ledger | undefined
  #workload: Workload | undefined
  #streams: readonly string[] = []
  #places: Partition[] = []
  #apiUrl = ''
  #account: Account | undefined
  orderViolations: number | null = null
  /** Kinds of dead letters that are meant to be. */
  expectedDead: (row: number) => boolean = () => false
  /** Figures of scenarios that post no commands. */
  figures: Partial<ScenarioResult> = {}
  /** Kills and pauses that the striker did not do. */
  extraKills = 0
  extraPauses = 0

  constructor(options: ArenaOptions) {
    this.#options = options
    this.name = options.name
    this.size = options.size
    this.random = options.random
    this.signal = options.signal
    this.folder = options.folder
    mkdirSync(options.folder, { recursive: true, mode: 0o700 })
  }

  get redis(): RedisServer {
    return opened(this.#redis)
  }

  /** Another server has become the one that counts. */
  follow(redis: RedisServer): void {
    this.#redis = redis
    this.#probe?.close()
  }

  get probe(): RedisProbe {
    return opened(this.#probe)
  }

  get fleet(): Fleet {
    return opened(this.#fleet)
  }

  get striker(): Striker {
    return opened(this.#striker)
  }

  get ledger(): Ledger {
    return opened(this.#ledger)
  }

  get workload(): Workload {
    return opened(this.#workload)
  }

  /** Requests without a certain answer, over all producers. */
  get unknown(): number {
    return this.#producers.reduce((sum, producer) => sum + producer.unknown, 0)
  }

  get refused(): number {
    return this.#producers.reduce((sum, producer) => sum + producer.refused, 0)
  }

  get apiUrl(): string {
    return this.#apiUrl
  }

  get places(): readonly Partition[] {
    return this.#places
  }

  say(line: string): void {
    this.#options.say(`${this.name}: ${line}`)
  }

  /** A promise that did not hold. */
  broke(sentence: string): void {
    this.broken.push(sentence)
    this.say(`BROKEN: ${sentence}`)
  }

  /** A limit on time, with the slack that was asked for. */
  limitMs(ms: number): number {
    return ms + this.#options.slackMs
  }

  check(holds: boolean, sentence: string): void {
    if (!holds) this.broke(sentence)
  }

  /** To be ended with the arena, last opened first. */
  onClose(close: () => Promise<void> | void): void {
    this.#closers.push(close)
  }

  progressParts(): string[] {
    const { workerKills = 0, pauses = 0, redisKills = 0 } = this.#striker ?? {}
    const accepted = this.#ledger?.acceptedCount ?? 0
    return [
      this.name,
      `${number(accepted)} of ${number(this.size.commands)} accepted`,
      `${Math.round((performance.now() - this.#startedMs) / 1000)} s`,
      ...(workerKills > 0 ? [`${workerKills} kills`] : []),
      ...(pauses > 0 ? [`${pauses} pauses`] : []),
      ...(redisKills > 0 ? [`${redisKills} Redis kills`] : []),
    ]
  }

  progressShare(): number {
    return (this.#ledger?.acceptedCount ?? 0) / Math.max(1, this.size.commands)
  }

  /** Starts Redis, the API, the projectors and the workers. */
  async open(options: OpenOptions): Promise<void> {
    const { folder, signal } = this
    const durability = options.durability ?? 'everysec'
    const [port = 0] = await freePorts(1)
    const fsync = durability === 'fsync' ? 'always' : 'everysec'
    this.#redis = new RedisServer({ folder: join(folder, 'redis'), port, fsync, signal, ...options.redis })
    await this.#redis.start()
    this.#probe = new RedisProbe(() => this.redis.url)
    this.#streams = options.streams ?? ['steps', 'echoes']
    this.#workload = options.workload
    this.#ledger = new Ledger(
      join(folder, 'accepted.ledger'),
      Math.max(1, options.workload.rows),
      this.baseMs,
    )
    this.#fleet = new Fleet({
      folder,
      app: options.app ?? 'steps',
      redisUrl: (await options.redisUrl?.(this.#redis)) ?? this.#redis.url,
      durability,
      inFlightMax: options.inFlightMax ?? IN_FLIGHT_MAX,
      baseMs: this.baseMs,
      probe: this.#probe,
      streams: this.#streams,
      signal,
    })
    this.#striker = new Striker({
      fleet: this.#fleet,
      redis: this.#redis,
      probe: this.#probe,
      places: () => this.#places,
      signal,
    })
    const { apiApp, apiFlags = [] } = options
    const ofApi = { flags: apiFlags, ...(apiApp === undefined ? {} : { app: apiApp }) }
    const api = await this.#fleet.start('api', ofApi)
    this.#apiUrl = api.told('public')
    this.#places = await this.#probe.partitions(this.#streams)
    for (let i = 0; i < (options.projectors ?? 1); i++) await this.#fleet.start('project')
    for (let i = 0; i < options.workers; i++) await this.#fleet.startWorker()
  }

  /** Posts rows until every one of them is accepted. */
  async produce(options: ProduceOptions = {}): Promise<void> {
    const { from = 0, to = this.workload.rows, requestsMax = 6, underStrikes = false } = options
    const { striker, signal } = this
    const paced = async (row: number): Promise<void> => {
      while (underStrikes && !signal.aborted && row / to > striker.progress + AHEAD_SHARE)
        await Bun.sleep(PACE_LOOK_MS)
    }
    const producer = new Producer({
      baseUrl: this.#apiUrl,
      ledger: this.ledger,
      runId: this.name,
      bodies: this.workload.bodies(this.ledger, { from, to, paced }),
      requestsMax,
      ratePerSecond: options.ratePerSecond ?? Math.max(1, (to - from) / this.size.seconds),
      signal: this.signal,
    })
    this.#producers.push(producer)
    await this.guard(producer.run())
  }

  /** Posts items of one body by themselves: no ledger, no second try. Answers the status of each, 0 without an answer. */
  async post(lines: readonly string[]): Promise<{ readonly status: number; readonly id: string }[]> {
    const response = await fetch(`${this.#apiUrl}/v1/commands`, {
      method: 'POST',
      headers: { 'content-type': 'application/x-ndjson' },
      body: lines.join('\n'),
      signal: AbortSignal.any([this.signal, AbortSignal.timeout(POST_LIMIT_MS)]),
    })
    const { results = [] } = (await response.json()) as {
      results?: { id?: string; problem?: { status?: number } }[]
    }
    return lines.map((_, i) => {
      const { id, problem } = results[i] ?? {}
      return { id: id ?? '', status: id === undefined ? (problem?.status ?? response.status) : 202 }
    })
  }

  /** The idempotency key under which a row is posted. */
  rowKey(row: number): string {
    return `${this.name}-row-${row}`
  }

  /** Events in Redis, over all partitions. */
  async eventEntries(): Promise<number> {
    let sum = 0
    for (const place of this.#places) sum += Number(await this.probe.send('XLEN', [keyOf(place, 'e')]))
    return sum
  }

  /** Polls until `holds`; false after `limitMs`. What can't be asked does not hold. */
  async until(holds: () => Promise<boolean> | boolean, limitMs: number, lookMs = 20): Promise<boolean> {
    const endMs = performance.now() + limitMs
    while (performance.now() < endMs) {
      this.signal.throwIfAborted()
      if (await Promise.resolve(holds()).catch(() => false)) return true
      await Bun.sleep(lookMs)
    }
    return false
  }

  /** The planned kills, pauses and Redis kills of this size. */
  async strike(): Promise<void> {
    const plan = planStrikes(this.random.fork('strikes'), this.size, this.size.seconds)
    await this.guard(this.striker.carryOut(plan))
  }

  /** Fails as soon as a process ends that nobody asked to. */
  async guard<Result>(work: Promise<Result>): Promise<Result> {
    return await Promise.race([work, this.fleet.failure])
  }

  /** No faults any more: waits until nothing is waiting, pending, due or unfolded. Answers how long it took, ms. */
  async quiet(limitMs: number = QUIET_LIMIT_MS): Promise<number> {
    const startMs = performance.now()
    for (let calm = 0; calm < 2; ) {
      this.signal.throwIfAborted()
      const isCalm = await this.guard(this.#isCalm()).catch((error: unknown) => {
        if (error instanceof RunError) throw error
        return false
      })
      calm = isCalm ? calm + 1 : 0
      if (performance.now() - startMs > limitMs) {
        const { undelivered, pending, due, outbox } = await this.probe.openWork(this.#places)
        const left = `${undelivered} partitions with undelivered entries, ${pending} pending, ${due} due, ${outbox} in outboxes`
        this.broke(`not quiet after ${limitMs / 1000} s: ${left}`)
        break
      }
      await Bun.sleep(QUIET_LOOK_MS)
    }
    return performance.now() - startMs
  }

  async #isCalm(): Promise<boolean> {
    const { undelivered, pending, due, outbox } = await this.probe.openWork(this.#places)
    return undelivered + pending + due + outbox === 0 && (await this.probe.caughtUp(this.#places))
  }

  /** Waits until the names of the dead are gone, as long as that takes by promise. Answers those that stay. */
  async untilSwept(): Promise<readonly string[]> {
    const endMs = performance.now() + LEAK_LIMIT_MS
    for (;;) {
      const leaked = await this.probe.leakedConsumers(this.#places)
      if (leaked.length === 0 || performance.now() > endMs) return leaked
      this.signal.throwIfAborted()
      await Bun.sleep(LEAK_LOOK_MS)
    }
  }

  /** Counts everything. `sweep` waits for the names of the dead to be removed, as every run of full size does. */
  async count(options: { readonly sweep?: boolean; readonly views?: boolean } = {}): Promise<Account> {
    const { probe, ledger, workload } = this
    const sweeps = options.sweep === true || this.size.full
    const leaked = sweeps ? await this.untilSwept() : undefined
    const effects = await collectEffects({ probe, places: this.#places, ledger, workload })
    const { casualties } = this.striker
    const calls = sumHandlerCalls(this.fleet.journalsFolder, workload.rows, casualties, this.baseMs)
    if (calls.unrecovered > 0) this.details['settledByOthers'] = calls.unrecovered
    const { pending } = await probe.openWork(this.#places)
    const reader = new ViewReader(this.#apiUrl, this.signal)
    const expected = options.views === false ? new Map() : effects.views
    const comparison = await compareViews(reader, expected)
    for (const sentence of comparison.differences) this.say(sentence)
    this.#account = {
      ...{ effects, calls, pending, leaked },
      viewsCompared: comparison.compared,
      viewsDifferent: comparison.different,
    }
    return this.#account
  }

  async close(): Promise<void> {
    for (const close of this.#closers.toReversed()) await close()
    this.#closers.length = 0
    await this.#fleet?.end()
    this.#probe?.close()
    await this.#redis?.end()
    this.#ledger?.close()
    this.#ledger = undefined
    if (!this.#options.keep) rmSync(this.folder, { recursive: true, force: true })
  }

  abandon(): void {
    this.#fleet?.abandon()
    this.#redis?.abandon()
  }

  result(): ScenarioResult {
    const { workerKills = 0, pauses = 0, redisKills = 0 } = this.#striker ?? {}
    const account = this.#account
    const dead = account?.effects.dead ?? []
    return {
      name: this.name,
      pass: this.broken.length === 0,
      accepted: this.#ledger?.acceptedCount ?? 0,
      done: account?.effects.done ?? 0,
      dead: dead.length,
      innocentDead: dead.filter(({ row }) => !this.expectedDead(row)).length,
      lost: (account?.effects.lostRows.length ?? 0) + (account?.effects.lostEchoes ?? 0),
      duplicateEffects: account?.effects.duplicates ?? 0,
      orderViolations: this.orderViolations,
      handlerCalls: account?.calls.calls ?? 0,
      duplicateHandlerCalls: account?.calls.duplicates ?? 0,
      pending: account?.pending ?? 0,
      leakedConsumers: account?.leaked?.length ?? null,
      workerKills: workerKills + this.extraKills + (this.#fleet?.crashes ?? 0),
      pauses: pauses + this.extraPauses,
      redisKills,
      recoveryMs: spreadOf(account?.calls.recoveriesMs ?? []) ?? null,
      seconds: Math.round(performance.now() - this.#startedMs) / 1000,
      skipped: this.skipped,
      broken: this.broken,
      details: { ...this.details, unknownRequests: this.unknown, refusedRequests: this.refused },
      ...this.figures,
    }
  }
}

function opened<Value>(value: Value | undefined): Value {
  if (value !== undefined) return value
  throw new RunError('failed', 'The arena is not open.')
}
