/** How fast code hands commands in through the producer, each awaited by its caller. */
import { duel } from '../duel.ts'
import { watchProgress } from '../progress-watch.ts'
import type { Measure, Scenario } from '../scenario.ts'
import type { Subject } from '../subject.ts'

const STREAM = 'mr:{lines.0}:c'
/** As many commands as eight scripts of 256 hold. */
const CALLERS = 2048
const SCRIPTS = 8

export const ingestClient: Scenario = {
  name: 'ingest-client',
  summary: 'the producer in process, many callers that each await their command',
  async play(stage) {
    const redis = await stage.redis()
    const client = stage.client(redis)
    const entries = stage.quick ? 400_000 : 1_500_000
    const watch = async (start: () => Subject): Promise<Measure> => {
      await client.flushall()
      const subject = start()
      await subject.ready()
      const processes = { redis: redis.pid, producer: subject.pid }
      const count = (): Promise<number> => client.xlen(STREAM)
      const measure = await watchProgress({ done: count, total: entries, processes, signal: stage.signal })
      await stage.end(subject)
      return measure
    }
    const row = await duel(stage, {
      name: 'ingest-client',
      unit: 'commands/s',
      millrace: {
        name: 'millrace',
        play: () => watch(() => stage.subject('producer', { url: redis.url, callers: CALLERS })),
      },
      baseline: {
        name: 'ioredis, scripts of 256 XADDs',
        play: () =>
          watch(() => stage.subject('plain-producer', { url: redis.url, stream: STREAM, scripts: SCRIPTS })),
      },
      beside: [
        {
          name: 'millrace, sendMany of 256',
          play: () =>
            watch(() =>
              stage.subject('producer', { url: redis.url, callers: SCRIPTS, chunk: CALLERS / SCRIPTS }),
            ),
        },
      ],
      budget: { of: 'ratio', is: 'at least', bound: 0.7 },
      rounds: { full: 7, quick: 3 },
      setting: { entries, callers: CALLERS, baselineScripts: SCRIPTS, partitions: 1 },
    })
    return [row]
  },
}
