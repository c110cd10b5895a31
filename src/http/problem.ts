/**
 * Problems: what an error looks like over HTTP (RFC 9457, `application/problem+json`).
 *
 * One table says which status and type each problem has, one which problem each error code becomes; both are complete by
 * type. A problem's type is a stable URI: its page is served by the process itself, and stands in docs/problems.md.
 */
import { type ErrorCode, errorCode, type MillraceError, type PayloadIssue } from '../contracts/errors.ts'

interface ProblemKind {
  readonly status: number
  readonly title: string
  /** What to do about it; one paragraph. */
  readonly meaning: string
}

export type ProblemName =
  | 'malformed-request'
  | 'projection-not-over-stream'
  | 'unauthenticated'
  | 'forbidden'
  | 'not-found'
  | 'foreign-page'
  | 'unknown-command-type'
  | 'unknown-projection'
  | 'status-expired'
  | 'method-not-allowed'
  | 'cancel-too-late'
  | 'dead-letter-conflict'
  | 'schedule-conflict'
  | 'key-conflict'
  | 'body-too-large'
  | 'unsupported-media-type'
  | 'invalid-command'
  | 'idempotency-key-reused'
  | 'nothing-accepted'
  | 'view-not-there-yet'
  | 'quota-exceeded'
  | 'command-failed'
  | 'command-expired'
  | 'command-lost'
  | 'internal-error'
  | 'temporary-reduced-capacity'
  | 'outcome-unknown'
  | 'stored-unconfirmed'
  | 'idempotency-keys-full'
  | 'projection-stopped'

