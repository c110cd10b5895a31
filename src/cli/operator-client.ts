/**
 * Calls of a running process, for the command line: one JSON request, one JSON answer, and problems as sentences with the
 * exit code they deserve.
 */
import { describeError, type ErrorCode, MillraceError } from '../contracts/errors.ts'
import type { Clock } from '../runtime/clock.ts'

/** A request as the command line builds it. */
export interface OperatorCall {
  readonly method: 'GET' | 'POST' | 'DELETE'
  /** Path and query, such as `/v1/streams`. */
  readonly path: string
  readonly body?: string
  readonly headers?: Readonly<Record<string, string>>
}

export interface OperatorAnswer {
  readonly status: number
  readonly headers: Headers
  /** Undefined for an empty answer. */
  readonly body: unknown
}

const REQUEST_LIMIT_MS = 45_000
const ATTEMPTS_MAX = 6
const PAUSE_MAX_MS = 5000

export class OperatorClient {
  readonly #baseUrl: string
  readonly #clock: Clock
  readonly #credential: Readonly<Record<string, string>>

  /** `key`: an API key, or a token of an issuer, for a process that asks for one. */
  constructor(baseUrl: string, clock: Clock, key?: string | undefined) {
    this.#baseUrl = baseUrl.replace(/\/+$/, '')
    this.#clock = clock
    this.#credential = key === undefined ? {} : { authorization: `Bearer ${key}` }
  }

  /** @throws MillraceError with the problem as its sentence */
  async call(call: OperatorCall): Promise<OperatorAnswer> {
    const response = await this.#fetch(call)
    const body = await readBody(response)
    if (!response.ok) throw problemError(response.status, body)
    return { status: response.status, headers: response.headers, body }
  }

  /**
   * The same for a call that is safe to repeat: tries again while nobody answers or the answer is "not now". `onRetry`
   * hears why.
   */
  async callUntilAnswered(call: OperatorCall, onRetry: (why: string) => void): Promise<OperatorAnswer> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.call(call)
      } catch (error) {
        if (
          !(error instanceof MillraceError) ||
          error.code !== 'redis.unavailable' ||
          attempt >= ATTEMPTS_MAX
        ) {
          throw error
        }
        onRetry(error.message)
        const backoffMs = 100 * 2 ** attempt * (0.5 + this.#clock.random())
        await this.#clock.sleep(Math.min(PAUSE_MAX_MS, Math.max(backoffMs, (error.retryAfterS ?? 0) * 1000)))
      }
    }
  }

  async #fetch({ method, path, body, headers }: OperatorCall): Promise<Response> {
    try {
      return await fetch(`${this.#baseUrl}${path}`, {
        method,
        headers: {
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          ...this.#credential,
          ...headers,
        },
        signal: AbortSignal.timeout(REQUEST_LIMIT_MS),
        ...(body === undefined ? {} : { body }),
      })
    } catch (cause) {
      throw new MillraceError(
        'redis.unavailable',
        `Nobody answers at ${this.#baseUrl}: ${describeError(cause, 200)}. Is a process running there? See --help for the address.`,
        { cause },
      )
    }
  }
}

async function readBody(response: Response): Promise<unknown> {
  const text = await response.text()
  if (text === '') return undefined
  try {
    return JSON.parse(text)
  } catch {
    throw new MillraceError(
      'redis.unavailable',
      `What answers at ${new URL(response.url).origin} is not Millrace.`,
    )
  }
}

interface ProblemBody {
  readonly title?: unknown
  readonly detail?: unknown
  readonly errors?: unknown
  readonly requestId?: unknown
}

function problemError(status: number, body: unknown): MillraceError {
  const { title, detail, errors, requestId }: ProblemBody =
    typeof body === 'object' && body !== null ? body : {}
  const lines = [`${String(title ?? `HTTP ${status}`)}: ${String(detail ?? 'no more is known.')}`]
  if (Array.isArray(errors)) {
    for (const each of errors as { pointer?: unknown; detail?: unknown }[]) {
      lines.push(`  ${String(each.pointer)} ${String(each.detail)}`)
    }
  }
  if (status === 401)
    lines.push('  Put an API key into MILLRACE_API_KEY, or name its file with MILLRACE_API_KEY_FILE.')
  if (status === 500) lines.push(`  request ${String(requestId)}`)
  return new MillraceError(codeOf(status), lines.join('\n'))
}

/** What the exit code follows from. */
function codeOf(status: number): ErrorCode {
  if (status === 404) return 'not-found'
  if (status === 425 || status === 429 || status === 502 || status === 503 || status === 504)
    return 'redis.unavailable'
  if (status === 400) return 'command.malformed'
  return 'command.invalid'
}
