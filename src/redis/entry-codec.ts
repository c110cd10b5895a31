/**
 * The bytes of one command or event: a small binary header, then the payload.
 *
 *   0      format version: 1, or 2 with a deadline
 *   1      payload codec: 1 msgpack, 2 JSON
 *   2      flags: 1 key, 2 trace, 4 tick, 8 trail, 16 deadline, 32 tenant, 64 origin
 *   3-4    payload version
 *   5-10   time in ms: accepted (command) or emitted (event)
 *   11     length of type, type (latin1)
 *   …      tenant: length (1 byte), latin1 · key: length (1 byte), UTF-8 · trace: 25 bytes · tick: 6 bytes · deadline: 6 bytes ·
 *          trail: length (2 bytes), msgpack · origin: length (2 bytes), msgpack
 *   …      payload
 *
 * A version that knows no deadlines would run what has expired, so an entry with one is of a format that it refuses to read
 * and leaves to others. Flags from the future are refused for the same reason: a version that knows no tenants never runs a
 * command of one as if it had none. An entry without tenant is, byte for byte, what it was before there were any.
 *
 * One blob field beats separate fields by half in memory. An entry carries its own time because an entry id follows the
 * server's clock.
 */
import type { DeadReason } from '../contracts/dead-reason.ts'
import { MillraceError } from '../contracts/errors.ts'
import { NO_TENANT, type Tenant } from '../contracts/tenant.ts'
import {
  CODEC_MSGPACK,
  codecOf,
  type EncodedPayload,
  encodePayload,
  isCodec,
  packPayload,
  payloadBytes,
  readPayload,
  unpackPayload,
  writePayload,
} from './payload-codec.ts'

const FORMAT = 1
const FORMAT_DEADLINE = 2
const HEADER_BYTES = 12
const FLAG_KEY = 1
const FLAG_TRACE = 2
const FLAG_TICK = 4
const FLAG_TRAIL = 8
const FLAG_DEADLINE = 16
const FLAG_TENANT = 32
const FLAG_ORIGIN = 64
const FLAGS_KNOWN = 127
const KEY_BYTES_MAX = 255
const TRACE_BYTES = 25
const NO_PAYLOAD = Buffer.alloc(0)

/** One failed run of a command. */
export interface FailedAttempt {
  readonly attempt: number
  readonly atMs: number
  readonly error: string
}

/** What a command has been through; absent on its first run. */
export interface Trail {
  /** Runs that counted so far. */
  readonly attempts: number
  /** Crash level carried into copies. */
  readonly level: number
  readonly redrives: number
  /** Newest last, at most `TRAIL_FAILURES_MAX`; the first failure is always kept. */
  readonly failures: readonly FailedAttempt[]
  /** When the first worker met it without knowing its type or version (ms); for the alarm. */
  readonly unknownSinceMs?: number
  /** Why it is a dead letter; only on one. */
  readonly reason?: DeadReason
}

export const EMPTY_TRAIL: Trail = Object.freeze({
  attempts: 0,
  level: 0,
  redrives: 0,
  failures: Object.freeze([]),
})
export const TRAIL_FAILURES_MAX = 20

export interface Envelope {
  readonly type: string
  readonly version: number
  /** Wall clock of who wrote it, ms since 1970. */
  readonly atMs: number
  readonly key: string
  /** Absent: none. */
  readonly tenant?: Tenant
  readonly trace: Buffer | undefined
  readonly tickMs: number | undefined
  /** From this moment on it must not be started, ms since 1970 by Redis's clock. */
  readonly expiresAtMs?: number | undefined
  readonly trail: Trail | undefined
  /** The context of the CloudEvent that it came as, in msgpack. */
  readonly origin?: Buffer | undefined
}

/**
 * An entry with a payload in msgpack.
 *
 * @throws MillraceError `command.invalid` when the key is longer than 255 bytes
 */
export function encodeEntry(envelope: Envelope, payload: Buffer): Buffer {
  return join(envelope, CODEC_MSGPACK, payload)
}

/** The same payload, as it is stored, in another envelope. */
export function encodeCopy(entry: Entry, changes: Partial<Envelope>): Buffer {
  return join({ ...entry, ...changes }, entry.codec, payloadOf(entry))
}

/** What stands before the payload of such a copy. */
export function encodeCopyHead(entry: Entry, changes: Partial<Envelope>): Buffer {
  return join({ ...entry, ...changes }, entry.codec, NO_PAYLOAD)
}

function join(envelope: Envelope, codec: number, payload: Buffer): Buffer {
  const header = measureHeader(envelope)
  const out = Buffer.allocUnsafe(header.bytes + payload.length)
  writeHeader(out, 0, envelope, codec, header)
  payload.copy(out, header.bytes)
  return out
}

/** A new entry; the payload follows its header. */
export interface PackedEntry {
  readonly blob: Buffer
  readonly headerBytes: number
}

