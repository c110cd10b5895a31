/** A credential that was proved, before it is known for which tenant its request is. */
import type { Principal } from '../contracts/principal.ts'
import { isTenantName, NO_TENANT, type Tenant } from '../contracts/tenant.ts'
import type { Scopes } from '../policies/scopes.ts'
import { EVERY_TENANT } from '../policies/tenant-choice.ts'

export interface Credential {
  /** The tenant that it is bound to, or `*`. */
  readonly bound: Tenant | typeof EVERY_TENANT
  /** As whom it asks where the request says nothing about tenants. */
  readonly principal: Principal
}

export function makeCredential(id: string, bound: Credential['bound'], scopes: Scopes): Credential {
  // The admin listener shows every tenant's dead letters and makes keys for all: nothing for somebody who belongs to one.
  const isAdmin = !isTenantName(bound)
  const principal: Principal = {
    credential: id,
    tenant: bound === EVERY_TENANT ? NO_TENANT : bound,
    allows: (verb, name) => (verb !== 'admin' || isAdmin) && scopes.allows(verb, name),
    allowsSome: (verb) => (verb !== 'admin' || isAdmin) && scopes.allowsSome(verb),
  }
  return { bound, principal }
}

/** The same credential, for a tenant that the request chose. */
export function forTenant(principal: Principal, tenant: Tenant): Principal {
  return principal.tenant === tenant ? principal : { ...principal, tenant }
}
