/** Bytes to a port and back, for requests that `fetch` would mend or refuse to send. */
import { connect, type Socket } from 'node:net'

export interface RawAnswer {
  readonly status: number
  readonly head: string
  readonly body: string
}

export class RawConnection implements Disposable {
  readonly closed: Promise<void>
  readonly #socket: Socket
  #received = ''
  #isClosed = false
  #isHead = false
  #wake: (() => void) | undefined

  constructor(port: number) {
    this.#socket = connect(port, '127.0.0.1')
    this.#socket.on('error', () => undefined)
    this.#socket.on('data', (bytes) => {
      this.#received += bytes.toString('latin1')
      this.#wake?.()
    })
    this.closed = new Promise((resolve) => {
      this.#socket.on('close', () => {
        this.#isClosed = true
        this.#wake?.()
        resolve()
      })
    })
  }

  /** One character is one byte. */
  send(text: string): this {
    this.#isHead = text.startsWith('HEAD ')
    this.#socket.write(Buffer.from(text, 'latin1'))
    return this
  }

  /** The next answer; undefined when the connection closes without one. */
  async answer(): Promise<RawAnswer | undefined> {
    for (;;) {
      const found = this.#take()
      if (found !== undefined || this.#isClosed) return found
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  #take(): RawAnswer | undefined {
    const end = this.#received.indexOf('\r\n\r\n')
    if (end < 0) return undefined
    const head = this.#received.slice(0, end)
    const length = this.#isHead ? 0 : Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0)
    const body = this.#received.slice(end + 4, end + 4 + length)
    if (body.length < length) return undefined
    this.#received = this.#received.slice(end + 4 + length)
    return { status: Number(head.slice(9, 12)), head, body }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy()
  }
}

/** One request on a connection of its own. */
export async function rawExchange(port: number, text: string): Promise<RawAnswer | undefined> {
  using connection = new RawConnection(port)
  return await connection.send(text).answer()
}
