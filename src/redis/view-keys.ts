/**
 * View keys as Redis has them. One without tenant is its UTF-8 bytes. One of a tenant is the byte 0xff, which no UTF-8 text
 * holds, then `<tenant>/<key>`: so it is no key without tenant and none of another, and in byte order the keys of a tenant stand
 * together, behind all that have none.
 */
import { isOfTenant, withMark, withoutMark } from '../policies/scoped-key.ts'

const TENANT_BYTE: Buffer = Buffer.from([0xff])

/** From the form that `policies/scoped-key.ts` describes. */
export function storedKey(scoped: string): string | Buffer {
  return isOfTenant(scoped) ? Buffer.concat([TENANT_BYTE, Buffer.from(withoutMark(scoped))]) : scoped
}

/** The way back. */
export function keyFromStored(stored: Uint8Array): string {
  const bytes = Buffer.from(stored.buffer, stored.byteOffset, stored.length)
  return bytes[0] === TENANT_BYTE[0] ? withMark(bytes.toString('utf8', 1)) : bytes.toString('utf8')
}
