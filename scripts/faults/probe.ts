/**
 * Looks into the harness's Redis beside the code under test: what is pending and with whom, which events and dead letters
 * there are, how far projections have read.
 *
 * The server may be killed and paused between two looks: a look that fails drops its connection, and the next one dials.
 */
import { RedisClient } from 'bun'
import { RunError } from '../fleet/failure.ts'
import { BACKLOG, DEAD, EVENTS, HELD, OPEN, READERS } from './lua-probes.ts'

const FREE_CONSUMER = 'free'
const EVENT_ENTRIES_PER_PAGE = 100
const DEAD_PER_PAGE = 500
const ANSWER_LIMIT_MS = 10_000
const BEAT_WATCH_MS = 1500

export interface LoggedEvent {
  readonly token: string
  readonly type: string
  readonly row: number
  readonly key: number
}

export interface DeadLetter {
  readonly token: string
  readonly type: string
  readonly row: number
  readonly error: string
}

export interface OpenWork {
  /** Partitions with entries that nobody was handed yet. */
  readonly undelivered: number
  /** Over all groups and consumers, `free` and the living included. */
  readonly pending: number
  readonly due: number
  readonly outbox: number
  /** Entries of command logs, settled ones that are not trimmed included. */
  readonly logged: number
  readonly consumers: readonly { readonly name: string; readonly pending: number; readonly beat: string }[]
}

export interface Partition {
  readonly stream: string
  readonly partition: number
}

export class RedisProbe {
  readonly #urlNow: () => string
  #client: RedisClient | undefined

  /** `urlNow` is asked for every new connection. */
  constructor(urlNow: () => string) {
    this.#urlNow = urlNow
  }

  close(): void {
    this.#client?.close()
    this.#client = undefined
  }

  async send(command: string, args: readonly string[]): Promise<unknown> {
    try {
      const client = this.#client ?? (await this.#dial())
      return await within(ANSWER_LIMIT_MS, client.send(command, [...args]))
    } catch (error) {
      this.close()
      throw error
    }
  }

  async info(section: string): Promise<Map<string, string>> {
    const text = String(await this.send('INFO', [section]))
    return new Map(
      text.split(/\r?\n/).flatMap((line): [string, string][] => {
        const colon = line.indexOf(':')
        return colon > 0 ? [[line.slice(0, colon), line.slice(colon + 1)]] : []
      }),
    )
  }

  /** Every partition of the streams that exist. */
  async partitions(streams: readonly string[]): Promise<Partition[]> {
    const found: Partition[] = []
    for (const stream of streams) {
      const count = Number(await this.send('HGET', [`mr:stream:${stream}`, 'partitions']))
      for (let partition = 0; partition < count; partition++) found.push({ stream, partition })
    }
    return found
  }

  /** Consumer names that send heartbeats, the dead that nobody has noticed yet included. */
  async beatingConsumers(places: readonly Partition[]): Promise<Set<string>> {
    const names = new Set<string>()
    for (const place of places) {
      for (const name of (await this.send('HKEYS', [keyOf(place, 'beats')])) as string[]) names.add(name)
    }
    return names
  }

  /** Tokens that a consumer holds in a partition. */
  async held(place: Partition, consumer: string): Promise<string[]> {
    const keys = [keyOf(place, 'c'), keyOf(place, 'r')]
    const text = await this.#eval(HELD, keys, [consumer])
    return String(text).split(' ').filter(Boolean)
  }

