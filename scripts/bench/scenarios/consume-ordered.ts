/** What order by key costs: the same commands and handler, with and without it. */
import { Consuming, IN_FLIGHT_MAX, ROOMY } from '../consuming.ts'
import { duel } from '../duel.ts'
import type { Scenario } from '../scenario.ts'

const KEYS = 10_000
const PARTITIONS = 8

export const consumeOrdered: Scenario = {
  name: 'consume-ordered',
  summary: 'as consume-noop, in the order of 10,000 keys in 8 partitions',
  async play(stage) {
    const commands = stage.quick ? 150_000 : 1_000_000
    const common = { commands, keys: KEYS }
    const unordered = await Consuming.prepare(stage, { app: 'noop', ...common })
    const ordered = await Consuming.prepare(stage, { app: 'ordered', partitions: PARTITIONS, ...common })
    const row = await duel(stage, {
      name: 'consume-ordered',
      unit: 'commands/s',
      millrace: ordered.workers({ flags: ROOMY }),
      baseline: unordered.workers({ name: 'consume-noop', flags: ROOMY }),
      budget: { of: 'ratio', is: 'at least', bound: 0.7 },
      rounds: { full: 5, quick: 2 },
      setting: {
        backlog: commands,
        keys: KEYS,
        partitions: PARTITIONS,
        batchCountMax: 500,
        workers: 1,
        inFlightMax: IN_FLIGHT_MAX,
      },
    })
    return [row]
  },
}
