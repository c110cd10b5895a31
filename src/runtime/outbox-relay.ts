/**
 * Carries follow-up commands from the outbox of one partition to the partitions they are bound for.
 *
 * Any worker relays, and several may at once: the target takes each entry once and in order. The outbox is trimmed only
 * after every target has answered.
 */
import type { Telemetry } from '../contracts/telemetry.ts'
import type { RedisLink } from '../redis/connection.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import { appendOnce, type OutboxEntry, readOutbox, trimOutbox } from '../redis/outbox.ts'
import type { Clock } from './clock.ts'
import { PeriodicService } from './service.ts'

export interface OutboxRelayOptions {
  readonly link: RedisLink
  readonly keys: PartitionKeys
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly pauseMaxMs: number
}

const RELAY_COUNT_MAX = 250

export class OutboxRelay extends PeriodicService {
  constructor(options: OutboxRelayOptions) {
    const { keys, clock, telemetry, pauseMaxMs } = options
    const name = `outbox relay ${keys.stream}.${keys.partition}`
    super({ name, clock, telemetry, pauseMinMs: 1, pauseMaxMs }, () => relay(options))
  }
}

async function relay({ link, keys, telemetry, clock, pauseMaxMs }: OutboxRelayOptions): Promise<number> {
  const entries = await readOutbox(link, keys, RELAY_COUNT_MAX)
  const last = entries.at(-1)
  if (last === undefined) return pauseMaxMs * (0.5 + clock.random() / 2)
  const { stream, partition } = keys
  let appended = 0
  for (const [target, own] of byTarget(entries)) {
    const answer = await appendOnce(link, keys, target, own)
    appended += answer.appended
    if (answer.gap) {
      telemetry.emit('alarm.raised', {
        alarm: 'outbox-gap',
        stream,
        detail: `The outbox of ${stream}.${partition} lacks entries that ${target} never received; relaying to it stops.`,
      })
      return pauseMaxMs * 10
    }
  }
  await trimOutbox(link, keys, last.id)
  if (appended > 0) telemetry.emit('commands.relayed', { stream, partition, count: appended })
  return entries.length === RELAY_COUNT_MAX ? 1 : pauseMaxMs * (0.25 + clock.random() / 4)
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
