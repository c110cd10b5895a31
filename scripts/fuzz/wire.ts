/**
 * One connection to a listener: bytes go out as they are, answers come back cut apart. It knows lengths, chunks and answers
 * without a body; interim answers are skipped, and an event stream ends with its head.
 */
import type { Socket } from 'bun'

export interface WireAnswer {
  readonly status: number
  readonly headers: ReadonlyMap<string, string>
  readonly body: Buffer
}

const NOTHING = Buffer.alloc(0)
const BLANK_LINE = '\r\n\r\n'

export class Wire {
  /** Answers so far. */
  answers = 0
  #socket: Socket | undefined
  #received: Buffer = NOTHING
  #unsent: Buffer = NOTHING
  #isClosed = false
  #wake: (() => void) | undefined

  static async open(port: number): Promise<Wire> {
    const wire = new Wire()
    wire.#socket = await Bun.connect({
      hostname: '127.0.0.1',
      port,
      socket: {
        data: (_, bytes) => {
          wire.#received =
            wire.#received.length === 0 ? Buffer.from(bytes) : Buffer.concat([wire.#received, bytes])
          wire.#wake?.()
        },
        drain: () => wire.#write(wire.#unsent),
        close: () => wire.#ended(),
        end: () => wire.#ended(),
        error: () => wire.#ended(),
      },
    })
    return wire
  }

  get isClosed(): boolean {
    return this.#isClosed
  }

  send(bytes: Buffer): void {
    this.#write(bytes)
  }

  close(): void {
    this.#isClosed = true
    this.#socket?.terminate()
  }

  /** Undefined when the connection ends, or time runs out, without one. */
  async answer(limitMs: number, isHead = false): Promise<WireAnswer | undefined> {
    const endMs = performance.now() + limitMs
    for (;;) {
      const found = this.#take(isHead)
      if (found !== undefined && found.status >= 200) {
        this.answers += 1
        return found
      }
      if (found !== undefined) continue
      if (this.#isClosed) return undefined
      const leftMs = endMs - performance.now()
      if (leftMs <= 0) return undefined
      await this.#more(leftMs)
    }
  }

  #more(limitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const late = setTimeout(resolve, limitMs)
      this.#wake = () => {
        clearTimeout(late)
        resolve()
      }
    })
  }

  #ended(): void {
    this.#isClosed = true
    this.#wake?.()
  }

  #write(bytes: Buffer): void {
    if (this.#isClosed || bytes.length === 0) return
    const written = Math.max(0, this.#socket?.write(bytes) ?? 0)
    this.#unsent = bytes.subarray(written)
  }

  #take(isHead: boolean): WireAnswer | undefined {
    const end = this.#received.indexOf(BLANK_LINE)
    if (end < 0) return undefined
    const lines = this.#received.toString('latin1', 0, end).split('\r\n')
    const status = Number(lines[0]?.slice(9, 12))
    const headers = new Map<string, string>()
    for (const line of lines.slice(1)) {
      const colon = line.indexOf(':')
      headers.set(line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim())
    }
    const rest = this.#received.subarray(end + BLANK_LINE.length)
    const isBare = isHead || status < 200 || status === 204 || status === 304
    const body = isBare ? { bytes: NOTHING, length: 0 } : bodyOf(headers, rest)
    if (body === undefined) return undefined
    this.#received = rest.subarray(body.length)
    return { status, headers, body: body.bytes }
  }
}

/** Undefined when it is not all there; `length` is what it took on the wire. */
function bodyOf(
  headers: ReadonlyMap<string, string>,
  rest: Buffer,
): { readonly bytes: Buffer; readonly length: number } | undefined {
  if (headers.get('content-type')?.startsWith('text/event-stream') === true)
    return { bytes: NOTHING, length: rest.length }
  if (headers.get('transfer-encoding') === 'chunked') return chunksOf(rest)
  const length = Number(headers.get('content-length') ?? 0)
  return rest.length < length ? undefined : { bytes: Buffer.from(rest.subarray(0, length)), length }
}

function chunksOf(rest: Buffer): { readonly bytes: Buffer; readonly length: number } | undefined {
  const parts: Buffer[] = []
  let at = 0
  for (;;) {
    const line = rest.indexOf('\r\n', at)
    if (line < 0) return undefined
    const size = Number.parseInt(rest.toString('latin1', at, line), 16)
    const from = line + 2
    if (rest.length < from + size + 2) return undefined
    if (size === 0) return { bytes: Buffer.concat(parts), length: from + 2 }
    parts.push(rest.subarray(from, from + size))
    at = from + size + 2
  }
}
