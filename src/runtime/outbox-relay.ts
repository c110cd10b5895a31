/**
 * Carries follow-up commands from the outbox of one partition to the partitions they are bound for.
 *
 * Any worker relays, and several may at once: the target takes each entry once and in order. The outbox is trimmed only
 * after every target has answered. A target that lacks what came before takes nothing more: that is an alarm, what is bound
 * for it stays in the outbox, and the others are served past it.
 *
 * In tier `replicated` a page is relayed once the replicas of its source have it.
 */
import type { Telemetry } from '../contracts/telemetry.ts'
import type { RedisLink } from '../redis/connection.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import { appendOnce, type OutboxEntry, readConfirmedOutbox, readOutbox, trimOutbox } from '../redis/outbox.ts'
import type { ReplicationRule } from '../redis/replication.ts'
import type { Clock } from './clock.ts'
import { PeriodicService } from './service.ts'

/** How to read what the replicas have; `link` is used for nothing else, as WAIT holds it. */
export interface ConfirmedSource {
  readonly link: RedisLink
  readonly rule: ReplicationRule
}

export interface OutboxRelayOptions {
  readonly link: RedisLink
  readonly keys: PartitionKeys
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly pauseMaxMs: number
  /** Undefined unless the tier is `replicated`. */
  readonly confirmed: ConfirmedSource | undefined
}

const RELAY_COUNT_MAX = 250

/** Pauses between two passes over an outbox that a gap keeps from being trimmed. */
const GAP_PAUSES = 10

export class OutboxRelay extends PeriodicService {
  readonly #options: OutboxRelayOptions
  /** Targets with a gap, as far as they were met in this pass and in the one before. */
  #gaps = new Set<string>()
  #alarmed: ReadonlySet<string> = new Set()
  /** Where a pass goes on that can't trim what it has behind it. */
  #after = ''
  #unconfirmed = false

  constructor(options: OutboxRelayOptions) {
    const { keys, clock, telemetry, pauseMaxMs } = options
    const name = `outbox relay ${keys.stream}.${keys.partition}`
    super({ name, clock, telemetry, pauseMinMs: 1, pauseMaxMs: pauseMaxMs * GAP_PAUSES }, () => this.#relay())
    this.#options = options
  }

  async #relay(): Promise<number> {
    const { link, keys, telemetry, clock, pauseMaxMs } = this.#options
    const entries = await this.#read()
    if (entries === undefined) return pauseMaxMs
    const last = entries.at(-1)
    if (last === undefined) {
      const hadGaps = this.#gaps.size > 0
      this.#alarmed = this.#gaps
      this.#gaps = new Set()
      this.#after = ''
      return pauseMaxMs * (hadGaps ? GAP_PAUSES : 0.5 + clock.random() / 2)
    }
    const { stream, partition } = keys
    let appended = 0
    for (const [target, own] of byTarget(entries)) {
      const answer = await appendOnce(link, keys, target, own)
      appended += answer.appended
      if (answer.gap) this.#noticeGap(target)
    }
    if (this.#gaps.size > 0) this.#after = last.id
    else await trimOutbox(link, keys, last.id)
    if (appended > 0) telemetry.emit('commands.relayed', { stream, partition, count: appended })
    const isPass = this.#gaps.size > 0 || entries.length === RELAY_COUNT_MAX
    return isPass ? 1 : pauseMaxMs * (0.25 + clock.random() / 4)
  }

  /** One page; undefined while too few replicas have it. */
  async #read(): Promise<readonly OutboxEntry[] | undefined> {
    const { link, keys, confirmed: source } = this.#options
    const entries = await readOutbox(link, keys, RELAY_COUNT_MAX, this.#after)
    if (source === undefined || entries.length === 0) return entries
    const page = await readConfirmedOutbox(source.link, keys, RELAY_COUNT_MAX, this.#after, source.rule)
    this.#noticeConfirmed(page.confirmed)
    return page.confirmed ? page.entries : undefined
  }

  #noticeConfirmed(confirmed: boolean): void {
    const { keys, telemetry } = this.#options
    if (!confirmed && !this.#unconfirmed) {
      telemetry.emit('alarm.raised', {
        alarm: 'outbox-unconfirmed',
        stream: keys.stream,
        detail: `Too few replicas have the outbox of ${keys.stream}.${keys.partition}; follow-ups to other partitions wait for them.`,
      })
    }
    this.#unconfirmed = !confirmed
  }

  #noticeGap(target: string): void {
    const { keys, telemetry } = this.#options
    const isNew = !this.#gaps.has(target) && !this.#alarmed.has(target)
    this.#gaps.add(target)
    if (!isNew) return
    telemetry.emit('alarm.raised', {
      alarm: 'outbox-gap',
      stream: keys.stream,
      detail: `The outbox of ${keys.stream}.${keys.partition} lacks entries that ${target} never received; relaying to it stops.`,
    })
  }
}

function byTarget(entries: readonly OutboxEntry[]): Map<string, OutboxEntry[]> {
  const groups = new Map<string, OutboxEntry[]>()
  for (const entry of entries) {
    const group = groups.get(entry.target)
    if (group === undefined) groups.set(entry.target, [entry])
    else group.push(entry)
  }
  return groups
}
