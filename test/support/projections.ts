/** A small world for projection tests: a stream, one event, and projector sets and view readers over it. */
import { z } from 'zod'
import { defineEvent } from '../../src/contracts/event.ts'
import { SILENT_LOGGER } from '../../src/contracts/logger.ts'
import {
  defineProjection,
  type ProjectionDefinition,
  type ProjectionOptions,
} from '../../src/contracts/projection.ts'
import { defineStream } from '../../src/contracts/stream.ts'
import type { Telemetry } from '../../src/contracts/telemetry.ts'
import { buildCatalogue, type Catalogue } from '../../src/policies/catalogue.ts'
import type { ProjectorOptions } from '../../src/projections/projector.ts'
import { ProjectorSet } from '../../src/projections/projector-set.ts'
import { ViewReader, type ViewReaderOptions } from '../../src/projections/view-reader.ts'
import type { CommandIds } from '../../src/redis/command-id.ts'
import type { RedisLink, RedisLinks } from '../../src/redis/connection.ts'
import { joinFleet } from '../../src/redis/fleet.ts'
import { partitionKeys } from '../../src/redis/keys.ts'
import { unpackPayload } from '../../src/redis/payload-codec.ts'
import { readerName, readViews } from '../../src/redis/view-store.ts'
import { SYSTEM_CLOCK } from '../../src/runtime/clock.ts'
import { EventSource, type TestEvent } from './event-source.ts'
import type { TestRedis } from './redis-server.ts'
import { SILENT_TELEMETRY } from './telemetry.ts'
import { until } from './until.ts'

export interface Change {
  readonly account: string
  readonly amount: number
  readonly words?: readonly string[]
}

export const changed = defineEvent({
  type: 'account.changed',
  payload: z.object({ account: z.string(), amount: z.number(), words: z.array(z.string()).optional() }),
})

export interface Balance {
  total: number
  /** Every position folded, in order: what came twice, or not at all, shows here. */
  seen: string[]
}

/** Folds each change into the balance of its account. */
export function balances(options: Partial<ProjectionOptions<Balance>> = {}): ProjectionDefinition<Balance> {
  const initial = () => ({ total: 0, seen: [] })
  return defineProjection<Balance>({ name: 'balances', stream: 'accounts', initial, ...options }).on(
    changed,
    (event) => event.payload.account,
    (view, event) => {
      view.total += event.payload.amount
      view.seen.push(event.position)
      return view
    },
  )
}

export interface WorldOptions {
  readonly partitions?: number
  readonly projections: readonly ProjectionDefinition[]
}

export class World {
  readonly redis: TestRedis
  readonly link: RedisLink
  readonly catalogue: Catalogue
  readonly ids: CommandIds
  readonly source: EventSource
  readonly partitions: number

  private constructor(
    redis: TestRedis,
    link: RedisLink,
    catalogue: Catalogue,
    ids: CommandIds,
    partitions: number,
  ) {
    this.redis = redis
    this.link = link
    this.catalogue = catalogue
    this.ids = ids
    this.partitions = partitions
    this.source = new EventSource(link, 'accounts', partitions)
  }

  /** Empties the server and starts anew. */
  static async create(redis: TestRedis, { partitions = 1, projections }: WorldOptions): Promise<World> {
    const link = await redis.open()
    await link.use('a clean server', (client) => client.flushall())
    const catalogue = catalogueOf(projections, partitions)
    const ids = await joinFleet(link, catalogue.streams.values())
    return new World(redis, link, catalogue, ids, partitions)
  }

  set(
    options: Partial<ProjectorOptions> = {},
    telemetry: Telemetry = SILENT_TELEMETRY,
    parts: { readonly command?: RedisLink; readonly projections?: readonly ProjectionDefinition[] } = {},
  ): ProjectorSet {
    const { projections, command = this.link } = parts
    const catalogue = projections === undefined ? this.catalogue : catalogueOf(projections, this.partitions)
    const shared = {
      links: this.redis.links,
      ids: this.ids,
      clock: SYSTEM_CLOCK,
      telemetry,
      logger: SILENT_LOGGER,
    }
    return new ProjectorSet({ ...shared, command, catalogue, options })
  }

  reader(
    options: Partial<ViewReaderOptions> = {},
    telemetry: Telemetry = SILENT_TELEMETRY,
    links: RedisLinks = this.redis.links,
  ): ViewReader {
    const { catalogue, ids, link: command } = this
    return new ViewReader({
      links,
      command,
      catalogue,
      ids,
      clock: SYSTEM_CLOCK,
      telemetry,
      options,
    })
  }

  async change(account: string, amount: number, words?: readonly string[]): Promise<void> {
    await this.source.log([change(account, amount, words)])
  }

  /** All stored views of one projection, merged by nobody: partition → key → view. */
  async stored(projection: ProjectionDefinition): Promise<Map<string, unknown>[]> {
    const reader = readerName(projection)
    return await Promise.all(
      Array.from({ length: this.partitions }, async (_, partition) => {
        const keys = partitionKeys('accounts', partition)
        const hash = await this.link.use('stored views', (client) => client.hgetallBuffer(keys.views(reader)))
        return new Map(Object.entries(hash).map(([key, blob]) => [key, unpackPayload(blob)]))
      }),
    )
  }

  async checkpoint(projection: ProjectionDefinition, partition = 0): Promise<string> {
    const keys = partitionKeys('accounts', partition)
    return (await readViews(this.link, keys, readerName(projection), [])).checkpoint
  }

  /** Resolves when the projection has read the whole log of every partition. */
  async caughtUp(projection: ProjectionDefinition, limitMs?: number): Promise<void> {
    for (let partition = 0; partition < this.partitions; partition++) {
      const keys = partitionKeys('accounts', partition)
      const [last] = await this.link.use('the newest event', (client) =>
        client.xrevrange(keys.events, '+', '-', 'COUNT', 1),
      )
      if (last === undefined) continue
      const isThere = async () => (await this.checkpoint(projection, partition)) === last[0]
      await until(`${projection.name} to read partition ${partition} up to ${last[0]}`, isThere, limitMs)
    }
  }
}

function catalogueOf(projections: readonly ProjectionDefinition[], partitions: number): Catalogue {
  return buildCatalogue([changed, defineStream({ name: 'accounts', partitions }), ...projections])
}

export function change(account: string, amount: number, words?: readonly string[]): TestEvent {
  const payload = words === undefined ? { account, amount } : { account, amount, words }
  return { type: changed.type, key: account, payload }
}
