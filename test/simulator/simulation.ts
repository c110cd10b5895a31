/**
 * One run of the simulator: a fleet, a producer, a schedule of faults, a quiet period, a judgement. Everything follows from the
 * seed; the hash of the trace is the proof.
 */

import { errorCode } from '../../src/contracts/errors.ts'
import type { HandledCommand } from '../../src/contracts/handler.ts'
import type { Telemetry } from '../../src/contracts/telemetry.ts'
import { partitionOf } from '../../src/policies/partition.ts'
import { appendKeyed, appendPlain, type NewCommand } from '../../src/redis/command-log.ts'
import type { RedisLink } from '../../src/redis/connection.ts'
import { packEntry } from '../../src/redis/entry-codec.ts'
import { FLEET_META_KEY, partitionKeys } from '../../src/redis/keys.ts'
import { lyingEntries, lyingEntry } from '../support/lying-entries.ts'
import { Chance } from './chance.ts'
import { DEADLY, FAULT_KINDS, type FaultKind, Faults, requestName } from './faults.ts'
import { BLOCKED, type Snapshot } from './keyspace.ts'
import { Ledger, type SentOrder } from './ledger.ts'
import { MemoryRedis } from './memory-redis.ts'
import { Network } from './network.ts'
import { groupOf, holderOf, keyOfEntry, sourcesOf } from './partition-state.ts'
import { RedisFault, type Reply } from './redis-replies.ts'
import {
  PARTITIONS,
  type Plan,
  placeOrder,
  planOf,
  type ScenarioOptions,
  STREAM,
  scenarioCatalogue,
} from './scenario.ts'
import { SimulatedLinks } from './simulated-links.ts'
import { SimulatedProcess } from './simulated-process.ts'
import { compareIds, parseId } from './stream-ids.ts'
import { Strand, VirtualClock, VirtualTime } from './virtual-time.ts'

export interface RunReport {
  readonly seed: number
  readonly wrong: readonly string[]
  readonly steps: number
  readonly faults: ReadonlyMap<FaultKind, number>
  readonly orders: number
  readonly handlerRuns: number
  /** Orders that were stored and are gone with what the server lost. */
  readonly lost: number
  readonly virtualMs: number
  /** Equal for equal runs. */
  readonly hash: number
  readonly trace: readonly string[]
}

/** When the run began, by Redis: long ago enough to be nobody's present, and a multiple of nothing. */
const EPOCH_MS = 1_700_000_012_345
const QUIET_MAX_MS = 90_000
const IDEMPOTENCY = { windowMs: 86_400_000, recordsMax: 1_000_000 }

export class Simulation {
  readonly #seed: number
  readonly #chance: Chance
  readonly #time = new VirtualTime()
  readonly #redis: MemoryRedis
  readonly #network: Network
  readonly #faults: Faults
  readonly #ledger: Ledger
  readonly #processes = new Set<SimulatedProcess>()
  readonly #failed = new Set<string>()
  /** A process that can't finish its start dies with what it has in hand already. */
  #failedStart = false
  readonly #pronouncedDead: string[] = []
  readonly #alarms: string[] = []
  readonly #wrong: string[] = []
  readonly #checkpoints = new Map<string, string>()
  readonly #trace: string[] | undefined
  readonly #telemetry: Telemetry
  readonly #activeMs: number
  readonly #poisonous: number
  readonly #orderCount: number
  readonly #options: ProcessOptions
  #clockStepMs = 0
  #clockWentBack = false
  #loss: { fromMs: number; toMs: number } | undefined
  #hash = 0
  #started = 0
  #sending = 0

