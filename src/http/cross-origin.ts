/**
 * Lets pages of other origins use the API (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol). Off unless origins are
 * named: then it stands in front of the whole app, so that preflights are answered before anything else is asked, and every
 * answer says who may read it, problems and streams too.
 *
 * Without cookies: a page sends its credential in Authorization, which has to be allowed by name, for `*` does not cover it.
 */
import type { HttpEnv } from './http-env.ts'
import type { HttpApp } from './server.ts'

/** `*`, or origins such as `https://app.example`. */
export type CrossOrigins = readonly string[]

const METHODS = 'GET, HEAD, POST, DELETE'
/** Names that a page may send. */
const SENT: ReadonlySet<string> = new Set([
  'accept',
  'authorization',
  'content-type',
  'idempotency-key',
  'if-none-match',
  'last-event-id',
  'millrace-after',
  'millrace-tenant',
  'prefer',
  'traceparent',
  'tracestate',
  'x-request-id',
])
/** Attributes of CloudEvents, whatever they are called. */
const EVENT_HEADER = /^ce-[a-z0-9]{1,64}$/
const SENT_COUNT_MAX = 100
/** Names that a page may read, beside those that it always may. */
const EXPOSED = [
  'Location',
  'Retry-After',
  'ETag',
  'Link',
  'Idempotent-Replayed',
  'Preference-Applied',
  'RateLimit',
  'RateLimit-Policy',
  'X-RateLimit-Limit',
  'X-RateLimit-Remaining',
  'X-RateLimit-Reset',
  'X-Request-Id',
  'Millrace-Position',
  'Millrace-After-Status',
  'Accept-Post',
  'Allow',
  'WWW-Authenticate',
].join(', ')
/** Browsers keep an answer to a preflight so long, or as long as they want. */
const MAX_AGE_S = 600

export class CrossOriginApp implements HttpApp {
  readonly #app: HttpApp
  readonly #origins: ReadonlySet<string>
  readonly #isOpen: boolean

  constructor(app: HttpApp, origins: CrossOrigins) {
    this.#app = app
    this.#origins = new Set(origins)
    this.#isOpen = this.#origins.has('*')
  }

  fetch(request: Request, server: HttpEnv['Bindings']): Response | Promise<Response> {
    const allowed = this.#allowed(request.headers.get('origin'))
    if (request.method === 'OPTIONS' && request.headers.has('access-control-request-method')) {
      return this.#preflight(request.headers, allowed)
    }
    const answer = this.#app.fetch(request, server)
    if (!(answer instanceof Promise)) return this.#tell(answer, allowed)
    return answer.then((response) => this.#tell(response, allowed))
  }

  /** What Access-Control-Allow-Origin says; undefined for an origin that may not read. */
  #allowed(origin: string | null): string | undefined {
    if (origin === null) return undefined
    if (this.#isOpen) return '*'
    return this.#origins.has(origin) ? origin : undefined
  }

  #preflight(asked: Headers, allowed: string | undefined): Response {
    const headers = new Headers({ vary: 'Origin, Access-Control-Request-Headers' })
    if (allowed !== undefined) {
      headers.set('access-control-allow-origin', allowed)
      headers.set('access-control-allow-methods', METHODS)
      headers.set('access-control-max-age', String(MAX_AGE_S))
      const names = allowedNames(asked.get('access-control-request-headers') ?? '')
      if (names !== '') headers.set('access-control-allow-headers', names)
    }
    return new Response(null, { status: 204, headers })
  }

  /** Where it depends on the origin, caches must know. */
  #tell(response: Response, allowed: string | undefined): Response {
    const { headers } = response
    if (!this.#isOpen) headers.append('vary', 'Origin')
    if (allowed === undefined) return response
    headers.set('access-control-allow-origin', allowed)
    headers.set('access-control-expose-headers', EXPOSED)
    return response
  }
}

/** Of the names that were asked for those that may be sent. */
function allowedNames(asked: string): string {
  const names = asked.toLowerCase().split(',', SENT_COUNT_MAX)
  const known = names.map((name) => name.trim()).filter((name) => SENT.has(name) || EVENT_HEADER.test(name))
  return known.join(', ')
}
