/**
 * The whole way of a command: posted in bulk, handled, its event folded, the view readable over HTTP. API, worker and
 * projector are processes of their own and share one Redis with the load generator on one machine; the clock runs from the
 * first request until the view answers with the last event in it.
 */
import { cpus } from 'node:os'
import type { Redis } from 'ioredis'
import { RunError } from '../../fleet/failure.ts'
import type { RedisServer } from '../../fleet/redis-server.ts'
import { bottleneckOf } from '../bottleneck.ts'
import { Consuming } from '../consuming.ts'
import { type Contestant, duel } from '../duel.ts'
import { watchUntilDone } from '../group-watch.ts'
import { orderLine } from '../payload.ts'
import { ProcessorTime } from '../processor-time.ts'
import { COMMANDS, checkCounts, SALES, viewCounts } from '../sales.ts'
import type { Measure, Row, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'

const BODY_COMMANDS = 500
const REQUESTS = 4

interface Produced {
  readonly startedMs: number
  readonly endedMs: number
  /** Requests that were told to come again. */
  readonly deferred: number
  readonly lastId: string
}

export const endToEnd: Scenario = {
  name: 'end-to-end',
  summary: 'bulk POST, handler, event, view: four processes and Redis',
  async play(stage) {
    const commands = stage.quick ? 200_000 : 1_000_000
    const consuming = await Consuming.prepare(stage, { app: 'noop', commands })
    const redis = await stage.redis()
    const row = await duel(stage, {
      name: 'end-to-end',
      unit: 'commands/s',
      millrace: wholeWay(stage, redis, commands),
      baseline: consuming.workers({ name: 'consume-noop' }),
      budget: { of: 'ratio', is: 'at least', bound: 0.25 },
      rounds: { full: 5, quick: 2 },
      setting: {
        ...{
          commands,
          bodyCommands: BODY_COMMANDS,
          requestsAtOnce: REQUESTS,
          batchCountMax: 500,
          partitions: 1,
        },
        processes: 'api, worker, projector, redis-server, load generator',
      },
    })
    return [{ ...row, beside: { ...row.beside, bottleneck: bottleneckOf(meanCores(row), cpus().length) } }]
  },
}

function wholeWay(stage: Stage, redis: RedisServer, commands: number): Contestant {
  return {
    name: 'millrace',
    play: async () => {
      const client = stage.client(redis)
      await client.flushall()
      const { app } = SALES
      const [api, worker, projector] = await Promise.all([
        stage.role('api', { redis, app }),
        stage.role('work', { redis, app }),
        stage.role('project', { redis, app }),
      ])
      const url = api.told('public')
      const producer = stage.subject('bulk-producer', {
        ...{ url: `${url}/v1/commands`, type: SALES.type, commands },
        ...{ bodyCommands: BODY_COMMANDS, requests: REQUESTS },
      })
      const { lines } = await producer.ready<{ readonly lines: number }>()
      const used = new ProcessorTime({
        ...{ api: api.pid, worker: worker.pid, projector: projector.pid },
        ...{ redis: redis.pid, producer: producer.pid },
      })
      const measure = await watch(stage, { client, commands, url, used }, producer.result<Produced>())
      checkCounts(commands, lines, await viewCounts(client))
      await Promise.all([producer, api, worker, projector].map((process) => stage.end(process)))
      client.disconnect()
      return measure
    },
  }
}

interface Watched {
  readonly client: Redis
  readonly commands: number
  readonly url: string
  readonly used: ProcessorTime
}

/** Once every command is settled, a view that has passed one of them has passed them all. */
async function watch(
  stage: Stage,
  { client, commands, url, used }: Watched,
  result: Promise<Produced>,
): Promise<Measure> {
  const { signal } = stage
  const [{ startedMs, endedMs, deferred, lastId }] = await Promise.all([
    result,
    watchUntilDone({ client, streams: [COMMANDS], commands, processes: {}, signal }),
  ])
  const settledMs = nowMs()
  const headers = { 'millrace-after': lastId }
  const answer = await fetch(`${url}/v1/views/customers/${orderLine(0).customer}`, { headers, signal })
  await answer.arrayBuffer()
  const readableMs = nowMs()
  const cores = used.cores()
  if (answer.status !== 200) throw new RunError('failed', `The view answered ${answer.status}.`)
  return {
    value: (commands * 1000) / (readableMs - startedMs),
    cores,
    details: {
      'accepted after ms': Math.round(endedMs - startedMs),
      'settled after ms': Math.round(settledMs - startedMs),
      'readable after ms': Math.round(readableMs - startedMs),
      'requests told to come again': deferred,
    },
  }
}

/** By the same clock as the load generator's. */
function nowMs(): number {
  return performance.timeOrigin + performance.now()
}

/** Of Millrace's processes, over the rounds. */
function meanCores({ rounds }: Row): Record<string, number> {
  const sums: Record<string, number> = {}
  for (const { cores } of rounds) {
    for (const [name, used] of Object.entries(cores?.['millrace'] ?? {})) {
      sums[name] = (sums[name] ?? 0) + used / rounds.length
    }
  }
  return sums
}
