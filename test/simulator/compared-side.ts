/**
 * One side of a comparison: the in-memory Redis or a real server, behind the same link, so that the product's own stores run
 * on both. Times differ by nature and are told as rough distances; entry ids of the memory are those that the server gave.
 */
import { type RedisLink, redisError } from '../../src/redis/connection.ts'
import { SCRIPTS } from '../../src/redis/scripts.ts'
import { StreamMarks } from '../../src/redis/stream-marks.ts'
import { commandMethods } from './client-end.ts'
import { BLOCKED } from './keyspace.ts'
import type { MemoryRedis } from './memory-redis.ts'
import { fromBytes, RedisFault, toBytes } from './redis-replies.ts'

type Argument = string | Buffer | number

/** A link whose requests the in-memory Redis answers at once. */
export function memoryLink(redis: MemoryRedis): RedisLink {
  const peer = redis.connect({ answer: () => undefined, close: () => undefined })
  const request = (name: string, args: readonly (Argument | readonly Argument[])[], asBuffers: boolean) => {
    const answer = redis.execute(peer, [name.toUpperCase(), ...args.flat().map(toBytes)])
    if (answer === BLOCKED) {
      redis.release(peer, undefined)
      return null
    }
    if (answer instanceof RedisFault) throw new Error(answer.message)
    return fromBytes(answer, asBuffers)
  }
  const client = commandMethods(async (name, args, asBuffers) => request(name, args, asBuffers))
  const evaluate: RedisLink['run'] = async (name, keys, args) => {
    try {
      return request('EVAL', [SCRIPTS[name].source, keys.length, ...keys, ...args], true)
    } catch (error) {
      throw redisError(error, `script ${name}`)
    }
  }
  const use: RedisLink['use'] = async (what, work) => {
    try {
      return await work(client)
    } catch (error) {
      throw redisError(error, what)
    }
  }
  const link: Pick<RedisLink, 'client' | 'marks' | 'run' | 'evaluate' | 'use'> = {
    ...{ client, marks: new StreamMarks(), run: evaluate, evaluate, use },
  }
  return link as RedisLink
}

/** Times this far apart are told apart; steps delay things by much more, and take much less. */
const ROUGH_MS = 1_000_000

export class ComparedSide {
  readonly link: RedisLink
  readonly #startMs: number
  readonly #ids = new Map<string, string[]>()
  #newIds = new Map<string, string[]>()
  readonly #tokens = new Map<string, string>()

  constructor(link: RedisLink, startMs: number) {
    this.link = link
    this.#startMs = startMs
  }

  /** Some entry id that this stream has had; of a stream without any, one that it never will. */
  idOf(key: string, which: number): string {
    const ids = this.#ids.get(key) ?? []
    return ids[which % Math.max(1, ids.length)] ?? '1-1'
  }

  /** The first field of that entry: in a ready or dead stream, its token. */
  tokenOf(key: string, which: number): string {
    return this.#tokens.get(`${key} ${this.idOf(key, which)}`) ?? 'x1'
  }

