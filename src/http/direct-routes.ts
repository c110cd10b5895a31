/**
 * The few routes that carry nearly all requests, found without Hono: its matching and its context took 13 to 20 % of the
 * requests that a server which only answers can serve (64 connections, GET, two runs).
 *
 * A path is found here in its plain form only: no query, nothing encoded. Every other form of it goes to Hono, which knows the
 * same handlers under the same paths; so what is answered never depends on how it was found.
 */
import type { Hono } from 'hono'
import { ANYBODY, type Principal } from '../contracts/principal.ts'
import { headAnswer } from './head-answer.ts'
import { bindingsFor, type HttpEnv } from './http-env.ts'
import type { HttpApp } from './server.ts'

/** A request, and what its path names. */
export interface Exchange {
  readonly request: Request
  readonly server: HttpEnv['Bindings'] | undefined
  readonly url: string
  readonly path: string
  /** Values of the path's names, in order; none is empty. The same list again for a URL that was asked for lately. */
  readonly params: readonly string[]
  readonly principal: Principal
}

export type ExchangeAnswer = (exchange: Exchange) => Response | Promise<Response>

interface DirectRoute {
  readonly method: string
  /** What stands before the first name. */
  readonly prefix: string
  readonly names: number
  readonly answer: ExchangeAnswer
}

interface Found extends Pick<Exchange, 'url' | 'path' | 'params'>, Pick<DirectRoute, 'method' | 'answer'> {}

const KNOWN_MAX = 1000
/** Longer ones are not remembered: a thousand of the longest would hold 16 MB. */
const KNOWN_CHARS_MAX = 512

/** Query, fragment, or something encoded. */
const NOT_PLAIN = /[?#%]/
/** Length of `https://`, and at most the first character of a host. */
const HOST_AT = 8

export class DirectRoutes {
  readonly #app: Hono<HttpEnv>
  readonly #routes: DirectRoute[] = []
  /** What was found lately, by URL. */
  readonly #known = new Map<string, Found>()

  constructor(app: Hono<HttpEnv>) {
    this.#app = app
  }

  /** A route of `app` too. Names stand at the end of the path, such as `/v1/views/:projection/:key`. */
  add(method: 'GET' | 'POST', path: string, answer: ExchangeAnswer): void {
    const names = [...path.matchAll(/:(\w+)/g)].map(([, name = '']) => name)
    this.#routes.push({ method, prefix: path.split(':', 1)[0] ?? path, names: names.length, answer })
    this.#app.on(method, path, (c) => {
      const params = names.map((name) => c.req.param(name) ?? '')
      return answer({
        request: c.req.raw,
        server: c.env,
        url: c.req.url,
        path: c.req.path,
        params,
        principal: c.env?.principal ?? ANYBODY,
      })
    })
  }

  fetch(
    request: Request,
    server: HttpEnv['Bindings'],
    principal: Principal = ANYBODY,
  ): Response | Promise<Response> {
    const found = this.#find(request)
    if (found === undefined) {
      if (request.method === 'HEAD') {
        const get: HttpApp = { fetch: (asked, beneath) => this.fetch(asked, beneath, principal) }
        return headAnswer(get, request, server)
      }
      return this.#app.fetch(request, principal === ANYBODY ? server : bindingsFor(server, principal))
    }
    const { url, path, params } = found
    return found.answer({ request, server, url, path, params, principal })
  }

  #find({ url, method }: Request): Found | undefined {
    const known = this.#known.get(url)
    if (known !== undefined && known.method === method) return known
    if (NOT_PLAIN.test(url)) return undefined
    const path = url.slice(url.indexOf('/', HOST_AT))
    for (const route of this.#routes) {
      if (route.method !== method || !path.startsWith(route.prefix)) continue
      const params = paramsOf(path, route)
      if (params === undefined) continue
      const found = { method, url, path, params, answer: route.answer }
      if (url.length > KNOWN_CHARS_MAX) return found
      if (this.#known.size >= KNOWN_MAX) this.#known.clear()
      this.#known.set(url, found)
      return found
    }
    return undefined
  }
}

/** Undefined when the path has another number of segments, or an empty one. */
function paramsOf(path: string, { prefix, names }: DirectRoute): readonly string[] | undefined {
  const params: string[] = []
  let at = prefix.length
  while (at < path.length && params.length < names) {
    const slash = path.indexOf('/', at)
    const end = slash < 0 ? path.length : slash
    if (end === at) return undefined
    params.push(path.slice(at, end))
    at = params.length < names ? end + 1 : end
  }
  return params.length === names && at === path.length ? params : undefined
}
