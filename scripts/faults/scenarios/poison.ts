/** One command of two hundred ends its worker whenever it runs. It must be found, and nobody else may pay for it. */
import type { Arena } from '../arena.ts'
import { judge } from '../judge.ts'
import type { Scenario } from '../scenario.ts'
import { Workload } from '../workload.ts'

const BATCH = 200
const CRASHES_MAX = 3
const END_LIMIT_MS = 60_000

export const poison: Scenario = {
  name: 'poison',
  promise: 'one crasher in a batch of 200: 1 dead letter, 199 done, at most 3 crashes',
  full: { commands: 0, seconds: 60, workerKills: 0, pauses: 0, redisKills: 0, rounds: 5 },
  async run(arena) {
    const { rounds } = arena.size
    const random = arena.random.fork('poison')
    const crashers = Array.from({ length: rounds }, (_, round) => round * BATCH + random.whole(0, BATCH - 1))
    const workload = new Workload({
      rows: rounds * BATCH,
      keys: 1,
      bodyRows: BATCH,
      typeOf: () => 'step.fragile',
      extraOf: (row) => (crashers.includes(row) ? ',"crashes":true' : ''),
    })
    arena.expectedDead = (row) => crashers.includes(row)
    await arena.open({ workload, workers: 2 })
    arena.fleet.crashesExpected = true
    arena.fleet.onCrash = () => void arena.fleet.startWorker().catch(() => undefined)
    const crashes: number[] = []
    for (let round = 0; round < rounds; round++) {
      const before = arena.fleet.crashes
      await arena.produce({ from: round * BATCH, to: (round + 1) * BATCH, ratePerSecond: 1e9 })
      const isDead = (): Promise<boolean> => deadCount(arena).then((count) => count > round)
      const found = await arena.guard(arena.until(isDead, END_LIMIT_MS))
      arena.check(found, `the crasher of round ${round + 1} was not found within ${END_LIMIT_MS / 1000} s`)
      await arena.quiet()
      crashes.push(arena.fleet.crashes - before)
    }
    const account = await arena.count()
    judge(arena, account)
    Object.assign(arena.details, { crashes })
    const { dead } = account.effects
    arena.check(dead.length === rounds, `${dead.length} dead letters, not ${rounds}`)
    arena.check(account.effects.done === rounds * (BATCH - 1), `${account.effects.done} are done`)
    const worst = Math.max(...crashes)
    arena.check(worst <= CRASHES_MAX, `it took ${worst} crashes`)
    arena.check(Math.min(...crashes) > 0, 'nothing crashed: nothing was tested')
  },
}

async function deadCount(arena: Arena): Promise<number> {
  let count = 0
  for (const place of arena.places) count += (await arena.probe.deadLetters(place)).length
  return count
}
