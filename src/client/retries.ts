/**
 * How a call is tried again: exponential backoff with full jitter, not before the server's `Retry-After`, and never beyond the
 * deadline. A pause that would end behind it is not begun: then the error comes at once, and says when to come back.
 *
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/, RFC 9110 10.2.3
 */
import { onAbort } from './abort-calls.ts'
import type { Call } from './carrier.ts'
import type { ClientClock } from './client-clock.ts'
import { ClientError, isClientError, isRetryable, isTooEarly, leavesUnknown } from './client-error.ts'
import type { ClientBounds } from './client-options.ts'

export type RetryRule = Pick<ClientBounds, 'attemptsMax' | 'backoffMinMs' | 'backoffMaxMs'>

/** The pause after the `attempt`th try. After a `Retry-After` clients come back spread over the shortest pause. */
export function pauseAfter(
  attempt: number,
  retryAfterS: number | undefined,
  { backoffMinMs, backoffMaxMs }: RetryRule,
  clock: Pick<ClientClock, 'random'>,
): number {
  const jittered = clock.random() * Math.min(backoffMaxMs, backoffMinMs * 2 ** (attempt - 1))
  if (retryAfterS === undefined) return jittered
  return Math.max(jittered, retryAfterS * 1000 + clock.random() * backoffMinMs)
}

/** Seconds from a `Retry-After`: a number of them, or a date, which is compared with the server's own. */
export function parseRetryAfter(headers: Headers, clock: Pick<ClientClock, 'nowMs'>): number | undefined {
  const text = headers.get('retry-after')?.trim()
  if (text === undefined) return undefined
  if (/^\d{1,10}$/.test(text)) return Number(text)
  const atMs = Date.parse(text)
  const serverMs = Date.parse(headers.get('date') ?? '')
  if (Number.isNaN(atMs)) return undefined
  return Math.max(0, (atMs - (Number.isNaN(serverMs) ? clock.nowMs() : serverMs)) / 1000)
}

/** Waits; rejects with `aborted` when the signal does. */
export function pauseFor(ms: number, signal: AbortSignal | undefined, clock: ClientClock): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) return reject(abortedBy(signal))
    const timer = clock.after(ms, () => {
      stopListening()
      resolve()
    })
    const stopListening = onAbort(signal, () => {
      timer.cancel()
      reject(abortedBy(signal))
    })
  })
}

/** A client that is closed aborts its waits with an error of its own. */
export function abortedBy(signal: AbortSignal | undefined): ClientError {
  const reason: unknown = signal?.reason
  if (isClientError(reason)) return reason
  return new ClientError('aborted', 'The signal of the call was aborted.', { cause: reason })
}

/** Tries until it goes well, or cannot go better, or the limits of the call are reached. */
export async function retrying<Value>(
  attempt: (call: Call) => Promise<Value>,
  call: Call,
  rule: RetryRule,
  clock: ClientClock,
  mayTryAgain: (error: ClientError) => boolean = isRetryable,
): Promise<Value> {
  for (let failures = 0; ; ) {
    try {
      return await attempt(call)
    } catch (error) {
      if (!isClientError(error) || !mayTryAgain(error)) throw error
      // A server that says "too early" is well; only the caller's time ends that.
      if (!isTooEarly(error)) failures += 1
      if (failures >= rule.attemptsMax) throw error
      const pauseMs = pauseAfter(Math.max(1, failures), error.retryAfterS, rule, clock)
      if (clock.monotonicMs() + pauseMs >= call.deadlineMs) throw error
      await pauseFor(pauseMs, call.signal, clock)
    }
  }
}

/** Errors after which a command that an earlier try may have stored is known not to be: the server looked at it and refused it. */
const SETTLES_ALL = new Set(['invalid'])

/** What a caller is told at the end of the tries: whether the command may be stored, and its key. */
export function conclude(
  error: ClientError,
  wasUnknown: boolean,
  idempotencyKey: string | undefined,
): ClientError {
  const { code, message, cause, status, problem, retryAfterS, id } = error
  const details = { status, problem, retryAfterS, id, idempotencyKey }
  const isUnknown = leavesUnknown(error) || (wasUnknown && !SETTLES_ALL.has(code))
  if (!isUnknown) return new ClientError(code, message, { ...details, cause })
  const advice =
    idempotencyKey === undefined
      ? 'It has no idempotency key, so sending it again may store it twice.'
      : 'Send it again with the same idempotency key: it is stored once.'
  return new ClientError('outcome-unknown', `The command may be stored, or may not: ${message} ${advice}`, {
    ...details,
    cause: error,
  })
}
