/**
 * Which partition a key belongs to: xxHash32 of its UTF-8 bytes, modulo the number of partitions. Never changes. The same key
 * of another tenant is another key: the hash of the tenant's name is its seed.
 */
import { NO_TENANT, type Tenant } from '../contracts/tenant.ts'

export function partitionOf(
  key: string | Uint8Array,
  partitions: number,
  tenant: Tenant = NO_TENANT,
): number {
  if (partitions === 1) return 0
  const hash =
    tenant === NO_TENANT ? Bun.hash.xxHash32(key) : Bun.hash.xxHash32(key, Bun.hash.xxHash32(tenant))
  return hash % partitions
}
