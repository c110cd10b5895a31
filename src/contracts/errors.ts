/**
 * The one error class of Millrace and its closed set of codes.
 *
 * Callers compare `error.code`, never `instanceof`: a bundle may hold the class twice. Every message says what to do
 * next, and a foreign error travels as `cause` with credentials and payloads already removed.
 */

/** Mistakes in definitions, options or the server: the process refuses to start (exit code 78). */
export type ConfigErrorCode =
  | 'config.invalid'
  | 'config.unknown-option'
  | 'definition.duplicate'
  | 'definition.invalid'
  | 'definition.unknown'
  | 'stream.partition-mismatch'
  | 'stream.ordering-mismatch'
  | 'server.unsafe'
  | 'server.version'
  | 'folder.owned'

/** What can go wrong while running. */
export type RuntimeErrorCode =
  /** Redis refused or cannot be reached; nothing was written. */
  | 'redis.unavailable'
  /** The reply was lost: the write may or may not have happened. A retry with the same idempotency key is safe. */
  | 'redis.unknown'
  /** Stored on the primary, but not confirmed by as many replicas as declared. A retry with the same idempotency key is safe. */
  | 'durability.unconfirmed'
  | 'command.unknown-type'
  | 'command.malformed'
  | 'command.invalid'
  | 'command.too-large'
  | 'idempotency.conflict'
  | 'idempotency.full'
  | 'admission.overloaded'
  | 'admission.draining'
  /** The request carries no credential, or one that is not valid (any more), or one that may not do this. */
  | 'identity.missing'
  | 'identity.invalid'
  | 'identity.forbidden'
  /** Both secrets of a key are valid: one must go before a third comes. */
  | 'key.conflict'
  /** More than a rate limit or a tenant's quota allows; nothing was done. */
  | 'quota.exceeded'
  | 'not-found'
  | 'expired'
  | 'cancel.too-late'
  | 'dead-letter.conflict'
  | 'schedule.conflict'
  /** Somebody else holds the lease, and the wait for it is over. */
  | 'lease.held'
  /** The lease may be somebody else's by now. */
  | 'lease.lost'
  | 'cursor.invalid'
  | 'view.wait-timeout'
  | 'view.unknown-projection'
  | 'projection.stopped'
  | 'projection.not-over-stream'
  | 'fold.failed'
  | 'entry.unreadable'
  | 'handler.failed'
  | 'handler.time-limit'
  | 'service.stopped'

export type ErrorCode = ConfigErrorCode | RuntimeErrorCode

/** One place in a payload that a schema refused: a JSON pointer (RFC 6901, `#/items/0/qty`) and a sentence. */
export interface PayloadIssue {
  readonly pointer: string
  readonly detail: string
}

export interface MillraceErrorDetails {
  readonly cause?: unknown
  /** Seconds after which a retry makes sense; becomes `Retry-After`. */
  readonly retryAfterS?: number
  readonly issues?: readonly PayloadIssue[]
  /** Rate limits and quotas that were exceeded. */
  readonly policies?: readonly string[]
}

export class MillraceError extends Error {
  override readonly name = 'MillraceError'
  readonly code: ErrorCode
  readonly retryAfterS: number | undefined
  readonly issues: readonly PayloadIssue[]
  readonly policies: readonly string[]

  constructor(code: ErrorCode, message: string, details: MillraceErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.retryAfterS = details.retryAfterS
    this.issues = details.issues ?? []
    this.policies = details.policies ?? []
  }
}

/** The code of any thrown value, or undefined when it is not one of ours. */
export function errorCode(error: unknown): ErrorCode | undefined {
  if (typeof error !== 'object' || error === null) return undefined
  try {
    if (!('name' in error) || error.name !== 'MillraceError' || !('code' in error)) return undefined
    return error.code as ErrorCode
  } catch {
    return undefined
  }
}

const CONFIG_CODES: ReadonlySet<string> = new Set<ConfigErrorCode>([
  'config.invalid',
  'config.unknown-option',
  'definition.duplicate',
  'definition.invalid',
  'definition.unknown',
  'stream.partition-mismatch',
  'stream.ordering-mismatch',
  'server.unsafe',
  'server.version',
  'folder.owned',
])

/** True for mistakes that only a person can mend before the next start (exit code 78, sysexits EX_CONFIG). */
export function isConfigError(error: unknown): boolean {
  const code = errorCode(error)
  return code !== undefined && CONFIG_CODES.has(code)
}

/** Of a text that is longer than any limit only the head is looked at. */
const SEEN_CHARS_MAX = 10_000

/**
 * A message that fits on one line and in `limitChars` characters, from any thrown value. Never throws: what is thrown may be
 * a proxy, or an error whose `message` throws when it is read.
 */
export function describeError(error: unknown, limitChars = 500): string {
  let text: string
  try {
    text = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  } catch {
    text = `a thrown ${typeof error} that can't be described`
  }
  const line = text.slice(0, SEEN_CHARS_MAX).replace(/\s+/g, ' ')
  return line.length > limitChars ? `${line.slice(0, limitChars - 1)}…` : line
}
