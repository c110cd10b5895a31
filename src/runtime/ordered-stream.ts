/**
 * A worker's part in a stream that is ordered by key: takes partitions that nobody has, asks richer workers for some of
 * theirs, hands over what poorer ones ask for, and drops what it has lost.
 *
 * Who should have what is decided in `policies/lease-plan.ts`, from looks that the heartbeat's thread takes. Every move is a
 * compare-and-set on the lease, so an old look does no harm.
 */
import { describeError } from '../contracts/errors.ts'
import type { HealthReport } from '../contracts/health.ts'
import type { StreamDefinition } from '../contracts/stream.ts'
import { type LeaseView, planLeases } from '../policies/lease-plan.ts'
import { restoreFleet } from '../redis/fleet.ts'
import { type PartitionKeys, partitionKeys } from '../redis/keys.ts'
import {
  askPartition,
  forgetMember,
  leaveStream,
  membersKey,
  type PartitionLease,
  takePartition,
} from '../redis/partition-lease.ts'
import type { LeaseSighting } from './lookout.ts'
import { OrderedPartition, type OrderedPartitionOptions } from './ordered-partition.ts'

export interface OrderedStreamOptions
  extends Omit<
    OrderedPartitionOptions,
    'keys' | 'taken' | 'takenSentMs' | 'scope' | 'inFlightMax' | 'inFlightBytesMax' | 'onLost' | 'stream'
  > {
  readonly stream: StreamDefinition
  readonly scopeOf: (partition: number, epoch: number) => OrderedPartitionOptions['scope']
  /** The stream's part of the process's bounds. */
  readonly inFlightMax: number
  readonly inFlightBytesMax: number
}

/** How long a member that owns nothing stays silent before it is forgotten. */
const FORGET_AFTER_MS = 30_000
/** Looks come several times a second. */
const BLIND_MAX_MS = 5000

export class OrderedStream {
  readonly #options: OrderedStreamOptions
  readonly #keys: readonly PartitionKeys[]
  readonly #members: string
  readonly #owned = new Map<number, OrderedPartition>()
  readonly #draining = new Map<number, Promise<void>>()
  readonly #vacantLooks = new Map<number, number>()
  /** Partitions whose lease was seen. */
  readonly #leased = new Set<number>()
  #lookedMs: number
  #isStopping = false
  #acting: Promise<void> | undefined

  constructor(options: OrderedStreamOptions) {
    this.#options = options
    this.#lookedMs = options.clock.monotonicMs()
    const { name, partitions } = options.stream
    this.#keys = Array.from({ length: partitions }, (_, i) => partitionKeys(name, i, 'key'))
    this.#members = membersKey(this.#keys)
  }

  get name(): string {
    return this.#options.stream.name
  }

  get partitions(): number {
    return this.#options.stream.partitions
  }

