/**
 * Cursors of event tails: where a reader stands in every partition of a stream, as one short text. Whoever brings it back goes
 * on in each partition with the very next event.
 *
 * For readers it is opaque. Its bytes, as base64url:
 *
 *   0     format version, 1
 *   1-4   CRC-32 of the stream's name, the number of its partitions and all that follows
 *   5-10  the newest time in it, ms
 *   …     for each partition: 0 when nothing was read, else (newest time - its time + 1, sequence number)
 *   …     for each partition of whose last entry only a part was read: (partition, events of it)
 *
 * Whole numbers are written seven bits at a time, lowest first. A stream of one partition takes about 18 characters, each
 * further partition five to nine.
 */
import { MillraceError } from '../contracts/errors.ts'

/** A place in one partition's log. */
export interface LogPosition {
  /** The last entry that was read, `0-0` for none. */
  readonly id: string
  /** How many of its events were read; 0 for all. */
  readonly seen: number
}

const FORMAT = 1
const BASE_AT = 5
const HEADER_BYTES = 11
/** Of a whole number up to 2^53. */
const WHOLE_BYTES_MAX = 8
const CHARS_MAX = 16_384
const BASE64URL = /^[A-Za-z0-9_-]+$/

export class EventCursors {
  readonly #stream: string
  readonly #partitions: number
  readonly #seed: number
  readonly #scratch: Buffer
  /** What was encoded last, by partition, and its two numbers. */
  readonly #ids: string[] = []
  readonly #ms: Float64Array
  readonly #seq: Float64Array

  constructor(stream: string, partitions: number) {
    this.#stream = stream
    this.#partitions = partitions
    this.#seed = Bun.hash.crc32(`${stream}/${partitions}`)
    this.#ms = new Float64Array(partitions)
    this.#seq = new Float64Array(partitions)
    this.#scratch = Buffer.allocUnsafe(HEADER_BYTES + partitions * 4 * WHOLE_BYTES_MAX)
  }

  /** One position for each partition, in order. */
  encode(positions: readonly LogPosition[]): string {
    const out = this.#scratch
    const newestMs = this.#parse(positions)
    out[0] = FORMAT
    out.writeUIntBE(newestMs, BASE_AT, 6)
    let at = HEADER_BYTES
    for (let i = 0; i < positions.length; i++) {
      const [ms = 0, seq = 0] = [this.#ms[i], this.#seq[i]]
      if (ms === 0 && seq === 0) at = writeWhole(out, at, 0)
      else at = writeWhole(out, writeWhole(out, at, newestMs - ms + 1), seq)
    }
    for (const [partition, { seen }] of positions.entries()) {
      if (seen > 0) at = writeWhole(out, writeWhole(out, at, partition), seen)
    }
    out.writeUInt32BE(this.#checksum(out.subarray(BASE_AT, at)), 1)
    return out.toString('base64url', 0, at)
  }

  /** @throws MillraceError `cursor.invalid` for what is no cursor of this stream */
  decode(text: string): LogPosition[] {
    const bytes =
      text.length <= CHARS_MAX && BASE64URL.test(text) ? Buffer.from(text, 'base64url') : undefined
    if (bytes === undefined || bytes.length < HEADER_BYTES || bytes[0] !== FORMAT) throw this.#invalid()
    if (bytes.readUInt32BE(1) !== this.#checksum(bytes.subarray(BASE_AT))) throw this.#invalid()
    const newestMs = bytes.readUIntBE(BASE_AT, 6)
    const wholes = readWholes(bytes, HEADER_BYTES)
    const positions: LogPosition[] = []
    let at = 0
    const next = (): number => {
      const value = wholes[at]
      if (value === undefined || !Number.isSafeInteger(value)) throw this.#invalid()
      at += 1
      return value
    }
    for (let partition = 0; partition < this.#partitions; partition++) {
      const back = next()
      const ms = newestMs - back + 1
      if (ms < 0) throw this.#invalid()
      positions.push({ id: back === 0 ? '0-0' : `${ms}-${next()}`, seen: 0 })
    }
    while (at < wholes.length) {
      const partition = next()
      const position = positions[partition]
      if (position === undefined) throw this.#invalid()
      positions[partition] = { id: position.id, seen: next() }
    }
    return positions
  }

  /** Answers the newest time. From one event to the next the position of one partition changes: only that is read anew. */
  #parse(positions: readonly LogPosition[]): number {
    let newestMs = 0
    for (let i = 0; i < positions.length; i++) {
      const id = positions[i]?.id ?? '0-0'
      if (this.#ids[i] !== id) {
        const [ms, seq] = splitId(id)
        this.#ids[i] = id
        this.#ms[i] = ms
        this.#seq[i] = seq
      }
      newestMs = Math.max(newestMs, this.#ms[i] ?? 0)
    }
    return newestMs
  }

  #checksum(bytes: Buffer): number {
    return Bun.hash.crc32(bytes, this.#seed)
  }

  #invalid(): MillraceError {
    return new MillraceError(
      'cursor.invalid',
      `This is no cursor of the events of "${this.#stream}": give back the last "id" that a tail of this stream sent, unchanged.`,
    )
  }
}

function splitId(id: string): readonly [number, number] {
  const dash = id.indexOf('-')
  return [Number(id.slice(0, dash)), Number(id.slice(dash + 1))]
}

function writeWhole(out: Buffer, from: number, value: number): number {
  let [at, rest] = [from, value]
  while (rest >= 128) {
    out[at++] = (rest % 128) + 128
    rest = Math.floor(rest / 128)
  }
  out[at] = rest
  return at + 1
}

/** What is cut off at the end is left out, and missed by whoever counts. */
function readWholes(bytes: Buffer, from: number): number[] {
  const found: number[] = []
  let [value, weight] = [0, 1]
  for (const byte of bytes.subarray(from)) {
    value += (byte % 128) * weight
    weight *= 128
    if (byte >= 128) continue
    found.push(value)
    value = 0
    weight = 1
  }
  return found
}
