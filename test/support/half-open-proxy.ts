/** A way to a redis-server that can break on one side only: the clients lose it, the server goes on serving. */
import { connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { RedisLinks } from '../../src/redis/connection.ts'
import type { TestRedis } from './redis-server.ts'

interface Pair {
  readonly client: Socket
  readonly server: Socket
  isReader: boolean
  isMute: boolean
}

export class HalfOpenProxy implements AsyncDisposable {
  readonly redis: TestRedis
  /** Connections by this way; readers block this long. */
  readonly links: RedisLinks
  readonly #server: Server
  readonly #pairs = new Set<Pair>()

  private constructor(redis: TestRedis, server: Server, path: string, blockMs: number) {
    this.redis = redis
    this.#server = server
    const address = { url: `unix://${path}` }
    this.links = new RedisLinks({ ...redis.links.options, address, blockMs })
    server.on('connection', (client) => this.#join(client))
  }

  static async open(redis: TestRedis, blockMs: number): Promise<HalfOpenProxy> {
    const path = join(redis.directory, 'proxy.sock')
    const server = createServer()
    const proxy = new HalfOpenProxy(redis, server, path, blockMs)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    server.once('error', reject)
    server.listen(path, resolve)
    await promise
    return proxy
  }

  /** From now on what the server answers on the connections that there are is thrown away. */
  muteAnswers(): void {
    for (const pair of this.#pairs) pair.isMute = true
  }

  /** The same for readers alone: a connection that is open on both sides, and dead. */
  muteReaders(): void {
    for (const pair of this.#pairs) if (pair.isReader) pair.isMute = true
  }

  /** Every client loses its connection; the server is not told. New connections are whole. */
  loseClients(): void {
    for (const { client } of this.#pairs) client.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.links.closeAll()
    for (const { client, server } of this.#pairs) {
      client.destroy()
      server.destroy()
    }
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#server.close(() => resolve())
    await promise
  }

  #join(client: Socket): void {
    const server = connect(this.redis.url.slice('unix://'.length))
    const pair: Pair = { client, server, isReader: false, isMute: false }
    this.#pairs.add(pair)
    client.on('data', (bytes) => {
      if (!pair.isReader) pair.isReader = bytes.toString('latin1').toLowerCase().includes('xreadgroup')
      server.write(bytes)
    })
    server.on('data', (bytes) => {
      if (!pair.isMute && !client.destroyed) client.write(bytes)
    })
    client.on('error', () => undefined)
    server.on('error', () => undefined)
    server.on('close', () => {
      this.#pairs.delete(pair)
      client.destroy()
    })
  }
}
