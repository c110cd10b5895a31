/**
 * Who asks: a credential as routes, limits and logs see it. It holds nothing secret and never changes; a revoked credential
 * gives no principal any more.
 */
import { NO_TENANT, type Tenant } from './tenant.ts'

/** What a credential may be allowed. All but `admin` can be restricted to streams, or projections for views. */
export const VERBS = ['commands:write', 'commands:read', 'views:read', 'events:read', 'admin'] as const
export type Verb = (typeof VERBS)[number]

export interface Principal {
  /** Public id of the credential, safe for logs and as a name in limits: `[a-z0-9:]`, at most 40 characters; '' for nobody. */
  readonly credential: string
  /** Whom the request is for. */
  readonly tenant: Tenant
  /**
   * True when it may do this to a stream (to a projection, for views). Undefined stands for a name that may be any: then
   * only a credential without restriction may.
   */
  allows(verb: Verb, name: string | undefined): boolean
  /** True when it may do this to one stream or projection at least. */
  allowsSome(verb: Verb): boolean
}

/** Everybody, on a listener that asks for no credentials. */
export const ANYBODY: Principal = {
  credential: '',
  tenant: NO_TENANT,
  allows: () => true,
  allowsSome: () => true,
}
