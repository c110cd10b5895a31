/**
 * Everything that a worker runs for one partition, assembled: fetcher, settler, reclaimer, promoter, outbox relay, caretaker.
 */
import { describeError, MillraceError } from '../contracts/errors.ts'
import type { HealthReport } from '../contracts/health.ts'
import type { StreamDefinition } from '../contracts/stream.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { RedisLink, RedisLinks } from '../redis/connection.ts'
import { ensureGroup, type ReadEntry, releaseEntries } from '../redis/consumer-group.ts'
import { decodeEntry, type Entry } from '../redis/entry-codec.ts'
import { restoreFleet } from '../redis/fleet.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import { sharedMembership } from '../redis/membership.ts'
import { Caretaker } from './caretaker.ts'
import type { Clock } from './clock.ts'
import { CommandRun, type RunScope } from './command-run.ts'
import type { ConsumerOptions } from './consumer-options.ts'
import type { Dispatcher } from './dispatcher.ts'
import { Fetcher } from './fetcher.ts'
import { HeldEntry, InFlight } from './in-flight.ts'
import type { Sighting } from './lookout.ts'
import { type ConfirmedSource, OutboxRelay } from './outbox-relay.ts'
import { PartitionDesk } from './partition-desk.ts'
import { Promoter } from './promoter.ts'
import { ReaderWatch } from './reader-watch.ts'
import { Reclaimer } from './reclaimer.ts'
import type { ServerWatch } from './server-watch.ts'
import type { Service } from './service.ts'
import { Settler } from './settler.ts'

export interface PartitionConsumerOptions {
  readonly links: RedisLinks
  readonly command: RedisLink
  readonly keys: PartitionKeys
  readonly stream: StreamDefinition
  readonly consumer: string
  readonly scope: RunScope
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly dispatcher: Dispatcher
  readonly options: ConsumerOptions
  readonly server: ServerWatch
  /** The longest that a run of any handler may take. */
  readonly runLimitMs: number
  /** This partition's part of the process's bounds. */
  readonly inFlightMax: number
  readonly inFlightBytesMax: number
  /** Undefined unless the tier is `replicated`. */
  readonly confirmed: ConfirmedSource | undefined
}

export class PartitionConsumer {
  readonly desk: PartitionDesk
  readonly #options: PartitionConsumerOptions
  readonly #inFlight: InFlight
  readonly #settler: Settler
  readonly #reader: RedisLink
  readonly #fetcher: Fetcher
  readonly #upkeep: readonly Service[]
  readonly #reclaimer: Reclaimer
  readonly #watch: ReaderWatch

