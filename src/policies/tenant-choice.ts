/**
 * For which tenant a request is: the credential's, or what a header or the host name says where the operator lets them.
 *
 * A credential that is bound never reaches another tenant, whatever the request says; only one for every tenant may choose.
 */
import { MillraceError } from '../contracts/errors.ts'
import { isTenantName, NO_TENANT, type Tenant } from '../contracts/tenant.ts'

export const TENANT_SOURCES = ['credential', 'header', 'subdomain'] as const
export type TenantSource = (typeof TENANT_SOURCES)[number]

/** A credential for every tenant. */
export const EVERY_TENANT = '*'

/** What one request says; undefined where it says nothing. */
export interface TenantClaims {
  readonly header: string | undefined
  readonly subdomain: string | undefined
}

/**
 * The tenant of a request: the first source that names one, in the order of `sources`.
 *
 * @throws MillraceError `identity.forbidden` when a bound credential is used for another tenant
 */
export function chooseTenant(
  bound: Tenant | typeof EVERY_TENANT,
  claims: TenantClaims,
  sources: readonly TenantSource[],
): Tenant {
  const claimed = sources.flatMap((source) => (source === 'credential' ? [] : (claims[source] ?? [])))
  if (bound === EVERY_TENANT) return claimed[0] ?? NO_TENANT
  if (claimed.every((tenant) => tenant === bound)) return bound
  throw new MillraceError(
    'identity.forbidden',
    'This credential belongs to another tenant than the request names.',
  )
}

/** @throws MillraceError `command.malformed` */
export function tenantFromHeader(value: string | null): string | undefined {
  if (value === null) return undefined
  if (isTenantName(value)) return value
  throw new MillraceError(
    'command.malformed',
    'Millrace-Tenant names no tenant: use 1-63 characters of a-z, 0-9 and "-".',
  )
}

/** `host[:port]`; a dot at the end is the same name. */
const HOST = /^([a-z0-9._-]+?)\.?(?::\d{1,5})?$/i

/**
 * The tenant in front of the base domain: exactly one label. Every other host says nothing.
 *
 * @throws MillraceError `command.malformed` for what is no host, such as two Host headers, and for labels that name no tenant
 */
export function tenantFromHost(host: string | null, baseDomain: string): string | undefined {
  if (host === null) return undefined
  const name = HOST.exec(host)?.[1]?.toLowerCase()
  if (name === undefined) {
    // An address in brackets is a host all the same.
    if (/^\[[0-9a-f:.]+\](?::\d{1,5})?$/i.test(host)) return undefined
    throw new MillraceError('command.malformed', 'The request needs one Host header with one host name.')
  }
  if (!name.endsWith(`.${baseDomain}`)) return undefined
  const label = name.slice(0, -baseDomain.length - 1)
  if (isTenantName(label)) return label
  throw new MillraceError(
    'command.malformed',
    'The host name names no tenant: one label of a-z, 0-9 and "-" stands before the domain.',
  )
}
