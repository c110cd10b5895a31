/**
 * Keeps pages of other sites away from a listener without credentials. A browser on the same machine or network reaches it on
 * behalf of any page that it shows: a form may POST here without asking first, and a name that is pointed at 127.0.0.1 (DNS
 * rebinding) may even read the answers. Programs send none of these headers and name the address that they connect to.
 */
import type { MiddlewareHandler } from 'hono'
import type { Answers } from './answers.ts'
import type { HttpEnv } from './http-env.ts'
import { HttpMistake } from './problem.ts'

/** What a browser says about who asks (Fetch Metadata); `none` is a person who typed the address. */
const OWN_SITES: ReadonlySet<string> = new Set(['same-origin', 'none'])
/** An address, or the one name that no foreign name server answers for. */
const LOCAL_HOST = /^(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:.]+\]|localhost)(?::\d{1,5})?$/i

/** `isLocal`: the listener can be reached from this machine only, so a request that names another host was led here. */
export function ownPagesOnly(answers: Answers, isLocal: boolean): MiddlewareHandler<HttpEnv> {
  return async (c, next) => {
    const { headers } = c.req.raw
    const host = headers.get('host') ?? 'localhost'
    const site = headers.get('sec-fetch-site')
    const origin = headers.get('origin')
    const isForeign =
      (site !== null && !OWN_SITES.has(site)) ||
      (origin !== null && origin.replace(/^https?:\/\//, '') !== host) ||
      (isLocal && !LOCAL_HOST.test(host))
    if (!isForeign) return await next()
    const detail =
      'This listener answers programs and its own pages; the request comes from a page of another site, or names a host that is not this machine.'
    return answers.refuse(c, 'foreign-page', new HttpMistake('foreign-page', detail))
  }
}
