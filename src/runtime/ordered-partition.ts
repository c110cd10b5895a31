/**
 * One partition of a stream that is ordered by key, for as long as this worker has its lease.
 *
 *   load: held retries, own pending list ─▶ charge suspects ─▶ read on
 *   entry ─▶ queue of its key ─(first of its key)─▶ dispatcher ─▶ settled ─▶ next of its key
 *                                  ▲                    │ retry: stays first, its time comes later
 *                                  └────────────────────┘
 *
 * Only the first of a key is ever in a batch, so no two of a key run at once, and a retry holds up its own key alone. What
 * waits is bounded: at `parkedMax` the partition reads nothing, until something ends. Every first is in hand, so something will.
 *
 * A handler starts only while nobody can have taken the lease: for a moment after it was proved to be ours by an answer, counted
 * from when the request was sent; after that it is asked for again. Whoever takes the lease destroys the group that is read and settled in here: then everything in hand is dropped, and what
 * handlers still answer is refused and counted.
 */
import { describeError, MillraceError } from '../contracts/errors.ts'
import type { HealthReport } from '../contracts/health.ts'
import type { StreamDefinition } from '../contracts/stream.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { RedisLink, RedisLinks } from '../redis/connection.ts'
import type { ReadEntry } from '../redis/consumer-group.ts'
import { decodeEntry, type Entry, type Trail } from '../redis/entry-codec.ts'
import { restoreFleet } from '../redis/fleet.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import { leasedMembership, type Membership } from '../redis/membership.ts'
import {
  chargeSuspects,
  type HeldCommand,
  readHeld,
  readMarks,
  releasePartition,
  type TakenPartition,
} from '../redis/partition-lease.ts'
import { unpackPayload } from '../redis/payload-codec.ts'
import type { Failure } from '../redis/settlements.ts'
import { Caretaker } from './caretaker.ts'
import type { Clock, Timer } from './clock.ts'
import { CommandRun, type RunScope } from './command-run.ts'
import type { ConsumerOptions } from './consumer-options.ts'
import type { Dispatcher } from './dispatcher.ts'
import { Fetcher, type Holdings } from './fetcher.ts'
import { HeldEntry, InFlight } from './in-flight.ts'
import { KeyQueues } from './key-queues.ts'
import { LeaseProof } from './lease-proof.ts'
import { OrderedCommand } from './ordered-command.ts'
import { type ConfirmedSource, OutboxRelay } from './outbox-relay.ts'
import { PartitionDesk } from './partition-desk.ts'
import { Promoter } from './promoter.ts'
import { ReaderWatch } from './reader-watch.ts'
import type { ServerWatch } from './server-watch.ts'
import type { Service } from './service.ts'
import { type Fate, Settler } from './settler.ts'

export interface OrderedPartitionOptions {
  readonly links: RedisLinks
  readonly command: RedisLink
  readonly stream: StreamDefinition
  readonly keys: PartitionKeys
  readonly consumer: string
  readonly taken: TakenPartition
  /** Monotonic ms at which the lease was asked for. */
  readonly takenSentMs: number
  readonly scope: RunScope
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly dispatcher: Dispatcher
  readonly options: ConsumerOptions
  /** With tier `replicated`: what the outbox is read through. */
  readonly confirmed: ConfirmedSource | undefined
  /** Commands of this partition that may be ready to run or running; may change as partitions come and go. */
  readonly inFlightMax: () => number
  readonly inFlightBytesMax: number
  /** What this process knows of its Redis. */
  readonly server: ServerWatch
  /** The longest that a run of any handler may take. */
  readonly runLimitMs: number
  /** Called once, when the lease turns out to be somebody else's. */
  readonly onLost: () => void
}

/** Longer waits are looked at again, so that no timer overflows. */
const WAIT_MAX_MS = 3_600_000
const FORGOTTEN_PAUSE_MS = 1000
const RELEASE_ATTEMPTS_MAX = 3