/**
 * Packs the payload behind its header, in the codec that suits it.
 *
 * @throws MillraceError `command.invalid` when the key is longer than 255 bytes; what msgpack throws for a payload it can't
 * pack
 */
export function packEntry(envelope: Envelope, payload: unknown): PackedEntry {
  const header = measureHeader(envelope)
  const encoded = encodePayload(payload)
  const blob = Buffer.allocUnsafe(header.bytes + payloadBytes(encoded))
  writeEntry(blob, 0, envelope, header, encoded)
  return { blob, headerBytes: header.bytes }
}

/** Where it ends. The room must be there. */
export function writeEntry(
  out: Buffer,
  at: number,
  envelope: Envelope,
  header: HeaderMeasure,
  encoded: EncodedPayload,
): number {
  writeHeader(out, at, envelope, codecOf(encoded), header)
  return writePayload(out, at + header.bytes, encoded)
}

export interface HeaderMeasure {
  readonly bytes: number
  readonly keyBytes: number
  readonly trailBytes: Buffer | undefined
}

export function measureHeader({
  type,
  key,
  tenant = NO_TENANT,
  trace,
  tickMs,
  expiresAtMs,
  trail,
  origin,
}: Envelope): HeaderMeasure {
  const keyBytes = key === '' ? 0 : Buffer.byteLength(key)
  if (keyBytes > KEY_BYTES_MAX) {
    throw new MillraceError(
      'command.invalid',
      `The key of "${type}" has ${keyBytes} bytes; at most 255 are allowed.`,
    )
  }
  const trailBytes = trail === undefined ? undefined : packPayload(trail)
  let bytes = HEADER_BYTES + type.length
  if (tenant !== NO_TENANT) bytes += 1 + tenant.length
  if (keyBytes > 0) bytes += 1 + keyBytes
  if (trace !== undefined) bytes += TRACE_BYTES
  if (tickMs !== undefined) bytes += 6
  if (expiresAtMs !== undefined) bytes += 6
  if (trailBytes !== undefined) bytes += 2 + trailBytes.length
  if (origin !== undefined) bytes += 2 + origin.length
  return { bytes, keyBytes, trailBytes }
}

function writeHeader(
  out: Buffer,
  from: number,
  envelope: Envelope,
  codec: number,
  { keyBytes, trailBytes }: HeaderMeasure,
): void {
  const { type, key, tenant = NO_TENANT, trace, tickMs, expiresAtMs, origin } = envelope
  out[from] = expiresAtMs === undefined ? FORMAT : FORMAT_DEADLINE
  out[from + 1] = codec
  out[from + 2] =
    (keyBytes > 0 ? FLAG_KEY : 0) |
    (trace === undefined ? 0 : FLAG_TRACE) |
    (tickMs === undefined ? 0 : FLAG_TICK) |
    (expiresAtMs === undefined ? 0 : FLAG_DEADLINE) |
    (tenant === NO_TENANT ? 0 : FLAG_TENANT) |
    (trailBytes === undefined ? 0 : FLAG_TRAIL) |
    (origin === undefined ? 0 : FLAG_ORIGIN)
  writeWhole(out, from + 3, 2, envelope.version)
  writeWhole(out, from + 5, 6, envelope.atMs)
  out[from + 11] = type.length
  let at = from + HEADER_BYTES
  for (let i = 0; i < type.length; i++) out[at + i] = type.charCodeAt(i)
  at += type.length
  if (tenant !== NO_TENANT) {
    out[at] = tenant.length
    at += 1
    for (let i = 0; i < tenant.length; i++) out[at + i] = tenant.charCodeAt(i)
    at += tenant.length
  }
  if (keyBytes > 0) {
    out[at] = keyBytes
    at += 1 + out.write(key, at + 1, 'utf8')
  }
  if (trace !== undefined) at += trace.copy(out, at)
  if (tickMs !== undefined) at = writeWhole(out, at, 6, tickMs)
  if (expiresAtMs !== undefined) at = writeWhole(out, at, 6, expiresAtMs)
  if (trailBytes !== undefined) {
    at = writeWhole(out, at, 2, trailBytes.length)
    at += trailBytes.copy(out, at)
  }
  if (origin !== undefined) {
    at = writeWhole(out, at, 2, origin.length)
    origin.copy(out, at)
  }
}

/** A decoded entry. The payload is decoded on demand: settling or moving an entry never needs it. */
export interface Entry extends Envelope {
  /** '' none. */
  readonly tenant: Tenant
  /** Of the payload. */
  readonly codec: number
  /** The whole entry, and where in it the payload begins. */
  readonly bytes: Buffer
  readonly payloadAt: number
}

/** The payload's bytes, a view into the entry. */
export function payloadOf({ bytes, payloadAt }: Entry): Buffer {
  return bytes.subarray(payloadAt)
}

export function unpackPayloadOf({ bytes, codec, payloadAt }: Entry): unknown {
  return readPayload(codec, bytes, payloadAt)
}

