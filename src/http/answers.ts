/**
 * How routes answer: a handler returns a response or throws, and what it throws becomes a problem here and nowhere else.
 * Each answer is counted by route and status in plain numbers, which the metrics read when they are asked.
 */
import type { Context, Handler } from 'hono'
import { describeError, type MillraceError } from '../contracts/errors.ts'
import { ANYBODY } from '../contracts/principal.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { randomId } from '../runtime/clock.ts'
import { isAbort } from './body-reader.ts'
import { challengeHeaders } from './challenge.ts'
import { compressAnswer } from './compression.ts'
import type { Exchange, ExchangeAnswer } from './direct-routes.ts'
import type { HttpEnv } from './http-env.ts'
import {
  describeProblem,
  HttpMistake,
  type Problem,
  problemFromError,
  problemOf,
  statusOf,
} from './problem.ts'

export type RouteContext = Context<HttpEnv>
export type Answer = (c: RouteContext) => Response | Promise<Response>

/** What stands between a route and whoever asks: who may use it. */
export interface RouteRules {
  on(route: string, answer: Answer): Answer
  direct(route: string, answer: ExchangeAnswer): ExchangeAnswer
}

/** Stands in front of a route: goes on with `proceed`, or answers instead. */
export type Passage = (exchange: Exchange, proceed: ExchangeAnswer) => Response | Promise<Response>

/** Asked once for each route, when it is added; undefined leaves the route as it is. */
export interface RouteLimits {
  passage(route: string, refuse: (exchange: Exchange, error: unknown) => Response): Passage | undefined
}

const REQUEST_ID = /^[\x21-\x7e]{1,128}$/
/** What a retry may count on when nothing better is known. */
const RETRY_AFTER_S = 1

/** An API key or a token where a name belongs is not repeated, nor a part of one. */
const CREDENTIALS = /mr_[0-9a-z]{12}_[0-9A-Za-z]*|eyJ[\w.-]{17,}/g
/** Of a path, in a problem. */
const PATH_CHARS_MAX = 300

/** Answers by status. */
type Tally = Float64Array
const STATUS_MAX = 600

function count(tally: Tally, { status }: Response): void {
  tally[status] = (tally[status] ?? 0) + 1
}

export class Answers {
  readonly #telemetry: Telemetry
  readonly #rules: RouteRules | undefined
  readonly #limits: RouteLimits | undefined
  readonly #tallies = new Map<string, Tally>()

  constructor(telemetry: Telemetry, rules?: RouteRules, limits?: RouteLimits) {
    this.#telemetry = telemetry
    this.#rules = rules
    this.#limits = limits
  }

  /** Names of the routes that were added so far. */
  get routes(): readonly string[] {
    return [...this.#tallies.keys()]
  }

  /** Answers by route and status since start. */
  *counts(): Generator<{ readonly route: string; readonly status: number; readonly count: number }> {
    for (const [route, tally] of this.#tallies) {
      for (const [status, count] of tally.entries()) if (count > 0) yield { route, status, count }
    }
  }

  /** A handler for Hono. `route` is its name in metrics and telemetry. */
  on(route: string, handler: Answer): Handler<HttpEnv> {
    const tally = this.#tally(route)
    const answer = this.#rules?.on(route, handler) ?? handler
    const answering = async (c: RouteContext): Promise<Response> => {
      let response: Response
      try {
        response = await compressAnswer(c.req.raw, await answer(c))
      } catch (error) {
        response = this.#fromError(toldOf(c), route, error)
      }
      count(tally, response)
      return response
    }
    const passage = this.#passage(route)
    return passage === undefined ? answering : (c) => passage(exchangeOf(c), () => answering(c))
  }

  /** The same for a route that is found directly; a promise only where the answer is one. */
  direct(route: string, handler: ExchangeAnswer): ExchangeAnswer {
    const tally = this.#tally(route)
    const answer = this.#rules?.direct(route, handler) ?? handler
    const later = async (exchange: Exchange, answering: Promise<Response>): Promise<Response> => {
      let response: Response
      try {
        response = await answering
      } catch (error) {
        response = this.#fromError(exchange, route, error)
      }
      count(tally, response)
      return response
    }
    const answering: ExchangeAnswer = (exchange) => {
      let response: Response | Promise<Response>
      try {
        response = answer(exchange)
      } catch (error) {
        response = this.#fromError(exchange, route, error)
      }
      if (response instanceof Promise) return later(exchange, response)
      count(tally, response)
      return response
    }
    const passage = this.#passage(route)
    return passage === undefined ? answering : (exchange) => passage(exchange, answering)
  }

  #passage(route: string): Passage | undefined {
    const tally = this.#tally(route)
    return this.#limits?.passage(route, (exchange, error) => {
      const response = this.#fromError(exchange, route, error)
      count(tally, response)
      return response
    })
  }

  /** The answer to what no route was reached for. */
  refuse(c: RouteContext, route: string, error: unknown): Response {
    return this.refuseRequest(toldOf(c), route, error)
  }

  /** The same before it is known which route it is for. */
  refuseRequest(told: Told, route: string, error: unknown): Response {
    const response = this.#fromError(told, route, error)
    count(this.#tally(route), response)
    return response
  }

  #tally(route: string): Tally {
    const known = this.#tallies.get(route)
    if (known !== undefined) return known
    const tally = new Float64Array(STATUS_MAX)
    this.#tallies.set(route, tally)
    return tally
  }

  #fromError(told: Told, route: string, error: unknown): Response {
    if (error instanceof HttpMistake) {
      const problem = describeProblem(error.problem, error.message)
      return problemResponse(told, { ...problem, ...error.members }, error.headers)
    }
    if (isAbort(error)) {
      this.#telemetry.emit('request.aborted', { route })
      return problemResponse(
        told,
        describeProblem('malformed-request', 'The body ended before it was complete.'),
      )
    }
    const requestId = requestIdOf(told)
    if (problemOf(error) === 'internal-error') {
      this.#telemetry.emit('request.failed', { route, requestId, error: describeError(error) })
    }
    const headers = { ...retryHeaders(error), ...challengeHeaders(error) }
    return problemResponse(told, toldProblem(told, error), headers, requestId)
  }
}

