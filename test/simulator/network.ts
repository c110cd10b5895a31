/**
 * The network between simulated processes and the in-memory Redis, and everything that can go wrong on it.
 *
 * Each connection keeps the order of what it carries. Either side may end it without the other knowing: a server that goes on
 * serving a connection its client has lost is what the product's readers must survive.
 */
import type { Chance } from './chance.ts'
import { BLOCKED, type ServerClient, type Snapshot } from './keyspace.ts'
import type { MemoryRedis } from './memory-redis.ts'
import type { Reply } from './redis-replies.ts'
import type { Strand, VirtualTime } from './virtual-time.ts'

/** What a request may meet on its way. */
export type RequestFault = 'request-lost' | 'reply-lost' | 'request-late'

/** The client's side of a connection. */
export interface WireEnd {
  readonly strand: Strand
  readonly label: string
  onReply(reply: Reply): void
  onClosed(): void
}

export interface NetworkEvents {
  /** After each command that the server executed. */
  onExecuted(label: string, words: readonly string[], reply: Reply | typeof BLOCKED): void
  /** Asked for each request: a fault that waits for one like it. */
  faultFor(label: string, words: readonly string[]): RequestFault | undefined
}

export class Network {
  readonly time: VirtualTime
  readonly redis: MemoryRedis
  readonly #chance: Chance
  readonly #events: NetworkEvents
  readonly wires: Set<Wire> = new Set()
  #pausedUntilMs = Number.NEGATIVE_INFINITY
  #isUp = true

  constructor(time: VirtualTime, redis: MemoryRedis, chance: Chance, events: NetworkEvents) {
    this.time = time
    this.redis = redis
    this.#chance = chance
    this.#events = events
  }

  get isUp(): boolean {
    return this.#isUp
  }

  get isServing(): boolean {
    return this.#isUp && this.time.nowMs >= this.#pausedUntilMs
  }

  get events(): NetworkEvents {
    return this.#events
  }

  /** One way, ms. */
  delayMs(): number {
    const dice = this.#chance.next()
    return dice < 0.97 ? 0.05 + dice * 0.3 : this.#chance.between(0.5, 6)
  }

  lateMs(): number {
    return this.#chance.between(3, 3000)
  }

  /** A new connection, or undefined when nobody listens. */
  connect(end: WireEnd): Wire | undefined {
    if (!this.#isUp) return undefined
    const wire = new Wire(this, end)
    this.wires.add(wire)
    return wire
  }

  pause(ms: number): void {
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, this.time.nowMs + ms)
    this.time.at(this.#pausedUntilMs, () => this.#pumpAll())
  }

  /** Ends the server and starts it again after `downMs`, with the given data or with all it had. */
  restart(downMs: number, dataOf: () => Snapshot | undefined): void {
    if (!this.#isUp) return
    this.#isUp = false
    for (const wire of this.wires) wire.closeByServer()
    this.wires.clear()
    this.time.after(downMs, () => {
      this.redis.restart(dataOf())
      this.#isUp = true
    })
  }

  #pumpAll(): void {
    if (!this.isServing) return
    for (const wire of this.wires) wire.pump()
  }
}

export class Wire {
  readonly #network: Network
  readonly #end: WireEnd
  readonly #server: ServerClient
  readonly #inbox: (readonly string[])[] = []
  #isClientOpen = true
  #isServerOpen = true
  #toServerMs = 0
  #toClientMs = 0
  #stalledUntilMs = Number.NEGATIVE_INFINITY
  /** Requests whose replies never come: the connection ends after them. */
  #cutAfter: readonly string[] | undefined