  /** A worker that owns no partition is as ready as one that does, while it sees who owns them. */
  health(): HealthReport {
    const blindMs = this.#options.clock.monotonicMs() - this.#lookedMs
    if (blindMs > BLIND_MAX_MS && !this.#isStopping) {
      return { ready: false, detail: `${this.name}: has not seen its leases for ${Math.round(blindMs)} ms` }
    }
    const reports = [...this.#owned.values()].map((partition) => partition.health())
    const stuck = reports.filter((report) => !report.ready)
    const detail = `${this.name}: owns ${this.#owned.size} of ${this.#keys.length} partitions`
    return { ready: stuck.length === 0, detail: [detail, ...stuck.map((report) => report.detail)].join(', ') }
  }

  /** Acts on a look, unless an earlier one is still being acted on: the next one comes soon. */
  notice(sighting: LeaseSighting): void {
    this.#lookedMs = this.#options.clock.monotonicMs()
    for (const { partition, epoch } of sighting.leases) if (epoch !== '') this.#leased.add(partition)
    if (this.#isStopping || this.#acting !== undefined) return
    this.#acting = this.#act(sighting)
      .catch((error: unknown) => this.#report(error))
      .finally(() => {
        this.#acting = undefined
      })
  }

  /** A partition in which nothing runs any more is given back at once, whatever still runs in others. */
  async stopReading(): Promise<void> {
    this.#isStopping = true
    await this.#acting
    for (const partition of this.#owned.keys()) this.#handOver(partition)
    await Promise.all([...this.#owned.values()].map((partition) => partition.stopReading()))
  }

  async settled(limit: AbortSignal): Promise<void> {
    await Promise.all(
      [...this.#owned.values()].map(async (partition) => {
        await partition.settled(limit)
        await partition.release()
      }),
    )
  }

  /** Gives every lease back, and leaves. */
  async release(): Promise<void> {
    await Promise.all([...this.#owned.values()].map((partition) => partition.release()))
    this.#owned.clear()
    const { command, consumer } = this.#options
    await leaveStream(command, this.#members, consumer).catch((error: unknown) => this.#report(error))
  }

  async #act({ leases, living, silent }: LeaseSighting): Promise<void> {
    const { consumer } = this.#options
    const beats = new Map(silent.map((each) => [each.consumer, each.beat]))
    const views = leases.map((lease) => this.#view(lease, beats))
    const members = living.includes(consumer) ? living : [...living, consumer]
    const plan = planLeases(consumer, members, views, new Set(this.#draining.keys()))
    for (const partition of plan.handOver) this.#handOver(partition)
    for (const partition of plan.take) await this.#take(leases[partition], beats)
    for (const partition of plan.ask) await this.#ask(leases[partition])
    for (const each of silent) {
      if (each.silentMs < FORGET_AFTER_MS || leases.some(({ owner }) => owner === each.consumer)) continue
      await forgetMember(this.#options.command, this.#members, each.consumer, each.beat)
    }
  }

  /** Vacant is what nobody has, what a dead one has, and what is ours without our knowing: the answer of a take was lost. */
  #view({ partition, owner, wanted }: PartitionLease, dead: ReadonlyMap<string, string>): LeaseView {
    const isOurs = owner === this.#options.consumer
    const isUnknown = isOurs && !this.#owned.has(partition) && !this.#draining.has(partition)
    const isVacant = owner === '' || isUnknown || dead.has(owner)
    const vacantLooks = isVacant ? (this.#vacantLooks.get(partition) ?? 0) + 1 : 0
    this.#vacantLooks.set(partition, vacantLooks)
    return { partition, owner, wanted: isUnknown ? this.#options.consumer : wanted, vacantLooks }
  }

  async #take(lease: PartitionLease | undefined, beats: ReadonlyMap<string, string>): Promise<void> {
    if (lease === undefined || this.#isStopping) return
    const { command, consumer, telemetry, scopeOf, stream, clock } = this.#options
    const keys = this.#keysOf(lease.partition)
    const seen = { ...lease, beat: beats.get(lease.owner) ?? '' }
    const takenSentMs = clock.monotonicMs()
    const taken = await takePartition(
      ...([command, keys, this.#members, consumer, seen, this.#leased.has(lease.partition)] as const),
    )
    if (taken === undefined) return
    const { partition } = lease
    const name = stream.name
    telemetry.emit('partition.taken', { stream: name, partition, epoch: taken.epoch, from: lease.owner })
    if (taken.state === 'lost') {
      this.#alarm(
        'group-vanished',
        `The consumer group of ${name}.${partition} had vanished and was made again.`,
      )
      await restoreFleet(command, scopeOf(partition, taken.epoch).ids, [stream])
    }
    this.#leased.add(partition)
    if (taken.gone.length > 0) {
      const ids = taken.gone.slice(0, 10).join(', ')
      this.#alarm('entries-lost', `${taken.gone.length} pending entries have no body any more: ${ids}.`)
    }
    const owned: OrderedPartition = new OrderedPartition({
      ...{ ...this.#options, keys, taken, takenSentMs, scope: scopeOf(partition, taken.epoch) },
      inFlightMax: () => Math.max(2, Math.floor(this.#options.inFlightMax / Math.max(1, this.#owned.size))),
      inFlightBytesMax: Math.max(1024 ** 2, Math.floor(this.#options.inFlightBytesMax / this.#keys.length)),
      onLost: () => {
        if (this.#owned.get(partition) === owned) this.#owned.delete(partition)
      },
    })
    this.#owned.set(partition, owned)
    try {
      await owned.start()
    } catch (error) {
      this.#owned.delete(partition)
      await owned.stopReading()
      await owned.release()
      throw error
    }
  }

  async #ask(lease: PartitionLease | undefined): Promise<void> {
    if (lease === undefined) return
    const { command, consumer } = this.#options
    await askPartition(command, this.#keysOf(lease.partition), consumer, lease)
  }

  /** What runs is finished first; what has not started goes to the next owner as it is. */
  #handOver(partition: number): void {
    const owned = this.#owned.get(partition)
    if (owned === undefined || this.#draining.has(partition)) return
    const drained = owned
      .stopReading()
      .then(() => owned.settled())
      .then(() => owned.release())
      .catch((error: unknown) => this.#report(error))
      .finally(() => {
        this.#draining.delete(partition)
        if (this.#owned.get(partition) === owned) this.#owned.delete(partition)
      })
    this.#draining.set(partition, drained)
  }

  #keysOf(partition: number): PartitionKeys {
    return this.#keys[partition] ?? partitionKeys(this.name, partition, 'key')
  }

  #alarm(alarm: string, detail: string): void {
    this.#options.telemetry.emit('alarm.raised', { alarm, stream: this.name, detail })
  }

  #report(error: unknown): void {
    const service = `ordered stream ${this.name}`
    this.#options.telemetry.emit('service.failed', { service, error: describeError(error) })
  }
}
