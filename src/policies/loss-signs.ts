/**
 * Whether a stream is still the one that was there before. Redis counts what was ever added to a stream; a count that falls,
 * or a stream that is gone, is one that somebody deleted, flushed or evicted, or that a server has lost.
 */
export class LossSigns {
  readonly #added = new Map<string, number>()

  /** `added` is undefined without a stream. True when what was there is gone. */
  observe(stream: string, added: number | undefined): boolean {
    const before = this.#added.get(stream)
    if (added === undefined) this.#added.delete(stream)
    else this.#added.set(stream, added)
    return before !== undefined && (added ?? -1) < before
  }
}
