/**
 * Watches the other consumers of a partition and takes over from the dead.
 *
 * Dead is who shows the same heartbeat in four good looks in a row (`policies/death-verdict.ts`), never who is merely idle or
 * slow. The script that claims compares the heartbeat once more. All survivors share the dead one's list. Entries that a
 * draining worker handed back are picked up on every look, uncharged.
 */
import { describeError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { DeathVerdict, type SilentConsumer } from '../policies/death-verdict.ts'
import type { RedisLink } from '../redis/connection.ts'
import {
  type ConsumerView,
  type ReadEntry,
  removeConsumer,
  sampleConsumers,
  takeOver,
} from '../redis/consumer-group.ts'
import { FREE_CONSUMER, type PartitionKeys } from '../redis/keys.ts'
import type { Clock } from './clock.ts'
import type { InFlight } from './in-flight.ts'
import { PeriodicService } from './service.ts'

export interface ReclaimerOptions {
  readonly link: RedisLink
  readonly keys: PartitionKeys
  readonly consumer: string
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly inFlight: InFlight
  readonly lookEveryMs: number
  readonly onEntries: (entries: readonly ReadEntry[]) => void
}

/** How long a consumer without pending entries stays silent before its name is removed. */
const REMOVE_AFTER_MS = 30_000
const SHARE_COUNT_MIN = 32
const TAKEOVER_COUNT_MAX = 500

export class Reclaimer extends PeriodicService {
  readonly #options: ReclaimerOptions
  readonly #verdict: DeathVerdict
  readonly #announced = new Set<string>()

  constructor(options: ReclaimerOptions) {
    const { keys, clock, telemetry, lookEveryMs } = options
    super(
      {
        name: `reclaimer ${keys.stream}.${keys.partition}`,
        clock,
        telemetry,
        pauseMinMs: lookEveryMs / 2,
        pauseMaxMs: lookEveryMs,
      },
      () => this.#look(),
    )
    this.#options = options
    this.#verdict = new DeathVerdict(lookEveryMs)
  }

  async #look(): Promise<undefined> {
    const { link, keys, clock, consumer } = this.#options
    const sentMs = clock.monotonicMs()
    let views: ConsumerView[]
    try {
      views = await sampleConsumers(link, keys)
    } catch (error) {
      this.#verdict.forget()
      throw error
    }
    const atMs = clock.monotonicMs()
    const others = views.filter((view) => view.consumer !== consumer)
    const watched = others.filter((view) => view.consumer !== FREE_CONSUMER)
    const silent = this.#verdict.observe({
      beats: new Map(watched.map((view) => [view.consumer, view.beat])),
      atMs,
      roundTripMs: atMs - sentMs,
    })
    const living = Math.max(1, views.length - silent.length - (others.length - watched.length))
    const pending = new Map(others.map((view) => [view.consumer, view.pending]))
    if ((pending.get(FREE_CONSUMER) ?? 0) > 0)
      await this.#claim({ consumer: FREE_CONSUMER, beat: '' }, 1, living)
    for (const dead of silent) await this.#bury(dead, pending.get(dead.consumer) ?? 0, living)
    return undefined
  }

  async #bury(dead: SilentConsumer, pending: number, living: number): Promise<void> {
    const { keys, telemetry, link } = this.#options
    const { stream, partition } = keys
    if (pending > 0) {
      if (!this.#announced.has(dead.consumer)) {
        this.#announced.add(dead.consumer)
        telemetry.emit('consumer.pronounced-dead', { stream, partition, ...withoutBeat(dead) })
      }
      await this.#claim(dead, pending, living)
      return
    }
    if (dead.silentMs < REMOVE_AFTER_MS) return
    if (!(await removeConsumer(link, keys, dead.consumer, dead.beat))) return
    this.#announced.delete(dead.consumer)
    telemetry.emit('consumer.removed', { stream, partition, consumer: dead.consumer })
  }

  /** Takes this worker's share of a list, as far as there is room. */
  async #claim(from: { consumer: string; beat: string }, pending: number, living: number): Promise<void> {
    const { link, keys, consumer, inFlight, telemetry, onEntries } = this.#options
    const share = Math.max(SHARE_COUNT_MIN, Math.ceil(pending / living))
    const countMax = Math.min(TAKEOVER_COUNT_MAX, share, inFlight.room)
    if (countMax < 1) return
    let taken: Awaited<ReturnType<typeof takeOver>>
    try {
      taken = await takeOver(link, keys, from, consumer, countMax)
    } catch (error) {
      // The reply was lost: what was claimed is found again by re-reading the own pending list.
      telemetry.emit('service.failed', { service: this.name, error: describeError(error) })
      return
    }
    if (taken === undefined) return
    const { stream, partition } = keys
    if (taken.gone.length > 0) {
      telemetry.emit('alarm.raised', {
        alarm: 'entries-lost',
        stream,
        detail: `${taken.gone.length} entries of dead consumer ${from.consumer} have no body any more.`,
      })
    }
    if (taken.entries.length === 0) return
    const suspects = taken.entries.filter((entry) => entry.level > 0).length
    const count = taken.entries.length
    telemetry.emit('entries.claimed', { stream, partition, count, from: from.consumer, suspects })
    if (suspects > 0) telemetry.emit('entries.redelivered', { stream, partition, count: suspects })
    onEntries(taken.entries)
  }
}

function withoutBeat({ consumer, silentMs }: SilentConsumer): { consumer: string; silentMs: number } {
  return { consumer, silentMs }
}
