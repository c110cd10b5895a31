/** Bytes as text. JSON is UTF-8 (RFC 8259, 8.1): a byte that is not would silently become another character. */
import { MillraceError } from '../contracts/errors.ts'

const decoder = new TextDecoder('utf-8', { fatal: true })

/** @throws MillraceError `command.malformed` */
export function utf8Text(bytes: Uint8Array | ArrayBuffer): string {
  try {
    return decoder.decode(bytes)
  } catch {
    throw new MillraceError('command.malformed', 'The body is not UTF-8.')
  }
}
