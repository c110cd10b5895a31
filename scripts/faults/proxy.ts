/**
 * A TCP proxy between processes and Redis that loses things.
 *
 *   client ──▶ requests, told apart ──▶ server
 *   client ◀── replies, counted off ◀── server
 *
 *   lose a request   it never reaches the server, both sides are cut
 *   lose a reply     it never reaches the client, and the client is cut; the server may be kept in the belief that all is well
 *                    (half open): it is read on for a while, and what it sends is thrown away
 *   black hole       nothing passes in either direction, and nobody is told
 *   cut, delay       of all connections of a role
 *
 * A connection's role is the name that it gives itself (`CLIENT SETNAME millrace-<role>`).
 */
import { connect, createServer, type Server, type Socket } from 'node:net'
import { FrameScanner } from './resp.ts'
import { requestName } from './script-names.ts'

export type LossKind = 'request' | 'reply' | 'half-open'

/** Asked for every request; undefined lets it pass. */
export type Loss = (request: string, role: string) => LossKind | undefined

/** How long a half-open connection is served by Redis before that side is closed, too. */
const HALF_OPEN_MS = 4000

export class RedisProxy {
  readonly #targetPort: number
  readonly #server: Server
  readonly #connections = new Set<Connection>()
  #port = 0
  /** Set to lose things. */
  loss: Loss = () => undefined
  /** Milliseconds that every reply waits. */
  delayMs = 0
  /** What was lost, by `<kind> <request>`. */
  readonly lost: Map<string, number> = new Map()

  private constructor(targetPort: number) {
    this.#targetPort = targetPort
    this.#server = createServer((client) => this.#accept(client))
  }

  static async open(targetPort: number): Promise<RedisProxy> {
    const proxy = new RedisProxy(targetPort)
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', () => resolve()))
    const address = proxy.#server.address()
    proxy.#port = typeof address === 'object' && address !== null ? address.port : 0
    return proxy
  }

  get url(): string {
    return `redis://127.0.0.1:${this.#port}`
  }

  /** Open connections of a role. */
  of(role: string): Connection[] {
    return [...this.#connections].filter((connection) => connection.role === role)
  }

  /** Nothing passes on the connections of a role any more; new ones work. Answers them. */
  blackHole(role: string): Connection[] {
    const struck = this.of(role)
    for (const connection of struck) connection.blackHole()
    return struck
  }

  cut(role?: string): void {
    for (const connection of this.#connections) {
      if (role === undefined || connection.role === role) connection.close()
    }
  }

  async close(): Promise<void> {
    this.cut()
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
  }

  #accept(client: Socket): void {
    const server = connect({ host: '127.0.0.1', port: this.#targetPort })
    const connection = new Connection(this, client, server)
    this.#connections.add(connection)
    void connection.closed.then(() => this.#connections.delete(connection))
  }
}

export class Connection {
  readonly #proxy: RedisProxy
  readonly #client: Socket
  readonly #server: Socket
  readonly #requests = new FrameScanner()
  readonly #replies = new FrameScanner()
  /** Requests that wait for their reply, oldest first. */
  #waiting: { readonly name: string; readonly loss: LossKind | undefined }[] = []
  readonly #closed = Promise.withResolvers<void>()
  readonly #clientClosed = Promise.withResolvers<void>()
  #dark = false
  /** When somebody first waited in the dark for an answer, by `performance.now()`. */
  darkSinceMs: number | undefined
  /** The client is gone; Redis is still read. */
  #halfOpen = false
  role = ''

  constructor(proxy: RedisProxy, client: Socket, server: Socket) {
    this.#proxy = proxy
    this.#client = client
    this.#server = server
    client.setNoDelay(true)
    server.setNoDelay(true)
    for (const socket of [client, server]) socket.on('error', () => undefined)
    client.on('data', (chunk) => this.#onRequests(asBuffer(chunk)))
    server.on('data', (chunk) => this.#onReplies(asBuffer(chunk)))
    client.on('close', () => {
      this.#clientClosed.resolve()
      if (!this.#halfOpen) this.close()
    })
    server.on('close', () => {
      if (!this.#dark) this.close()
    })
  }

  /** Resolves when both sides are closed. */
  get closed(): Promise<void> {
    return this.#closed.promise
  }

  /** Resolves when the client has given it up. */
  get clientClosed(): Promise<void> {
    return this.#clientClosed.promise
  }

  blackHole(): void {
    this.#dark = true
    if (this.#waiting.length > 0) this.darkSinceMs = performance.now()
  }

  close(): void {
    this.#client.destroy()
    this.#server.destroy()
    this.#closed.resolve()
  }

  #onRequests(chunk: Buffer): void {
    if (this.#dark) {
      this.darkSinceMs ??= performance.now()
      return
    }
    for (const frame of this.#requests.scan(chunk)) {
      if (!frame.complete) continue
      const { words } = frame
      const name = requestName(words)
      if (name === 'client' && words[1]?.toLowerCase() === 'setname') {
        this.role = words[2]?.replace('millrace-', '') ?? ''
      }
      const loss = this.role === 'subscriber' ? undefined : this.#proxy.loss(name, this.role)
      if (loss === 'request') {
        this.#note(loss, name)
        if (frame.begins) this.#server.write(chunk.subarray(0, frame.start))
        this.#client.destroy()
        this.#server.end()
        return
      }
      this.#waiting.push({ name, loss })
    }
    this.#server.write(chunk)
  }

  #onReplies(chunk: Buffer): void {
    if (this.#dark || this.#halfOpen) return
    if (this.role === 'subscriber') {
      this.#client.write(chunk)
      return
    }
    for (const frame of this.#replies.scan(chunk)) {
      const first = this.#waiting[0]
      if (first?.loss !== undefined) {
        this.#client.write(chunk.subarray(0, frame.start))
        this.#lose(first.name, first.loss)
        return
      }
      if (frame.complete) this.#waiting.shift()
    }
    const { delayMs } = this.#proxy
    if (delayMs > 0) setTimeout(() => this.#client.write(chunk), delayMs)
    else this.#client.write(chunk)
  }

  #lose(name: string, loss: LossKind): void {
    this.#note(loss, name)
    if (loss === 'half-open') {
      this.#halfOpen = true
      setTimeout(() => this.close(), HALF_OPEN_MS)
    }
    this.#client.destroy()
  }

  #note(loss: LossKind, name: string): void {
    const what = `${loss} ${name}`
    this.#proxy.lost.set(what, (this.#proxy.lost.get(what) ?? 0) + 1)
  }
}

function asBuffer(chunk: string | Buffer): Buffer {
  return typeof chunk === 'string' ? Buffer.from(chunk, 'latin1') : chunk
}
