/**
 * The Idempotency-Key header (IETF draft-ietf-httpapi-idempotency-key-header): a quoted structured string (RFC 8941), or a
 * bare token; at most 255 printable ASCII characters. Quoted and bare, the same characters are the same key.
 */
import { MillraceError } from '../contracts/errors.ts'

const CHARS_MAX = 255
const BARE = /^[\x21\x23-\x5b\x5d-\x7e]+$/
const QUOTED = /^"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"$/

/** @throws MillraceError `command.malformed` */
export function parseIdempotencyKey(header: string): string {
  const key = BARE.test(header) ? header : QUOTED.exec(header)?.[1]?.replace(/\\(["\\])/g, '$1')
  if (key !== undefined && key.length > 0 && key.length <= CHARS_MAX) return key
  throw new MillraceError(
    'command.malformed',
    `Idempotency-Key must be a quoted string, or a token without spaces, of 1-${CHARS_MAX} printable ASCII characters.`,
  )
}

/**
 * The same rule for a key outside a header, which needs no quotes.
 *
 * @throws MillraceError `command.invalid`
 */
export function checkIdempotencyKey(value: unknown): string {
  if (
    typeof value === 'string' &&
    value.length > 0 &&
    value.length <= CHARS_MAX &&
    /^[\x20-\x7e]+$/.test(value)
  )
    return value
  throw new MillraceError('command.invalid', '"idempotencyKey" must be 1-255 printable ASCII characters.')
}
