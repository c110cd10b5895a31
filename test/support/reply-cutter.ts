/** A TCP proxy in front of an HTTP listener that loses replies: the server has done what it was asked, and the client hears nothing of it. */
import { connect, createServer, type Socket } from 'node:net'

export interface ReplyCutter extends AsyncDisposable {
  readonly url: string
  /** Connections on which a reply was lost. */
  readonly lost: number
  /** Connections that were made. */
  readonly opened: number
}

/** `loses` is asked for each reply, when it comes back: true throws it away and cuts the connection. */
export async function startReplyCutter(target: string, loses: () => boolean): Promise<ReplyCutter> {
  const { hostname, port } = new URL(target)
  const sockets = new Set<Socket>()
  let [lost, opened] = [0, 0]
  const server = createServer((client) => {
    opened += 1
    const upstream = connect({ host: hostname, port: Number(port) })
    client.on('data', (bytes) => upstream.write(bytes))
    upstream.on('data', (bytes) => {
      if (!loses()) return void client.write(bytes)
      lost += 1
      client.destroy()
      upstream.destroy()
    })
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => {
        sockets.delete(socket)
        client.destroy()
        upstream.destroy()
      })
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  return {
    url: `http://127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`,
    get lost() {
      return lost
    },
    get opened() {
      return opened
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}
