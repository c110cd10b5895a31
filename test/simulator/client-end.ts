/**
 * What stands in for an ioredis client: the same events, states, time limits and refusals, over the simulated network and in
 * virtual time. Only what `RedisLink` asks of ioredis is here. It never sends a request again, and never queues one.
 */
import { EventEmitter } from 'node:events'
import type { Redis, RedisOptions } from 'ioredis'
import type { Timer } from '../../src/runtime/clock.ts'
import type { Network, Wire, WireEnd } from './network.ts'
import { fromBytes, RedisFault, type Reply, toBytes } from './redis-replies.ts'
import type { Strand } from './virtual-time.ts'

interface Sent {
  readonly asBuffers: boolean
  readonly sentMs: number
  isOver: boolean
  resolve(value: unknown): void
  reject(error: Error): void
}

type Argument = string | Buffer | number

const NOT_CONNECTED = "Stream isn't writeable and enableOfflineQueue options is false"
const DISCONNECT_TIMEOUT_MS = 2000

export class ClientEnd extends EventEmitter implements WireEnd {
  readonly strand: Strand
  readonly label: string
  status: 'connecting' | 'ready' | 'reconnecting' | 'end' = 'connecting'
  readonly #network: Network
  readonly #options: RedisOptions
  #wire: Wire | undefined
  #sent: Sent[] = []
  #isEnding = false
  #commandTimer: Timer | undefined
  #socketTimer: Timer | undefined

  constructor(network: Network, strand: Strand, label: string, options: RedisOptions) {
    super()
    this.setMaxListeners(0)
    this.#network = network
    this.strand = strand
    this.label = label
    this.#options = options
    this.#later(0, () => this.#dial())
  }

  /** The socket, as far as it is asked for: `destroy` drops it without waiting for the other side. */
  readonly stream: { destroy(): void } = {
    destroy: () => {
      const wire = this.#wire
      if (wire === undefined) return
      wire.closeByClient(!wire.isStalled)
      this.#later(0, () => {
        if (this.#wire === wire) this.onClosed()
      })
    },
  }

  disconnect(andReconnect = false): void {
    if (!andReconnect) this.#isEnding = true
    const wire = this.#wire
    if (wire === undefined) {
      if (this.#isEnding) this.#later(0, () => this.#end())
      return
    }
    const closeMs = wire.isStalled ? DISCONNECT_TIMEOUT_MS : this.#network.delayMs()
    wire.closeByClient(!wire.isStalled)
    this.#later(closeMs, () => {
      if (this.#wire === wire) this.onClosed()
    })
  }

  /** One request; rejects at once when it can't be sent. */
  request(
    name: string,
    args: readonly (Argument | readonly Argument[])[],
    asBuffers: boolean,
  ): Promise<unknown> {
    if (this.status !== 'ready' || this.#wire === undefined) return Promise.reject(new Error(NOT_CONNECTED))
    const words = [name.toUpperCase(), ...args.flat().map(toBytes)]
    return this.#send(words, asBuffers)
  }

  onReply(reply: Reply): void {
    const sent = this.#sent.shift()
    this.#socketTimer?.cancel()
    this.#socketTimer = undefined
    if (this.#sent.length > 0) this.#watchSocket()
    if (sent === undefined || sent.isOver) return
    sent.isOver = true
    if (reply instanceof RedisFault) sent.reject(new Error(reply.message))
    else sent.resolve(fromBytes(reply, sent.asBuffers))
  }

  onClosed(): void {
    this.#wire?.closeByClient(false)
    this.#wire = undefined
    this.#sent = []
    this.#commandTimer?.cancel()
    this.#commandTimer = undefined
    this.#socketTimer?.cancel()
    this.#socketTimer = undefined
    this.status = this.#isEnding ? 'end' : 'reconnecting'
    this.emit('close')
    if (this.#isEnding) this.emit('end')
    else this.#dialLater()
  }

  #end(): void {
    if (this.status === 'end') return
    this.status = 'end'
    this.emit('end')
  }

  #dialLater(): void {
    const { retryStrategy } = this.#options
    const pauseMs = Number(retryStrategy?.(1) ?? 50)
    this.#later(pauseMs, () => this.#dial())
  }

  #dial(): void {
    if (this.#isEnding) {
      this.#end()
      return
    }
    const wire = this.#network.connect(this)
    if (wire === undefined) {
      this.emit('error', new Error('connect ECONNREFUSED'))
      this.status = 'reconnecting'
      this.emit('close')
      this.#dialLater()
      return
    }
    this.#wire = wire
    // As ioredis does before it says that it is ready.
    this.#send(['CLIENT', 'SETNAME', this.label], false).then(
      () => {
        if (this.#wire !== wire || this.#isEnding) return
        this.status = 'ready'
        this.emit('ready')
      },
      () => {
        if (this.#wire === wire) this.disconnect(true)
      },
    )
  }

  #send(words: readonly string[], asBuffers: boolean): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const { nowMs } = this.#network.time
      this.#sent.push({ asBuffers, sentMs: nowMs, isOver: false, resolve, reject })
      this.#watchCommands()
      this.#watchSocket()
      this.#wire?.send(words)
    })
  }

  /** `commandTimeout`: the request fails, the connection stays. */
  #watchCommands(): void {
    const limitMs = this.#options.commandTimeout
    const oldest = this.#sent.find((sent) => !sent.isOver)
    if (limitMs === undefined || oldest === undefined || this.#commandTimer !== undefined) return
    this.#commandTimer = this.#network.time.at(
      oldest.sentMs + limitMs,
      () => {
        this.#commandTimer = undefined
        for (const sent of this.#sent) {
          if (sent.isOver || sent.sentMs + limitMs > this.#network.time.nowMs) continue
          sent.isOver = true
          sent.reject(new Error('Command timed out'))
        }
        this.#watchCommands()
      },
      this.strand,
    )
  }

  /** `socketTimeout`: a socket that is silent while something is awaited is dropped. */
  #watchSocket(): void {
    const limitMs = this.#options.socketTimeout
    if (limitMs === undefined || this.#socketTimer !== undefined) return
    const wire = this.#wire
    this.#socketTimer = this.#later(limitMs, () => {
      this.#socketTimer = undefined
      if (wire === undefined || this.#wire !== wire) return
      wire.closeByClient(!wire.isStalled)
      this.onClosed()
    })
  }

  #later(ms: number, call: () => void): Timer {
    return this.#network.time.after(ms, call, this.strand)
  }
}

