/**
 * All projections of a catalogue over all partitions of their streams, in one process. Each partition has one event log
 * reading that its projections share.
 *
 * Stop order: the readings end first (a read costs nothing to abandon), then each projector after its present commit.
 */
import type { HealthReport, HealthSource } from '../contracts/health.ts'
import type { Logger } from '../contracts/logger.ts'
import { checkKnownOptions } from '../contracts/names.ts'
import type { ProjectionDefinition } from '../contracts/projection.ts'
import type { StreamDefinition } from '../contracts/stream.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { RedisLink, RedisLinks } from '../redis/connection.ts'
import { EventLog } from '../redis/event-log.ts'
import { partitionKeys } from '../redis/keys.ts'
import type { Clock } from '../runtime/clock.ts'
import { Service } from '../runtime/service.ts'
import { PROJECTOR_DEFAULTS, Projector, type ProjectorOptions } from './projector.ts'

export interface ProjectorSetDeps {
  readonly links: RedisLinks
  /** For loads and commits; shared with the rest of the process. */
  readonly command: RedisLink
  readonly catalogue: Catalogue
  readonly ids: CommandIds
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly logger: Logger
  readonly options?: Partial<ProjectorOptions>
}

/** A projector that has heard nothing from Redis for this long beyond a block is not progressing. */
const SILENCE_GRACE_MS = 8000

export class ProjectorSet extends Service implements HealthSource {
  readonly #deps: ProjectorSetDeps
  readonly #options: ProjectorOptions
  readonly #projectors: Projector[] = []
  readonly #readers: RedisLink[] = []
  readonly #logs: EventLog[] = []

  constructor(deps: ProjectorSetDeps) {
    super('projectors')
    this.#deps = deps
    checkKnownOptions('ProjectorSet', deps.options ?? {}, Object.keys(PROJECTOR_DEFAULTS))
    this.#options = { ...PROJECTOR_DEFAULTS, ...deps.options }
  }

  get projectors(): readonly Projector[] {
    return this.#projectors
  }

  protected override async onStart(): Promise<void> {
    const { projections, streams } = this.#deps.catalogue
    const over = (stream: StreamDefinition) =>
      [...projections.values()].filter((projection) => projection.stream === stream.name)
    const folded = [...streams.values()].filter((stream) => over(stream).length > 0)
    const count = folded.reduce((sum, stream) => sum + over(stream).length * stream.partitions, 0)
    const options = shareOf(this.#options, count)
    for (const stream of folded) {
      for (let partition = 0; partition < stream.partitions; partition++) {
        this.#addPartition(stream, partition, over(stream), options)
      }
    }
    await Promise.all(this.#projectors.map((projector) => projector.start()))
  }

  #addPartition(
    stream: StreamDefinition,
    partition: number,
    over: readonly ProjectionDefinition[],
    options: ProjectorOptions,
  ): void {
    const { links, command, ids, clock, telemetry } = this.#deps
    const keys = partitionKeys(stream.name, partition)
    const reader = links.open('reader')
    const { blockMs } = links.options
    const log = new EventLog({ reader, command, keys, blockMs, signal: this.stopSignal })
    this.#readers.push(reader)
    this.#logs.push(log)
    const origin = { ids, stream: stream.name, partition }
    for (const projection of over) {
      const { partitions } = stream
      const shared = {
        keys,
        partitions,
        log,
        link: command,
        origin,
        clock,
        telemetry,
        options,
      }
      this.#projectors.push(new Projector({ projection, ...shared }))
    }
  }

  protected override async onStop(): Promise<void> {
    const stopped = this.#projectors.map((projector) => projector.stop())
    for (const reader of this.#readers) this.#deps.links.close(reader)
    await Promise.all(stopped)
    for (const log of this.#logs) log[Symbol.dispose]()
  }

  /** Not ready when a projector gets no answer from Redis. One that an event has stopped is told of, and no reason to restart. */
  health(): HealthReport {
    const { clock, links } = this.#deps
    const limitMs = links.options.blockMs + SILENCE_GRACE_MS
    const nowMs = clock.monotonicMs()
    const silent = this.#projectors.filter(
      ({ progress, lastAnswerMs }) => progress !== 'stopped' && nowMs - lastAnswerMs > limitMs,
    )
    const stopped = this.#projectors.filter(({ progress }) => progress === 'stopped')
    const standing = this.#projectors.filter(({ progress }) => progress === 'standby')
    const parts = [`${this.#projectors.length} projectors`, `${standing.length} on standby`]
    if (stopped.length > 0) parts.push(`stopped on an event: ${stopped.map(({ name }) => name).join(', ')}`)
    if (silent.length > 0) parts.push(`without an answer: ${silent.map(({ name }) => name).join(', ')}`)
    return { ready: this.state === 'running' && silent.length === 0, detail: `${parts.join('; ')}.` }
  }
}

/** Memory is bounded for the set, not for each of its projectors. */
function shareOf(options: ProjectorOptions, projectors: number): ProjectorOptions {
  const share = (total: number) => Math.max(1, Math.floor(total / Math.max(1, projectors)))
  return { ...options, hotViewsMax: share(options.hotViewsMax), hotBytesMax: share(options.hotBytesMax) }
}
