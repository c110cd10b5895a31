/** A request byte for byte as a test wrote it: what `fetch` would mend or refuse to send. */
import { connect } from 'node:net'

export interface RawAnswer {
  readonly status: number
  readonly text: string
}

/** Sends head lines and an empty body to a listener on this machine. */
export function rawRequest(port: number, lines: readonly string[]): Promise<RawAnswer> {
  const { promise, resolve, reject } = Promise.withResolvers<RawAnswer>()
  let text = ''
  const socket = connect(port, '127.0.0.1', () =>
    socket.write(`${lines.join('\r\n')}\r\nConnection: close\r\n\r\n`),
  )
  socket.on('data', (part) => {
    text += String(part)
  })
  socket.on('error', reject)
  socket.on('close', () => resolve({ status: Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1]), text }))
  return promise
}
