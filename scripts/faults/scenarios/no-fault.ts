/** Nothing is broken: then nothing may run twice, and nobody may be thought dead. Small batches and many reads. */
import { judge } from '../judge.ts'
import type { Scenario } from '../scenario.ts'
import { alarmsRaised, deathsPronounced } from '../verdicts.ts'
import { mixedType, Workload } from '../workload.ts'

export const noFault: Scenario = {
  name: 'no-fault',
  promise: 'nothing broken: duplicate handler calls 0, false verdicts 0',
  full: { commands: 1_000_000, seconds: 120, workerKills: 0, pauses: 0, redisKills: 0, rounds: 0 },
  async run(arena) {
    const { commands } = arena.size
    const workload = new Workload({ rows: commands, keys: 1000, bodyRows: 50, typeOf: mixedType })
    await arena.open({ workload, workers: 3 })
    await arena.produce({ requestsMax: 12 })
    await arena.quiet()
    const account = await arena.count({ sweep: true })
    judge(arena, account, { duplicateCallsMax: 0 })
    const deaths = deathsPronounced(arena.fleet)
    const alarms = alarmsRaised(arena.fleet)
    Object.assign(arena.details, { falseVerdicts: deaths.consumers, alarms })
    arena.check(deaths.consumers === 0, `${deaths.consumers} living workers were pronounced dead`)
    arena.check(Object.keys(alarms).length === 0, `alarms without a fault: ${JSON.stringify(alarms)}`)
  },
}