  constructor(options: PartitionConsumerOptions) {
    const { command, keys, consumer, clock, telemetry, dispatcher, scope, stream } = options
    this.#options = options
    this.#inFlight = new InFlight(clock, options.inFlightMax, options.inFlightBytesMax)
    const common = { link: command, keys, clock, telemetry }
    const membership = sharedMembership(keys, consumer)
    this.#settler = new Settler({
      ...{ link: command, clock, telemetry, membership },
      onSettled: ({ ref }) => this.#inFlight.leave(ref),
      requestsMax: options.options.settleRequestsMax,
      onConflict: (run) => this.#onConflict(run),
    })
    this.desk = new PartitionDesk({
      ...common,
      consumer,
      scope,
      settler: this.#settler,
      onForget: ({ ref }) => this.#inFlight.leave(ref),
    })
    this.#reader = options.links.open('reader')
    const onLoss = () => restoreFleet(command, scope.ids, [stream])
    const onEntries = (entries: readonly ReadEntry[]) => dispatcher.accept(this.desk, this.#toRuns(entries))
    const shared = { consumer, inFlight: this.#inFlight, onEntries }
    this.#fetcher = new Fetcher({
      ...{ clock, telemetry, membership, inFlight: this.#inFlight, onEntries },
      onGroupGone: () => this.#regroup(onLoss),
      reader: this.#reader,
      command,
      blockMs: options.links.options.blockMs,
      readCountMax: options.options.readCountMax,
      isHeld: () => dispatcher.holding || this.#isShut,
      isPaused: () => this.#isShut,
      runEndedMs: () => dispatcher.runEndedMs,
      runLimitMs: options.runLimitMs,
    })
    this.#watch = new ReaderWatch({
      ...common,
      hasRoom: () => this.#fetcher.hasRoom,
      renew: () => this.#fetcher.renew(),
      onLoss,
    })
    const { promoteEveryMs: pauseMaxMs, trimEveryMs } = options.options
    this.#reclaimer = new Reclaimer({ ...common, ...shared })
    this.#upkeep = [
      this.#reclaimer,
      new Promoter({ ...common, pauseMaxMs }),
      new OutboxRelay({ ...common, pauseMaxMs, confirmed: options.confirmed }),
      new Caretaker({ ...common, stream, trimEveryMs, isPressed: () => options.server.pressure !== 'none' }),
      this.#watch,
    ]
  }

  health(): HealthReport {
    const { keys } = this.#options
    if (!this.#watch.isStuck) return this.#fetcher.health()
    return { ready: false, detail: `${keys.stream}.${keys.partition}: entries wait and nobody is given one` }
  }

  /** Redis is too full: at most one batch in hand, or none at all. */
  get #isShut(): boolean {
    const { pressure } = this.#options.server
    return pressure === 'stop' || (pressure === 'drain' && this.#inFlight.count > 0)
  }

  /** Takes over from the dead that were seen. */
  notice(sighting: Sighting): void {
    this.#reclaimer.notice(sighting)
  }

  /** Creates the group where it is missing, then starts everything. */
  async start(): Promise<void> {
    if ((await ensureGroup(this.#options.command, this.#options.keys)) === 'lost') this.#alarmVanished()
    // Reading first: the first rounds of upkeep can wait for the first commands, not the other way round.
    await this.#fetcher.start()
    for (const service of this.#upkeep) await service.start()
  }

  /** Reads nothing more and takes over nothing more; what was read is in the dispatcher's hands. */
  async stopReading(): Promise<void> {
    await Promise.all([this.#fetcher.stop(), ...this.#upkeep.map((service) => service.stop())])
  }

  /** Resolves when what runs has ended and every decided run is settled, or `limit` aborts. */
  async settled(limit: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    if (limit.aborted) resolve()
    limit.addEventListener('abort', () => resolve(), { once: true })
    const idle = this.#options.dispatcher.idle(this.desk).then(() => this.#settler.idle())
    await Promise.race([idle, promise])
  }

  /** Hands what has not started back to the fleet, at once: others need not wait for what still runs here. */
  async handBack(): Promise<void> {
    const busy = [...this.#options.dispatcher.runsOf(this.desk), ...this.#settler.runs]
    const kept = new Set(busy.map(({ ref }) => ref))
    await this.#release(
      this.#inFlight.entries().filter((entry) => !kept.has(entry)),
      false,
    )
  }

  /** Hands everything that is still held back to the fleet and drops the heartbeat. */
  async release(): Promise<void> {
    await this.#release(this.#inFlight.entries(), true)
    this.#options.links.close(this.#reader)
  }

  async #release(entries: readonly HeldEntry[], leaving: boolean): Promise<void> {
    const { command, keys, consumer, telemetry } = this.#options
    if (entries.length === 0 && !leaving) return
    try {
      const count = await releaseEntries(command, keys, consumer, entries, leaving)
      for (const entry of entries) this.#inFlight.leave(entry)
      if (count > 0) {
        telemetry.emit('entries.released', { stream: keys.stream, partition: keys.partition, count })
      }
    } catch (error) {
      // The others find the entries by our silence.
      telemetry.emit('service.failed', { service: 'release', error: describeError(error) })
    }
  }

  /** A group that vanished (FLUSHALL, DEL) is made again, with an alarm. */
  async #regroup(onLoss: () => Promise<void>): Promise<void> {
    const state = await ensureGroup(this.#options.command, this.#options.keys, true)
    if (state === 'present') return
    this.#alarmVanished()
    await onLoss()
  }

  #alarmVanished(): void {
    const { keys, telemetry } = this.#options
    telemetry.emit('alarm.raised', {
      alarm: 'group-vanished',
      stream: keys.stream,
      detail: `The consumer group of ${keys.stream}.${keys.partition} had vanished and was made again: its stream was deleted, or Redis was flushed. What no worker had finished may be lost.`,
    })
  }

  #toRuns(entries: readonly ReadEntry[]): CommandRun[] {
    const { scope } = this.#options
    const runs: CommandRun[] = []
    for (const read of this.#inFlight.fresh(entries)) {
      const entry = read.blob === undefined ? undefined : this.#decode(read.blob)
      if (entry === undefined) continue
      const level = Math.max(read.level, entry.trail?.level ?? 0)
      const held = new HeldEntry(read, level, entry.bytes.length)
      this.#inFlight.enter(held)
      runs.push(new CommandRun(scope, held, entry))
    }
    return runs
  }

  /** An entry of a format from the future stays pending here until a newer worker takes over; it is never dropped. */
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

  #onConflict(run: CommandRun): void {
    const next = run.again()
    next.conflicts += 1
    const { clock, dispatcher } = this.#options
    const pauseMs = Math.min(50, next.conflicts) * clock.random()
    clock.after(pauseMs, () => dispatcher.redo(this.desk, next))
  }
}
