/** Redis throws out all its clients, again and again. */
import { judge } from '../judge.ts'
import type { Scenario } from '../scenario.ts'
import { alarmsRaised } from '../verdicts.ts'
import { mixedType, Workload } from '../workload.ts'

export const clientKill: Scenario = {
  name: 'client-kill',
  promise: 'storms of CLIENT KILL under load: lost 0, duplicate effects 0, pending 0, no restart',
  full: { commands: 200_000, seconds: 60, workerKills: 0, pauses: 0, redisKills: 0, rounds: 100 },
  async run(arena) {
    const { size } = arena
    const workload = new Workload({ rows: size.commands, keys: 1000, bodyRows: 50, typeOf: mixedType })
    await arena.open({ workload, workers: 3 })
    const random = arena.random.fork('storms')
    let killed = 0
    const storms = async (): Promise<void> => {
      for (let i = 0; i < size.rounds; i++) {
        await Bun.sleep(((size.seconds * 1000) / size.rounds) * random.between(0.3, 1.3))
        for (const type of ['normal', 'pubsub']) {
          killed += Number(await arena.probe.send('CLIENT', ['KILL', 'TYPE', type, 'SKIPME', 'yes']))
        }
      }
    }
    await Promise.all([arena.produce(), arena.guard(storms())])
    await arena.quiet()
    judge(arena, await arena.count())
    arena.check(killed > size.rounds, `only ${killed} clients were thrown out: nothing was tested`)
    Object.assign(arena.details, { clientsKilled: killed, alarms: alarmsRaised(arena.fleet) })
  },
}