  constructor(network: Network, end: WireEnd) {
    this.#network = network
    this.#end = end
    this.#server = network.redis.connect({
      answer: (reply) => {
        this.#reply(reply)
        network.time.after(0, () => this.pump())
      },
      close: () => this.closeByServer(),
    })
  }

  get label(): string {
    return this.#end.label
  }

  get strand(): Strand {
    return this.#end.strand
  }

  /** True while both sides take the other to be there. */
  get isWhole(): boolean {
    return this.#isClientOpen && this.#isServerOpen
  }

  get isStalled(): boolean {
    return this.#network.time.nowMs < this.#stalledUntilMs
  }

  get isBlocked(): boolean {
    return this.#server.waiter !== undefined
  }

  send(words: readonly string[]): void {
    if (!this.#isClientOpen) return
    const met = this.#network.events.faultFor(this.label, words)
    if (met === 'request-lost') this.cut()
    else if (met === 'request-late') {
      this.#toServerMs = Math.max(this.#toServerMs, this.#network.time.nowMs + this.#network.lateMs())
      this.#carry(words)
      this.#carryEnd()
      this.#dropClient()
    } else {
      if (met === 'reply-lost') this.#cutAfter = words
      this.#carry(words)
    }
  }

  #carry(words: readonly string[]): void {
    this.#network.time.at(this.#nextToServer(), () => {
      if (!this.#isServerOpen) return
      this.#inbox.push(words)
      this.pump()
    })
  }

  #nextToServer(): number {
    const { time } = this.#network
    const atMs = Math.max(time.nowMs, this.#stalledUntilMs) + this.#network.delayMs()
    this.#toServerMs = Math.max(this.#toServerMs, atMs)
    return this.#toServerMs
  }

  /** The server executes what has arrived, unless it is paused or still serves a blocked read. */
  pump(): void {
    while (this.#isServerOpen && this.#network.isServing && this.#server.waiter === undefined) {
      const words = this.#inbox.shift()
      if (words === undefined) return
      const answer = this.#network.redis.execute(this.#server, words)
      this.#network.events.onExecuted(this.label, words, answer)
      if (answer === BLOCKED) this.#limitBlock()
      else this.#reply(answer)
      if (this.#cutAfter === words) this.cut()
    }
  }

  #limitBlock(): void {
    const { waiter } = this.#server
    if (waiter === undefined || waiter.blockMs === 0) return
    const { time, redis } = this.#network
    const end = (): void => {
      if (this.#server.waiter !== waiter) return
      if (!this.#network.isServing) time.after(1, end)
      else redis.release(this.#server, null)
    }
    time.after(waiter.blockMs, end)
  }

  #reply(reply: Reply): void {
    if (!this.#isClientOpen) return
    const { time } = this.#network
    const atMs = Math.max(time.nowMs, this.#stalledUntilMs) + this.#network.delayMs()
    this.#toClientMs = Math.max(this.#toClientMs, atMs)
    time.at(
      this.#toClientMs,
      () => {
        if (this.#isClientOpen) this.#end.onReply(reply)
      },
      this.#end.strand,
    )
  }

  /** Everything on its way is delayed; what is sent meanwhile, too. */
  stall(ms: number): void {
    this.#stalledUntilMs = this.#network.time.nowMs + ms
  }

  /** Both sides lose it, with everything on its way. */
  cut(): void {
    this.#endServer()
    this.#dropClient()
  }

  /** The client loses it, the server does not know. */
  halfOpen(): void {
    this.#dropClient()
  }

  /** The client side is done with it: what it has sent still arrives, then the end. */
  closeByClient(serverKnows: boolean): void {
    if (!this.#isClientOpen) return
    this.#isClientOpen = false
    if (serverKnows) this.#carryEnd()
  }

  closeByServer(): void {
    this.#endServer()
    this.#dropClient()
  }

  #carryEnd(): void {
    this.#network.time.at(this.#nextToServer(), () => this.#endServer())
  }

  #endServer(): void {
    if (!this.#isServerOpen) return
    this.#isServerOpen = false
    this.#network.wires.delete(this)
    this.#network.redis.disconnect(this.#server)
  }

  #dropClient(): void {
    if (!this.#isClientOpen) return
    this.#isClientOpen = false
    this.#network.time.after(this.#network.delayMs(), () => this.#end.onClosed(), this.#end.strand)
  }
}
