/**
 * Events that any number of rounds can start from: commands posted and handled through the product once, their events kept
 * aside in another database of the same server. For the baseline the same events lie in a second stream, in entries of the
 * same ids, each event as a bare pair of key and amount: there is nothing to decode.
 *
 * The events of one settlement share an entry, so a position is told as a number of events here.
 */
import type { Redis } from 'ioredis'
import { RunError } from '../fleet/failure.ts'
import type { RedisServer } from '../fleet/redis-server.ts'
import { Backlog } from './backlog.ts'
import { watchUntilDone } from './group-watch.ts'
import { COMMANDS, EVENTS, SALES } from './sales.ts'
import type { Stage } from './stage.ts'

const ASIDE = 1
const PAGE_ENTRIES = 100
/** What stands before the payload of an event without a key, beside its type (`entry-codec.ts`). */
const HEADER_BYTES = 12
const TYPE_LENGTH_AT = 11

export const PLAIN_EVENTS = 'plain-events'

interface SaleAdded {
  readonly customer: string
  readonly cents: number
}

export class EventBacklog {
  readonly #client: Redis
  /** Entry id → events up to and with it. */
  readonly #reached = new Map<string, number>()
  #events = 0

  private constructor(client: Redis) {
    this.#client = client
  }

  static async fill(stage: Stage, redis: RedisServer, commands: number): Promise<EventBacklog> {
    await Backlog.fill(stage, { ...SALES, redis, commands })
    const worker = await stage.role('work', { redis, app: SALES.app })
    const client = stage.client(redis)
    const processes = { worker: worker.pid }
    await watchUntilDone({ client, streams: [COMMANDS], commands, processes, signal: stage.signal })
    await stage.end(worker)
    const backlog = new EventBacklog(client)
    await backlog.#copy()
    if (backlog.#events !== commands)
      throw new RunError('failed', `${commands} commands left ${backlog.#events} events.`)
    await client.copy(EVENTS, EVENTS, 'DB', ASIDE)
    await client.copy(PLAIN_EVENTS, PLAIN_EVENTS, 'DB', ASIDE)
    return backlog
  }

  get events(): number {
    return this.#events
  }

  /** Events up to and with this entry. */
  reached(entryId: string | null): number {
    return this.#reached.get(entryId ?? '') ?? 0
  }

  /** Only this stream is there, as it was when the last event had been written. */
  async restore(stream: string): Promise<void> {
    await this.#client.flushdb()
    await this.#client.select(ASIDE)
    await this.#client.copy(stream, stream, 'DB', 0)
    await this.#client.select(0)
  }

  async #copy(): Promise<void> {
    for (let after = '-'; ; ) {
      const entries = await this.#client.xrangeBuffer(EVENTS, after, '+', 'COUNT', PAGE_ENTRIES)
      if (entries.length === 0) return
      const pipeline = this.#client.pipeline()
      for (const [idBytes, fields] of entries) {
        const id = idBytes.toString('latin1')
        const events = fields.filter((_, i) => i % 2 === 1).map(saleOf)
        this.#events += events.length
        this.#reached.set(id, this.#events)
        pipeline.xadd(PLAIN_EVENTS, id, ...events.flatMap(({ customer, cents }) => [customer, cents]))
        after = `(${id}`
      }
      await pipeline.exec()
    }
  }
}

function saleOf(event: Buffer): SaleAdded {
  return JSON.parse(event.toString('utf8', HEADER_BYTES + (event[TYPE_LENGTH_AT] ?? 0))) as SaleAdded
}
