/**
 * A process of the fleet in all roles: worker, projections, schedules, built from the product's own classes over simulated
 * connections and a virtual clock. Its main loop and its heartbeat thread are two strands: a stalled loop freezes one, a paused
 * process both, and a kill drops everything that it had in hand.
 */
import { describeError } from '../../src/contracts/errors.ts'
import type { HandlerDefinition } from '../../src/contracts/handler.ts'
import { SILENT_LOGGER } from '../../src/contracts/logger.ts'
import type { Telemetry } from '../../src/contracts/telemetry.ts'
import { CronScheduler } from '../../src/cron/cron-scheduler.ts'
import type { Catalogue } from '../../src/policies/catalogue.ts'
import { ProjectorSet } from '../../src/projections/projector-set.ts'
import type { RedisLink } from '../../src/redis/connection.ts'
import { writeBeat } from '../../src/redis/consumer-group.ts'
import { joinFleet } from '../../src/redis/fleet.ts'
import { partitionKeys } from '../../src/redis/keys.ts'
import { LossWatch } from '../../src/redis/loss-watch.ts'
import { leavingBeat } from '../../src/redis/partition-lease.ts'
import { Consumer, type ConsumerHeartbeat } from '../../src/runtime/consumer.ts'
import type { ConsumerOptions } from '../../src/runtime/consumer-options.ts'
import type { HeartbeatOptions } from '../../src/runtime/heartbeat.ts'
import { lookOut, lookOutForLeases } from '../../src/runtime/lookout.ts'
import { Service } from '../../src/runtime/service.ts'
import type { Chance } from './chance.ts'
import type { Network } from './network.ts'
import { SimulatedLinks } from './simulated-links.ts'
import { Strand, VirtualClock } from './virtual-time.ts'

export interface ProcessParts {
  readonly network: Network
  readonly chance: Chance
  readonly telemetry: Telemetry
  readonly name: string
  /** ms since 1970 when the run began, as this process believes. */
  readonly wallMs: number
  readonly blockMs: number
  readonly options: Partial<ConsumerOptions>
  catalogueOf(process: SimulatedProcess): Catalogue
  /** The process ended by itself: it could not start, or it stopped as it was told to. */
  /** `isFailure`: it could not start, and died of that. */
  onEnded(process: SimulatedProcess, why: string, isFailure: boolean): void
}

const COMMAND_TIMEOUT_MS = 2000
const CONNECT_WAIT_MS = 5000

export class SimulatedProcess {
  readonly name: string
  readonly main: Strand
  readonly thread: Strand
  readonly clock: VirtualClock
  readonly #parts: ProcessParts
  readonly #threadClock: VirtualClock
  readonly #links: SimulatedLinks
  readonly #services: Service[] = []
  #isStopping = false

  constructor(parts: ProcessParts) {
    const { network, chance, telemetry, name, wallMs, blockMs } = parts
    this.#parts = parts
    this.name = name
    this.main = new Strand(network.time)
    this.thread = new Strand(network.time)
    this.clock = new VirtualClock(network.time, this.main, chance.fork(), wallMs)
    this.#threadClock = new VirtualClock(network.time, this.thread, chance.fork(), wallMs)
    const common = { network, telemetry, label: name, blockMs, commandTimeoutMs: COMMAND_TIMEOUT_MS }
    this.#links = new SimulatedLinks({ ...common, strand: this.main, clock: this.clock })
  }

  get isDead(): boolean {
    return this.main.isDead
  }

  /** True while it could do what a test expects of it: not paused, not told to stop, not dead. */
  get isWell(): boolean {
    return !this.isDead && !this.#isStopping && !this.main.isFrozen && !this.thread.isFrozen
  }

