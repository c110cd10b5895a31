/**
 * Requests whose URL does not say where they go. Bun puts the Host header before the path, and where that header is no host, or
 * missing as HTTP/1.0 allows, the URL of the request is the bare path: cut as if a host stood before it, `/any-prefix/v1/…`
 * would be `/v1/…`, past whoever guards paths in front of us.
 */
import { randomId } from '../runtime/clock.ts'
import { describeProblem } from './problem.ts'

const ABSOLUTE = 'http://'

/** What stands before the path in the last URL that was looked at closely. Nearly all name the same host. */
let knownOrigin = ' '

/** Every request with a usable Host header: its URL parses, so whoever needs it in parts may rely on that. */
export function isAddressed({ url }: Request): boolean {
  if (url.startsWith(knownOrigin)) return true
  if (!url.startsWith(ABSOLUTE) || !URL.canParse(url)) return false
  const origin = url.slice(0, url.indexOf('/', ABSOLUTE.length) + 1)
  // A user in front of the host makes no Request.
  if (origin.includes('@')) return false
  knownOrigin = origin
  return true
}

/** The same request under a host of ours, for HTTP/1.0 clients such as the checks of a load balancer; undefined: refuse it. */
export function addressed(request: Request): Request | undefined {
  if (request.headers.has('host') || !request.url.startsWith('/')) return undefined
  return new Request(`${ABSOLUTE}localhost${request.url}`, request)
}

/** No route is reached, so none counts it. */
export function refuseUnaddressed(): Response {
  const detail = 'The Host header is not a host with an optional port, or the request names no path.'
  const problem = describeProblem('malformed-request', detail)
  const requestId = randomId()
  return new Response(JSON.stringify({ ...problem, instance: '', requestId }), {
    status: problem.status,
    headers: {
      'content-type': 'application/problem+json',
      'cache-control': 'no-store',
      'x-request-id': requestId,
    },
  })
}
