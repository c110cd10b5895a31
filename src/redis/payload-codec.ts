/**
 * The bytes of a payload.
 *
 * Plain data is JSON, which Bun writes and reads in two thirds of the time of msgpack, for a fifth more bytes of the
 * benchmark's command. Where it is long, the shorter of the two is taken: numbers may take twice as much as text.
 * What JSON would change (dates, bytes, whole numbers beyond 2^53 as bigint, `undefined`) is msgpack.
 */
import { Packr } from 'msgpackr/pack'

export const CODEC_MSGPACK = 1
const CODEC_JSON = 2

/** Beyond this, msgpack is tried beside JSON. */
const JSON_BYTES_UNASKED = 2048

/** UTF-8 bytes of a UTF-16 unit. */
const UNIT_BYTES_MAX = 3

const packr = new Packr({ useRecords: false, moreTypes: false })

export function isCodec(codec: number | undefined): codec is number {
  return codec === CODEC_MSGPACK || codec === CODEC_JSON
}

/** msgpack, without record extensions. */
export function packPayload(payload: unknown): Buffer {
  return packr.pack(payload)
}

/** JSON's text, or msgpack's bytes. */
export type EncodedPayload = string | Buffer

/** In the codec that suits it. */
export function encodePayload(payload: unknown): EncodedPayload {
  if (!isJson(payload)) return packPayload(payload)
  const text = JSON.stringify(payload)
  if (text.length * UNIT_BYTES_MAX <= JSON_BYTES_UNASKED) return text
  const textBytes = Buffer.byteLength(text)
  if (textBytes <= JSON_BYTES_UNASKED) return text
  const packed = packPayload(payload)
  return packed.length < textBytes ? packed : text
}

export function codecOf(encoded: EncodedPayload): number {
  return typeof encoded === 'string' ? CODEC_JSON : CODEC_MSGPACK
}

export function payloadBytes(encoded: EncodedPayload): number {
  return typeof encoded === 'string' ? Buffer.byteLength(encoded) : encoded.length
}

/** Not less than `payloadBytes`, and known without a look at a short text. */
export function payloadBytesMax(encoded: EncodedPayload): number {
  if (typeof encoded !== 'string') return encoded.length
  const most = encoded.length * UNIT_BYTES_MAX
  return most <= JSON_BYTES_UNASKED ? most : Buffer.byteLength(encoded)
}

/** Where it ends. */
export function writePayload(out: Buffer, at: number, encoded: EncodedPayload): number {
  return at + (typeof encoded === 'string' ? out.write(encoded, at) : encoded.copy(out, at))
}

export function unpackPayload(bytes: Buffer): unknown {
  return packr.unpack(bytes)
}

/** Without a view of its own, which costs as much as decoding a small payload. */
export function readPayload(codec: number, bytes: Buffer, from: number): unknown {
  if (codec === CODEC_JSON) return JSON.parse(bytes.toString('utf8', from))
  return packr.unpack(bytes, { start: from, end: bytes.length })
}

/** Deeper data is no worse, but not looked through. */
const JSON_DEPTH_MAX = 32

/** True for data that comes back from JSON as it does from msgpack. */
function isJson(value: unknown, depth = JSON_DEPTH_MAX): boolean {
  if (typeof value === 'string' || typeof value === 'boolean' || value === null) return true
  if (typeof value === 'number') return Number.isFinite(value)
  return typeof value === 'object' && depth > 0 && holdsJson(value, depth - 1)
}

function holdsJson(value: object, depth: number): boolean {
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) if (!isJson(value[i], depth)) return false
    return true
  }
  if (Object.getPrototypeOf(value) !== Object.prototype) return false
  for (const key in value) {
    if (key === '__proto__' || !isJson((value as Record<string, unknown>)[key], depth)) return false
  }
  return true
}
