/** How fast one worker gets through a backlog when handling costs nothing. */
import { Backlog } from '../backlog.ts'
import { duel } from '../duel.ts'
import { watchUntilDone } from '../group-watch.ts'
import type { Measure, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'

const STREAM = 'mr:{lines.0}:c'
const COUNT = 500

export const consumeNoop: Scenario = {
  name: 'consume-noop',
  summary: 'one worker, a backlog, a handler that does nothing',
  async play(stage) {
    const redis = await stage.redis()
    const commands = stage.quick ? 200_000 : 1_000_000
    const backlog = await Backlog.fill(stage, {
      ...{ redis, app: 'noop', type: 'line.add', stream: 'lines', partitions: 1, commands },
    })
    const row = await duel(stage, {
      name: 'consume-noop',
      unit: 'commands/s',
      millrace: {
        name: 'millrace',
        play: async () => {
          await backlog.restore()
          const worker = await stage.role('work', { redis, app: 'noop', flags: ['--in-flight-max', '4000'] })
          const measure = await watch(stage, redis, commands, { worker: worker.pid })
          await stage.end(worker)
          return measure
        },
      },
      baseline: {
        name: 'ioredis XREADGROUP + XACK',
        play: async () => {
          await backlog.restore()
          const plain = stage.subject('plain-consumer', {
            url: redis.url,
            stream: STREAM,
            group: 'plain',
            count: COUNT,
          })
          await plain.ready()
          const measure = await watch(stage, redis, commands, { worker: plain.pid })
          await stage.end(plain)
          return measure
        },
      },
      budget: { of: 'ratio', is: 'at least', bound: 0.75 },
      rounds: { full: 5, quick: 2 },
      setting: { backlog: commands, batchCountMax: COUNT, partitions: 1, workers: 1 },
    })
    return [row]
  },
}

async function watch(
  stage: Stage,
  redis: Awaited<ReturnType<Stage['redis']>>,
  commands: number,
  workers: Record<string, number>,
): Promise<Measure> {
  const client = stage.client(redis)
  try {
    const processes = { redis: redis.pid, ...workers }
    return await watchUntilDone({ client, streams: [STREAM], commands, processes, signal: stage.signal })
  } finally {
    client.disconnect()
  }
}
