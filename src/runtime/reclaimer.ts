/**
 * Takes over from the dead what the lookout saw of them.
 *
 * Dead is who shows the same heartbeat in four good looks in a row (`policies/death-verdict.ts`), never who is merely idle or
 * slow. The script that claims compares the heartbeat once more, so a sighting may be old. All survivors share the dead one's
 * list. Entries that a draining worker handed back are picked up on every look, uncharged.
 */
import { describeError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { RedisLink } from '../redis/connection.ts'
import { type ReadEntry, removeConsumer, takeOver } from '../redis/consumer-group.ts'
import { FREE_CONSUMER, type PartitionKeys } from '../redis/keys.ts'
import type { InFlight } from './in-flight.ts'
import type { Sighting } from './lookout.ts'
import { Service } from './service.ts'

export interface ReclaimerOptions {
  readonly link: RedisLink
  readonly keys: PartitionKeys
  readonly consumer: string
  readonly telemetry: Telemetry
  readonly inFlight: InFlight
  readonly onEntries: (entries: readonly ReadEntry[]) => void
}

/** How long a consumer without pending entries stays silent before its name is removed. */
const REMOVE_AFTER_MS = 30_000
const SHARE_COUNT_MIN = 32
const TAKEOVER_COUNT_MAX = 500

export class Reclaimer extends Service {
  readonly #options: ReclaimerOptions
  readonly #announced = new Set<string>()
  #acting: Promise<void> | undefined

  constructor(options: ReclaimerOptions) {
    super(`reclaimer ${options.keys.stream}.${options.keys.partition}`)
    this.#options = options
  }

  /** Acts on a sighting, unless an earlier one is still being acted on: the next look comes soon. */
  notice(sighting: Sighting): void {
    if (this.state !== 'running' || this.#acting !== undefined) return
    this.#acting = this.#act(sighting)
      .catch((error: unknown) => {
        this.#options.telemetry.emit('service.failed', { service: this.name, error: describeError(error) })
      })
      .finally(() => {
        this.#acting = undefined
      })
  }

  protected override async onStart(): Promise<void> {
    // Acts on what it is told.
  }

  protected override async onStop(): Promise<void> {
    await this.#acting
  }

  async #act({ dead, freeCount, livingCount }: Sighting): Promise<void> {
    if (freeCount > 0) await this.#claim({ consumer: FREE_CONSUMER, beat: '' }, 1, livingCount)
    for (const each of dead) {
      if (this.stopSignal.aborted) return
      await this.#bury(each, each.pending, livingCount)
    }
    const known = new Set(dead.map((each) => each.consumer))
    for (const name of this.#announced) if (!known.has(name)) this.#announced.delete(name)
  }

  async #bury(dead: Sighting['dead'][number], pending: number, living: number): Promise<void> {
    const { keys, telemetry, link } = this.#options
    const { stream, partition } = keys
    if (pending > 0) {
      if (!this.#announced.has(dead.consumer)) {
        this.#announced.add(dead.consumer)
        telemetry.emit('consumer.pronounced-dead', {
          ...{ stream, partition, consumer: dead.consumer, silentMs: dead.silentMs },
        })
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
