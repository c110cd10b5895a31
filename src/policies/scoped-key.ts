/**
 * Keys of tenants as a process holds them: a key without tenant is itself; with one, its tenant stands before it, behind a
 * second half of a surrogate pair. No text that was read from bytes begins with one, nor does any that is well formed (with a first
 * half many do), so no key can be taken for one of a tenant, whatever is in it. Where keys are stored as bytes,
 * `redis/view-keys.ts` has their form.
 */
import { NO_TENANT, type Tenant } from '../contracts/tenant.ts'

const MARK = '\udc00'

/** `key` is well formed, and `tenant` a name or none. */
export function scopedKey(tenant: Tenant, key: string): string {
  return tenant === NO_TENANT ? key : `${MARK}${tenant}/${key}`
}

export function isOfTenant(scoped: string): boolean {
  return scoped.startsWith(MARK)
}

/** What stands behind the mark: `<tenant>/<key>`. */
export function withoutMark(scoped: string): string {
  return scoped.slice(MARK.length)
}

export function withMark(text: string): string {
  return MARK + text
}
