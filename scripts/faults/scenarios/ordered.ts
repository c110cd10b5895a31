/** Order by key under fire: kills and pauses, retries, and a fleet that grows from one worker to four and shrinks to two. */
import { errorText } from '../../fleet/failure.ts'
import type { Arena } from '../arena.ts'
import { ranThrough } from '../fleet.ts'
import { judge } from '../judge.ts'
import { LeaseWatch } from '../lease-watch.ts'
import { checkOrder } from '../order.ts'
import { spreadOf } from '../result.ts'
import type { Scenario } from '../scenario.ts'
import { planStrikes } from '../strikes.ts'
import { alarmsRaised, deathsPronounced } from '../verdicts.ts'
import { Workload } from '../workload.ts'

const OWNED_AGAIN_MAX_MS = 3000
/** A worker that is up for so long has looked at all the others often enough. */
const SETTLED_IN_MS = 2000
/** Parts of the time with one worker, until there are four, and from when on there are two. */
const GROW_AT = 0.12
const SHRINK_AT = 0.75
const STOP_LIMIT_MS = 20_000
const OWNED_LIMIT_MS = 15_000

export const ordered: Scenario = {
  name: 'ordered',
  promise:
    'order by key under kills, pauses, retries and scaling: order violations 0, partitions owned again within 3 s',
  full: { commands: 1_000_000, seconds: 150, workerKills: 104, pauses: 42, redisKills: 0, rounds: 0 },
  skip: missingOrder,
  async run(arena) {
    const { commands } = arena.size
    const workload = new Workload({ rows: commands, keys: 4000, bodyRows: 250, typeOf: () => 'turn.take' })
    await arena.open({ workload, workers: 1, app: 'turns', streams: ['turns'] })
    const watch = new LeaseWatch(arena.probe, arena.places)
    watch.start()
    await Promise.all([arena.produce({ underStrikes: true }), arena.guard(scaleUnderFire(arena))])
    await arena.quiet()
    // A partition without any work is taken over like any other, but nothing waits for it.
    const areOwned = (): boolean =>
      watch.ownedAgain(arena.striker.casualties).every(({ ms }) => Number.isFinite(ms))
    await arena.until(areOwned, OWNED_LIMIT_MS)
    await watch.stop()
    const account = await arena.count()
    judge(arena, account)
    const { ledger, fleet, striker, size } = arena
    const dead = new Set(account.effects.dead.map(({ row }) => row))
    const order = checkOrder(fleet.journalsFolder, ledger, workload, dead)
    arena.orderViolations = order.violations
    arena.check(order.pairs > 0, 'no key had two commands: nothing was tested')
    arena.check(
      order.violations === 0,
      `${order.violations} of ${order.pairs} out of order: ${order.examples.join('; ')}`,
    )
    const again = watch.ownedAgain(striker.casualties)
    // Whoever was killed, paused or just starting within the time could take nothing over.
    const limitMs = arena.limitMs(OWNED_AGAIN_MAX_MS)
    const fair = again.filter(
      ({ ms, casualty: { atMs } }) =>
        ms <= limitMs ||
        fleet.history.some((worker) => ranThrough(worker, atMs - SETTLED_IN_MS, atMs + limitMs)),
    )
    const worst = Math.max(0, ...fair.map(({ ms }) => ms))
    arena.check(
      worst <= limitMs,
      `a partition had no living owner for ${Math.round(worst)} ms after a kill, though another worker ran all the time`,
    )
    arena.check(fair.length > 0, 'no killed worker owned a partition: nothing was tested')
    arena.check(striker.workerKills === size.workerKills, `only ${striker.workerKills} kills came about`)
    Object.assign(arena.details, {
      ownedAgainMs: spreadOf(fair.map(({ ms }) => ms)),
      ownedLateWithoutSurvivorMs: spreadOf(again.filter((each) => !fair.includes(each)).map(({ ms }) => ms)),
      leaseMoves: watch.moves,
      pairs: order.pairs,
      takeovers: deathsPronounced(fleet).takeovers,
      alarms: alarmsRaised(fleet),
    })
  },
}

/** Ordering is an option of streams; a version without it can't be put to this test. */
async function missingOrder(): Promise<string | undefined> {
  try {
    await import('../app/turns/turns.ts')
    return undefined
  } catch (error) {
    return `streams can't be ordered by key: ${errorText(error)}`
  }
}

async function scaleUnderFire(arena: Arena): Promise<void> {
  const { size, fleet, striker, random } = arena
  const startMs = performance.now()
  const at = async (share: number): Promise<void> => {
    const leftMs = size.seconds * 1000 * share - (performance.now() - startMs)
    if (leftMs > 0) await Bun.sleep(leftMs)
  }
  await at(GROW_AT)
  for (let i = 0; i < 3; i++) await fleet.startWorker()
  const plan = planStrikes(random.fork('strikes'), size, size.seconds * (0.95 - GROW_AT))
  const shrink = async (): Promise<void> => {
    await at(SHRINK_AT)
    for (const worker of fleet.running.slice(0, 2)) await fleet.stop(worker, STOP_LIMIT_MS)
  }
  await Promise.all([striker.carryOut(plan), shrink()])
}
