/** Tenants: who data belongs to. A tenant's name becomes part of Redis keys, so its alphabet is closed. */
import { MillraceError } from './errors.ts'

/** A name, or `NO_TENANT`. */
export type Tenant = string

/** Of everything that belongs to no tenant. */
export const NO_TENANT: Tenant = ''

const TENANT_NAME = /^[a-z0-9][a-z0-9-]{0,62}$/

/** 1-63 characters of a-z, 0-9 and "-", starting with a letter or digit. */
export function isTenantName(value: unknown): value is string {
  return typeof value === 'string' && TENANT_NAME.test(value)
}

/**
 * A tenant's name, or none.
 *
 * @throws MillraceError `command.malformed`
 */
export function checkTenant(tenant: Tenant): Tenant {
  if (tenant === NO_TENANT || isTenantName(tenant)) return tenant
  throw new MillraceError(
    'command.malformed',
    'This is not a tenant name: use 1-63 characters of a-z, 0-9 and "-", starting with a letter or digit.',
  )
}
