/**
 * Workers are replaced one after another by SIGTERM, under load: first by the same code, then by code that knows one more
 * command. The old code must leave that one alone until somebody comes who knows it.
 */
import { judge } from '../judge.ts'
import { spreadOf } from '../result.ts'
import type { Scenario } from '../scenario.ts'
import { deathsPronounced } from '../verdicts.ts'
import { mixedType, Workload } from '../workload.ts'

const STOP_MAX_MS = 10_000
const WORKERS = 3
/** What a worker leaves for others is told at this level only. */
const OLD = { app: 'steps', flags: ['--log-level', 'debug'] } as const

export const rolling: Scenario = {
  name: 'rolling',
  promise:
    'SIGTERM restarts, half with a command type the old code lacks: lost 0, repeated calls 0, dead 0, each within 10 s',
  full: { commands: 200_000, seconds: 60, workerKills: 0, pauses: 0, redisKills: 0, rounds: 20 },
  async run(arena) {
    const { size, fleet } = await opened()
    const stops: number[] = []
    const random = arena.random.fork('rolling')
    const restarts = async (): Promise<void> => {
      for (let round = 0; round < size.rounds; round++) {
        await Bun.sleep(((size.seconds * 1000) / size.rounds) * random.between(0.2, 0.5))
        const oldest = fleet.workers[0]
        if (oldest === undefined) throw new Error('there is no worker to restart')
        const startMs = performance.now()
        const code = await fleet.stop(oldest, STOP_MAX_MS * 2)
        stops.push(performance.now() - startMs)
        arena.check(
          code === 0,
          `${oldest.process.name} ended with code ${code}: ${oldest.process.lastWords()}`,
        )
        const isNew = round >= size.rounds / 2
        await fleet.startWorker(isNew ? { app: 'fresh' } : OLD)
      }
      // Whoever still runs the old code leaves as well.
      for (const worker of fleet.workers.slice(0, WORKERS)) {
        await fleet.stop(worker, STOP_MAX_MS * 2)
        await fleet.startWorker({ app: 'fresh' })
      }
    }
    await Promise.all([arena.produce(), arena.guard(restarts())])
    await arena.quiet()
    const account = await arena.count()
    judge(arena, account, { duplicateCallsMax: 0 })
    const late = stops.filter((ms) => ms > arena.limitMs(STOP_MAX_MS))
    arena.check(late.length === 0, `${late.length} workers took longer than 10 s to stop`)
    const deferred = fleet.logLines('"command.deferred"', 'work-').length
    const deaths = deathsPronounced(fleet)
    arena.check(deaths.consumers === 0, `${deaths.consumers} workers were pronounced dead`)
    arena.check(deferred > 0, 'no worker met a command that it does not know: nothing was tested')
    Object.assign(arena.details, { stopMs: spreadOf(stops), restarts: stops.length, deferred })

    async function opened(): Promise<typeof arena> {
      const typeOf = (row: number): string => (row % 40 === 5 ? 'step.fresh' : mixedType(row))
      const workload = new Workload({ rows: arena.size.commands, keys: 1000, bodyRows: 50, typeOf })
      await arena.open({ workload, workers: 0, apiApp: 'fresh' })
      for (let i = 0; i < WORKERS; i++) await arena.fleet.startWorker(OLD)
      return arena
    }
  },
}