  /** The answer of a step, or what it threw, in words that are equal on both sides. */
  async answer(work: () => Promise<unknown>): Promise<unknown> {
    try {
      return this.#told(await work())
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error)
      return `threw ${this.#tellText(text.replace(/ script: .*/s, '').replace(/user_script:\d+:/, 'user_script:'))}`
    }
  }

  /** Ids that streams got since the last call of this. */
  takeNewIds(): Map<string, string[]> {
    const taken = this.#newIds
    this.#newIds = new Map()
    return taken
  }

  /** Everything that the server holds. */
  async state(): Promise<unknown> {
    const keys = (await this.#texts('KEYS', '*')).sort()
    const kinds: [string, string][] = []
    for (const key of keys) kinds.push([key, String(await this.#call('TYPE', key))])
    const rows: [string, unknown][] = []
    for (const [key, kind] of kinds) {
      rows.push([key, await (kind === 'stream' ? this.#stream(key) : this.#plain(key, kind))])
    }
    return rows
  }

  async #stream(key: string): Promise<unknown> {
    const entries = (await this.#call('XRANGE', key, '-', '+')) as [Buffer, Buffer[]][]
    const ids = this.#ids.get(key) ?? []
    for (const [id, fields] of entries) {
      const text = id.toString('latin1')
      if (!ids.includes(text)) {
        ids.push(text)
        this.#newIds.set(key, [...(this.#newIds.get(key) ?? []), text])
      }
      this.#tokens.set(`${key} ${text}`, fields[0]?.toString('latin1') ?? '')
    }
    this.#ids.set(key, ids)
    const info = fieldsOf(await this.#call('XINFO', 'STREAM', key))
    const groups: unknown[] = []
    for (const row of (await this.#call('XINFO', 'GROUPS', key)) as unknown[]) {
      const group = fieldsOf(row)
      const name = String(group.get('name'))
      const pending = (await this.#call('XPENDING', key, name, '-', '+', 1000)) as unknown[][]
      const consumers = (await this.#call('XINFO', 'CONSUMERS', key, name)) as unknown[]
      groups.push([
        [...group],
        pending.map(([id, consumer, , count]) => [id, consumer, count]),
        consumers.map((each) => [fieldsOf(each).get('name'), fieldsOf(each).get('pending')]),
      ])
    }
    const known = [
      'length',
      'last-generated-id',
      'max-deleted-entry-id',
      'entries-added',
      'recorded-first-entry-id',
    ]
    return this.#told([entries, known.map((field) => info.get(field)), groups])
  }

  async #plain(key: string, kind: string): Promise<unknown> {
    switch (kind) {
      case 'string':
        return this.#told(await this.#call('GET', key))
      case 'set':
        return (await this.#texts('SMEMBERS', key)).map((text) => this.#tellText(text)).sort()
      case 'zset':
        return this.#told(await this.#call('ZRANGE', key, 0, -1, 'WITHSCORES'))
      case 'hash': {
        const flat = (await this.#texts('HGETALL', key)).map((text) => this.#tellText(text))
        const pairs = Array.from({ length: flat.length / 2 }, (_, i) => `${flat[2 * i]}=${flat[2 * i + 1]}`)
        return pairs.sort()
      }
      default:
        throw new Error(`what is a ${kind}?`)
    }
  }

  async #texts(...words: [string, ...Argument[]]): Promise<string[]> {
    return ((await this.#call(...words)) as Buffer[]).map((bytes) => bytes.toString('latin1'))
  }

  #call(command: string, ...args: Argument[]): Promise<unknown> {
    return this.link.client.callBuffer(command, args)
  }

  #told(value: unknown): unknown {
    if (Buffer.isBuffer(value)) return this.#tellText(value.toString('latin1'))
    if (typeof value === 'string') return this.#tellText(value)
    if (typeof value === 'number' && value > 1e15) return this.#tellTime(value / 1000)
    if (typeof value === 'number' && value > 1e12) return this.#tellTime(value)
    if (typeof value === 'number' && value > ROUGH_MS) return `far ${Math.round(value / ROUGH_MS)}`
    if (Array.isArray(value)) return value.map((each) => this.#told(each))
    if (value instanceof Map) return [...value].map((each) => this.#told(each))
    if (typeof value === 'object' && value !== null) {
      return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, this.#told(each)]))
    }
    return value
  }

  #tellText(text: string): string {
    return text
      .replace(/(?<!\d)1[5-9]\d{11}(?![\d-])/g, (time) => this.#tellTime(Number(time)))
      .replace(/(?<!\d)1[5-9]\d{14}(?!\d)/g, (micros) => this.#tellTime(Number(micros) / 1000))
      .replace(/(?<=^|o)1[5-9]\d{8}$/g, (seconds) => this.#tellTime(Number(seconds) * 1000))
  }

  #tellTime(ms: number): string {
    return `time ${Math.round((ms - this.#startMs) / ROUGH_MS)}`
  }
}

function fieldsOf(reply: unknown): Map<string, unknown> {
  const fields = new Map<string, unknown>()
  const flat = reply as unknown[]
  for (let i = 0; i + 1 < flat.length; i += 2) fields.set(String(flat[i]), flat[i + 1])
  return fields
}
