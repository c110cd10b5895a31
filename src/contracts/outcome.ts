/**
 * What a handler answers for one command: data, not exceptions. Throwing is a fault of the whole batch.
 */
import { describeError } from './errors.ts'

export interface Done {
  readonly outcome: 'done'
  /** Kept under the stream's `resultsMs` and readable by the command's id; absent costs nothing. */
  readonly result: unknown
}

export interface Retry {
  readonly outcome: 'retry'
  readonly reason: string
  /** Milliseconds to wait; absent means exponential backoff with full jitter. */
  readonly delayMs: number | undefined
}

export interface Reject {
  readonly outcome: 'reject'
  readonly reason: string
}

export type Outcome = Done | Retry | Reject

const DONE: Done = Object.freeze({ outcome: 'done', result: undefined })

/** The command is finished. A result, if given, must survive msgpack and counts against `resultBytesMax`. */
export function done(result?: unknown): Done {
  return result === undefined ? DONE : { outcome: 'done', result }
}

/** Try again later: this counts as an attempt. `delayMs` overrides the backoff. */
export function retry(error: unknown, options: { readonly delayMs?: number } = {}): Retry {
  return { outcome: 'retry', reason: describeError(error), delayMs: options.delayMs }
}

/** Never try again: the command becomes a dead letter with this reason. */
export function reject(reason: unknown): Reject {
  return {
    outcome: 'reject',
    reason: typeof reason === 'string' ? reason.slice(0, 500) : describeError(reason),
  }
}
