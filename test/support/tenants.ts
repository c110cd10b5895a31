/**
 * One installation that several tenants share, in this process: HTTP, bus, workers, projections, aggregates, dead letters. Whose a
 * request is stands in a header here, where credentials say it in earnest.
 */
import { z } from 'zod'
import { aggregateHandler } from '../../src/aggregates/aggregate-handler.ts'
import { SILENT_LOGGER } from '../../src/contracts/logger.ts'
import { ANYBODY } from '../../src/contracts/principal.ts'
import { DeadLetters } from '../../src/dead-letters/dead-letters.ts'
import {
  defineAggregate,
  defineAggregateHandler,
  defineCommand,
  defineEvent,
  defineHandler,
  defineProjection,
  defineStream,
  done,
  type HandledCommand,
  newEvent,
  reject,
  retry,
} from '../../src/index.ts'
import { buildCatalogue } from '../../src/policies/catalogue.ts'
import { ProjectorSet } from '../../src/projections/projector-set.ts'
import { ViewReader } from '../../src/projections/view-reader.ts'
import { SYSTEM_CLOCK } from '../../src/runtime/clock.ts'
import { Consumer } from '../../src/runtime/consumer.ts'
import { type PublicServer, type PublicServerOptions, startPublicServer } from './public-server.ts'
import { startTestRedis, type TestRedis } from './redis-server.ts'

export const shop = defineStream({ name: 'shop', partitions: 3 })
const parcels = defineStream({ name: 'parcels', partitions: 2 })
const rows = defineStream({ name: 'rows', partitions: 2, ordering: 'key' })

const item = z.object({
  item: z.string(),
  amount: z.number(),
  /** How it ends; `once` fails once. */
  fate: z.enum(['done', 'dead', 'once']).default('done'),
})
export const addItem = defineCommand({ type: 'item.add', stream: shop, payload: item, key: (p) => p.item })
const sendParcel = defineCommand({
  type: 'parcel.send',
  stream: parcels,
  payload: z.object({ item: z.string(), amount: z.number() }),
  key: (p) => p.item,
})
const remind = defineCommand({
  type: 'item.remind',
  stream: shop,
  payload: z.object({ item: z.string() }),
  key: (p) => p.item,
})
const putRow = defineCommand({
  type: 'row.put',
  stream: rows,
  payload: z.object({
    row: z.string(),
    n: z.number(),
    fate: z.enum(['done', 'once', 'dead']).default('done'),
  }),
  key: (p) => p.row,
})
const book = defineCommand({
  type: 'account.book',
  stream: shop,
  payload: z.object({ account: z.string(), amount: z.number() }),
  key: (p) => p.account,
})

const added = defineEvent({ type: 'item.added', payload: z.object({ item: z.string(), amount: z.number() }) })
const sent = defineEvent({ type: 'parcel.sent', payload: z.object({ item: z.string(), amount: z.number() }) })
const booked = defineEvent({
  type: 'account.booked',
  payload: z.object({ account: z.string(), amount: z.number() }),
})
const put = defineEvent({ type: 'row.put', payload: z.object({ row: z.string(), n: z.number() }) })

interface Stock {
  amount: number
  tenants: string[]
  ids: string[]
}
const empty = (): Stock => ({ amount: 0, tenants: [], ids: [] })
const take = (
  view: Stock,
  event: { tenant: string; commandId: string; payload: { amount: number } },
): Stock => ({
  amount: view.amount + event.payload.amount,
  tenants: [...new Set([...view.tenants, event.tenant])],
  ids: [...view.ids, event.commandId],
})
const stock = defineProjection<Stock>({
  ...{ name: 'stock', stream: shop, initial: empty, onError: 'skip-and-record' as const },
})
  .on(added, (event) => event.payload.item, take)
  .on(booked, (event) => event.payload.account, take)
const totals = defineProjection<Stock>({
  name: 'totals',
  stream: shop,
  initial: empty,
  merge: (a, b) => ({
    amount: a.amount + b.amount,
    tenants: [...new Set([...a.tenants, ...b.tenants])],
    ids: [...a.ids, ...b.ids],
  }),
}).on(added, () => 'all', take)
const shipped = defineProjection<Stock>({ name: 'shipped', stream: parcels, initial: empty }).on(
  sent,
  (event) => event.payload.item,
  take,
)
const rowViews = defineProjection<{ ns: number[] }>({
  name: 'rows',
  stream: rows,
  initial: () => ({ ns: [] }),
}).on(
  put,
  (event) => event.payload.row,
  (view, event) => ({ ns: [...view.ns, event.payload.n] }),
)
const account = defineAggregate<number>({ name: 'account', stream: shop, initial: () => 0 }).on(
  booked,
  (total, { amount }) => total + amount,
)

/** What a handler saw of a command. */
export interface Handled {
  readonly type: string
  readonly tenant: string
  readonly key: string
  readonly id: string
  readonly attempt: number
  readonly payload: unknown
}

export interface TenantWorldOptions {
  readonly server?: PublicServerOptions
  /** Handlers don't end before this resolves. */
  readonly gate?: () => Promise<void>
}

export class TenantWorld implements AsyncDisposable {
  readonly redis: TestRedis
  readonly api: PublicServer
  readonly views: ViewReader
  readonly letters: DeadLetters
  readonly handled: Handled[]
  readonly mood: { fails: boolean }
  /** A started reader with nothing in its memory. */
  readonly reader: () => Promise<ViewReader>
  readonly #worker: () => Promise<Consumer>
  readonly #ended: () => Promise<void>

