/** What a partition looks like to people and metrics: depth, lag, pending, age, consumers. Read-only, one script. */
import { replyArray, replyNumber, replyText } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import { GROUP, type PartitionKeys } from './keys.ts'

export interface ConsumerOverview {
  readonly name: string
  readonly pending: number
  readonly idleMs: number
}

export interface PartitionOverview {
  readonly partition: number
  /** Entries in the command and ready streams, acknowledged but untrimmed ones included. */
  readonly depth: number
  /** Entries that no worker has been given. */
  readonly lag: number
  /** False after a crash of Redis or a cancellation, until the group has passed it: `lag` is then an upper bound. */
  readonly lagIsExact: boolean
  /** Entries in the hands of workers. */
  readonly pending: number
  /** Commands that wait for their time: delayed, scheduled, in retry. */
  readonly due: number
  /** Of these, whose time has come; retries in place are not among them. */
  readonly overdue: number
  readonly dead: number
  readonly events: number
  /** Commands on their way to other partitions. */
  readonly outbox: number
  /** Since the oldest entry that is not finished came in, by Redis's clock; 0 when there is none. */
  readonly oldestAgeMs: number
  readonly consumers: readonly ConsumerOverview[]
  /** Of an ordered partition that had an owner; `owner` is '' while nobody has it. */
  readonly lease: { readonly owner: string; readonly epoch: number } | undefined
}

export async function readPartitionOverview(
  link: RedisLink,
  keys: PartitionKeys,
): Promise<PartitionOverview> {
  const reply = replyArray(
    await link.run(
      'overview',
      [
        ...[keys.commands, keys.ready, keys.due, keys.dead, keys.events, keys.outbox],
        ...[keys.lease, keys.held],
      ],
      [GROUP],
    ),
  )
  const nowMs = replyNumber(reply[0])
  const rows = [toRow(reply[5]), toRow(reply[6])]
  const firstMs = Math.min(...rows.map(({ oldestMs }) => oldestMs))
  const sum = (pick: (row: LogRow) => number): number => rows.reduce((total, row) => total + pick(row), 0)
  return {
    partition: keys.partition,
    depth: sum(({ entries }) => entries),
    lag: sum(({ lag }) => lag),
    lagIsExact: rows.every(({ lagIsExact }) => lagIsExact),
    pending: sum(({ pending }) => pending),
    due: replyNumber(reply[1]) + replyNumber(reply[10]),
    overdue: replyNumber(reply[11]),
    dead: replyNumber(reply[2]),
    events: replyNumber(reply[3]),
    outbox: replyNumber(reply[4]),
    oldestAgeMs: firstMs === Number.POSITIVE_INFINITY ? 0 : Math.max(0, nowMs - firstMs),
    consumers: replyArray(reply[7]).map(toConsumer),
    lease:
      replyText(reply[9]) === ''
        ? undefined
        : { owner: replyText(reply[8]), epoch: Number(replyText(reply[9])) },
  }
}

interface LogRow {
  readonly entries: number
  readonly pending: number
  readonly lag: number
  readonly lagIsExact: boolean
  readonly oldestMs: number
}

function toRow(reply: unknown): LogRow {
  const [entries, pending, lag, firstUnread, firstPending] = replyArray(reply)
  const unreadId = replyText(firstUnread)
  const told = replyNumber(lag)
  const isExact = told >= 0 || unreadId === ''
  const upperBound = Math.max(0, replyNumber(entries) - replyNumber(pending))
  return {
    entries: replyNumber(entries),
    pending: replyNumber(pending),
    lag: unreadId === '' ? 0 : told >= 0 ? told : upperBound,
    lagIsExact: isExact,
    oldestMs: Math.min(entryMs(unreadId), entryMs(replyText(firstPending))),
  }
}

function entryMs(id: string): number {
  return id === '' ? Number.POSITIVE_INFINITY : Number(id.split('-', 1)[0])
}

function toConsumer(reply: unknown): ConsumerOverview {
  const [name, commands, ready, idleMs] = replyArray(reply)
  return {
    name: replyText(name),
    pending: replyNumber(commands) + replyNumber(ready),
    idleMs: replyNumber(idleMs),
  }
}
