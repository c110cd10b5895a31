/**
 * From the outcome of a run to what is written: the new blob of a retry or dead letter, its trail, the side record.
 */
import { Buffer } from 'node:buffer'
import type { DeadReason } from '../contracts/dead-reason.ts'
import { describeError, MillraceError } from '../contracts/errors.ts'
import { NO_TENANT } from '../contracts/tenant.ts'
import type { Settlement } from '../policies/settlement.ts'
import { encodeCopy, type FailedAttempt, TRAIL_FAILURES_MAX, type Trail } from '../redis/entry-codec.ts'
import { packPayload } from '../redis/payload-codec.ts'
import type { TenantLoad } from '../redis/tenant-loads.ts'
import type { CommandRun } from './command-run.ts'
import type { Decided } from './settler.ts'

/** Results beyond this many bytes are dropped, and the record says so. */
const RESULT_BYTES_MAX: number = 16 * 1024

const DONE_RECORD = Buffer.from('D')

/**
 * The settlement of one run, ready for the settler.
 *
 * @throws MillraceError `handler.failed` for a result that can't be stored
 */
export function toDecided(run: CommandRun, settlement: Settlement): Decided {
  switch (settlement.kind) {
    case 'done':
      return {
        run,
        success: {
          ref: run.ref,
          events: run.events,
          followUps: run.followUps,
          append: run.append,
          record: doneRecord(run, settlement.result),
          load: doneLoad(run),
        },
      }
    case 'retry':
      return failed(run, 'retry', settlement.error, settlement.delayMs)
    case 'dead':
      return failed(run, 'dead', settlement.error, 0, settlement.reason)
    default:
      return settlement satisfies never
  }
}

/** Puts a command back for a worker that knows its type; not an attempt. */
export function toDeferred(
  run: CommandRun,
  delayMs: number,
  unknownSinceMs: number,
  reason: string,
): Decided {
  const trail: Trail = { ...run.trail, level: run.ref.level, unknownSinceMs }
  return move(run, 'retry', trail, reason, delayMs)
}

/** A command that took its workers down too often. */
export function toCrashed(run: CommandRun, level: number): Decided {
  return failed(run, 'dead', `It was running when its worker died, ${level} times.`, 0, 'crashed')
}

/** A command whose deadline has passed before this run: no attempt, and whatever failed before stays in its trail. */
export function toExpired(run: CommandRun): Decided {
  const { trail } = run
  const failure = { attempt: trail.attempts, atMs: run.scope.clock.nowMs(), error: expiredText(run) }
  return move(run, 'dead', endOf(run, trail.attempts, failure, 'expired'), failure.error, 0)
}

/** What an expired command is told with. */
export function expiredText({ entry: { expiresAtMs = 0 } }: CommandRun): string {
  return `Its deadline, ${new Date(expiresAtMs).toISOString()}, passed before it could run.`
}

/** A redriven command may be older than any result that is kept; its record tells that it is done, and was dead before. */
function doneRecord(run: CommandRun, result: unknown): Buffer | '' {
  if (result === undefined && run.trail.redrives === 0) return run.hasCountedToken ? DONE_RECORD : ''
  const history = { attempts: run.attempt, ...redrivesOf(run.trail) }
  if (result === undefined) return Buffer.concat([DONE_RECORD, packPayload(history)])
  const packed = packResult(run.type, { result, ...history })
  const fits = packed.length <= RESULT_BYTES_MAX
  const body = fits ? packed : packPayload({ ...history, resultDroppedBytes: packed.length })
  return Buffer.concat([DONE_RECORD, body])
}

function packResult(type: string, record: { readonly result: unknown }): Buffer {
  try {
    if (typeof record.result === 'function') throw new TypeError('it is a function')
    return packPayload(record)
  } catch (error) {
    throw new MillraceError(
      'handler.failed',
      `The result of "${type}" can't be stored: ${describeError(error, 200)}. Answer plain data.`,
    )
  }
}

function redrivesOf({ redrives }: Trail): { readonly redrives?: number } {
  return redrives === 0 ? {} : { redrives }
}

function failed(
  run: CommandRun,
  kind: 'retry' | 'dead',
  error: string,
  delayMs: number,
  reason?: DeadReason,
): Decided {
  const { attempt } = run
  const failure = { attempt, atMs: run.scope.clock.nowMs(), error }
  return move(run, kind, endOf(run, attempt, failure, reason), error, delayMs)
}

function endOf(run: CommandRun, attempts: number, failure: FailedAttempt, reason?: DeadReason): Trail {
  const { redrives, failures: before } = run.trail
  const failures = [...before, failure]
  if (failures.length > TRAIL_FAILURES_MAX) failures.splice(1, 1)
  return { attempts, level: run.ref.level, redrives, failures, ...(reason === undefined ? {} : { reason }) }
}

function move(
  run: CommandRun,
  kind: 'retry' | 'dead',
  trail: Trail,
  error: string,
  delayMs: number,
): Decided {
  const { attempts, reason } = trail
  const record = packPayload({
    attempts,
    error,
    atMs: run.scope.clock.nowMs(),
    ...redrivesOf(trail),
    ...(reason === undefined ? {} : { reason }),
  })
  const common = { ref: run.ref, delayMs, record, guard: run.append }
  if (kind === 'retry' && run.scope.epoch !== undefined) {
    return { run, failure: { ...common, move: 'hold', blob: packPayload(trail) } }
  }
  const blob = encodeCopy(run.entry, { trail })
  const load = kind === 'retry' ? grownLoad(run, blob) : deadLoad(run)
  return { run, failure: { ...common, move: kind, blob, load } }
}

/** Done, it waits no longer; what it sends within its partition does from now on. */
function doneLoad({ tenant, entry, followUps }: CommandRun): TenantLoad | undefined {
  if (tenant === NO_TENANT) return undefined
  let [count, bytes] = [-1, -entry.bytes.length]
  for (const { target, blob } of followUps) {
    if (target !== '') continue
    count += 1
    bytes += blob.length
  }
  return { tenant, count, bytes }
}

function deadLoad({ tenant, entry }: CommandRun): TenantLoad | undefined {
  return tenant === NO_TENANT ? undefined : { tenant, count: -1, bytes: -entry.bytes.length }
}

/** A retry waits on, with what it has been through. */
function grownLoad({ tenant, entry }: CommandRun, blob: Buffer): TenantLoad | undefined {
  return tenant === NO_TENANT ? undefined : { tenant, count: 0, bytes: blob.length - entry.bytes.length }
}
