/** Entries for the command log from bytes that a test made itself. */
import type { LyingEntry } from '../../src/redis/entry-slab.ts'

const LENGTH_BYTES = 4

/** Alone in a slab of its own. */
export function lyingEntry(blob: Buffer): LyingEntry {
  const slab = Buffer.alloc(LENGTH_BYTES + blob.length)
  slab.writeUInt32BE(blob.length)
  blob.copy(slab, LENGTH_BYTES)
  return { slab, from: LENGTH_BYTES, payloadAt: LENGTH_BYTES, to: slab.length }
}

export function lyingEntries(blobs: readonly Buffer[]): LyingEntry[] {
  return blobs.map(lyingEntry)
}
