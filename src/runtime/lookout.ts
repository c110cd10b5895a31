/**
 * Looks at all consumers of a partition again and again and tells whose work should be taken over. Runs in the heartbeat's
 * thread: a handler that keeps the event loop busy must not keep the dead from being found.
 */
import { DeathVerdict, type SilentConsumer } from '../policies/death-verdict.ts'
import type { RedisLink } from '../redis/connection.ts'
import { type ConsumerView, sampleConsumers } from '../redis/consumer-group.ts'
import { FREE_CONSUMER, partitionKeys } from '../redis/keys.ts'
import type { Clock } from './clock.ts'

export interface WatchedPartition {
  readonly stream: string
  readonly partition: number
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
  readonly onSighting: (sighting: Sighting) => void
}

/** Resolves after `isStopped` says so. */
export async function lookOut(place: WatchedPartition, options: LookoutOptions): Promise<void> {
  const { link, clock, consumer, lookEveryMs, isStopped, onSighting } = options
  const keys = partitionKeys(place.stream, place.partition)
  const verdict = new DeathVerdict(lookEveryMs)
  const own = new OwnBeat()
  while (!isStopped()) {
    const sentMs = clock.monotonicMs()
    try {
      const views = await sampleConsumers(link, keys)
      const atMs = clock.monotonicMs()
      if (own.standsStill(views.find((view) => view.consumer === consumer)?.beat)) verdict.forget()
      const sighting = judge(place, views, consumer, (beats) =>
        verdict.observe({ beats, atMs, roundTripMs: atMs - sentMs }),
      )
      if (sighting.dead.length > 0 || sighting.freeCount > 0) onSighting(sighting)
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
