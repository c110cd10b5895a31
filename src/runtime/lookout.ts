/**
 * Looks at all consumers of a partition again and again and tells whose work should be taken over. Runs in the heartbeat's
 * thread: a handler that keeps the event loop busy must not keep the dead from being found.
 */
import { DeathVerdict, type SilentConsumer } from '../policies/death-verdict.ts'
import type { RedisLink } from '../redis/connection.ts'
import { type ConsumerView, sampleConsumers } from '../redis/consumer-group.ts'
import { FREE_CONSUMER, partitionKeys } from '../redis/keys.ts'
import { isLeaving, type PartitionLease, sampleLeases } from '../redis/partition-lease.ts'
import type { Clock } from './clock.ts'

export interface WatchedPartition {
  readonly stream: string
  readonly partition: number
}

/** An ordered stream, whose members share its partitions by leases. */
export interface WatchedStream {
  readonly stream: string
  readonly partitions: number
}

/** What a look at an ordered stream showed. */
export interface LeaseSighting {
  readonly stream: string
  readonly leases: readonly PartitionLease[]
  /** Members that stay, with a heartbeat that is not known to stand still. */
  readonly living: readonly string[]
  /** Who is dead by now: members, and owners without a heartbeat. */
  readonly silent: readonly SilentConsumer[]
}

/** What one look found worth acting on. */
export interface Sighting extends WatchedPartition {
  readonly dead: readonly (SilentConsumer & { readonly pending: number })[]
  /** Entries that draining workers handed back. */
  readonly freeCount: number
  /** Consumers that share the work, this one included. */
  readonly livingCount: number
}

export interface LookoutOptions {
  readonly link: RedisLink
  readonly clock: Clock
  readonly consumer: string
  readonly lookEveryMs: number
  readonly isStopped: () => boolean
}

/** Resolves after `isStopped` says so. */
export async function lookOut(
  place: WatchedPartition,
  options: LookoutOptions,
  onSighting: (sighting: Sighting) => void,
): Promise<void> {
  const { link, consumer } = options
  const keys = partitionKeys(place.stream, place.partition)
  await lookAgainAndAgain(options, async (observe) => {
    const views = await sampleConsumers(link, keys)
    const ownBeat = views.find((view) => view.consumer === consumer)?.beat
    const sighting = judge(place, views, consumer, (watched) => observe(watched, ownBeat))
    if (sighting.dead.length > 0 || sighting.freeCount > 0) onSighting(sighting)
  })
}

/** The same for the leases of an ordered stream; every look is told. */
export async function lookOutForLeases(
  { stream, partitions }: WatchedStream,
  options: LookoutOptions,
  onSighting: (sighting: LeaseSighting) => void,
): Promise<void> {
  const keys = Array.from({ length: partitions }, (_, partition) => partitionKeys(stream, partition, 'key'))
  await lookAgainAndAgain(options, async (observe) => {
    const { beats, leases } = await sampleLeases(options.link, keys)
    const watched = new Map(beats)
    for (const { owner } of leases) if (owner !== '' && !watched.has(owner)) watched.set(owner, '')
    const silent = observe(watched, beats.get(options.consumer))
    const dead = new Set(silent.map((each) => each.consumer))
    const living = [...beats.keys()].filter(
      (member) => !dead.has(member) && !isLeaving(beats.get(member) ?? ''),
    )
    onSighting({ stream, leases, living, silent })
  })
}

type Observe = (beats: ReadonlyMap<string, string>, ownBeat: string | undefined) => SilentConsumer[]

async function lookAgainAndAgain(
  { clock, lookEveryMs, isStopped }: LookoutOptions,
  look: (observe: Observe) => Promise<void>,
): Promise<void> {
  const verdict = new DeathVerdict(lookEveryMs)
  const own = new OwnBeat()
  while (!isStopped()) {
    const sentMs = clock.monotonicMs()
    try {
      await look((beats, ownBeat) => {
        const atMs = clock.monotonicMs()
        if (own.standsStill(ownBeat)) verdict.forget()
        return verdict.observe({ beats, atMs, roundTripMs: atMs - sentMs })
      })
    } catch {
      // Redis is away, or the group is not made yet: counting starts again.
      verdict.forget()
    }
    await clock.sleep(lookEveryMs)
  }
}

const UNMOVED_LOOKS_MAX = 1

/**
 * A server that answers looks but takes no beats (its disk is full, it became a replica) makes everybody look dead. So nobody
 * is judged while the own heartbeat stands still: one look may miss it, two in a row do not.
 */
class OwnBeat {
  #beat: string | undefined
  #unmovedLooks = 0

  standsStill(beat: string | undefined): boolean {
    const moved = beat !== undefined && beat !== this.#beat
    this.#beat = beat
    this.#unmovedLooks = moved ? 0 : this.#unmovedLooks + 1
    return this.#unmovedLooks > UNMOVED_LOOKS_MAX
  }
}

function judge(
  place: WatchedPartition,
  views: readonly ConsumerView[],
  me: string,
  observe: (beats: ReadonlyMap<string, string>) => SilentConsumer[],
): Sighting {
  const others = views.filter((view) => view.consumer !== me)
  const watched = others.filter((view) => view.consumer !== FREE_CONSUMER)
  const pending = new Map(others.map((view) => [view.consumer, view.pending]))
  const silent = observe(new Map(watched.map((view) => [view.consumer, view.beat])))
  return {
    ...place,
    dead: silent.map((each) => ({ ...each, pending: pending.get(each.consumer) ?? 0 })),
    freeCount: pending.get(FREE_CONSUMER) ?? 0,
    livingCount: Math.max(1, watched.length - silent.length + 1),
  }
}