/** ioredis makes an object of what `hgetall` answers, and of nothing else. */
function toHash(reply: readonly unknown[]): Record<string, unknown> {
  const fields: Record<string, unknown> = {}
  for (let i = 0; i + 1 < reply.length; i += 2) fields[String(reply[i])] = reply[i + 1]
  return fields
}

type Request = (
  name: string,
  args: readonly (Argument | readonly Argument[])[],
  asBuffers: boolean,
) => Promise<unknown>

/** A client whose every method is a command of that name: `xrangeBuffer(…)` sends XRANGE and answers Buffers. */
export function commandMethods(request: Request, own: (name: string) => unknown = () => undefined): Redis {
  const methods = new Map<string | symbol, unknown>()
  const make = (name: string | symbol): unknown => {
    if (typeof name === 'symbol' || name === 'then') return undefined
    const known = own(name)
    if (known !== undefined) return known
    if (/^call(Buffer)?$/.test(name)) {
      return (command: string, ...args: (Argument | Argument[])[]) =>
        request(command.toUpperCase(), args, name === 'callBuffer')
    }
    if (name === 'hgetall') {
      return async (key: Argument) => toHash((await request(name, [key], false)) as unknown[])
    }
    const command = name.replace(/Buffer$/, '')
    return (...args: (Argument | Argument[])[]) => request(command, args, name.endsWith('Buffer'))
  }
  const proxy = new Proxy(
    {},
    {
      get: (_, name) => {
        if (name === 'status') return own('status')
        if (!methods.has(name)) methods.set(name, make(name))
        return methods.get(name)
      },
    },
  )
  return proxy as Redis
}

const OWN_STATE = new Set(['status', 'stream'])

/** The client that a `RedisLink` holds. */
export function asRedis(end: ClientEnd): Redis {
  return commandMethods(
    (name, args, asBuffers) => end.request(name, args, asBuffers),
    (name) => {
      const member: unknown = Reflect.get(end, name, end)
      return typeof member === 'function' ? member.bind(end) : OWN_STATE.has(name) ? member : undefined
    },
  )
}
