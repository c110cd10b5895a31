/** A dead letter as people see it: which command, why it died, and everything it went through before. */
import type { CloudEventContext } from '../contracts/cloud-event.ts'
import type { DeadReason } from '../contracts/dead-reason.ts'
import { errorCode } from '../contracts/errors.ts'
import { NO_TENANT, type Tenant } from '../contracts/tenant.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { DeadEntry } from '../redis/dead-letter-stream.ts'
import {
  decodeEntry,
  EMPTY_TRAIL,
  type Entry,
  type FailedAttempt,
  unpackPayloadOf,
} from '../redis/entry-codec.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import { unpackPayload } from '../redis/payload-codec.ts'
import { fingerprintOf } from './error-fingerprint.ts'

/** One line of a page. */
export interface DeadLetterSummary {
  /** Id of the command. */
  readonly id: string
  readonly stream: string
  readonly partition: number
  /** '' when the entry is of a format that only a newer version can read. */
  readonly type: string
  readonly version: number
  readonly key: string
  /** '' none, or not known because only a newer version can read the entry. */
  readonly tenant: Tenant
  /** Undefined for an entry that only a newer version can read, or that an older one wrote. */
  readonly reason: DeadReason | undefined
  /** Why the last run failed, or never came. */
  readonly error: string
  /** Equal for errors that differ only in numbers, ids and quoted parts. */
  readonly fingerprint: string
  /** Runs since it was accepted or last redriven. */
  readonly attempts: number
  readonly redrives: number
  /** Of the producer's process, ms since 1970. */
  readonly acceptedAtMs: number
  /** By Redis's clock, ms since 1970. */
  readonly deadSinceMs: number
  readonly payloadBytes: number
}

export interface DeadLetter extends DeadLetterSummary {
  readonly payload: unknown
  /** Failed runs, oldest first; of many the first and the newest. Their numbers start again with each redrive. */
  readonly failures: readonly FailedAttempt[]
  /** Of the schedule that caused it, ms since 1970. */
  readonly tickMs: number | undefined
  /** What it came as, when it came as a CloudEvent. */
  readonly cloudEvent: CloudEventContext | undefined
}

const UNREADABLE = 'The entry is of a format that this version can not read.'

export function summarise(ids: CommandIds, keys: PartitionKeys, dead: DeadEntry): DeadLetterSummary {
  const entry = decodeOrNothing(dead.head)
  const trail = entry?.trail ?? EMPTY_TRAIL
  const error = entry === undefined ? UNREADABLE : (trail.failures.at(-1)?.error ?? '')
  return {
    id: ids.format(keys.stream, keys.partition, dead.token, entry?.tenant),
    stream: keys.stream,
    partition: keys.partition,
    type: entry?.type ?? '',
    version: entry?.version ?? 0,
    key: entry?.key ?? '',
    tenant: entry?.tenant ?? NO_TENANT,
    reason: trail.reason,
    error,
    fingerprint: fingerprintOf(error),
    attempts: trail.attempts,
    redrives: trail.redrives,
    acceptedAtMs: entry?.atMs ?? 0,
    deadSinceMs: Number(dead.entryId.split('-', 1)[0]),
    payloadBytes: dead.payloadBytes,
  }
}

/** @throws MillraceError `entry.unreadable` */
export function describe(
  ids: CommandIds,
  keys: PartitionKeys,
  found: { readonly token: string; readonly entryId: string; readonly blob: Buffer },
): DeadLetter {
  const { token, entryId, blob } = found
  const entry = decodeEntry(blob)
  const { payloadAt, tickMs, trail, origin } = entry
  const head = blob.subarray(0, payloadAt)
  return {
    ...summarise(ids, keys, { entryId, token, head, payloadBytes: blob.length - payloadAt }),
    payload: unpackPayloadOf(entry),
    failures: trail?.failures ?? [],
    tickMs,
    cloudEvent: origin === undefined ? undefined : (unpackPayload(origin) as CloudEventContext),
  }
}

/** Undefined for a format from the future; one such entry must not keep a list from being read. */
export function decodeOrNothing(bytes: Buffer): Entry | undefined {
  try {
    return decodeEntry(bytes)
  } catch (error) {
    if (errorCode(error) === 'entry.unreadable') return undefined
    throw error
  }
}
