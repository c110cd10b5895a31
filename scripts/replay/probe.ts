/**
 * Looks into the Redis of the replay's own stack, beside the code under test: which consumers hold pending entries, and
 * which commands have events.
 *
 * Everything that is read is ASCII, so Bun's own client will do. The keys are those of `docs/ARCHITECTURE.md`.
 */
import { RedisClient } from 'bun'

const STREAM = 'flights'
const GROUP = 'workers'
const EVENT_ENTRIES_PER_PAGE = 40

/** The tokens of a page of event entries, without the events. */
const TOKENS = `
local page = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
local tokens, last = {}, ''
for _, entry in ipairs(page) do
  last = entry[1]
  for i = 1, #entry[2], 2 do tokens[#tokens + 1] = entry[2][i] end
end
return { last, table.concat(tokens, ' ') }`

export interface ServerFacts {
  readonly version: string
  readonly pid: number
}

export class RedisProbe {
  readonly #client: RedisClient

  private constructor(client: RedisClient) {
    this.#client = client
  }

  static async open(url: string): Promise<RedisProbe> {
    const client = new RedisClient(url.replace(/^unix:\/\//, 'redis+unix://'), { connectionTimeout: 5000 })
    await client.connect()
    return new RedisProbe(client)
  }

  close(): void {
    this.#client.close()
  }

  async facts(): Promise<ServerFacts> {
    const info = String(await this.#client.send('INFO', ['server']))
    const field = (name: string): string => new RegExp(`^${name}:(\\S+)`, 'm').exec(info)?.[1] ?? ''
    return { version: field('redis_version'), pid: Number(field('process_id')) }
  }

  async partitions(): Promise<number> {
    return Number(await this.#client.send('HGET', [`mr:stream:${STREAM}`, 'partitions']))
  }

  /** Names of consumers that send heartbeats in any partition, the dead that nobody has noticed yet included. */
  async beatingConsumers(): Promise<Set<string>> {
    const names = new Set<string>()
    for (let partition = 0; partition < (await this.partitions()); partition++) {
      const found = await this.#client.send('HKEYS', [`mr:{${STREAM}.${partition}}:beats`])
      for (const name of found as string[]) names.add(name)
    }
    return names
  }

  /** Consumer → entries that it was handed and has not settled, over all partitions. */
  async pending(): Promise<Map<string, number>> {
    const counts = new Map<string, number>()
    for (let partition = 0; partition < (await this.partitions()); partition++) {
      for (const log of ['c', 'r']) {
        const key = `mr:{${STREAM}.${partition}}:${log}`
        for (const { name, pending } of await this.#consumers(key)) {
          counts.set(name, (counts.get(name) ?? 0) + pending)
        }
      }
    }
    return counts
  }

  /** Commands that ended as dead letters, over all partitions. */
  async deadLetters(): Promise<number> {
    let count = 0
    for (let partition = 0; partition < (await this.partitions()); partition++) {
      count += Number(await this.#client.send('XLEN', [`mr:{${STREAM}.${partition}}:d`]))
    }
    return count
  }

  /** True when retention has taken events away: they can't be counted any more. */
  async eventsTrimmed(partition: number): Promise<boolean> {
    return Number(await this.#client.send('HEXISTS', [`mr:{${STREAM}.${partition}}:floor`, 'events'])) === 1
  }

  /** The command tokens of every event of a partition, a page at a time; one token for each event. */
  async *eventTokens(partition: number): AsyncGenerator<string[]> {
    const key = `mr:{${STREAM}.${partition}}:e`
    let start = '-'
    for (;;) {
      const reply = await this.#client.send('EVAL', [TOKENS, '1', key, start, String(EVENT_ENTRIES_PER_PAGE)])
      const [last = '', tokens = ''] = reply as string[]
      if (last === '') return
      yield tokens.split(' ')
      start = `(${last}`
    }
  }

  async #consumers(key: string): Promise<{ name: string; pending: number }[]> {
    try {
      return (await this.#client.send('XINFO', ['CONSUMERS', key, GROUP])) as {
        name: string
        pending: number
      }[]
    } catch (error) {
      if (/NOGROUP|no such key/.test(String(error))) return []
      throw error
    }
  }
}