  launch(): void {
    this.#start().catch((error: unknown) => {
      const isFailure = !this.#isStopping
      if (isFailure) this.kill(true)
      this.#parts.onEnded(this, describeError(error), isFailure)
    })
  }

  async #start(): Promise<void> {
    const { telemetry, options, name } = this.#parts
    const { clock } = this
    const command = this.#links.open('command')
    await command.whenReady(CONNECT_WAIT_MS)
    const catalogue = this.#parts.catalogueOf(this)
    const after = (ms: number, call: () => void) => void clock.after(ms, call)
    await new LossWatch({ telemetry, streams: catalogue.streams.values(), after }).watch(command)
    const ids = await joinFleet(command, catalogue.streams.values())
    const links = this.#links
    const shared = { links, command, catalogue, ids, clock, telemetry, logger: SILENT_LOGGER }
    await this.#run(new ProjectorSet({ ...shared, options: { hotViewsMax: 300 } }))
    const makeHeartbeat = (heartbeat: HeartbeatOptions) => this.#heartbeat(heartbeat)
    await this.#run(
      new Consumer({ ...shared, handlers: plainHandlers(catalogue), name, options, makeHeartbeat }),
    )
    await this.#run(new CronScheduler({ command, catalogue, clock, telemetry }))
  }

  async #run(service: Service): Promise<void> {
    this.#services.push(service)
    await service.start()
  }

  #heartbeat(options: HeartbeatOptions): ConsumerHeartbeat {
    const { network, blockMs } = this.#parts
    const links = new SimulatedLinks({
      network,
      strand: this.thread,
      clock: this.#threadClock,
      telemetry: { emit: () => undefined },
      label: `${this.name}-beat`,
      blockMs,
      commandTimeoutMs: Math.max(1000, options.intervalMs * 3),
    })
    const toMain = (call: () => void) => void network.time.after(0, call, this.main)
    return new SimulatedHeartbeat(options, links, this.#threadClock, toMain)
  }

  /** SIGTERM: stops everything in the order of the product, then ends. */
  terminate(): void {
    if (this.#isStopping || this.isDead) return
    this.#isStopping = true
    const stopped = async (): Promise<void> => {
      for (const service of this.#services.toReversed()) await service.stop()
      this.#links.closeAll()
    }
    stopped().then(
      () => {
        this.kill(true)
        this.#parts.onEnded(this, 'stopped', false)
      },
      () => this.kill(true),
    )
  }

  /** SIGKILL, or the machine is gone: then the server does not hear of it. */
  kill(serverKnows: boolean): void {
    this.main.kill()
    this.thread.kill()
    for (const wire of this.#parts.network.wires) {
      if (wire.strand === this.main || wire.strand === this.thread) wire.closeByClient(serverKnows)
    }
  }

  pause(ms: number): void {
    this.main.freeze(ms)
    this.thread.freeze(ms)
  }

  stallLoop(ms: number): void {
    this.main.freeze(ms)
  }
}

/** The heartbeat's thread, on a strand of its own: beats, and looks out with the product's own lookout. */
class SimulatedHeartbeat extends Service {
  readonly #options: HeartbeatOptions
  readonly #links: SimulatedLinks
  readonly #clock: VirtualClock
  readonly #toMain: (call: () => void) => void
  #ended: Promise<void> | undefined
  #isLeaving = false

  constructor(
    options: HeartbeatOptions,
    links: SimulatedLinks,
    clock: VirtualClock,
    toMain: (call: () => void) => void,
  ) {
    super('heartbeat')
    this.#options = options
    this.#links = links
    this.#clock = clock
    this.#toMain = toMain
  }

  protected override async onStart(): Promise<void> {
    const first = Promise.withResolvers<void>()
    this.#ended = this.#beat(() => this.#toMain(first.resolve))
    await first.promise
  }

  protected override async onStop(): Promise<void> {
    await this.#ended
  }

  announceLeaving(): void {
    this.#isLeaving = true
  }

  async #beat(onFirst: () => void): Promise<void> {
    const { consumer, intervalMs, partitions, orderedStreams } = this.#options
    const keys = [
      ...partitions.map(({ stream, partition }) => partitionKeys(stream, partition).beats),
      ...orderedStreams.map(({ stream }) => partitionKeys(stream, 0).beats),
    ]
    const link = this.#links.open('command')
    let isFirst = true
    for (let count = 1; !this.stopSignal.aborted; count++) {
      try {
        await link.whenReady(intervalMs)
        const value = `${count}:0`
        await writeBeat(link, keys, consumer, this.#isLeaving ? leavingBeat(value) : value)
        if (isFirst) {
          isFirst = false
          onFirst()
          this.#lookOut(link)
        }
      } catch {
        // As in the thread: try again at the next beat.
      }
      await this.#clock.sleep(intervalMs)
    }
    this.#links.closeAll()
  }

  #lookOut(link: RedisLink): void {
    const { consumer, lookEveryMs, partitions, orderedStreams, onSighting, onLeases } = this.#options
    const isStopped = () => this.stopSignal.aborted
    const looking = { link, clock: this.#clock, consumer, lookEveryMs, isStopped }
    for (const place of partitions) {
      void lookOut(place, looking, (sighting) => this.#toMain(() => onSighting(sighting)))
    }
    for (const place of orderedStreams) {
      void lookOutForLeases(place, looking, (sighting) => this.#toMain(() => onLeases(sighting)))
    }
  }
}

function plainHandlers(catalogue: Catalogue): Map<string, HandlerDefinition> {
  const plain = new Map<string, HandlerDefinition>()
  for (const [key, handler] of catalogue.handlers) if (handler.kind === 'handler') plain.set(key, handler)
  return plain
}
