/** What more workers bring when handlers mostly wait: 5 ms for a batch of 100, one batch at a time in each worker. */
import { Consuming } from '../consuming.ts'
import { type Contestant, compare, type DuelOptions, playRounds } from '../duel.ts'
import type { Scenario } from '../scenario.ts'

const BUDGETS = [
  { workers: 2, bound: 1.9 },
  { workers: 4, bound: 3.6 },
]

export const scaleOut: Scenario = {
  name: 'scale-out',
  summary: '1, 2 and 4 workers with a handler that waits 5 ms a batch',
  async play(stage) {
    const commands = stage.quick ? 60_000 : 200_000
    const consuming = await Consuming.prepare(stage, { app: 'waiting', commands })
    // What the workers hold at the end is worked off unevenly: a steady rate is what is compared.
    const team = (processes: number): Contestant =>
      consuming.workers({ name: workersText(processes), processes, untilShare: 0.9 })
    const baseline = team(1)
    const teams = BUDGETS.map(({ workers }) => team(workers))
    const rounds = { full: 5, quick: 1 }
    const played = await playRounds(stage, { name: 'scale-out', contestants: [baseline, ...teams], rounds })
    return BUDGETS.map(({ workers, bound }): ReturnType<typeof compare> => {
      const options: Omit<DuelOptions, 'rounds'> = {
        name: `scale-out-${workers}`,
        unit: 'commands/s',
        millrace: team(workers),
        baseline,
        budget: { of: 'ratio', is: 'at least', bound },
        setting: {
          ...{ backlog: commands, workers, partitions: 1, batchCountMax: 100, concurrencyMax: 1 },
          handlerWaitMs: 5,
        },
      }
      return compare(options, played)
    })
  },
}

function workersText(count: number): string {
  return count === 1 ? '1 worker' : `${count} workers`
}
