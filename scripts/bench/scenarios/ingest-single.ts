/** How many commands a second one API process takes in, each in a request of its own, and stored when it is answered. */
import { duel } from '../duel.ts'
import { HttpLoad } from '../http-load.ts'
import type { Measure, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'

const CONNECTIONS = 64
const TYPE = 'line.add'
const ACCEPTED = 202

export const ingestSingle: Scenario = {
  name: 'ingest-single',
  summary: 'one command a request, validated and appended before it is answered',
  async play(stage) {
    const load = new HttpLoad(stage)
    const measure = (url: string, processes: Readonly<Record<string, number>>): Promise<Measure> =>
      load.measure({
        ...{ url, processes, status: ACCEPTED, connections: CONNECTIONS },
        request: { kind: 'single', type: TYPE },
      })
    const row = await duel(stage, {
      name: 'ingest-single',
      unit: 'commands/s',
      millrace: { name: 'millrace', play: () => playMillrace(stage, measure) },
      baseline: { name: 'bare Bun.serve, zod, a script a turn', play: () => playBare(stage, measure) },
      beside: [{ name: 'bare Bun.serve that only answers 202', play: () => playAnswer(stage, measure) }],
      budget: { of: 'ratio', is: 'at least', bound: 0.85 },
      rounds: { full: 5, quick: 2 },
      setting: { connections: CONNECTIONS, partitions: 1, apis: 1 },
    })
    return [row]
  },
}

type MeasureLoad = (url: string, processes: Readonly<Record<string, number>>) => Promise<Measure>

async function playMillrace(stage: Stage, measure: MeasureLoad): Promise<Measure> {
  const redis = await stage.redis()
  const api = await stage.role('api', { redis, app: 'noop' })
  const result = await measure(api.told('public'), { api: api.pid, redis: redis.pid })
  await stage.end(api)
  await stage.endRedis(redis)
  return result
}

async function playBare(stage: Stage, measure: MeasureLoad): Promise<Measure> {
  const redis = await stage.redis()
  const bare = stage.subject('bare-ingest', { redisUrl: redis.url, stream: 'lines' })
  const { url } = await bare.ready<{ url: string }>()
  const result = await measure(url, { api: bare.pid, redis: redis.pid })
  await stage.end(bare)
  await stage.endRedis(redis)
  return result
}

async function playAnswer(stage: Stage, measure: MeasureLoad): Promise<Measure> {
  const body = '{"id":"1700000000000-0"}'
  const headers = { 'content-type': 'application/json' }
  const bare = stage.subject('bare-answer', { status: ACCEPTED, headers, body })
  const { url } = await bare.ready<{ url: string }>()
  const result = await measure(url, { api: bare.pid })
  await stage.end(bare)
  return result
}
