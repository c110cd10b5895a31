/**
 * How long it takes from the start of a worker's process until it has handled the first command, which waits in the stream.
 * The parent's clock runs from before the process is spawned until what ends a start is seen from outside: the event of the
 * handled command, which is committed with its acknowledgement, arrives at a blocking read; the baseline's line arrives.
 *
 * Everything but the processor's caches is cold in every round: a new process, a Redis without groups or fleet. The files
 * are in the page cache for everybody alike.
 */
import { freePorts } from '../../fleet/free-ports.ts'
import type { RedisServer } from '../../fleet/redis-server.ts'
import { installApplication } from '../application.ts'
import { Backlog } from '../backlog.ts'
import { type Contestant, duel } from '../duel.ts'
import { orderLine } from '../payload.ts'
import type { Measure, Scenario } from '../scenario.ts'
import type { RoleOptions, Stage } from '../stage.ts'

const APP = 'stopwatch'
const COMMANDS = 1
const EVENTS = 'mr:{timed.0}:e'
const LIMIT_S = 30
const LOOK_MS = 1

export const coldStart: Scenario = {
  name: 'cold-start',
  summary: 'process start to first command handled, against bare Bun with ioredis',
  async play(stage) {
    const redis = await stage.redis()
    const application = await installApplication(`${stage.folder}/application`, APP)
    const backlog = await Backlog.fill(stage, {
      ...{ redis, app: APP, type: 'order.place', stream: 'timed', partitions: 1, commands: COMMANDS },
    })
    const installed = { redis, app: APP, application }
    const start = (name: string, options: RoleOptions): Contestant => ({
      name,
      play: async () => {
        await backlog.restore()
        return await untilHandled(stage, options)
      },
    })
    const row = await duel(stage, {
      name: 'cold-start',
      unit: 'ms',
      millrace: start('millrace start work', installed),
      baseline: { name: 'bare Bun + ioredis PING', play: () => untilPong(stage, redis) },
      beside: [
        start('millrace start work, from source', { redis, app: APP }),
        { name: 'millrace start api, first 202', play: () => untilAccepting(stage, 'api', installed) },
        { name: 'millrace start all, first 202', play: () => untilAccepting(stage, 'all', installed) },
      ],
      budget: { of: 'difference', is: 'at most', bound: 150 },
      rounds: { full: 15, quick: 5 },
      setting: { commands: COMMANDS, form: 'dist/, installed', schema: 'zod' },
    })
    return [row]
  },
}

async function untilHandled(stage: Stage, options: RoleOptions): Promise<Measure> {
  const client = stage.client(options.redis)
  await client.ping()
  const handled = client.xread('BLOCK', LIMIT_S * 1000, 'STREAMS', EVENTS, '0')
  const startMs = performance.now()
  const worker = stage.launch('work', options)
  const reply = await handled
  const value = performance.now() - startMs
  client.disconnect()
  await worker.untilReady(stage.signal)
  await stage.end(worker)
  return { value: reply === null ? 0 : value }
}

async function untilPong(stage: Stage, redis: RedisServer): Promise<Measure> {
  const startMs = performance.now()
  const subject = stage.subject('bare-ping', { url: redis.url })
  await subject.ready()
  const value = performance.now() - startMs
  await stage.end(subject)
  return { value }
}

/** A producer that tries until it is answered. */
async function untilAccepting(stage: Stage, role: 'api' | 'all', options: RoleOptions): Promise<Measure> {
  const [port = 0] = await freePorts(1)
  const client = stage.client(options.redis)
  await client.flushdb()
  client.disconnect()
  const url = `http://127.0.0.1:${port}/v1/commands/order.place`
  const headers = { 'content-type': 'application/json' }
  const startMs = performance.now()
  const launched = stage.launch(role, { ...options, flags: ['--port', String(port)] })
  const body = JSON.stringify(orderLine(1))
  while ((await statusOf(url, { method: 'POST', headers, body })) !== 202) {
    stage.signal.throwIfAborted()
    if (performance.now() - startMs > LIMIT_S * 1000) return { value: 0 }
    await Bun.sleep(LOOK_MS)
  }
  const value = performance.now() - startMs
  await launched.untilReady(stage.signal)
  await stage.end(launched)
  return { value }
}

/** 0 while nobody listens. */
async function statusOf(url: string, request: RequestInit): Promise<number> {
  try {
    const answer = await fetch(url, request)
    await answer.arrayBuffer()
    return answer.status
  } catch {
    return 0
  }
}