export class OrderedPartition implements Holdings {
  readonly #options: OrderedPartitionOptions
  readonly #membership: Membership
  readonly #inFlight: InFlight
  readonly #queues = new KeyQueues<OrderedCommand>()
  /** Commands in the dispatcher's or the settler's hands. */
  #active = 0
  readonly #timers = new Set<Timer>()
  readonly #settler: Settler
  readonly #proof: LeaseProof
  readonly #desk: PartitionDesk
  readonly #reader: RedisLink
  readonly #fetcher: Fetcher
  readonly #upkeep: readonly Service[]
  readonly #watch: ReaderWatch
  #held: Map<string, HeldCommand> = new Map()
  /** First of each key, until the suspects among them are known. */
  #loading: OrderedCommand[] | undefined = []
  /** Crash levels as they are charged; kept, because the marks are gone when the answer of the charge is lost. */
  #charges: ReadonlyMap<OrderedCommand, number> | undefined
  #starting: CommandRun[] = []
  #isFull = false
  #isClosed = false
  #released: Promise<void> | undefined

  constructor(options: OrderedPartitionOptions) {
    const { links, command, stream, keys, consumer, taken, clock, telemetry, dispatcher } = options
    this.#options = options
    this.#membership = leasedMembership(keys, consumer, taken.epoch)
    this.#inFlight = new InFlight(clock, stream.parkedMax, options.inFlightBytesMax)
    const common = { link: command, keys, clock, telemetry }
    this.#settler = new Settler({
      ...{ link: command, membership: this.#membership, clock, telemetry },
      requestsMax: options.options.settleRequestsMax,
      onSettled: (run, fate, failure) => this.#onSettled(run, fate, failure),
      onConflict: (run) => this.#onConflict(run),
      onAnswered: (sentMs) => this.#proof.prove(sentMs),
      onFenced: () => this.#lose(),
    })
    this.#proof = new LeaseProof({
      ...{ link: command, membership: this.#membership, clock, sinceMs: options.takenSentMs },
      ...{ lookEveryMs: options.options.lookEveryMs, heartbeatEveryMs: options.options.heartbeatEveryMs },
      onLost: () => this.#lose(),
    })
    this.#desk = new PartitionDesk({
      ...{ ...common, consumer, scope: options.scope, settler: this.#settler },
      onForget: (run) => this.#onForget(run),
      isOurs: () => this.#proof.isOurs(),
    })
    this.#reader = links.open('reader')
    this.#fetcher = new Fetcher({
      ...{ reader: this.#reader, command, membership: this.#membership, clock, telemetry, inFlight: this },
      blockMs: links.options.blockMs,
      readCountMax: options.options.readCountMax,
      onEntries: (entries) => this.#onEntries(entries),
      isHeld: () => dispatcher.holding || this.#isShut,
      // At its bound of waiting commands, all of them behind others that wait for their time, it does what it should.
      isPaused: () => this.#isShut || (this.#active === 0 && this.#inFlight.room < 1),
      runEndedMs: () => dispatcher.runEndedMs,
      runLimitMs: options.runLimitMs,
      onGroupGone: async () => this.#lose(),
      onReread: () => this.#finishLoading(),
    })
    this.#watch = new ReaderWatch({
      ...common,
      hasRoom: () => this.#fetcher.hasRoom,
      renew: () => this.#fetcher.renew(),
      onLoss: () => restoreFleet(command, options.scope.ids, [stream]),
    })
    const { promoteEveryMs: pauseMaxMs, trimEveryMs } = options.options
    this.#upkeep = [
      new Promoter({ ...common, pauseMaxMs }),
      new OutboxRelay({ ...common, pauseMaxMs, confirmed: options.confirmed }),
      new Caretaker({ ...common, stream, trimEveryMs, isPressed: () => options.server.pressure !== 'none' }),
      this.#watch,
    ]
  }

  get epoch(): number {
    return this.#options.taken.epoch
  }

  // ── what the fetcher asks ──

  get room(): number {
    return Math.max(0, Math.min(this.#inFlight.room, this.#options.inFlightMax() - this.#active))
  }

  has(entry: Pick<ReadEntry, 'source' | 'entryId'>): boolean {
    return this.#inFlight.has(entry)
  }

  rereadStarted(): void {
    this.#inFlight.rereadStarted()
  }

  rereadEnded(): void {
    this.#inFlight.rereadEnded()
  }

  change(limitMs: number, signal: AbortSignal): Promise<void> {
    return this.#inFlight.change(limitMs, signal)
  }

  // ── life ──

  health(): HealthReport {
    const { keys } = this.#options
    if (!this.#watch.isStuck) return this.#fetcher.health()
    return { ready: false, detail: `${keys.stream}.${keys.partition}: entries wait and nobody is given one` }
  }

  /** Redis is too full: at most one batch in hand, or none at all. */
  get #isShut(): boolean {
    const { pressure } = this.#options.server
    return pressure === 'stop' || (pressure === 'drain' && this.#active > 0)
  }

  async start(): Promise<void> {
    const { command, keys } = this.#options
    this.#held = await readHeld(command, keys)
    for (const service of this.#upkeep) await service.start()
    await this.#fetcher.start()
  }

  /** Reads nothing more and starts nothing more. */
  async stopReading(): Promise<void> {
    this.#isClosed = true
    for (const timer of this.#timers) timer.cancel()
    this.#timers.clear()
    await Promise.all([this.#fetcher.stop(), ...this.#upkeep.map((service) => service.stop())])
    this.#options.dispatcher.forget(this.#desk)
  }

  /** Resolves when what runs has ended and everything decided is settled, or `limit` aborts. */
  async settled(limit?: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    if (limit?.aborted === true) resolve()
    limit?.addEventListener('abort', () => resolve(), { once: true })
    const idle = this.#options.dispatcher.idle(this.#desk).then(() => this.#settler.idle())
    await Promise.race([idle, promise])
  }

  /** Gives the lease back: what is pending goes to the next owner, uncharged. Once is enough. */
  release(): Promise<void> {
    this.#released ??= this.#release()
    return this.#released
  }

  async #release(): Promise<void> {
    const { command, keys, links, telemetry, clock } = this.#options
    const { stream, partition } = keys
    for (let attempt = 1; attempt <= RELEASE_ATTEMPTS_MAX; attempt++) {
      try {
        if (await releasePartition(command, this.#membership)) {
          telemetry.emit('partition.released', { stream, partition, epoch: this.epoch })
        }
        break
      } catch (error) {
        // Without it, the others find the partition by our silence.
        telemetry.emit('service.failed', { service: 'release', error: describeError(error) })
        await clock.sleep(50)
      }
    }
    links.close(this.#reader)
  }

  /** The lease is somebody else's. */
  #lose(): void {
    this.#proof.lose()
    if (this.#isClosed) {
      this.#settler.fence()
      return
    }
    this.#isClosed = true
    const { keys, telemetry, onLost, links } = this.#options
    telemetry.emit('partition.lost', { stream: keys.stream, partition: keys.partition, epoch: this.epoch })
    this.#settler.fence()
    void this.stopReading().finally(() => links.close(this.#reader))
    onLost()
  }

  // ── entries ──

  #onEntries(entries: readonly ReadEntry[]): void {
    if (this.#isClosed) return
    for (const read of this.#inFlight.fresh(entries)) {
      if (read.blob === undefined) continue
      const entry = this.#decode(read.blob)
      if (entry === undefined) {
        this.#inFlight.enter(new HeldEntry(read, read.level, read.blob.length))
        continue
      }
      const command = this.#toCommand(read, entry)
      this.#inFlight.enter(command)
      if (!this.#queues.add(command)) continue
      if (this.#loading === undefined) this.#begin(command)
      else this.#loading.push(command)
    }
    this.#watchRoom()
  }

  #toCommand(read: ReadEntry, entry: Entry): OrderedCommand {
    const held = this.#held.get(read.entryId)
    if (held === undefined) return new OrderedCommand(read, entry, 0, 0)
    this.#held.delete(read.entryId)
    const { clock, taken } = this.#options
    const dueAtMs = clock.monotonicMs() + held.dueMs - taken.serverMs
    return new OrderedCommand(read, { ...entry, trail: held.trail ?? entry.trail }, held.turn, dueAtMs)
  }

  /** One of a format from the future stays pending, in hand, until another worker has the partition. */
  #decode(blob: Buffer): Entry | undefined {
    try {
      return decodeEntry(blob)
    } catch (error) {
      const detail = error instanceof MillraceError ? error.message : describeError(error)
      const { keys, telemetry } = this.#options
      telemetry.emit('alarm.raised', { alarm: 'entry-unreadable', stream: keys.stream, detail })
      return undefined
    }
  }

  /**
   * All that was pending is in hand now. If the last owner died, what may have been running is suspect: the first of each
   * key, unless it was waiting for its time.
   */
  async #finishLoading(): Promise<void> {
    const { command, keys, taken, telemetry } = this.#options
    const first = this.#loading
    if (first === undefined || this.#isClosed) return
    const levels = taken.charge === '' ? new Map<OrderedCommand, number>() : await this.#chargesOf(first)
    if (taken.charge !== '') {
      const byToken = new Map([...levels].map(([item, level]) => [item.token, level]))
      if (!(await chargeSuspects(command, this.#membership, taken.charge, byToken))) return this.#lose()
      const { stream, partition } = keys
      if (levels.size > 0) telemetry.emit('entries.redelivered', { stream, partition, count: levels.size })
    }
    this.#loading = undefined
    this.#charges = undefined
    // What was pending in a group that vanished comes as new, and is known by this alone.
    if (taken.state !== 'lost') this.#held = new Map()
    for (const item of first) {
      item.level = levels.get(item) ?? item.level
      // The last owner did not know its type; perhaps this one does.
      if (item.entry.trail?.unknownSinceMs !== undefined) item.dueAtMs = 0
      this.#begin(item)
    }
  }

  async #chargesOf(first: readonly OrderedCommand[]): Promise<ReadonlyMap<OrderedCommand, number>> {
    if (this.#charges !== undefined) return this.#charges
    const { command, keys, taken, clock } = this.#options
    const marked = await readMarks(command, keys, taken.charge)
    const nowMs = clock.monotonicMs()
    const ready = first.filter((item) => item.dueAtMs <= nowMs)
    this.#charges = new Map(
      ready.map((item) => [item, marked.has(item.token) ? item.level + 1 : Math.max(item.level, 1)]),
    )
    return this.#charges
  }

  #begin(command: OrderedCommand): void {
    if (this.#isClosed) return
    const { dueAtMs } = command
    const waitMs = dueAtMs === 0 ? 0 : dueAtMs - this.#options.clock.monotonicMs()
    if (waitMs <= 0) this.#dispatch(command)
    else this.#after(Math.min(WAIT_MAX_MS, waitMs), () => this.#begin(command))
  }

  #after(ms: number, call: () => void): void {
    const timer = this.#options.clock.after(Math.ceil(ms), () => {
      this.#timers.delete(timer)
      call()
    })
    this.#timers.add(timer)
  }

  /** What becomes ready in one turn is dispatched together. */
  #dispatch(command: OrderedCommand): void {
    this.#active += 1
    command.isActive = true
    if (this.#starting.push(new CommandRun(this.#options.scope, command, command.entry)) > 1) return
    queueMicrotask(() => {
      const runs = this.#starting
      this.#starting = []
      if (!this.#isClosed) this.#options.dispatcher.accept(this.#desk, runs)
    })
  }

  // ── answers ──

  /** The command of a run that comes back; undefined when it is not out, or not of here. */
  #takeBack({ ref }: CommandRun): OrderedCommand | undefined {
    if (!(ref instanceof OrderedCommand) || !ref.isActive) return undefined
    ref.isActive = false
    this.#active -= 1
    return ref
  }

  #onSettled(run: CommandRun, fate: Fate, failure: Failure | undefined): void {
    const command = this.#takeBack(run)
    if (command === undefined) return
    if (fate === 'held' && failure !== undefined) {
      const trail = unpackPayload(failure.blob) as Trail
      command.hold(trail, this.#options.clock.monotonicMs() + failure.delayMs)
      this.#begin(command)
      this.#inFlight.notify()
      return
    }
    this.#inFlight.leave(command)
    const next = this.#queues.next(command.key)
    if (next !== undefined) this.#begin(next)
    if (this.#isFull) this.#watchRoom()
  }

  #onConflict(run: CommandRun): void {
    if (this.#isClosed) return
    const next = run.again()
    next.conflicts += 1
    const { clock, dispatcher } = this.#options
    this.#after(1 + Math.min(50, next.conflicts) * clock.random(), () => dispatcher.redo(this.#desk, next))
  }

  /** Not the command's doing: it stays the first of its key and runs again in a moment. */
  #onForget(run: CommandRun): void {
    const command = this.#isClosed ? undefined : this.#takeBack(run)
    if (command !== undefined) this.#after(FORGOTTEN_PAUSE_MS, () => this.#dispatch(command))
  }

  #watchRoom(): void {
    const { room, count } = this.#inFlight
    // Told as freed only when a twentieth is: at the bound a single command makes room again and again.
    const isFull = this.#isFull ? room * 20 < count : room < 1
    if (isFull === this.#isFull) return
    this.#isFull = isFull
    const { stream, partition } = this.#options.keys
    const { telemetry } = this.#options
    telemetry.emit(isFull ? 'partition.filled' : 'partition.freed', {
      ...{ stream, partition, count: this.#queues.parked },
    })
  }
}
