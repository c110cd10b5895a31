/** A handler keeps its event loop busy for seconds. Its worker is alive, must not be taken for dead, and comes back by itself. */

import { journalEntries } from '../handler-calls.ts'
import { judge } from '../judge.ts'
import type { Scenario } from '../scenario.ts'
import { deathsPronounced } from '../verdicts.ts'
import { mixedType, Workload } from '../workload.ts'

const BLOCK_MS = 5000

export const stall: Scenario = {
  name: 'stall',
  promise:
    'the event loop of a worker blocked for 5 s: nothing lost, nothing doubled, the worker comes back by itself',
  full: { commands: 100_000, seconds: 40, workerKills: 0, pauses: 0, redisKills: 0, rounds: 4 },
  async run(arena) {
    const { commands, rounds } = arena.size
    const everyRows = Math.floor(commands / (rounds + 1))
    const isBlocking = (row: number): boolean => row % everyRows === 0 && row > 0 && row / everyRows <= rounds
    const workload = new Workload({
      rows: commands,
      keys: 1000,
      bodyRows: 50,
      typeOf: (row) => (isBlocking(row) ? 'step.block' : mixedType(row)),
      extraOf: (row) => (isBlocking(row) ? `,"ms":${BLOCK_MS}` : ''),
    })
    await arena.open({ workload, workers: 2 })
    const pids = arena.fleet.workers.map(({ process }) => process.pid).join(' ')
    await arena.produce()
    await arena.quiet()
    const account = await arena.count()
    judge(arena, account, { duplicateCallsMax: 0 })
    const after = arena.fleet.workers.map(({ process }) => process.pid).join(' ')
    arena.check(after === pids, 'a worker was started again')
    const deaths = deathsPronounced(arena.fleet)
    arena.check(
      deaths.consumers === 0,
      `${deaths.consumers} workers that were only busy were pronounced dead`,
    )
    const cameBack = resumedAfterBlock(arena.fleet.journalsFolder, isBlocking)
    arena.check(cameBack.blocked === rounds, `${cameBack.blocked} of ${rounds} blocks came about`)
    arena.check(cameBack.resumed > 0, 'no worker handled anything after its block')
    Object.assign(arena.details, cameBack)
  },
}

/** How many calls blocked, and how many of their processes started something afterwards. */
function resumedAfterBlock(
  folder: string,
  isBlocking: (row: number) => boolean,
): { readonly blocked: number; readonly resumed: number } {
  const open = new Map<string, number>()
  let [blocked, resumed] = [0, 0]
  for (const { process, row, kind, stream, monotonicMs } of journalEntries(folder)) {
    if (stream !== 0) continue
    const sinceMs = open.get(process)
    if (isBlocking(row) && kind === 1) {
      blocked += 1
      open.set(process, monotonicMs)
    } else if (sinceMs !== undefined && kind === 1 && monotonicMs > sinceMs + BLOCK_MS) {
      resumed += 1
      open.delete(process)
    }
  }
  return { blocked, resumed }
}