/** @throws MillraceError `entry.unreadable` for a format or codec that this version does not know */
export function decodeEntry(bytes: Buffer): Entry {
  const [format, codec, flags = 0] = bytes
  const isKnown = format === FORMAT || format === FORMAT_DEADLINE
  if (bytes.length < HEADER_BYTES || !isKnown || !isCodec(codec) || (flags & ~FLAGS_KNOWN) !== 0) {
    throw new MillraceError(
      'entry.unreadable',
      `Entry of format ${format}, codec ${codec}, flags ${flags} is not readable by this version; run a newer worker.`,
    )
  }
  const typeEnd = HEADER_BYTES + (bytes[11] ?? 0)
  let at = typeEnd
  let tenant = NO_TENANT
  let key = ''
  let trace: Buffer | undefined
  let tickMs: number | undefined
  let expiresAtMs: number | undefined
  let trail: Trail | undefined
  let origin: Buffer | undefined
  if ((flags & FLAG_TENANT) !== 0) {
    const end = at + 1 + (bytes[at] ?? 0)
    tenant = readTenant(bytes, at + 1, end)
    at = end
  }
  if ((flags & FLAG_KEY) !== 0) {
    const end = at + 1 + (bytes[at] ?? 0)
    key = bytes.toString('utf8', at + 1, end)
    at = end
  }
  if ((flags & FLAG_TRACE) !== 0) {
    trace = bytes.subarray(at, at + TRACE_BYTES)
    at += TRACE_BYTES
  }
  if ((flags & FLAG_TICK) !== 0) {
    tickMs = readWhole(bytes, at, 6)
    at += 6
  }
  if ((flags & FLAG_DEADLINE) !== 0) {
    expiresAtMs = readWhole(bytes, at, 6)
    at += 6
  }
  if ((flags & FLAG_TRAIL) !== 0) {
    const end = at + 2 + bytes.readUInt16BE(at)
    trail = unpackPayload(bytes.subarray(at + 2, end)) as Trail
    at = end
  }
  if ((flags & FLAG_ORIGIN) !== 0) {
    const end = at + 2 + bytes.readUInt16BE(at)
    origin = bytes.subarray(at + 2, end)
    at = end
  }
  return {
    type: readType(bytes, typeEnd),
    version: readWhole(bytes, 3, 2),
    atMs: readWhole(bytes, 5, 6),
    key,
    tenant,
    trace,
    tickMs,
    expiresAtMs,
    trail,
    origin,
    codec,
    bytes,
    payloadAt: at,
  }
}

let typeSeen = ''

/** Entries in a row are mostly of one type: to compare its letters is cheaper than to make a text of them each time. */
function readType(bytes: Buffer, end: number): string {
  if (!spells(bytes, HEADER_BYTES, end, typeSeen)) typeSeen = bytes.toString('latin1', HEADER_BYTES, end)
  return typeSeen
}

/** Of an entry that is passed on without being read. */
export function tenantOfEntry(bytes: Buffer): Tenant {
  if (((bytes[2] ?? 0) & FLAG_TENANT) === 0) return NO_TENANT
  const at = HEADER_BYTES + (bytes[11] ?? 0)
  return readTenant(bytes, at + 1, Math.min(bytes.length, at + 1 + (bytes[at] ?? 0)))
}

let tenantSeen = ''

function readTenant(bytes: Buffer, from: number, end: number): Tenant {
  if (!spells(bytes, from, end, tenantSeen)) tenantSeen = bytes.toString('latin1', from, end)
  return tenantSeen
}

function spells(bytes: Buffer, from: number, end: number, text: string): boolean {
  let same = end - from === text.length
  for (let i = 0; same && i < text.length; i++) same = bytes[from + i] === text.charCodeAt(i)
  return same
}

/** Unsigned whole numbers, most significant byte first; compiled code, unlike Buffer's own. */
function writeWhole(out: Buffer, from: number, length: number, value: number): number {
  let rest = value
  for (let at = from + length - 1; at >= from; at--) {
    const higher = Math.floor(rest / 256)
    out[at] = rest - higher * 256
    rest = higher
  }
  return from + length
}

function readWhole(bytes: Buffer, from: number, length: number): number {
  let value = 0
  for (let at = from; at < from + length; at++) value = value * 256 + (bytes[at] ?? 0)
  return value
}

/** Packs a W3C traceparent into 25 bytes, or undefined when it is not a valid one. */
export function packTrace(traceparent: string): Buffer | undefined {
  const match = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(traceparent)
  if (match === null) return undefined
  return Buffer.from(`${match[1]}${match[2]}${match[3]}`, 'hex')
}

export function unpackTrace(bytes: Buffer): string {
  const hex = bytes.toString('hex')
  return `00-${hex.slice(0, 32)}-${hex.slice(32, 48)}-${hex.slice(48, 50)}`
}
