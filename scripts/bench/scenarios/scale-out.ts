/**
 * What more workers bring when handlers mostly wait: 5 ms for a batch of 100, one batch at a time in each worker.
 *
 * Every worker works off the same share before the window opens, and the same while it is measured: a team of n
 * has n times the work and the same time. A worker that is compiling still takes twice the processor time of a warm one, so an
 * earlier window would tell on how many cores four of them warm up.
 */
import { Consuming } from '../consuming.ts'
import { type Contestant, compare, type DuelOptions, playRounds } from '../duel.ts'
import type { Scenario } from '../scenario.ts'

const BUDGETS = [
  { workers: 2, bound: 1.9 },
  { workers: 4, bound: 3.6 },
]
const WORKERS_MAX = 4

/** Commands of each worker. */
const SHARES = { full: { warm: 50_000, measured: 60_000 }, quick: { warm: 20_000, measured: 30_000 } }
/** More than the workers hold: nobody runs dry before the window closes. */
const SPARE = 8000

export const scaleOut: Scenario = {
  name: 'scale-out',
  summary: '1, 2 and 4 workers with a handler that waits 5 ms a batch',
  async play(stage) {
    const { warm, measured } = stage.quick ? SHARES.quick : SHARES.full
    const commands = WORKERS_MAX * (warm + measured) + SPARE
    const consuming = await Consuming.prepare(stage, { app: 'waiting', commands })
    const team = (processes: number): Contestant => {
      const window = { from: processes * warm, to: processes * (warm + measured) }
      return consuming.workers({ name: workersText(processes), processes, window })
    }
    const baseline = team(1)
    const teams = BUDGETS.map(({ workers }) => team(workers))
    // As many rounds as there are teams: each comes first, second and last once.
    const rounds = { full: 3, quick: 1 }
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
          ...{ handlerWaitMs: 5, 'warm-up of each worker': warm, 'measured of each worker': measured },
        },
      }
      return compare(options, played)
    })
  },
}

function workersText(count: number): string {
  return count === 1 ? '1 worker' : `${count} workers`
}
