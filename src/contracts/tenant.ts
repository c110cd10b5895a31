/** Tenants: who data belongs to. A tenant's name becomes part of Redis keys, so its alphabet is closed. */

/** A name, or `NO_TENANT`. */
export type Tenant = string

/** Of everything that belongs to no tenant. */
export const NO_TENANT: Tenant = ''

const TENANT_NAME = /^[a-z0-9][a-z0-9-]{0,62}$/

/** 1-63 characters of a-z, 0-9 and "-", starting with a letter or digit. */
export function isTenantName(value: unknown): value is string {
  return typeof value === 'string' && TENANT_NAME.test(value)
}
