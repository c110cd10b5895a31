/**
 * The guard in front of an app: finds out who asks before a route is looked for, so that a request without a credential learns
 * nothing but that it needs one. Health and the pages about problems are open.
 *
 * An app without a guard has none of this in its way.
 */
import type { Principal } from '../contracts/principal.ts'
import type { StreamOfType } from './access.ts'
import type { Answers } from './answers.ts'
import type { HttpEnv } from './http-env.ts'
import type { HttpApp } from './server.ts'

export interface Guard {
  /** Who asks, and for which tenant. Throws, or rejects with, a MillraceError. */
  identify(headers: Headers): Principal | Promise<Principal>
  readonly streamOfType: StreamOfType
}

/** What stands behind a guard. */
export interface GuardedRoutes {
  fetch(request: Request, server: HttpEnv['Bindings'], principal: Principal): Response | Promise<Response>
}

/** Exactly these, as Hono would read them too: what is written in another way needs a credential. */
const OPEN_URL = /^https?:\/\/[^/?#]+\/(?:livez|readyz|startupz|problems\/[a-z-]+)(?:\?[^#]*)?$/

const ROUTE = 'unidentified'

/** `open` answers the paths that need nobody. */
export function guardedApp(
  routes: GuardedRoutes,
  open: HttpApp,
  { identify }: Guard,
  answers: Answers,
): HttpApp {
  const refuse = (request: Request, error: unknown): Response =>
    answers.refuseRequest({ request, path: pathOf(request.url) }, ROUTE, error)
  const later = async (
    request: Request,
    server: HttpEnv['Bindings'],
    identifying: Promise<Principal>,
  ): Promise<Response> => {
    let principal: Principal
    try {
      principal = await identifying
    } catch (error) {
      return refuse(request, error)
    }
    return routes.fetch(request, server, principal)
  }
  return {
    fetch: (request, server) => {
      const { url } = request
      if (!url.includes('/v1/') && OPEN_URL.test(url)) return open.fetch(request, server)
      let principal: Principal | Promise<Principal>
      try {
        principal = identify(request.headers)
      } catch (error) {
        return refuse(request, error)
      }
      return principal instanceof Promise
        ? later(request, server, principal)
        : routes.fetch(request, server, principal)
    },
  }
}

function pathOf(url: string): string {
  return URL.parse(url)?.pathname ?? '/'
}
