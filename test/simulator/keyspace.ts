/**
 * The keys of the in-memory Redis, its connections and its blocked reads; what a command may touch. Executing commands is
 * the business of `MemoryRedis`.
 */
import { HashValue, SetValue, type StringValue } from './plain-values.ts'
import { fault, type Reply } from './redis-replies.ts'
import { SortedSet } from './sorted-set.ts'
import type { StreamId } from './stream-ids.ts'
import { StreamValue } from './stream-value.ts'

export type Value = StringValue | HashValue | SetValue | SortedSet | StreamValue

/** The server's side of a connection. */
export interface ServerClient {
  readonly id: number
  name: string
  waiter: Waiter | undefined
  /** Answers a read that was blocked. */
  answer(reply: Reply): void
  /** The server ends this connection. */
  close(): void
}

/** A blocked XREAD or XREADGROUP. */
export interface Waiter {
  readonly client: ServerClient
  /** Keys in the order asked for; what is newer than the id wakes an XREAD. */
  readonly after: ReadonlyMap<string, StreamId>
  readonly group: { readonly name: string; readonly consumer: string; readonly noAck: boolean } | undefined
  readonly countMax: number
  /** 0: for ever. */
  readonly blockMs: number
}

/** The answer comes later, through `ServerClient.answer`. */
export const BLOCKED: unique symbol = Symbol('blocked')

export interface CommandCall {
  readonly redis: Keyspace
  /** Without the command's name. */
  readonly args: readonly string[]
  /** Undefined inside a script, where nothing blocks. */
  readonly client: ServerClient | undefined
}

export interface CommandRule {
  /** Arguments without the name. */
  readonly min: number
  readonly max?: number
  readonly writes?: true
  /** Refused when the server is out of memory. */
  readonly grows?: true
  run(call: CommandCall): Reply | typeof BLOCKED
}

/** What a restart may bring back. */
export interface Snapshot {
  readonly data: Map<string, Value>
  readonly expiries: Map<string, number>
}

export class Keyspace {
  /** The server's clock, ms since 1970, with fractions. */
  readonly clockMs: () => number
  readonly clients: Map<number, ServerClient> = new Map()
  runId = runIdOf(1)
  /** What `*` stands for in the next XADD to a key, where ids are to be another server's; else they follow the clock. */
  readonly givenIds: Map<string, string[]> = new Map()
  protected data: Map<string, Value> = new Map()
  protected expiries: Map<string, number> = new Map()
  protected waiters: Waiter[] = []
  protected readonly readyKeys: Set<string> = new Set()
  protected readonly deletedKeys: Set<string> = new Set()
  /** Set while a command or script runs: it sees one moment. */
  protected frozenMs: number | undefined
  #clientIds = 0
  #starts = 1

  constructor(clockMs: () => number) {
    this.clockMs = clockMs
  }

  get timeMs(): number {
    return this.frozenMs ?? this.clockMs()
  }

  get nowMs(): number {
    return Math.floor(this.timeMs)
  }

  get size(): number {
    return this.data.size
  }

  keys(): string[] {
    return [...this.data.keys()].filter((key) => this.#live(key) !== undefined)
  }

  #live(key: string): Value | undefined {
    if (this.expiries.size > 0) {
      const expiry = this.expiries.get(key)
      if (expiry !== undefined && expiry <= this.nowMs) this.delete(key)
    }
    return this.data.get(key)
  }

  /** @throws RedisFault WRONGTYPE */
  find<Kind extends Value['kind']>(key: string, kind: Kind): Extract<Value, { kind: Kind }> | undefined {
    const value = this.#live(key)
    if (value === undefined) return undefined
    if (value.kind === kind) return value as Extract<Value, { kind: Kind }>
    throw fault('WRONGTYPE Operation against a key holding the wrong kind of value')
  }

  typeOf(key: string): Value['kind'] | undefined {
    return this.#live(key)?.kind
  }

  string(key: string): string | undefined {
    return this.find(key, 'string')?.text
  }

  /** For writing: made when it is missing. */
  hash(key: string): HashValue {
    return this.find(key, 'hash') ?? this.put(key, new HashValue())
  }

  set(key: string): SetValue {
    return this.find(key, 'set') ?? this.put(key, new SetValue())
  }

  sortedSet(key: string): SortedSet {
    return this.find(key, 'zset') ?? this.put(key, new SortedSet())
  }

  stream(key: string): StreamValue {
    return this.find(key, 'stream') ?? this.put(key, new StreamValue())
  }

  put<Kind extends Value>(key: string, value: Kind): Kind {
    this.data.set(key, value)
    return value
  }

  delete(key: string): boolean {
    this.expiries.delete(key)
    if (this.data.get(key)?.kind === 'stream') this.deletedKeys.add(key)
    return this.data.delete(key)
  }

  clear(): void {
    for (const key of [...this.data.keys()]) this.delete(key)
  }

  /** Undefined: never. */
  expireAt(key: string, atMs: number | undefined): void {
    if (atMs === undefined) this.expiries.delete(key)
    else this.expiries.set(key, atMs)
  }

  expiryOf(key: string): number | undefined {
    return this.#live(key) === undefined ? undefined : this.expiries.get(key)
  }

  block(waiter: Waiter): typeof BLOCKED {
    waiter.client.waiter = waiter
    this.waiters.push(waiter)
    return BLOCKED
  }

  /** Something new may be read from this stream, or its group is gone. */
  signal(key: string): void {
    this.readyKeys.add(key)
  }

  /** Ends a blocked read: at its time limit, by CLIENT UNBLOCK, or (without a reply) because its connection ended. */
  release(client: ServerClient, reply: Reply | undefined): boolean {
    const { waiter } = client
    if (waiter === undefined) return false
    client.waiter = undefined
    this.waiters = this.waiters.filter((each) => each !== waiter)
    if (reply !== undefined) client.answer(reply)
    return true
  }

  /** Takes in a connection. Ids start again with every start of the server. */
  connect(parts: Pick<ServerClient, 'answer' | 'close'>): ServerClient {
    this.#clientIds += 1
    const client: ServerClient = { id: this.#clientIds, name: '', waiter: undefined, ...parts }
    this.clients.set(client.id, client)
    return client
  }

  disconnect(client: ServerClient): void {
    this.release(client, undefined)
    if (this.clients.get(client.id) === client) this.clients.delete(client.id)
  }

  /** Starts anew with the given data, or with what it has: connections and blocked reads are gone. */
  restart(snapshot: Snapshot | undefined): void {
    this.waiters = []
    this.clients.clear()
    this.readyKeys.clear()
    this.deletedKeys.clear()
    this.#clientIds = 0
    this.#starts += 1
    this.runId = runIdOf(this.#starts)
    if (snapshot === undefined) return
    this.data = snapshot.data
    this.expiries = snapshot.expiries
  }

  snapshot(): Snapshot {
    const data = new Map<string, Value>()
    for (const [key, value] of this.data) data.set(key, copyOf(value))
    return { data, expiries: new Map(this.expiries) }
  }
}

function runIdOf(starts: number): string {
  return starts.toString(16).padStart(40, '0')
}

function copyOf(value: Value): Value {
  switch (value.kind) {
    case 'string':
      return value
    case 'stream':
    case 'zset':
      return value.copy()
    case 'hash': {
      const twin = new HashValue()
      for (const [field, text] of value.fields) twin.fields.set(field, text)
      return twin
    }
    case 'set': {
      const twin = new SetValue()
      for (const member of value.members) twin.members.add(member)
      return twin
    }
    default:
      return value satisfies never
  }
}
