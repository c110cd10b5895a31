/**
 * Secrets as they are kept: only their SHA-256. A secret of 256 random bits can't be found by trying, so nothing slower is
 * needed, and a request costs a tenth of a microsecond. Digests are compared without telling by the time it takes how much agrees.
 */
import { timingSafeEqual } from 'node:crypto'

const DIGEST_BYTES = 32
const presented = Buffer.alloc(DIGEST_BYTES)
/** Compared with where there is nothing, so that an unknown id takes as long as a wrong secret. No secret has it. */
const NONE = Buffer.alloc(DIGEST_BYTES)

export function digestOf(secret: string): Buffer {
  const digest = Buffer.alloc(DIGEST_BYTES)
  Bun.SHA256.hash(secret, digest)
  return digest
}

/** Index of the digest that the secret has, or -1. All of them are compared, whichever is right. */
export function findDigest(
  secret: string,
  digests: readonly Buffer[],
  same: typeof timingSafeEqual = timingSafeEqual,
): number {
  Bun.SHA256.hash(secret, presented)
  let found = -1
  for (let i = 0; i < digests.length; i++) {
    if (same(presented, digests[i] ?? NONE)) found = i
  }
  if (digests.length === 0) same(presented, NONE)
  return found
}
