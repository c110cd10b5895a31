/** A request in parts, so that a failing one can be made smaller part by part, and the bytes that it is sent as. */
import type { Header } from './hostile-parts.ts'

/** How the body goes out: in full, or in one of the ways that a client can break off or lie. */
export type Sending =
  | 'whole'
  | 'chunked'
  | 'cut'
  | 'chunked cut'
  | 'short length'
  | 'long length'
  | 'head alone'
  | 'raw'

export interface HostileRequest {
  readonly method: string
  readonly target: string
  readonly headers: readonly Header[]
  readonly body: Buffer | undefined
  readonly sending: Sending
  /** Instead of all of the above. */
  readonly raw: { readonly name: string; readonly bytes: Buffer } | undefined
}

/** Everything before the lines that frame a body. */
export function headOf({ method, target, headers }: HostileRequest): string {
  const hasHost = headers.some(([name]) => name === 'Host')
  const lines = [`${method} ${target} HTTP/1.1`, ...(hasHost ? [] : ['Host: 127.0.0.1'])]
  return [...lines, ...headers.map(([name, value]) => `${name}: ${value}`), ''].join('\r\n')
}

export function bytesOf(request: HostileRequest): Buffer {
  const { body, sending, raw } = request
  if (raw !== undefined) return raw.bytes
  const head = headOf(request)
  if (body === undefined) return Buffer.from(`${head}\r\n`, 'latin1')
  const half = body.subarray(0, body.length >> 1)
  const sized = (length: number, sent: Buffer): Buffer =>
    Buffer.concat([Buffer.from(`${head}Content-Length: ${length}\r\n\r\n`, 'latin1'), sent])
  const chunked = (sent: Buffer, end: string): Buffer => {
    const open = `${head}Transfer-Encoding: chunked\r\n\r\n${sent.length.toString(16)}\r\n`
    return Buffer.concat([Buffer.from(open, 'latin1'), sent, Buffer.from(end)])
  }
  switch (sending) {
    case 'whole':
    case 'raw':
      return sized(body.length, body)
    case 'chunked':
      return body.length === 0 ? chunked(body, '\r\n') : chunked(body, '\r\n0\r\n\r\n')
    case 'cut':
      return sized(body.length, half)
    case 'chunked cut':
      return half.length === 0 ? sized(body.length, half) : chunked(half, '\r\n')
    case 'short length':
      return sized(half.length, body)
    case 'long length':
      return sized(body.length + 100, body)
    case 'head alone':
      return sized(body.length, Buffer.alloc(0))
    default:
      return sending satisfies never
  }
}

/** True when the bytes hold a whole request that is answered before anything else is sent. */
export function isWhole({ sending }: HostileRequest): boolean {
  return sending === 'whole' || sending === 'chunked'
}