  private constructor(
    parts: Pick<TenantWorld, 'redis' | 'api' | 'views' | 'letters' | 'handled' | 'mood' | 'reader'>,
    worker: () => Promise<Consumer>,
    ended: () => Promise<void>,
  ) {
    this.redis = parts.redis
    this.api = parts.api
    this.views = parts.views
    this.letters = parts.letters
    this.handled = parts.handled
    this.mood = parts.mood
    this.reader = parts.reader
    this.#worker = worker
    this.#ended = ended
  }

  static async open({ server = {}, gate }: TenantWorldOptions = {}): Promise<TenantWorld> {
    const redis = await startTestRedis()
    const handled: Handled[] = []
    const mood = { fails: true }
    const see = (command: HandledCommand) => {
      const { type, tenant, key, id, attempt, payload } = command
      handled.push({ type, tenant, key, id, attempt, payload })
    }
    const ends = (fate: 'done' | 'dead' | 'once', { attempt }: HandledCommand) => {
      if (fate === 'dead' && mood.fails) return reject('it is told to fail')
      return fate === 'once' && attempt === 1
        ? retry('it is told to fail once', { delayMs: 20 })
        : done('well')
    }
    const catalogue = buildCatalogue([
      ...[shop, parcels, rows, addItem, sendParcel, remind, putRow, book, added, sent, booked, put],
      ...[stock, totals, shipped, rowViews, account],
      defineHandler(addItem, async (command) => {
        see(command)
        await gate?.()
        const { fate, ...payload } = command.payload
        command.emit(added, payload)
        command.send(sendParcel, payload)
        command.send(remind, { item: payload.item }, { delayMs: 10 })
        return ends(fate, command)
      }),
      defineHandler(sendParcel, (command) => {
        see(command)
        command.emit(sent, command.payload)
        return done()
      }),
      defineHandler(remind, (command) => {
        see(command)
        return done()
      }),
      defineHandler(putRow, async (command) => {
        see(command)
        await gate?.()
        const { fate, ...payload } = command.payload
        command.emit(put, payload)
        return ends(fate, command)
      }),
      defineAggregateHandler(account, book, (total, command) => {
        see(command)
        const { amount } = command.payload
        return total + amount > 100
          ? reject(`over by ${total + amount - 100}`)
          : [newEvent(booked, command.payload)]
      }),
    ])
    const api = await startPublicServer(redis, catalogue, {
      ...server,
      guard: {
        identify: (headers) => ({ ...ANYBODY, tenant: headers.get('x-tenant') ?? '' }),
        streamOfType: (type) => catalogue.commands.get(type)?.stream,
      },
    })
    const { ids, telemetry } = api
    const command = await redis.open()
    const shared = { links: redis.links, command, catalogue, ids, clock: SYSTEM_CLOCK, telemetry }
    const views = new ViewReader(shared)
    const projectors = new ProjectorSet({ ...shared, logger: SILENT_LOGGER })
    const letters = new DeadLetters(shared)
    await views.start()
    await projectors.start()
    const handlers = new Map(
      [...catalogue.handlers].map(([key, handler]) => [
        key,
        handler.kind === 'handler'
          ? handler
          : aggregateHandler(handler, { link: command, clock: SYSTEM_CLOCK }),
      ]),
    )
    const reader = async () => {
      const another = new ViewReader(shared)
      await another.start()
      return another
    }
    const workers: Consumer[] = []
    const worker = async () => {
      const options = { promoteEveryMs: 20, drainLimitMs: 5000 }
      const consumer = new Consumer({ ...shared, handlers, logger: SILENT_LOGGER, options })
      workers.push(consumer)
      await consumer.start()
      return consumer
    }
    const ended = async () => {
      await Promise.all(workers.map((each) => each.stop()))
      await projectors.stop()
      await views.stop()
      await api[Symbol.asyncDispose]()
      await redis[Symbol.asyncDispose]()
    }
    return new TenantWorld({ redis, api, views, letters, handled, mood, reader }, worker, ended)
  }

  worker(): Promise<Consumer> {
    return this.#worker()
  }

  /** One tenant's way into it, over HTTP; '' has none. */
  as(tenant: string): TenantClient {
    return new TenantClient(this.api, tenant)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ended()
  }
}

export interface Reply {
  readonly status: number
  readonly headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: what a test looks into is the test's matter
  readonly body: any
}

export class TenantClient {
  readonly #api: PublicServer
  readonly tenant: string

  constructor(api: PublicServer, tenant: string) {
    this.#api = api
    this.tenant = tenant
  }

  async ask(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<Reply> {
    const whose: Record<string, string> = this.tenant === '' ? {} : { 'x-tenant': this.tenant }
    const content: Record<string, string> = body === undefined ? {} : { 'content-type': 'application/json' }
    const response = await this.#api.fetch(path, {
      method,
      headers: { ...whose, ...content, ...headers },
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
    const text = await response.text()
    return {
      status: response.status,
      headers: response.headers,
      body: text === '' ? undefined : JSON.parse(text),
    }
  }

  get(path: string, headers: Record<string, string> = {}): Promise<Reply> {
    return this.ask('GET', path, undefined, headers)
  }

  /** Sends one command that must be accepted; answers its id. */
  async send(type: string, payload: unknown, headers: Record<string, string> = {}): Promise<string> {
    const { status, body } = await this.ask('POST', `/v1/commands/${type}`, payload, headers)
    if (status !== 202) throw new Error(`${type} of "${this.tenant}": ${status} ${JSON.stringify(body)}`)
    return String(body.id)
  }

  async statusOf(id: string): Promise<string> {
    const { status, body } = await this.get(`/v1/commands/${id}`)
    return status === 200 ? String(body.status) : String(status)
  }

  async view(projection: string, key: string, headers: Record<string, string> = {}): Promise<Reply> {
    return await this.get(`/v1/views/${projection}/${encodeURIComponent(key)}`, headers)
  }
}
