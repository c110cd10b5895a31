/**
 * The client's one error class, its closed set of codes, and which code an answer of the server is. Callers compare
 * `error.code`, never `instanceof`: a bundle may hold the class twice.
 */
import type { PayloadIssue } from '../contracts/errors.ts'

export type ClientErrorCode =
  /** An option of the client or of a call is not what it should be. */
  | 'invalid-option'
  /** The client is closed. */
  | 'closed'
  /** The caller's signal aborted; `cause` is its reason. */
  | 'aborted'
  /** As many commands, or bytes, wait in this client as may: nothing was sent. */
  | 'queue-full'
  /** No answer came: refused, cut off, or not to be found. */
  | 'network'
  /** The time for it is over. */
  | 'timeout'
  /** The server, or something before it, failed: 500, 502, 504, or an answer that is none of Millrace's. */
  | 'fault'
  /** Too much waits, Redis is away, or the server shuts down (503): nothing was stored. */
  | 'overloaded'
  /** A quota is used up (429): nothing was stored. */
  | 'rate-limited'
  /** The command may be stored, or may not. Sent again with `idempotencyKey`, it is stored once. */
  | 'outcome-unknown'
  /** No credential, or one that is not known (401). */
  | 'unauthorized'
  /** The credential does not reach so far (403). */
  | 'forbidden'
  /** There is no such command type, id or projection (404). */
  | 'not-found'
  /** The command or the request is not valid (400, 413, 415, 422); `problem.errors` names the places. */
  | 'invalid'
  /** Refused for another reason, such as a cancel that comes too late (409). */
  | 'refused'
  /** The command that was waited for ended as a dead letter, or was lost. */
  | 'command-dead'
  /** The command that was waited for was cancelled. */
  | 'command-cancelled'

/** What the server told (RFC 9457). */
export interface ClientProblem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail?: string
  readonly instance?: string
  /** Under which the server's log has it. */
  readonly requestId?: string
  readonly errors?: readonly PayloadIssue[]
}

export interface ClientErrorDetails {
  readonly cause?: unknown
  readonly status?: number | undefined
  readonly problem?: ClientProblem | undefined
  readonly retryAfterS?: number | undefined
  readonly id?: string | undefined
  readonly idempotencyKey?: string | undefined
}

export class ClientError extends Error {
  override readonly name = 'ClientError'
  readonly code: ClientErrorCode
  /** Of the answer; undefined when none came. */
  readonly status: number | undefined
  readonly problem: ClientProblem | undefined
  /** Seconds after which a retry makes sense, where the server said so. */
  readonly retryAfterS: number | undefined
  /** Of the command, where it has one: it is stored. */
  readonly id: string | undefined
  /** Of the command that could not be sent: with it, sending again is safe. */
  readonly idempotencyKey: string | undefined

  constructor(code: ClientErrorCode, text: string, details: ClientErrorDetails = {}) {
    super(text, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.status = details.status
    this.problem = details.problem
    this.retryAfterS = details.retryAfterS
    this.id = details.id
    this.idempotencyKey = details.idempotencyKey
  }
}

/** The code of any thrown value, or undefined when it is not one of ours. */
export function clientErrorCode(error: unknown): ClientErrorCode | undefined {
  return isClientError(error) ? error.code : undefined
}

export function isClientError(error: unknown): error is ClientError {
  return typeof error === 'object' && error !== null && 'name' in error && error.name === 'ClientError'
}

const RETRYABLE: ReadonlySet<ClientErrorCode> = new Set([
  'network',
  'timeout',
  'fault',
  'overloaded',
  'rate-limited',
  'outcome-unknown',
])

/** True for what may go better by itself. */
export function isRetryable({ code }: ClientError): boolean {
  return RETRYABLE.has(code)
}

const UNKNOWN: ReadonlySet<ClientErrorCode> = new Set(['network', 'timeout', 'fault', 'outcome-unknown'])

/** True when a command that was sent may be stored, for all that this error tells. */
export function leavesUnknown({ code }: ClientError): boolean {
  return UNKNOWN.has(code)
}

const TOO_EARLY = 425

/** What a refusal is: of a request, or of one command of many. */
export function errorOfAnswer(
  status: number,
  problem: ClientProblem | undefined,
  details: ClientErrorDetails = {},
): ClientError {
  const text = problem?.detail ?? problem?.title ?? `The server answered ${status}.`
  return new ClientError(codeOf(status, problem), text, { ...details, status, problem })
}

function codeOf(status: number, problem: ClientProblem | undefined): ClientErrorCode {
  switch (status) {
    case 400:
    case 413:
    case 415:
    case 422:
      return 'invalid'
    case 401:
      return 'unauthorized'
    case 403:
      return 'forbidden'
    case 404:
      return 'not-found'
    case TOO_EARLY:
      return 'timeout'
    case 429:
      return 'rate-limited'
    case 503:
      return codeOfUnavailable(problem)
    default:
      return status >= 400 && status < 500 ? 'refused' : 'fault'
  }
}

/** Without a problem it is not Millrace that speaks, and who knows what was behind it. */
function codeOfUnavailable(problem: ClientProblem | undefined): ClientErrorCode {
  if (problem === undefined) return 'fault'
  return /\/(outcome-unknown|stored-unconfirmed)$/.test(problem.type) ? 'outcome-unknown' : 'overloaded'
}

/** True when a view has not come so far yet: to be asked again, however often. */
export function isTooEarly({ status }: ClientError): boolean {
  return status === TOO_EARLY
}

/** A problem as it came over the wire; undefined for anything else. */
export function toProblem(body: unknown): ClientProblem | undefined {
  if (typeof body !== 'object' || body === null) return undefined
  const { type, title, status } = body as Partial<Record<keyof ClientProblem, unknown>>
  const isProblem = typeof type === 'string' && typeof title === 'string' && typeof status === 'number'
  return isProblem ? (body as ClientProblem) : undefined
}
