/**
 * A worker: consumes all partitions of every stream that it has handlers for.
 *
 * Stop order: reading ends, what has not started is handed back uncharged, running handlers finish or are aborted at the limit,
 * decided work is settled, what is left is handed back too, and only then the heartbeat ends.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { HandlerDefinition } from '../contracts/handler.ts'
import type { HealthReport, HealthSource } from '../contracts/health.ts'
import type { Logger } from '../contracts/logger.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { RedisLink, RedisLinks } from '../redis/connection.ts'
import { partitionKeys } from '../redis/keys.ts'
import type { ReplicationRule } from '../redis/replication.ts'
import type { Clock } from './clock.ts'
import type { RunScope } from './command-run.ts'
import { type ConsumerOptions, resolveConsumerOptions } from './consumer-options.ts'
import { Dispatcher } from './dispatcher.ts'
import { Heartbeat, type HeartbeatOptions } from './heartbeat.ts'
import type { LeaseSighting, Sighting } from './lookout.ts'
import { OrderedStream } from './ordered-stream.ts'
import { PartitionConsumer } from './partition-consumer.ts'
import { ServerWatch } from './server-watch.ts'
import { Service } from './service.ts'

export interface ConsumerSetup {
  readonly links: RedisLinks
  readonly command: RedisLink
  readonly catalogue: Catalogue
  /** By `type@version`. */
  readonly handlers: ReadonlyMap<string, HandlerDefinition>
  readonly ids: CommandIds
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly logger: Logger
  readonly options?: Partial<ConsumerOptions>
  /** Tier `replicated`: what goes to other partitions waits for the replicas. */
  readonly rule?: ReplicationRule | undefined
  /** The consumer's name, unique to this incarnation. Default 96 random bits. */
  readonly name?: string
  /** Makes the heartbeat. Default: a thread of its own. */
  readonly makeHeartbeat?: (options: HeartbeatOptions) => ConsumerHeartbeat
}

/** What a consumer asks of its heartbeat. */
export type ConsumerHeartbeat = Service & Pick<Heartbeat, 'announceLeaving'>

export class Consumer extends Service implements HealthSource {
  /** Unique to this process incarnation: 96 random bits, never a host name. */
  readonly consumer: string
  readonly #setup: ConsumerSetup
  readonly #options: ConsumerOptions
  readonly #dispatcher: Dispatcher
  readonly #partitions: PartitionConsumer[] = []
  readonly #ordered: OrderedStream[] = []
  readonly #heartbeat: ConsumerHeartbeat
  readonly #server: ServerWatch

