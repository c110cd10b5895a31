/**
 * Lists of strings and bytes as one argument of a script, which reads it with `cmsgpack.unpack`. Redis's cmsgpack knows no
 * binary type, so bytes are written as what msgpack first called raw: lengths of four bytes, whatever stands behind.
 */

const ARRAY_32 = 0xdd
const RAW_32 = 0xdb
/** Of a list and of an item. */
const HEADER_BYTES = 5
/** UTF-8 bytes of a UTF-16 unit. */
const UNIT_BYTES_MAX = 3

/** msgpack of a list of lists. */
export function packLists(lists: readonly (readonly (string | Buffer)[])[]): Buffer {
  const out = Buffer.allocUnsafe(bytesMax(lists))
  let at = writeHeader(out, 0, ARRAY_32, lists.length)
  for (const list of lists) {
    at = writeHeader(out, at, ARRAY_32, list.length)
    for (const item of list) {
      const from = at + HEADER_BYTES
      const bytes = typeof item === 'string' ? out.write(item, from, 'utf8') : item.copy(out, from)
      writeHeader(out, at, RAW_32, bytes)
      at = from + bytes
    }
  }
  return out.subarray(0, at)
}

function bytesMax(lists: readonly (readonly (string | Buffer)[])[]): number {
  let bytes = HEADER_BYTES
  for (const list of lists) {
    bytes += HEADER_BYTES * (1 + list.length)
    for (const item of list) bytes += typeof item === 'string' ? item.length * UNIT_BYTES_MAX : item.length
  }
  return bytes
}

function writeHeader(out: Buffer, at: number, kind: number, count: number): number {
  out[at] = kind
  return out.writeUInt32BE(count, at + 1)
}
