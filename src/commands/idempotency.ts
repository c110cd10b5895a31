/**
 * What a producer's retry is recognised by: a digest of the tenant and the key it chose, and a fingerprint of what it sent.
 *
 * Equal digests with other fingerprints are a key used twice for different commands, which is refused wherever the second
 * one would go. Both are cut from SHA-256, so a record in Redis has a fixed size and shows neither key nor payload.
 */
import type { Tenant } from '../contracts/tenant.ts'
import { tenantLabel } from '../redis/command-id.ts'
import type { IdempotencyMark } from '../redis/command-log.ts'

const DIGEST_BYTES = 16
const FINGERPRINT_BYTES = 8

/** 8 bytes over the command's type, the content type and the body exactly as sent. */
export function fingerprintOf(type: string, contentType: string, body: string | Uint8Array): Buffer {
  const hasher = new Bun.CryptoHasher('sha256')
  hasher.update(`${type}\0${contentType}\0`)
  hasher.update(body)
  return hasher.digest().subarray(0, FINGERPRINT_BYTES)
}

export function idempotencyMark(tenant: Tenant, key: string, fingerprint: Buffer): IdempotencyMark {
  const hasher = new Bun.CryptoHasher('sha256')
  hasher.update(`${tenantLabel(tenant)}\0${key}`)
  return { digest: hasher.digest().subarray(0, DIGEST_BYTES), fingerprint }
}
