/**
 * Whose request it is. Every route asks here and nowhere else, and hands the answer on to whoever does the work; it is what the
 * credential says, and what a client merely claims has been held against that before.
 */
import type { Tenant } from '../contracts/tenant.ts'
import { principalOf } from './access.ts'
import type { RouteContext } from './answers.ts'
import type { Exchange } from './direct-routes.ts'

export function tenantOf({ principal }: Pick<Exchange, 'principal'>): Tenant {
  return principal.tenant
}

/** The same in a route of Hono. */
export function tenantOfContext(c: RouteContext): Tenant {
  return principalOf(c).tenant
}
