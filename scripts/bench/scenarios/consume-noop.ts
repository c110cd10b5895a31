/** How fast one worker gets through a backlog when handling costs nothing. */
import { Consuming, IN_FLIGHT_MAX, ROOMY } from '../consuming.ts'
import { duel } from '../duel.ts'
import type { Scenario } from '../scenario.ts'

const COUNT = 500

export const consumeNoop: Scenario = {
  name: 'consume-noop',
  summary: 'one worker, a backlog, a handler that does nothing',
  async play(stage) {
    const commands = stage.quick ? 200_000 : 1_000_000
    const consuming = await Consuming.prepare(stage, { app: 'noop', commands })
    const row = await duel(stage, {
      name: 'consume-noop',
      unit: 'commands/s',
      millrace: consuming.workers({ flags: ROOMY }),
      baseline: consuming.plain({ name: 'ioredis XREADGROUP + XACK', count: COUNT }),
      budget: { of: 'ratio', is: 'at least', bound: 0.75 },
      rounds: { full: 5, quick: 2 },
      setting: {
        backlog: commands,
        batchCountMax: COUNT,
        partitions: 1,
        workers: 1,
        inFlightMax: IN_FLIGHT_MAX,
      },
    })
    return [row]
  },
}