/** Every problem by name, for the pages about them. */
export const PROBLEM_KINDS: Readonly<Record<ProblemName, ProblemKind>> = {
  'malformed-request': {
    status: 400,
    title: 'The request could not be read',
    meaning:
      'The body, a header, a query parameter, a cursor or an id is not what it should be. The detail says which; sending the same again will fail again.',
  },
  'projection-not-over-stream': {
    status: 400,
    title: 'The projection does not follow this command',
    meaning:
      'Millrace-After names a command of a stream whose events this projection does not fold, so there is nothing to wait for.',
  },
  unauthenticated: {
    status: 401,
    title: 'No valid credential',
    meaning:
      'The request needs `Authorization: Bearer` with an API key or a token that is valid now. It has none, or one that is unknown, expired or revoked.',
  },
  forbidden: {
    status: 403,
    title: 'Not allowed',
    meaning:
      'The credential is valid, and it may not do this: its scopes or its tenant say otherwise. Whether what was asked for exists is not told.',
  },
  'foreign-page': {
    status: 403,
    title: 'A page of another site asked',
    meaning:
      'The admin listener does not answer browsers on behalf of other sites, nor, on loopback, under a host name that is not localhost: nobody who shows a page to an operator may act in their place. Call it from a program, by address.',
  },
  'not-found': {
    status: 404,
    title: 'No such thing',
    meaning:
      'There is nothing under this path, name or id. Ids are checked: an invented one is not found either.',
  },
  'unknown-command-type': {
    status: 404,
    title: 'No such command type',
    meaning: 'No module of the application defines this command type. The detail names the nearest one.',
  },
  'unknown-projection': {
    status: 404,
    title: 'No such projection',
    meaning: 'No module of the application defines this projection.',
  },
  'status-expired': {
    status: 404,
    title: 'The status is no longer kept',
    meaning:
      "The command ended longer ago than its stream's results are kept, so nothing can be said about it any more.",
  },
  'method-not-allowed': {
    status: 405,
    title: 'Method not allowed',
    meaning: 'The path exists, but not with this method. The Allow header lists the ones it has.',
  },
  'cancel-too-late': {
    status: 409,
    title: 'Too late to cancel',
    meaning: 'Only a command that no worker has been given yet can be cancelled.',
  },
  'dead-letter-conflict': {
    status: 409,
    title: 'The dead letter changed meanwhile',
    meaning:
      'Somebody else redrove or purged this dead letter, or it is in use by another operation. Look at it again.',
  },
  'schedule-conflict': {
    status: 409,
    title: 'The schedule can not run now',
    meaning:
      'Its runs must not overlap and one is still open, or another deployment defines the schedule otherwise. The detail says which.',
  },
  'key-conflict': {
    status: 409,
    title: 'Both secrets of the key are in use',
    meaning:
      'A key has two secrets at most while it is rotated. Revoke the old one, or wait until it expires, then rotate again.',
  },
  'body-too-large': {
    status: 413,
    title: 'Too large',
    meaning:
      'The body, or one command in it, has more bytes than are taken. Send less at once, or a reference instead of the content.',
  },
  'unsupported-media-type': {
    status: 415,
    title: 'Content type not understood',
    meaning:
      'The Accept-Post header lists the content types that this path takes. A compressed body is not taken.',
  },
  'invalid-command': {
    status: 422,
    title: 'The command is not valid',
    meaning:
      'The body could be read, but its content was refused: by the schema of the command, because it is nested too deeply, or because it holds a forbidden key. `errors` names the places.',
  },
  'idempotency-key-reused': {
    status: 422,
    title: 'The idempotency key was used for another command',
    meaning: 'A key stands for one command. Repeat exactly what was sent under it, or choose a new key.',
  },
  'nothing-accepted': {
    status: 422,
    title: 'None of the commands was accepted',
    meaning: 'Every item of the bulk request was refused. `results` tells why, item by item.',
  },
  'view-not-there-yet': {
    status: 425,
    title: 'The view has not come so far yet',
    meaning:
      'The wait that Millrace-After asked for ran out before the view had passed the command. Ask again.',
  },
  'quota-exceeded': {
    status: 429,
    title: 'Too many requests',
    meaning:
      'Nothing was done. `violated-policies` names what has nothing left for now: a rate limit of the operator, whose allowance RateLimit-Policy tells; or `waiting`, which is what one tenant may have accepted and not ended, in commands and in bytes. Retry after the time that Retry-After gives.',
  },
  'command-failed': {
    status: 500,
    title: 'The command failed',
    meaning:
      'Found inside the status of a command, not as an answer: its handler threw, asked for a retry, or rejected it. The detail says why; a dead command waits as a dead letter.',
  },
  'command-expired': {
    status: 500,
    title: 'The command expired',
    meaning:
      'Found inside the status of a command, not as an answer: its deadline passed before it could run, so its handler was not called. It waits as a dead letter; redriven, it has no deadline any more.',
  },
  'command-lost': {
    status: 500,
    title: 'The command was lost',
    meaning:
      'Found inside the status of a command, not as an answer: it was acknowledged, and Redis no longer has it, because its data was lost or removed by hand. An alarm was raised.',
  },
  'internal-error': {
    status: 500,
    title: 'Something failed on our side',
    meaning: 'A fault of the service. The log of the process has it under the request id.',
  },
  'temporary-reduced-capacity': {
    status: 503,
    title: 'Not now',
    meaning:
      'Nothing was stored: too much waits, Redis is away or nearly full, or the process is shutting down. Retry after the time that Retry-After gives.',
  },
  'outcome-unknown': {
    status: 503,
    title: 'Perhaps stored, perhaps not',
    meaning:
      'The answer of Redis was lost. Retry: with the same idempotency key this is always safe; without a key the command may be stored twice.',
  },
  'stored-unconfirmed': {
    status: 503,
    title: 'Stored, but not confirmed by the replicas',
    meaning:
      'The primary has it, and too few replicas said in time that they have it too: it will run, unless the primary fails first. Retry: with the same idempotency key this gives the same id, once the replicas have it; without a key the command may be stored twice.',
  },
  'idempotency-keys-full': {
    status: 503,
    title: 'No more idempotency keys can be remembered now',
    meaning: 'Nothing was stored. Commands without a key are still taken; with a key, retry later.',
  },
  'projection-stopped': {
    status: 503,
    title: 'The projection stands still',
    meaning:
      'A fold failed and its projection waits for a person, so the view will not pass the command that was asked for.',
  },
}

