/** Whether a worker gets slower or larger when more waits for it: the same handler before backlogs of 10,000 to 5,000,000. */
import { Consuming } from '../consuming.ts'
import { type Contestant, compare, playRounds } from '../duel.ts'
import type { Measure, Row, Scenario } from '../scenario.ts'

const SHORTEST = 10_000
const LONGER = { full: [100_000, 1_000_000, 5_000_000], quick: [300_000] }
const SETTING = { backlog: 'kept as long as it was', batchCountMax: 500, partitions: 1, workers: 1 }

type Played = readonly ReadonlyMap<string, Measure>[]

export const backlog: Scenario = {
  name: 'backlog',
  summary: 'consume-noop with 10,000 to 5,000,000 commands waiting, and what the worker keeps in memory',
  async play(stage) {
    const worker = async (commands: number): Promise<Contestant> => {
      const consuming = await Consuming.prepare(stage, { app: 'noop', commands })
      return consuming.steadyWorker(`${commands.toLocaleString('en-US')} waiting`)
    }
    const baseline = await worker(SHORTEST)
    const longer: Contestant[] = []
    for (const commands of stage.quick ? LONGER.quick : LONGER.full) longer.push(await worker(commands))
    const played = await playRounds(stage, {
      name: 'backlog',
      contestants: [baseline, ...longer],
      rounds: { full: 5, quick: 1 },
    })
    return [speedRow(baseline, longer, played), residentRow(baseline, longer, played)]
  },
}

/** Of the longer backlogs, the one that did worst. */
function speedRow(baseline: Contestant, longer: readonly Contestant[], played: Played): Row {
  const rows = longer.map((millrace) =>
    compare(
      {
        ...{ name: 'backlog', unit: 'commands/s', millrace, baseline },
        beside: longer,
        budget: { of: 'ratio', is: 'at least', bound: 0.9 },
        setting: { ...SETTING, compared: millrace.name },
      },
      played,
    ),
  )
  return rows.reduce((worst, row) => ((row.ratio ?? 0) < (worst.ratio ?? 0) ? row : worst))
}

/** What the worker has resident before the longest backlog, less what it has before the shortest. */
function residentRow(baseline: Contestant, longer: readonly Contestant[], played: Played): Row {
  const millrace = longer.at(-1) ?? baseline
  return compare(
    {
      ...{ name: 'backlog-resident', unit: 'MiB', millrace, baseline },
      beside: longer,
      budget: { of: 'difference', is: 'at most', bound: 64 },
      setting: { ...SETTING, compared: millrace.name },
    },
    played.map((results) => new Map([...results].map(([name, measure]) => [name, residentOf(measure)]))),
  )
}

function residentOf({ details }: Measure): Measure {
  return { value: Number(details?.['residentMiB']) }
}
