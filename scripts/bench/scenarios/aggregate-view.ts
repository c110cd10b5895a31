/** How fast events become views when the same views are hot all the time, against counting in Redis. */
import type { Redis } from 'ioredis'
import type { RedisServer } from '../../fleet/redis-server.ts'
import { type Contestant, duel } from '../duel.ts'
import { EventBacklog, PLAIN_EVENTS } from '../event-backlog.ts'
import { watchProgress } from '../progress-watch.ts'
import { CUSTOMERS, checkCounts, EVENTS, READER, READERS, viewCounts } from '../sales.ts'
import type { Measure, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'

const PROGRESS = 'plain-progress'
/** Entries in one read of the baseline, some hundred events each: the best of 1, 2, 4 and 8. */
const COUNT = 2

export const aggregateView: Scenario = {
  name: 'aggregate-view',
  summary: 'one projector folds events into 10,000 hot views',
  async play(stage) {
    const redis = await stage.redis()
    const events = stage.quick ? 200_000 : 1_000_000
    const backlog = await EventBacklog.fill(stage, redis, events)
    const client = stage.client(redis)
    const row = await duel(stage, {
      name: 'aggregate-view',
      unit: 'events/s',
      millrace: projector(stage, redis, backlog, client),
      baseline: aggregator(stage, redis, backlog, client),
      budget: { of: 'ratio', is: 'at least', bound: 1 },
      rounds: { full: 5, quick: 2 },
      setting: {
        ...{ backlog: events, keys: CUSTOMERS, partitions: 1, projectors: 1, fields: 'count and cents' },
        baselineEvents: `bare pairs in entries of the same ids: nothing to decode; COUNT ${COUNT}`,
      },
    })
    return [row]
  },
}

function projector(stage: Stage, redis: RedisServer, backlog: EventBacklog, client: Redis): Contestant {
  return {
    name: 'millrace',
    play: async () => {
      await backlog.restore(EVENTS)
      const projector = await stage.role('project', { redis, app: 'sales' })
      const position = () => client.hget(READERS, READER)
      const measure = await watch(stage, redis, backlog, { projector: projector.pid }, position)
      await stage.end(projector)
      checkCounts(backlog.events, backlog.events, await viewCounts(client))
      return measure
    },
  }
}

function aggregator(stage: Stage, redis: RedisServer, backlog: EventBacklog, client: Redis): Contestant {
  return {
    name: 'ioredis XREAD + HINCRBY',
    play: async () => {
      await backlog.restore(PLAIN_EVENTS)
      const plain = stage.subject('plain-aggregator', {
        ...{ url: redis.url, stream: PLAIN_EVENTS, progress: PROGRESS, count: COUNT },
      })
      await plain.ready()
      const position = () => client.get(PROGRESS)
      const measure = await watch(stage, redis, backlog, { aggregator: plain.pid }, position)
      await stage.end(plain)
      const pipeline = client.pipeline()
      for (const key of await client.keys('plain:*')) pipeline.hget(key, 'count')
      const counts = ((await pipeline.exec()) ?? []).map(([, count]) => Number(count))
      checkCounts(backlog.events, backlog.events, counts)
      return measure
    },
  }
}

async function watch(
  stage: Stage,
  redis: RedisServer,
  backlog: EventBacklog,
  processes: Record<string, number>,
  position: () => Promise<string | null>,
): Promise<Measure> {
  return await watchProgress({
    done: async () => backlog.reached(await position()),
    total: backlog.events,
    processes: { redis: redis.pid, ...processes },
    signal: stage.signal,
  })
}
