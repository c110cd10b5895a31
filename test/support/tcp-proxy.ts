/** A TCP proxy in front of a test's Redis whose connections can be turned into black holes: open, and silent both ways. */
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { type ConnectionOptions, RedisLinks } from '../../src/redis/connection.ts'
import type { TestRedis } from './redis-server.ts'

interface Passage {
  readonly client: Socket
  readonly server: Socket
  /** The last bytes that the client has sent, as text in capitals. */
  said: string
  swallows: boolean
}

const SAID_CHARS = 100_000

export interface TcpProxy extends AsyncDisposable {
  readonly url: string
  /** Connections through the proxy; close them before the proxy. */
  links(options?: Partial<ConnectionOptions>): RedisLinks
  /** Silences open connections whose client has said this, in capitals; answers how many. New ones pass. */
  swallow(said: string): number
  /** Cuts open connections whose client has said this, on the client's side only; answers how many. */
  halve(said: string): number
  /** Connections that pass and whose client has said this. */
  open(said: string): number
  /** While true, new connections are silent as well. */
  swallowNew: boolean
}

export async function startTcpProxy(redis: TestRedis): Promise<TcpProxy> {
  const passages = new Set<Passage>()
  const opened: RedisLinks[] = []
  let swallowNew = false
  const server = createServer((client) => {
    const upstream = connect(join(redis.directory, 'redis.sock'))
    const passage: Passage = { client, server: upstream, said: '', swallows: swallowNew }
    passages.add(passage)
    client.on('data', (bytes) => {
      passage.said = (passage.said + bytes.toString('latin1')).slice(-SAID_CHARS).toUpperCase()
      if (!passage.swallows) upstream.write(bytes)
    })
    upstream.on('data', (bytes) => {
      if (!passage.swallows) client.write(bytes)
    })
    const end = () => {
      // A black hole tells the server nothing of a client that has gone.
      if (passage.swallows && !upstream.destroyed) return
      passages.delete(passage)
      client.destroy()
      upstream.destroy()
    }
    for (const socket of [client, upstream]) {
      socket.on('close', end)
      socket.on('error', () => undefined)
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const url = `redis://127.0.0.1:${port}`
  return {
    url,
    links: (options = {}) => {
      const links = new RedisLinks({ ...redis.links.options, ...options, address: { url } })
      opened.push(links)
      return links
    },
    swallow: (said) => {
      const found = [...passages].filter((passage) => !passage.swallows && passage.said.includes(said))
      for (const passage of found) passage.swallows = true
      return found.length
    },
    halve: (said) => {
      const found = [...passages].filter((passage) => !passage.swallows && passage.said.includes(said))
      for (const passage of found) {
        passage.swallows = true
        passage.client.destroy()
      }
      return found.length
    },
    open: (said) =>
      [...passages].filter((passage) => !passage.swallows && passage.said.includes(said)).length,
    get swallowNew() {
      return swallowNew
    },
    set swallowNew(value: boolean) {
      swallowNew = value
    },
    [Symbol.asyncDispose]: async () => {
      for (const links of opened) links.closeAll()
      for (const { client, server: upstream } of passages) {
        client.destroy()
        upstream.destroy()
      }
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}
