/**
 * Whether a stream is still the one that was there before. Redis counts what was ever added to a stream; a count that falls
 * while ids go on, or a stream that is gone, is one that somebody deleted, flushed or evicted. A stream that only lacks its
 * newest entries (a crash of the server, a failover) has a smaller count and an older last id: that is told elsewhere, with the
 * range (`redis/loss-watch.ts`).
 */
export interface StreamSign {
  /** Undefined without a stream. */
  readonly added: number | undefined
  /** Of its last id, ms; 0 for a new stream. */
  readonly lastMs: number
}

export class LossSigns {
  readonly #seen = new Map<string, StreamSign & { readonly added: number }>()

  /** True when what was there is gone. */
  observe(stream: string, { added, lastMs }: StreamSign): boolean {
    const before = this.#seen.get(stream)
    if (added === undefined) this.#seen.delete(stream)
    else this.#seen.set(stream, { added, lastMs })
    if (before === undefined) return false
    // Made again, it is empty at first.
    return added === undefined || (added < before.added && (lastMs === 0 || lastMs > before.lastMs))
  }
}