  async openWork(places: readonly Partition[]): Promise<OpenWork> {
    const sum = { undelivered: 0, pending: 0, due: 0, outbox: 0, logged: 0 }
    const consumers: { name: string; pending: number; beat: string }[] = []
    for (const place of places) {
      const own = ['c', 'r', 'due', 'out', 'beats'].map((name) => keyOf(place, name))
      const keys = [...own, keyOf({ ...place, partition: 0 }, 'beats')]
      const reply = (await this.#eval(OPEN, keys, [])) as [number, number, number, number, string, number]
      sum.undelivered += reply[0]
      sum.pending += reply[1]
      sum.due += reply[2]
      sum.outbox += reply[3]
      sum.logged += reply[5]
      const words = reply[4].split(' ').filter(Boolean)
      for (let i = 0; i + 2 < words.length; i += 3) {
        consumers.push({ name: words[i] ?? '', pending: Number(words[i + 1]), beat: words[i + 2] ?? '' })
      }
    }
    return { ...sum, consumers }
  }

  /** Commands that ever came in, and those of them that nobody has finished. */
  async backlog(
    places: readonly Partition[],
  ): Promise<{ readonly added: number; readonly unfinished: number }> {
    const sum = { added: 0, unfinished: 0 }
    for (const place of places) {
      const [added, unfinished] = (await this.#eval(BACKLOG, [keyOf(place, 'c')], [])) as [number, number]
      sum.added += added
      sum.unfinished += unfinished
    }
    return sum
  }

  /** Names of consumers of the groups that belong to nobody: no heartbeat, or one that stands still. */
  async leakedConsumers(places: readonly Partition[]): Promise<string[]> {
    const before = new Map((await this.openWork(places)).consumers.map(({ name, beat }) => [name, beat]))
    await Bun.sleep(BEAT_WATCH_MS)
    const after = await this.openWork(places)
    const still = after.consumers.filter(
      ({ name, beat }) => name !== FREE_CONSUMER && (beat === '-' || before.get(name) === beat),
    )
    return [...new Set(still.map(({ name }) => name))]
  }

  /** True when every projection has read every event. */
  async caughtUp(places: readonly Partition[]): Promise<boolean> {
    for (const place of places) {
      const keys = [keyOf(place, 'e'), keyOf(place, 'readers')]
      const [last, text] = (await this.#eval(READERS, keys, [])) as [string, string]
      const words = text.split(' ').filter(Boolean)
      if (last === '0-0') continue
      if (words.length === 0) return false
      for (let i = 1; i < words.length; i += 2) if (words[i] !== last) return false
    }
    return true
  }

  /** Every event of a partition, a page at a time. */
  async *events(place: Partition): AsyncGenerator<LoggedEvent[]> {
    let start = '-'
    for (;;) {
      const args = [start, String(EVENT_ENTRIES_PER_PAGE)]
      const [last = '', text = ''] = (await this.#eval(EVENTS, [keyOf(place, 'e')], args)) as string[]
      if (last === '') return
      const words = text.split(' ')
      const page: LoggedEvent[] = []
      for (let i = 0; i + 3 < words.length; i += 4) {
        const [token = '', type = ''] = [words[i], words[i + 1]]
        page.push({ token, type, row: Number(words[i + 2]), key: Number(words[i + 3]) })
      }
      yield page
      start = `(${last}`
    }
  }

  async deadLetters(place: Partition): Promise<DeadLetter[]> {
    const letters: DeadLetter[] = []
    let start = '-'
    for (;;) {
      const args = [start, String(DEAD_PER_PAGE)]
      const reply = (await this.#eval(DEAD, [keyOf(place, 'd')], args)) as [string, string[][]]
      if (reply[0] === '') return letters
      for (const [token = '', type = '', row = '', error = ''] of reply[1]) {
        letters.push({ token, type, row: Number(row), error })
      }
      start = `(${reply[0]}`
    }
  }

  /** True when retention has taken events away: they can't be counted any more. */
  async eventsTrimmed(place: Partition): Promise<boolean> {
    return Number(await this.send('HEXISTS', [keyOf(place, 'floor'), 'events'])) === 1
  }

  async #eval(script: string, keys: readonly string[], args: readonly string[]): Promise<unknown> {
    return await this.send('EVAL', [script, String(keys.length), ...keys, ...args])
  }

  async #dial(): Promise<RedisClient> {
    const client = new RedisClient(this.#urlNow(), { connectionTimeout: 3000, autoReconnect: false })
    await client.connect()
    this.#client = client
    return client
  }
}

export function keyOf({ stream, partition }: Partition, name: string): string {
  return `mr:{${stream}.${partition}}:${name}`
}

async function within<Result>(limitMs: number, work: Promise<Result>): Promise<Result> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(
    () => late.reject(new RunError('failed', 'Redis did not answer the probe.')),
    limitMs,
  )
  try {
    return await Promise.race([work, late.promise])
  } finally {
    clearTimeout(timer)
  }
}