  constructor(seed: number, { traced = false } = {}) {
    this.#seed = seed
    const chance = new Chance(seed)
    this.#chance = chance
    this.#trace = traced ? [] : undefined
    this.#activeMs = chance.between(2500, 4500)
    this.#orderCount = chance.whole(20, 40)
    this.#poisonous = chance.happens(0.12) ? chance.whole(0, this.#orderCount - 1) : -1
    this.#options = drawOptions(chance)
    this.#ledger = new Ledger(this.#options.scenario.ordering)
    this.#redis = new MemoryRedis(() => EPOCH_MS + this.#time.nowMs + this.#clockStepMs)
    this.#network = new Network(this.#time, this.#redis, chance.fork(), {
      onExecuted: (label, words, reply) => this.#onExecuted(label, words, reply),
      faultFor: (label, words) => this.#faults.forRequest(label, words),
    })
    this.#telemetry = { emit: (name, payload) => this.#onTelemetry(name, payload) }
    this.#faults = new Faults({
      network: this.#network,
      chance: chance.fork(),
      processes: () => [...this.#processes],
      stepClock: (ms) => this.#stepClock(ms),
      rollBack: () => this.#rollBack(),
      replaceLater: (process) => this.#replaceLater(process),
      onStruck: (kind, detail) => this.#note(`*** ${kind} ${detail}`),
    })
  }

  run(): RunReport {
    this.#redis.hash(FLEET_META_KEY).fields.set('secret', 'simulated-secret')
    const count = this.#chance.whole(2, 3)
    for (let i = 0; i < count; i++) this.#time.after(this.#chance.between(0, 50), () => this.#startProcess())
    this.#scheduleFaults()
    this.#scheduleOrders()
    this.#time.run(this.#activeMs)
    this.#beQuiet()
    const isDone = () => this.#sending === 0 && this.#ledger.isAtRest(this.#redis, this.#living)
    let endMs = this.#time.nowMs
    for (let calm = 0; calm < 2 && this.#time.nowMs < this.#activeMs + QUIET_MAX_MS; ) {
      endMs += 400
      this.#time.run(endMs)
      calm = isDone() ? calm + 1 : 0
    }
    this.#judge()
    return {
      seed: this.#seed,
      wrong: this.#wrong,
      steps: this.#time.steps,
      faults: this.#faults.counts,
      orders: this.#ledger.orders.size,
      handlerRuns: this.#ledger.runs.length,
      lost: this.#loss === undefined ? 0 : this.#ledger.lost(this.#redis).length,
      virtualMs: this.#time.nowMs,
      hash: this.#hash,
      trace: this.#trace ?? [],
    }
  }

  get #living(): Set<string> {
    return new Set([...this.#processes].map(({ name }) => name))
  }

  #judge(): void {
    const facts = {
      loss: this.#loss,
      failed: this.#failed,
      living: this.#living,
      mayBePronouncedDead: this.#faults.has(DEADLY) || this.#poisonous >= 0 || this.#failedStart,
      pronouncedDead: this.#pronouncedDead,
      alarms: this.#alarms,
    }
    this.#wrong.push(...this.#ledger.judge(this.#redis, facts))
  }

  // Processes

  #startProcess(): void {
    this.#started += 1
    const process = new SimulatedProcess({
      network: this.#network,
      chance: this.#chance.fork(),
      telemetry: this.#telemetry,
      name: `w${this.#started}`,
      wallMs: EPOCH_MS + (this.#chance.happens(0.2) ? this.#chance.pick([3_600_000, -3_600_000]) : 0),
      blockMs: this.#options.blockMs,
      options: this.#options.consumer,
      catalogueOf: (own) =>
        scenarioCatalogue(
          {
            clock: own.clock,
            planOf: (n) => this.#planOf(n),
            onRun: (what, n, command) => this.#onRun(own, what, n, command),
            onLate: (n, command) => this.#onLate(own, n, command),
            crash: () => this.#crash(own),
          },
          this.#options.scenario,
        ),
      onEnded: (own, why, isFailure) => {
        this.#failedStart ||= isFailure
        this.#note(`${own.name} ended: ${why}`)
        this.#replaceLater(own)
      },
    })
    this.#processes.add(process)
    this.#note(`${process.name} starts`)
    process.launch()
  }

  #planOf(n: number): Plan {
    return planOf(this.#seed, n, this.#poisonous)
  }

  #onRun(process: SimulatedProcess, what: string, n: number, command: HandledCommand): void {
    const { attempt } = command
    this.#ledger.runs.push({ what, n, attempt, process: process.name })
    // A server that lost writes gives back commands that had ended, behind what has begun since.
    if (this.#options.scenario.ordering === 'key' && this.#loss === undefined)
      this.#watchOrder(process, command)
    this.#note(`${process.name} runs ${what} ${n} attempt ${attempt}`)
  }

  /** Its failure counts only if nobody else has taken the command over. */
  #onLate(process: SimulatedProcess, n: number, { id }: HandledCommand): void {
    const [, partition, token = ''] = id.split('.')
    const keys = this.#ledger.partitions[Number(partition)]
    const holder = keys === undefined ? undefined : holderOf(this.#redis, keys, token)
    this.#note(`${process.name} is late with ${n}, which ${holder ?? 'nobody'} holds`)
    if (holder !== process.name) return
    this.#ledger.lateRuns.set(n, (this.#ledger.lateRuns.get(n) ?? 0) + 1)
  }

  #crash(process: SimulatedProcess): Promise<never> {
    this.#note(`${process.name} crashes`)
    process.kill(true)
    this.#replaceLater(process)
    return new Promise(() => undefined)
  }

  /** Another one comes in its place. */
  #replaceLater(process: SimulatedProcess): void {
    if (!this.#processes.delete(process)) return
    this.#note(`${process.name} is gone`)
    this.#failed.add(process.name)
    this.#time.after(this.#chance.between(50, 1500), () => this.#startProcess())
  }

  // Faults

  #scheduleFaults(): void {
    const count = this.#chance.whole(6, 9)
    for (let i = 0; i < count; i++) {
      const atMs = this.#chance.between(400, this.#activeMs - 300)
      this.#time.at(atMs, () => this.#strike())
    }
  }

  #strike(): void {
    for (let tries = 0; tries < 20; tries++) if (this.#faults.strike(this.#drawKind())) return
  }

  #drawKind(): FaultKind {
    for (;;) {
      const kind = this.#chance.pick(FAULT_KINDS)
      // Ids given out before the clock went back could be given out again after the server lost its newest entries.
      if (kind === 'redis-rolled-back' && (this.#clockWentBack || this.#loss !== undefined)) continue
      if (kind === 'redis-clock-back' && this.#loss !== undefined) continue
      return kind
    }
  }

  #stepClock(ms: number): void {
    this.#clockStepMs += Math.round(ms)
    if (ms < 0) this.#clockWentBack = true
  }

  /** As `appendfsync everysec`: what was written in the last moments before a kill is gone. */
  #rollBack(): boolean {
    if (!this.#network.isUp || this.#loss !== undefined) return false
    const saved: Snapshot = this.#redis.snapshot()
    const loss = { fromMs: this.#time.nowMs, toMs: Number.POSITIVE_INFINITY }
    this.#loss = loss
    const attempt = (): void => {
      if (!this.#network.isUp) return void this.#time.after(100, attempt)
      loss.toMs = this.#time.nowMs
      this.#note(`*** Redis is killed and lost ${Math.round(loss.toMs - loss.fromMs)} ms`)
      this.#checkpoints.clear()
      this.#network.restart(this.#chance.between(20, 800), () => saved)
    }
    this.#time.after(this.#chance.between(5, 1800), attempt)
    return true
  }

  #beQuiet(): void {
    while (this.#faults.struck < 5) this.#strike()
    this.#time.after(2000, () => this.#faults.calm())
  }

  // The producer

  #scheduleOrders(): void {
    const chance = this.#chance.fork()
    const strand = new Strand(this.#time)
    const clock = new VirtualClock(this.#time, strand, chance.fork(), EPOCH_MS + chance.whole(-2000, 2000))
    const parts = { network: this.#network, telemetry: { emit: () => undefined }, label: 'producer' }
    const links = new SimulatedLinks({ ...parts, strand, clock, blockMs: 1000, commandTimeoutMs: 1500 })
    const link = links.open('ingest')
    let n = 0
    while (n < this.#orderCount) {
      const size = Math.min(this.#orderCount - n, chance.whole(1, 6))
      const orders = Array.from({ length: size }, (_, i) => n + i)
      n += size
      const how = chance.happens(0.25) ? 'plain' : 'keyed'
      const delayMs = how === 'keyed' && chance.happens(0.15) ? chance.whole(10, 1500) : undefined
      this.#time.at(chance.between(50, this.#activeMs), () => {
        this.#sending += 1
        const sent = this.#sendOrders(link, clock, orders, how, delayMs)
        void sent.finally(() => {
          this.#sending -= 1
        })
      })
    }
  }

  async #sendOrders(
    link: RedisLink,
    clock: VirtualClock,
    numbers: readonly number[],
    how: 'plain' | 'keyed',
    delayMs: number | undefined,
  ): Promise<void> {
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const orders = numbers
        .map((n) => ({ n, plan: this.#planOf(n) }))
        .filter(({ plan }) => partitionOf(plan.key, PARTITIONS) === partition)
        .map(({ n, plan }): SentOrder => ({ n, plan, fate: 'unknown', knownMs: 0 }))
      if (orders.length === 0) continue
      for (const order of orders) this.#ledger.orders.set(order.n, order)
      await (how === 'plain'
        ? this.#sendPlain(link, clock, orders, partition)
        : this.#sendKeyed(link, clock, orders, partition, delayMs))
    }
  }

  #blobOf(order: SentOrder, clock: VirtualClock): Buffer {
    const { type, version } = placeOrder
    const nothing = { trace: undefined, tickMs: undefined, trail: undefined }
    const { key } = order.plan
    const envelope = { type, version, atMs: clock.nowMs(), key, ...nothing }
    return packEntry(envelope, { n: order.n, key }).blob
  }

  /** Once; without an answer nobody knows. */
  async #sendPlain(
    link: RedisLink,
    clock: VirtualClock,
    orders: SentOrder[],
    partition: number,
  ): Promise<void> {
    const blobs = orders.map((order) => this.#blobOf(order, clock))
    try {
      const tokens = await appendPlain(link, partitionKeys(STREAM, partition), lyingEntries(blobs))
      this.#learn(orders, tokens)
    } catch (error) {
      const fate = errorCode(error) === 'redis.unknown' ? 'unknown' : 'refused'
      for (const order of orders) order.fate = fate
    }
  }

  /** Again and again under the same keys, until there is an answer. */
  async #sendKeyed(
    link: RedisLink,
    clock: VirtualClock,
    orders: SentOrder[],
    partition: number,
    delayMs: number | undefined,
  ): Promise<void> {
    const commands = orders.map((order): NewCommand => {
      const digest = new Bun.CryptoHasher('md5').update(`${this.#seed}/${order.n}`).digest()
      const mark = { digest, fingerprint: digest.subarray(0, 8) }
      return {
        entry: lyingEntry(this.#blobOf(order, clock)),
        mark,
        deliver: delayMs === undefined ? undefined : { delayMs },
      }
    })
    for (;;) {
      try {
        const keys = partitionKeys(STREAM, partition)
        const results = await appendKeyed(link, keys, commands, IDEMPOTENCY, clock.nowMs())
        return this.#learn(
          orders,
          results.map((result) => ('token' in result ? result.token : '')),
        )
      } catch {
        await clock.sleep(30 + clock.random() * 200)
      }
    }
  }

  #learn(orders: readonly SentOrder[], tokens: readonly string[]): void {
    for (const [i, order] of orders.entries()) {
      order.fate = 'stored'
      order.knownMs = this.#time.nowMs
      if ((tokens[i] ?? '') === '') this.#wrong.push(`order ${order.n} was stored without a token`)
    }
  }

  // What is seen

  #onTelemetry(name: string, payload: object): void {
    if (this.#trace !== undefined && !/^(batch|entries)\./.test(name))
      this.#note(`${name} ${JSON.stringify(payload)}`)
    if (name === 'consumer.pronounced-dead' && 'consumer' in payload)
      this.#onVerdict(String(payload.consumer))
    if (name === 'alarm.raised' && 'alarm' in payload) this.#alarms.push(String(payload.alarm))
  }

  /** Of one that is gone it is true. */
  #onVerdict(consumer: string): void {
    if ([...this.#processes].some(({ name }) => name === consumer)) this.#pronouncedDead.push(consumer)
  }

  #onExecuted(label: string, words: readonly string[], reply: Reply | typeof BLOCKED): void {
    const name = requestName(words)
    this.#mix(this.#time.nowMs * 1000)
    this.#mix(name.length + 31 * label.length + 961 * sizeOf(reply))
    if (name === 'commit-views' || name === 'open-reader') this.#watchCheckpoints()
    if (name === 'trim-commands') this.#watchTrim()
    if (name === 'fire' && Array.isArray(reply) && reply[0] === 'fired') this.#watchFire(words)
    if (this.#trace !== undefined)
      this.#note(`${label} ${name} ${describe(words)} -> ${describeReply(reply)}`)
  }

  #watchCheckpoints(): void {
    for (const keys of this.#ledger.partitions) {
      for (const [reader, checkpoint] of this.#redis.find(keys.readers, 'hash')?.fields ?? []) {
        const name = `${keys.readers} ${reader}`
        const before = this.#checkpoints.get(name)
        if (before === checkpoint) continue
        if (before !== undefined && compareIds(parseId(checkpoint), parseId(before)) < 0) {
          this.#wrong.push(`the checkpoint of ${reader} went back from ${before} to ${checkpoint}`)
        }
        this.#checkpoints.set(name, checkpoint)
      }
    }
  }

  /** Nothing that is pending may have been trimmed. */
  #watchTrim(): void {
    for (const keys of this.#ledger.partitions) {
      for (const key of sourcesOf(keys)) {
        const stream = this.#redis.find(key, 'stream')
        for (const { id } of groupOf(this.#redis, key)?.pending ?? []) {
          if (stream?.find(id) === undefined)
            this.#wrong.push(`${id.text} of ${key} is pending, but was trimmed`)
        }
      }
    }
  }

  /** Whoever owns the partition starts a command only when all that came before it under its key have ended. */
  #watchOrder(process: SimulatedProcess, { key, id }: HandledCommand): void {
    const [, partition, token = ''] = id.split('.')
    const keys = this.#ledger.partitions[Number(partition)]
    if (keys === undefined || !token.startsWith('e')) return
    if (this.#redis.find(keys.lease, 'hash')?.fields.get('owner') !== process.name) return
    const stream = this.#redis.find(keys.commands, 'stream')
    const own = parseId(token.slice(1))
    for (const pending of groupOf(this.#redis, keys.commands)?.pending ?? []) {
      if (compareIds(pending.id, own) >= 0) return
      const entry = stream?.find(pending.id)
      if (entry === undefined || keyOfEntry(entry) !== key) continue
      this.#wrong.push(`${token} of ${key} began in ${process.name} before ${pending.id.text} had ended`)
    }
  }

  #watchFire(words: readonly string[]): void {
    const tickMs = Number(words[3 + 4 + 2])
    if (tickMs > this.#redis.nowMs) this.#wrong.push(`tick ${tickMs} was fired at ${this.#redis.nowMs}`)
  }

  #mix(value: number): void {
    this.#hash = (Math.imul(this.#hash ^ Math.floor(value), 16_777_619) + 0x9e3779b9) | 0
  }

  #note(line: string): void {
    this.#trace?.push(`${this.#time.nowMs.toFixed(3)} ${line}`)
  }
}

interface ProcessOptions {
  readonly blockMs: number
  readonly consumer: NonNullable<ConstructorParameters<typeof SimulatedProcess>[0]['options']>
  readonly scenario: ScenarioOptions
}

function drawOptions(chance: Chance): ProcessOptions {
  return {
    blockMs: chance.pick([500, 1000, 2000]),
    consumer: {
      inFlightMax: chance.pick([9, 30, 1000]),
      readCountMax: chance.pick([3, 20, 500]),
      batchesMax: chance.pick([2, 16]),
      settleRequestsMax: chance.pick([1, 5]),
      promoteEveryMs: chance.pick([500, 1200]),
      trimEveryMs: chance.pick([500, 3000]),
      drainLimitMs: 4000,
    },
    scenario: {
      ordering: chance.pick(['none', 'key']),
      batchCountMax: chance.pick([1, 4, 50]),
      concurrencyMax: chance.pick([1, 4]),
    },
  }
}

function sizeOf(reply: Reply | typeof BLOCKED): number {
  if (reply === BLOCKED) return 7
  if (typeof reply === 'string') return reply.length
  if (typeof reply === 'number') return reply & 0xffff
  if (Array.isArray(reply))
    return reply.reduce((sum: number, each: Reply) => sum * 3 + sizeOf(each), reply.length)
  return reply === null ? 3 : 5
}

function describe(words: readonly string[]): string {
  const rest = words[0] === 'EVALSHA' || words[0] === 'EVAL' ? words.slice(3) : words.slice(1)
  return rest.map(printable).join(' ').slice(0, 300)
}

function describeReply(reply: Reply | typeof BLOCKED): string {
  if (reply === BLOCKED) return 'blocked'
  if (reply instanceof RedisFault) return reply.message.slice(0, 200)
  return JSON.stringify(reply, (_, value: unknown) =>
    typeof value === 'string' ? printable(value) : value,
  ).slice(0, 300)
}

function printable(text: string): string {
  const shown = text.replace(/[^\x20-\x7e]/g, '.')
  return shown.length > 60 ? `${shown.slice(0, 57)}...` : shown
}
