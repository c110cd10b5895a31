/** Workers are killed and paused under load, again and again. */
import { judge } from '../judge.ts'
import type { Scenario } from '../scenario.ts'
import { alarmsRaised, deathsPronounced } from '../verdicts.ts'
import { mixedType, Workload } from '../workload.ts'

const IN_FLIGHT_MAX = 500

export const kills: Scenario = {
  name: 'kills',
  promise: 'workers killed and paused: lost 0, duplicate effects 0, pending 0, no name left behind',
  full: { commands: 1_000_000, seconds: 130, workerKills: 104, pauses: 42, redisKills: 0, rounds: 0 },
  async run(arena) {
    const { commands, workerKills } = arena.size
    const workload = new Workload({ rows: commands, keys: 1000, bodyRows: 250, typeOf: mixedType })
    await arena.open({ workload, workers: 4, inFlightMax: IN_FLIGHT_MAX })
    await Promise.all([arena.produce({ underStrikes: true }), arena.strike()])
    await arena.quiet()
    const account = await arena.count({ sweep: true })
    const { striker, fleet } = arena
    const deaths = deathsPronounced(fleet)
    // A death that was pronounced is a kill or the takeover from a paused worker; each may repeat what was in hand.
    const struck = striker.workerKills + Math.min(striker.pauses, deaths.takeovers)
    judge(arena, account, { duplicateCallsMax: struck * IN_FLIGHT_MAX })
    arena.check(
      striker.workerKills >= workerKills,
      `only ${striker.workerKills} of ${workerKills} kills came about`,
    )
    Object.assign(arena.details, {
      takeovers: deaths.takeovers,
      heldByKilled: striker.casualties.reduce((sum, { held }) => sum + held.length, 0),
      alarms: alarmsRaised(fleet),
    })
  },
}
