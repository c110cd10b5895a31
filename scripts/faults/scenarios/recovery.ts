/** One worker after another is killed while it holds commands; what it held must be running again soon. */
import { judge } from '../judge.ts'
import { spreadOf } from '../result.ts'
import type { Scenario } from '../scenario.ts'
import { Workload } from '../workload.ts'

const RECOVERY_MAX_MS = 3000
/** The next kill comes when the last one is over and done with. */
const BETWEEN_KILLS_MS = 2200
const HOLD_LOOK_MS = 5

export const recovery: Scenario = {
  name: 'recovery',
  promise: 'single kills under steady load: affected entries running again, p99 within 3 s',
  full: { commands: 300_000, seconds: 170, workerKills: 50, pauses: 0, redisKills: 0, rounds: 0 },
  async run(arena) {
    const { commands, workerKills, seconds } = arena.size
    // Slow batches among them, so that a killed worker always holds something.
    const typeOf = (row: number): string => (row % 3 === 1 ? 'step.slow' : 'step.plain')
    const workload = new Workload({ rows: commands, keys: 1000, bodyRows: 20, typeOf })
    await arena.open({ workload, workers: 3 })
    const random = arena.random.fork('victims')
    const load = arena.produce()
    const strikes = async (): Promise<void> => {
      const everyMs = Math.max(BETWEEN_KILLS_MS, (seconds * 1000) / (workerKills + 1))
      for (let i = 0; i < workerKills; i++) {
        const startMs = performance.now()
        await Bun.sleep(everyMs * random.between(0.3, 0.6))
        await killHolder(arena, random.next())
        await arena.fleet.startWorker()
        await Bun.sleep(Math.max(0, everyMs - (performance.now() - startMs)))
      }
    }
    await Promise.all([load, arena.guard(strikes())])
    await arena.quiet()
    const account = await arena.count()
    judge(arena, account)
    const spread = spreadOf(account.calls.recoveriesMs)
    arena.check(
      arena.striker.workerKills === workerKills,
      `only ${arena.striker.workerKills} kills came about`,
    )
    arena.check(spread !== undefined, 'no killed worker held anything: nothing was measured')
    if (spread !== undefined) {
      arena.check(
        spread.p99 <= arena.limitMs(RECOVERY_MAX_MS),
        `p99 of ${spread.p99} ms until the work of the dead ran again`,
      )
    }
    Object.assign(arena.details, { affected: account.calls.recoveriesMs.length })
  },
}

/** Freezes a worker for the blink of an eye to see that it holds something, then kills it. */
async function killHolder(arena: Parameters<Scenario['run']>[0], pick: number): Promise<void> {
  const { fleet, striker, signal, probe } = arena
  for (;;) {
    signal.throwIfAborted()
    const victim = fleet.running[Math.floor(pick * fleet.running.length)]
    if (victim === undefined) continue
    fleet.pause(victim)
    await Bun.sleep(HOLD_LOOK_MS)
    const { consumers } = await probe.openWork(arena.places)
    if (consumers.some(({ name, pending }) => victim.consumers.has(name) && pending > 0)) {
      await striker.killWorker(victim)
      return
    }
    fleet.resume(victim)
    await Bun.sleep(HOLD_LOOK_MS)
  }
}
