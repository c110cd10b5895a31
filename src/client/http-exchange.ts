/**
 * One request and its answer, by `fetch`. The body is always read to its end, so that the connection can be used again; a
 * redirect is not followed, so that neither a command nor a token goes where nobody sent it.
 */
import { onAbort } from './abort-calls.ts'
import type { ClientClock } from './client-clock.ts'
import {
  ClientError,
  type ClientErrorDetails,
  errorOfAnswer,
  isClientError,
  toProblem,
} from './client-error.ts'
import type { ResolvedOptions } from './client-options.ts'
import { abortedBy, parseRetryAfter } from './retries.ts'

export interface HttpRequest {
  readonly method: 'GET' | 'POST' | 'DELETE'
  /** From the first slash after the base. */
  readonly path: string
  readonly headers?: Readonly<Record<string, string | undefined>>
  readonly body?: Uint8Array<ArrayBuffer> | string
  /** What the server may wait on purpose before it answers. */
  readonly heldMs?: number
}

/** How long one try may take. */
export interface TryLimits {
  readonly deadlineMs: number
  readonly signal: AbortSignal | undefined
}

export interface HttpAnswer {
  readonly status: number
  readonly headers: Headers
  /** Of JSON; undefined where there is none. */
  readonly body: unknown
  readonly retryAfterS: number | undefined
}

export type ExchangeOptions = Pick<ResolvedOptions, 'url' | 'token' | 'fetch' | 'requestTimeoutMs'>

export class HttpExchange {
  readonly #options: ExchangeOptions
  readonly #clock: ClientClock

  constructor(options: ExchangeOptions, clock: ClientClock) {
    this.#options = options
    this.#clock = clock
  }

  /** Any answer of Millrace's. Throws ClientError `network`, `timeout`, `aborted`, `fault`, `invalid`, `unauthorized`. */
  async ask(request: HttpRequest, { deadlineMs, signal }: TryLimits): Promise<HttpAnswer> {
    if (isOver(signal)) throw abortedBy(signal)
    const leftMs = deadlineMs - this.#clock.monotonicMs()
    const limitMs = Math.min(leftMs, this.#options.requestTimeoutMs + (request.heldMs ?? 0))
    if (limitMs <= 0) throw new ClientError('timeout', 'The deadline was over before the request.')
    const cut = new AbortController()
    const timer = this.#clock.after(limitMs, () => cut.abort())
    const stopListening = onAbort(signal, () => cut.abort())
    try {
      // Whoever gives the token or the answer may not heed the signal.
      return await Promise.race([this.#exchange(request, cut.signal), rejectionOf(cut.signal)])
    } catch (error) {
      if (isOver(signal)) throw abortedBy(signal)
      if (isClientError(error) && !cut.signal.aborted) throw error
      if (cut.signal.aborted)
        throw new ClientError('timeout', `No answer came within ${Math.ceil(limitMs)} ms.`)
      const why = error instanceof Error ? error.message : String(error)
      throw new ClientError('network', `No answer came: ${why.slice(0, 300)}.`, { cause: error })
    } finally {
      timer.cancel()
      stopListening()
    }
  }

  async #exchange(request: HttpRequest, signal: AbortSignal): Promise<HttpAnswer> {
    const { method, path, body } = request
    const headers = await this.#headers(request)
    const { url, fetch } = this.#options
    const init = { method, headers, signal, redirect: 'manual' as const }
    const response = await fetch(`${url}${path}`, body === undefined ? init : { ...init, body })
    const text = await response.text()
    const { status, type } = response as { readonly status: number; readonly type: string }
    // A browser hides the status of a redirect that it does not follow.
    if (type === 'opaqueredirect' || (status >= 300 && status < 400 && status !== 304))
      throw new ClientError(
        'refused',
        'The server redirects; give the address that it redirects to as "url".',
        {
          status,
        },
      )
    return {
      status,
      headers: response.headers,
      body: parseBody(status, text),
      retryAfterS: parseRetryAfter(response.headers, this.#clock),
    }
  }

  async #headers({ headers = {}, body }: HttpRequest): Promise<Headers> {
    const { token } = this.#options
    const bearer = typeof token === 'function' ? await askToken(token) : token
    try {
      const made = new Headers({ accept: 'application/json' })
      if (body !== undefined && headers['content-type'] === undefined)
        made.set('content-type', 'application/json')
      if (bearer !== undefined) made.set('authorization', `Bearer ${bearer}`)
      for (const [name, value] of Object.entries(headers)) if (value !== undefined) made.set(name, value)
      return made
    } catch (cause) {
      // Its text would tell the value.
      throw new ClientError('invalid', 'The token, the idempotency key or an id holds what no header may.', {
        cause: cause instanceof Error ? cause.name : undefined,
      })
    }
  }
}

function isOver(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true
}

function rejectionOf(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(new ClientError('timeout', 'It was cut off.')))
  })
}

async function askToken(token: () => string | Promise<string>): Promise<string> {
  try {
    return await token()
  } catch (cause) {
    throw new ClientError('unauthorized', 'The function "token" gave none.', { cause })
  }
}

/** A good answer that is no JSON is not from here; with a bad one the status says enough. */
function parseBody(status: number, text: string): unknown {
  if (text === '') return undefined
  try {
    return JSON.parse(text) as unknown
  } catch {
    if (status >= 300) return undefined
    throw new ClientError('fault', 'The answer is not JSON, so it is none of Millrace: is "url" right?', {
      status,
    })
  }
}

/** What an answer that is no success is. */
export function refusalOf(
  { status, body, retryAfterS }: HttpAnswer,
  details: ClientErrorDetails = {},
): ClientError {
  if (status < 400)
    return new ClientError('fault', `The answer ${status} is none of Millrace: is "url" right?`, { status })
  return errorOfAnswer(status, toProblem(body), { ...details, retryAfterS })
}
