/**
 * New entries, written one behind the other into large buffers, each behind its length as `append.lua` takes them.
 *
 *   [ length | entry ][ length | entry ][ length | entry ] … room
 *
 * What was written together mostly goes to Redis together, and then as it lies here: without a buffer of its own for each, and
 * without being copied into one. A buffer is never written over; it goes when the last entry in it has been sent.
 */
import { type Envelope, measureHeader, writeEntry } from './entry-codec.ts'
import { encodePayload, payloadBytesMax } from './payload-codec.ts'

/** An entry where it was written, its length before it. */
export interface LyingEntry {
  readonly slab: Buffer
  readonly from: number
  readonly payloadAt: number
  readonly to: number
}

const SLAB_BYTES = 64 * 1024
const LENGTH_BYTES = 4

export class EntrySlab {
  #slab: Buffer = Buffer.alloc(0)
  #end = 0

  /**
   * @throws MillraceError `command.invalid` when the key is longer than 255 bytes; what msgpack throws for a payload it can't
   * pack
   */
  write(envelope: Envelope, payload: unknown): LyingEntry {
    const encoded = encodePayload(payload)
    const header = measureHeader(envelope)
    this.#makeRoom(LENGTH_BYTES + header.bytes + payloadBytesMax(encoded))
    const slab = this.#slab
    const from = this.#end + LENGTH_BYTES
    const to = writeEntry(slab, from, envelope, header, encoded)
    slab.writeUInt32BE(to - from, this.#end)
    this.#end = to
    return { slab, from, payloadAt: from + header.bytes, to }
  }

  #makeRoom(bytes: number): void {
    if (this.#end + bytes <= this.#slab.length) return
    this.#slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, bytes))
    this.#end = 0
  }
}

export function bytesOf({ slab, from, to }: LyingEntry): Buffer {
  return slab.subarray(from, to)
}

/** The entries with their lengths, in order, as one value. */
export function joinEntries(entries: readonly LyingEntry[]): Buffer {
  const runs: Buffer[] = []
  for (let i = 0; i < entries.length; ) {
    const { slab, from } = entries[i] as LyingEntry
    let { to } = entries[i] as LyingEntry
    for (i += 1; i < entries.length; i++) {
      const next = entries[i] as LyingEntry
      if (next.slab !== slab || next.from !== to + LENGTH_BYTES) break
      to = next.to
    }
    runs.push(slab.subarray(from - LENGTH_BYTES, to))
  }
  return runs.length === 1 && runs[0] !== undefined ? runs[0] : Buffer.concat(runs)
}