const PROBLEM_OF = {
  'config.invalid': 'internal-error',
  'config.unknown-option': 'internal-error',
  'definition.duplicate': 'internal-error',
  'definition.invalid': 'internal-error',
  'definition.unknown': 'internal-error',
  'stream.partition-mismatch': 'internal-error',
  'stream.ordering-mismatch': 'internal-error',
  'server.unsafe': 'internal-error',
  'server.version': 'internal-error',
  'folder.owned': 'internal-error',
  'redis.unavailable': 'temporary-reduced-capacity',
  'redis.unknown': 'outcome-unknown',
  'durability.unconfirmed': 'stored-unconfirmed',
  'command.unknown-type': 'unknown-command-type',
  'command.malformed': 'malformed-request',
  'command.invalid': 'invalid-command',
  'command.too-large': 'body-too-large',
  'idempotency.conflict': 'idempotency-key-reused',
  'idempotency.full': 'idempotency-keys-full',
  'admission.overloaded': 'temporary-reduced-capacity',
  'admission.draining': 'temporary-reduced-capacity',
  'identity.missing': 'unauthenticated',
  'identity.invalid': 'unauthenticated',
  'identity.forbidden': 'forbidden',
  'key.conflict': 'key-conflict',
  'quota.exceeded': 'quota-exceeded',
  'not-found': 'not-found',
  expired: 'status-expired',
  'cancel.too-late': 'cancel-too-late',
  'dead-letter.conflict': 'dead-letter-conflict',
  'schedule.conflict': 'schedule-conflict',
  'lease.held': 'internal-error',
  'lease.lost': 'internal-error',
  'cursor.invalid': 'malformed-request',
  'view.wait-timeout': 'view-not-there-yet',
  'view.unknown-projection': 'unknown-projection',
  'projection.stopped': 'projection-stopped',
  'projection.not-over-stream': 'projection-not-over-stream',
  'fold.failed': 'internal-error',
  'entry.unreadable': 'internal-error',
  'handler.failed': 'internal-error',
  'handler.time-limit': 'internal-error',
  'service.stopped': 'temporary-reduced-capacity',
} as const satisfies Record<ErrorCode, ProblemName>

/** Registered at IANA; all others are ours. */
const IANA = 'https://iana.org/assignments/http-problem-types'
const REGISTERED: ReadonlySet<ProblemName> = new Set(['temporary-reduced-capacity', 'quota-exceeded'])
const PAGES = '/problems'

export function problemType(name: ProblemName): string {
  return REGISTERED.has(name) ? `${IANA}#${name}` : `${PAGES}/${name}`
}

/** Which problem an error is; a fault that is none of ours is `internal-error`. */
export function problemOf(error: unknown): ProblemName {
  const code = errorCode(error)
  return code === undefined ? 'internal-error' : PROBLEM_OF[code]
}

export function statusOf(name: ProblemName): number {
  return PROBLEM_KINDS[name].status
}

export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail?: string
  readonly instance?: string
  readonly requestId?: string
  readonly errors?: readonly PayloadIssue[]
  readonly 'violated-policies'?: readonly string[]
}

/** The body of a problem. The detail of a fault of ours stays in the log. */
export function describeProblem(
  name: ProblemName,
  detail: string,
  issues: readonly PayloadIssue[] = [],
): Problem {
  const { status, title, meaning } = PROBLEM_KINDS[name]
  return {
    type: problemType(name),
    title,
    status,
    detail: name === 'internal-error' ? meaning : detail,
    ...(issues.length > 0 ? { errors: issues } : {}),
  }
}

export function problemFromError(error: unknown): Problem {
  const name = problemOf(error)
  if (name === 'internal-error') return describeProblem(name, '')
  const { message, issues, policies } = error as MillraceError
  const problem = describeProblem(name, message, issues)
  return name === 'quota-exceeded' ? { ...problem, 'violated-policies': policies } : problem
}

/** A mistake that has no error code because only HTTP knows it. Thrown by routes, answered in one place. */
export class HttpMistake extends Error {
  override readonly name = 'HttpMistake'
  readonly problem: ProblemName
  readonly headers: Readonly<Record<string, string>>
  readonly members: Readonly<Record<string, unknown>>

  constructor(
    problem: ProblemName,
    detail: string,
    headers: Readonly<Record<string, string>> = {},
    members: Readonly<Record<string, unknown>> = {},
  ) {
    super(detail)
    this.problem = problem
    this.headers = headers
    this.members = members
  }
}