  constructor(setup: ConsumerSetup) {
    super('consumer')
    this.#setup = setup
    this.#options = resolveConsumerOptions(setup.options ?? {})
    this.consumer =
      setup.name ?? `w${Buffer.from(crypto.getRandomValues(new Uint8Array(12))).toString('hex')}`
    const { clock, telemetry, logger, handlers, links } = setup
    const { makeHeartbeat = (chosen: HeartbeatOptions) => new Heartbeat(chosen) } = setup
    this.#dispatcher = new Dispatcher({
      clock,
      telemetry,
      logger,
      handlers,
      batchesMax: this.#options.batchesMax,
    })
    this.#server = new ServerWatch({ link: setup.command, clock, telemetry })
    const limits = [...handlers.values()].map((handler) => handler.options.timeLimitMs)
    this.#assemble(Math.max(...limits, 0))
    this.#heartbeat = makeHeartbeat({
      clock,
      url: links.options.address.url,
      partitions: this.#partitions.map(({ desk }) => ({
        stream: desk.scope.stream,
        partition: desk.scope.partition,
      })),
      orderedStreams: this.#ordered.map(({ name, partitions }) => ({ stream: name, partitions })),
      lookEveryMs: this.#options.lookEveryMs,
      onSighting: (sighting) => this.#onSighting(sighting),
      onLeases: (sighting) => this.#onLeases(sighting),
      consumer: this.consumer,
      intervalMs: this.#options.heartbeatEveryMs,
      stuckAfterMs: Math.max(...limits, 0) + this.#options.stuckGraceMs,
    })
  }

  health(): HealthReport {
    if (this.state !== 'running') return { ready: false, detail: `consumer is ${this.state}` }
    const suspended = this.#dispatcher.health()
    if (suspended !== undefined) return suspended
    const reports = [...this.#partitions, ...this.#ordered].map((part) => part.health())
    const stuck = reports.filter((report) => !report.ready)
    const shown = stuck.length > 0 ? stuck : reports
    return { ready: stuck.length === 0, detail: shown.map((report) => report.detail).join('; ') }
  }

  protected override async onStart(): Promise<void> {
    if (this.#partitions.length + this.#ordered.length === 0) {
      throw new MillraceError(
        'definition.invalid',
        'There is nothing to consume: define a handler in workers/.',
      )
    }
    await this.#server.start()
    await this.#heartbeat.start()
    for (const partition of this.#partitions) await partition.start()
  }

  protected override async onStop(): Promise<void> {
    const limit = new AbortController()
    const timer = this.#setup.clock.after(this.#options.drainLimitMs, () => limit.abort())
    this.#heartbeat.announceLeaving()
    this.#dispatcher.close()
    const parts = [...this.#partitions, ...this.#ordered]
    await Promise.all(parts.map((part) => part.stopReading()))
    await Promise.all(this.#partitions.map((partition) => partition.handBack()))
    await Promise.all([
      this.#dispatcher.drain(limit.signal),
      ...parts.map((part) => part.settled(limit.signal)),
    ])
    timer.cancel()
    await this.#heartbeat.stop()
    await this.#server.stop()
    await Promise.all(parts.map((part) => part.release()))
  }

  #onSighting(sighting: Sighting): void {
    for (const partition of this.#partitions) {
      const { stream, partition: number } = partition.desk.scope
      if (stream === sighting.stream && number === sighting.partition) partition.notice(sighting)
    }
  }

  #onLeases(sighting: LeaseSighting): void {
    if (this.state !== 'running') return
    for (const stream of this.#ordered) if (stream.name === sighting.stream) stream.notice(sighting)
  }

  #assemble(runLimitMs: number): void {
    const { catalogue, handlers, ids, clock, links, rule } = this.#setup
    const confirmed = rule && { link: links.open('command'), rule }
    const names = new Set([...handlers.values()].map((handler) => handler.command.stream))
    const streams = [...catalogue.streams.values()].filter((stream) => names.has(stream.name))
    const total = streams.reduce((sum, stream) => sum + stream.partitions, 0)
    const partitionsOf = (name: string) => catalogue.streams.get(name)?.partitions
    const { consumer } = this
    const server = this.#server
    const serverNowMs = server.latestMs
    const { options, dispatcher } = { options: this.#options, dispatcher: this.#dispatcher }
    const shared = { ...this.#setup, options, dispatcher, consumer, server, runLimitMs, confirmed }
    const { inFlightMax, inFlightBytesMax } = this.#options
    for (const stream of streams) {
      const scopeOf = (partition: number, epoch: number | undefined): RunScope => ({
        ...{ stream: stream.name, partition, epoch, ids, clock, serverNowMs, partitionsOf },
      })
      if (stream.ordering === 'key') {
        const part = stream.partitions / total
        const bounds = { inFlightMax: inFlightMax * part, inFlightBytesMax: inFlightBytesMax * part }
        this.#ordered.push(new OrderedStream({ ...shared, stream, scopeOf, ...bounds }))
        continue
      }
      for (let partition = 0; partition < stream.partitions; partition++) {
        this.#partitions.push(
          new PartitionConsumer({
            ...shared,
            keys: partitionKeys(stream.name, partition),
            stream,
            scope: scopeOf(partition, undefined),
            inFlightMax: Math.max(2, Math.floor(inFlightMax / total)),
            inFlightBytesMax: Math.max(1024 ** 2, Math.floor(inFlightBytesMax / total)),
          }),
        )
      }
    }
  }
}