/** What a problem tells of its request. */
type Told = Pick<Exchange, 'request' | 'path'>

function toldOf(c: RouteContext): Told {
  return { request: c.req.raw, path: c.req.path }
}

function exchangeOf(c: RouteContext): Exchange {
  return {
    request: c.req.raw,
    server: c.env,
    url: c.req.url,
    path: c.req.path,
    params: [],
    principal: c.env?.principal ?? ANYBODY,
  }
}

/** Who only reads has nothing that may or may not be stored. */
function toldProblem({ request }: Told, error: unknown): Problem {
  const reads = request.method === 'GET' || request.method === 'HEAD'
  if (!reads || problemOf(error) !== 'outcome-unknown') return problemFromError(error)
  return describeProblem('temporary-reduced-capacity', (error as MillraceError).message)
}

/** Retry-After for everything that may go better later. */
function retryHeaders(error: unknown): Readonly<Record<string, string>> {
  const status = statusOf(problemOf(error))
  if (status !== 503 && status !== 429 && status !== 425) return {}
  const wanted = (error as Partial<MillraceError>).retryAfterS ?? RETRY_AFTER_S
  return { 'retry-after': String(Math.max(1, Math.ceil(wanted))) }
}

function requestIdOf({ request }: Told): string {
  const given = request.headers.get('x-request-id')
  return given !== null && REQUEST_ID.test(given) ? given : randomId()
}

function problemResponse(
  told: Told,
  problem: Problem,
  headers: Readonly<Record<string, string>> = {},
  requestId: string = requestIdOf(told),
): Response {
  const retry =
    problem.status === 503 && headers['retry-after'] === undefined
      ? { 'retry-after': String(RETRY_AFTER_S) }
      : {}
  const instance = told.path.replace(CREDENTIALS, '…').slice(0, PATH_CHARS_MAX)
  const body: Problem = { ...problem, instance, requestId }
  return new Response(JSON.stringify(body), {
    status: problem.status,
    headers: {
      'content-type': 'application/problem+json',
      'cache-control': 'no-store',
      'x-request-id': requestId,
      ...retry,
      ...headers,
    },
  })
}

export function jsonResponse(
  body: unknown,
  status = 200,
  headers: Readonly<Record<string, string>> = {},
): Response {
  return new Response(jsonText(body), { status, headers: { 'content-type': 'application/json', ...headers } })
}

/** JSON of what was stored as MessagePack: a whole number beyond 2^53 becomes a text, bytes become base64. */
export function jsonText(value: unknown): string {
  return JSON.stringify(value, plainer) ?? 'null'
}

function plainer(this: unknown, key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString()
  const original: unknown = (this as Record<string, unknown>)[key]
  return original instanceof Uint8Array ? Buffer.from(original).toString('base64') : value
}
