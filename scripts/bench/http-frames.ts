/**
 * Answers of an HTTP/1.1 server, cut out of the bytes of one connection: enough to count them and to know when the next
 * request may go out, and nothing more, so that a load generator costs less than the server it loads.
 *
 *   head ──(blank line)──▶ body ──(content-length bytes)──▶ onAnswer(status) ──▶ head …
 *
 * An answer whose end can't be told from its head (chunked, or without a length) is a fault of the measurement and throws.
 */

const BLANK_LINE = '\r\n\r\n'
/** `HTTP/1.1 ` */
const STATUS_AT = 9
const ZERO = 48
const NO_BODY: ReadonlySet<number> = new Set([204, 304])
const LENGTH = /\r\ncontent-length: *(\d+)/i

export class HttpFrames {
  readonly #onAnswer: (status: number) => void
  /** The beginning of a head whose end has not come. */
  #partial: Buffer | undefined
  #bodyBytesLeft = 0
  #status = 0

  /** `onAnswer` is called when the last byte of an answer is there. */
  constructor(onAnswer: (status: number) => void) {
    this.#onAnswer = onAnswer
  }

  /** Takes what a read gave, wherever it begins and ends. The bytes are not kept. @throws Error for an answer without a length */
  push(received: Buffer): void {
    const partial = this.#partial
    this.#partial = undefined
    const bytes = partial === undefined ? received : Buffer.concat([partial, received])
    let at = 0
    while (at < bytes.length) {
      if (this.#bodyBytesLeft > 0) {
        const taken = Math.min(this.#bodyBytesLeft, bytes.length - at)
        at += taken
        this.#bodyBytesLeft -= taken
      } else {
        const end = bytes.indexOf(BLANK_LINE, at)
        if (end < 0) {
          this.#partial = Buffer.from(bytes.subarray(at))
          return
        }
        this.#open(bytes, at, end)
        at = end + BLANK_LINE.length
      }
      if (this.#bodyBytesLeft === 0) this.#onAnswer(this.#status)
    }
  }

  #open(bytes: Buffer, from: number, end: number): void {
    this.#status =
      digit(bytes, from + STATUS_AT) * 100 +
      digit(bytes, from + STATUS_AT + 1) * 10 +
      digit(bytes, from + STATUS_AT + 2)
    if (NO_BODY.has(this.#status)) return
    const head = bytes.toString('latin1', from, end)
    const length = LENGTH.exec(head)?.[1]
    if (length === undefined) throw new Error(`An answer does not tell its length: ${head.slice(0, 300)}`)
    this.#bodyBytesLeft = Number(length)
  }
}

function digit(bytes: Buffer, at: number): number {
  return (bytes[at] ?? 0) - ZERO
}
