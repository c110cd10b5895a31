/** Upkeep of one partition: what is due moves on, what is behind everyone is trimmed, old records go. */
import type { StreamDefinition } from '../contracts/stream.ts'
import { replyArray, replyNumber, replyText } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import { GROUP, type PartitionKeys } from './keys.ts'
import type { Source } from './settlements.ts'

export interface Promotion {
  readonly moved: number
  /** Tokens that were due but had no body: loss. */
  readonly missing: readonly string[]
  /** Until the next one is due; undefined when none waits. */
  readonly nextMs: number | undefined
}

/** Moves at most `countMax` due commands to the ready stream, by the server's clock. */
export async function promoteDue(link: RedisLink, keys: PartitionKeys, countMax: number): Promise<Promotion> {
  const reply = replyArray(
    await link.run('promote', [keys.due, keys.dueBodies, keys.ready, keys.records], [countMax]),
  )
  const nextMs = replyNumber(reply[2])
  return {
    moved: replyNumber(reply[0]),
    missing: replyArray(reply[1]).map(replyText),
    nextMs: nextMs < 0 ? undefined : nextMs,
  }
}

export interface CommandTrim {
  readonly commands: number
  readonly ready: number
  /** The entry that keeps the rest from being trimmed, if one is pending. */
  readonly oldestPending: string | undefined
}

const TRIM_COUNT_MAX = 10_000

export async function trimCommands(link: RedisLink, keys: PartitionKeys): Promise<CommandTrim> {
  const reply = replyArray(
    await link.run('trim-commands', [keys.commands, keys.ready, keys.floors], [GROUP, TRIM_COUNT_MAX]),
  )
  const oldest = replyText(reply[2])
  return {
    commands: replyNumber(reply[0]),
    ready: replyNumber(reply[1]),
    oldestPending: oldest === '' ? undefined : oldest,
  }
}

/** Finished entries that may lie behind an old pending one before they are deleted one by one. */
const FINISHED_COUNT_MAX = 10_000
const DROP_COUNT_MAX = 2000

export interface FinishedDrop {
  readonly deleted: number
  /** Where to go on; undefined when the end was reached. */
  readonly after: string | undefined
}

/** Deletes finished entries that an old pending one keeps from being trimmed, from pending id `after` on. */
export async function dropFinished(
  link: RedisLink,
  keys: PartitionKeys,
  source: Source,
  after: string | undefined,
  finishedCountMax: number = FINISHED_COUNT_MAX,
): Promise<FinishedDrop> {
  const key = source === 'commands' ? keys.commands : keys.ready
  const reply = replyArray(
    await link.run('drop-finished', [key], [GROUP, after ?? '', finishedCountMax, DROP_COUNT_MAX]),
  )
  const next = replyText(reply[1])
  return { deleted: replyNumber(reply[0]), after: next === '' ? undefined : next }
}

export interface SlowestReader {
  /** `<projection>@<version>` */
  readonly name: string
  readonly position: string
  /** Since the oldest event that it has not read; undefined when it has read all. */
  readonly behindMs: number | undefined
}

export interface EventTrim {
  readonly events: number
  readonly bytes: number
  /** Nothing that it has not read is trimmed. */
  readonly slowest: SlowestReader | undefined
}

export async function trimEvents(
  link: RedisLink,
  keys: PartitionKeys,
  retention: StreamDefinition['retention'],
): Promise<EventTrim> {
  const reply = replyArray(
    await link.run(
      'trim-events',
      [keys.events, keys.readers, keys.floors],
      [retention.eventsMs, retention.eventsBytesMax, TRIM_COUNT_MAX],
    ),
  )
  const name = replyText(reply[2])
  const behindMs = replyNumber(reply[4])
  const slowest = {
    name,
    position: replyText(reply[3]),
    behindMs: behindMs < 0 ? undefined : behindMs,
  }
  return {
    events: replyNumber(reply[0]),
    bytes: replyNumber(reply[1]),
    slowest: name === '' ? undefined : slowest,
  }
}

/** Drops terminal records older than `keepMs`; answers how many. */
export async function sweepRecords(
  link: RedisLink,
  keys: PartitionKeys,
  keepMs: number,
  countMax: number,
): Promise<number> {
  return replyNumber(
    await link.run('sweep-records', [keys.records, keys.recordTimes, keys.floors], [keepMs, countMax]),
  )
}
