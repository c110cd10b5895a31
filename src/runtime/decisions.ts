/**
 * From the outcome of a run to what is written: the new blob of a retry or dead letter, its trail, the side record.
 */
import { Buffer } from 'node:buffer'
import type { Settlement } from '../policies/settlement.ts'
import { encodeEntry, packPayload, TRAIL_FAILURES_MAX, type Trail } from '../redis/entry-codec.ts'
import type { CommandRun } from './command-run.ts'
import type { Decided } from './settler.ts'

/** Results beyond this many bytes are dropped, and the record says so. */
const RESULT_BYTES_MAX: number = 16 * 1024

const DONE_RECORD = Buffer.from('D')

/** The settlement of one run, ready for the settler. */
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
        },
      }
    case 'retry':
      return failed(run, 'retry', settlement.error, settlement.delayMs)
    case 'dead':
      return failed(run, 'dead', settlement.error, 0)
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
  const trail: Trail = { ...run.trail, unknownSinceMs }
  return move(run, 'retry', trail, reason, delayMs)
}

/** A command that took its workers down too often. */
export function toCrashed(run: CommandRun, level: number): Decided {
  return failed(run, 'dead', `It was running when its worker died, ${level} times.`, 0)
}

/** A redriven command may be older than any result that is kept; its record tells that it is done, and was dead before. */
function doneRecord(run: CommandRun, result: unknown): Buffer | '' {
  const history = { attempts: run.attempt, ...redrivesOf(run.trail) }
  if (result === undefined) {
    if (run.trail.redrives > 0) return Buffer.concat([DONE_RECORD, packPayload(history)])
    return run.ref.token.startsWith('x') ? DONE_RECORD : ''
  }
  const packed = packPayload({ result, ...history })
  const fits = packed.length <= RESULT_BYTES_MAX
  const body = fits ? packed : packPayload({ ...history, resultDroppedBytes: packed.length })
  return Buffer.concat([DONE_RECORD, body])
}

function redrivesOf({ redrives }: Trail): { readonly redrives?: number } {
  return redrives === 0 ? {} : { redrives }
}

function failed(run: CommandRun, kind: 'retry' | 'dead', error: string, delayMs: number): Decided {
  const { trail, attempt } = run
  const failure = { attempt, atMs: run.scope.clock.nowMs(), error }
  const failures = [...trail.failures, failure]
  if (failures.length > TRAIL_FAILURES_MAX) failures.splice(1, 1)
  const next: Trail = { attempts: attempt, level: run.ref.level, redrives: trail.redrives, failures }
  return move(run, kind, next, error, delayMs)
}

function move(
  run: CommandRun,
  kind: 'retry' | 'dead',
  trail: Trail,
  error: string,
  delayMs: number,
): Decided {
  const { attempts } = trail
  const record = packPayload({ attempts, error, atMs: run.scope.clock.nowMs(), ...redrivesOf(trail) })
  const common = { ref: run.ref, delayMs, record, guard: run.append }
  if (kind === 'retry' && run.scope.epoch !== undefined) {
    return { run, failure: { ...common, move: 'hold', blob: packPayload(trail) } }
  }
  const blob = encodeEntry({ ...run.entry, trail }, run.entry.payloadBytes)
  return { run, failure: { ...common, move: kind, blob } }
}
