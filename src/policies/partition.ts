/** Which partition a key belongs to: xxHash32 of its UTF-8 bytes, modulo the number of partitions. Never changes. */
export function partitionOf(key: string | Uint8Array, partitions: number): number {
  return partitions === 1 ? 0 : Bun.hash.xxHash32(key) % partitions
}
