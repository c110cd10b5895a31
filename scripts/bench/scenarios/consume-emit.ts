/** How fast one worker gets through a backlog when each command causes an event, exactly once. */
import { Consuming, IN_FLIGHT_MAX, ROOMY } from '../consuming.ts'
import { duel } from '../duel.ts'
import type { Scenario } from '../scenario.ts'

const COUNT = 500

export const consumeEmit: Scenario = {
  name: 'consume-emit',
  summary: 'one worker, a backlog, an event for each command, exactly once',
  async play(stage) {
    const commands = stage.quick ? 150_000 : 600_000
    const consuming = await Consuming.prepare(stage, { app: 'emit', commands })
    const row = await duel(stage, {
      name: 'consume-emit',
      unit: 'commands/s',
      millrace: consuming.workers({ flags: ROOMY }),
      baseline: consuming.plain({ name: 'ioredis XREADGROUP + XACK, XADD', count: COUNT, emits: true }),
      budget: { of: 'ratio', is: 'at least', bound: 1 },
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
