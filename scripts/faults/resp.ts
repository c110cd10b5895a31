/**
 * Reads just enough of the Redis protocol to tell requests and replies apart in a stream of bytes: where each one begins and
 * ends, and what a request asks for. RESP2, as the product speaks it.
 */

/** A part of a chunk that belongs to one request or reply. */
export interface Frame {
  /** In the chunk; 0 when it began in an earlier one. */
  readonly start: number
  /** After its last byte in the chunk. */
  readonly end: number
  /** True when it began in this chunk. */
  readonly begins: boolean
  readonly complete: boolean
  /** The first three words of a request; what was seen of them so far. */
  readonly words: readonly string[]
}

const WORDS_KEPT = 3
const WORD_BYTES_KEPT = 64 * 1024

/** Cuts a stream of bytes into frames. Requests and replies have the same grammar. */
export class FrameScanner {
  /** Bytes of a header line that was cut by the end of a chunk. */
  #line = ''
  /** Bytes of a bulk string that are still to come, its line end included. */
  #bulk = 0
  /** Values that are still to come in the frame. */
  #values = 0
  #words: string[] = []
  /** The bulk string that is being read, while its words are kept. */
  #word: string | undefined

  scan(chunk: Buffer): Frame[] {
    const frames: Frame[] = []
    let [start, at] = [0, 0]
    let begins = this.#values === 0 && this.#line === ''
    while (at < chunk.length) {
      if (this.#values === 0 && this.#line === '') {
        start = at
        begins = true
        this.#values = 1
        this.#words = []
      }
      at = this.#bulk > 0 ? this.#readBulk(chunk, at) : this.#readLine(chunk, at)
      if (this.#values === 0) {
        frames.push({ start, end: at, begins, complete: true, words: this.#words })
        start = at
      }
    }
    if (start < chunk.length) {
      frames.push({ start, end: chunk.length, begins, complete: false, words: [...this.#words] })
    }
    return frames
  }

  #readBulk(chunk: Buffer, from: number): number {
    const end = Math.min(chunk.length, from + this.#bulk)
    if (this.#word !== undefined) this.#word += chunk.toString('latin1', from, end)
    this.#bulk -= end - from
    if (this.#bulk > 0) return end
    if (this.#word !== undefined) this.#words.push(this.#word.slice(0, -2))
    this.#word = undefined
    this.#values -= 1
    return end
  }

  #readLine(chunk: Buffer, from: number): number {
    const newline = chunk.indexOf(10, from)
    const end = newline < 0 ? chunk.length : newline + 1
    this.#line += chunk.toString('latin1', from, end)
    if (newline < 0) return end
    const line = this.#line
    this.#line = ''
    const count = Number(line.slice(1))
    if (line.startsWith('*')) this.#values += Math.max(0, count) - 1
    else if (line.startsWith('$') && count >= 0) {
      this.#bulk = count + 2
      if (this.#words.length < WORDS_KEPT && count <= WORD_BYTES_KEPT) this.#word = ''
    } else this.#values -= 1
    return end
  }
}
