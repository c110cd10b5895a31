/**
 * Redis itself is killed, beside workers that are killed and paused. With every write synced nothing may be lost; with a
 * sync a second what is lost must lie close before a kill, and views must still equal their events.
 */
import type { Arena } from '../arena.ts'
import { tokenTimeMs } from '../journal-format.ts'
import { judge } from '../judge.ts'
import type { Scenario } from '../scenario.ts'
import { alarmsRaised } from '../verdicts.ts'
import { mixedType, Workload } from '../workload.ts'

const FULL = { commands: 1_000_000, seconds: 130, workerKills: 104, pauses: 42, redisKills: 5, rounds: 0 }
/** What `everysec` may lose: writes are held back for up to 2 s while a sync runs. */
const LOSS_WINDOW_MS = 2000

async function underFire(arena: Arena, durability: 'fsync' | 'everysec'): Promise<void> {
  const workload = new Workload({
    ...{ rows: arena.size.commands, keys: 1000, bodyRows: 250, typeOf: mixedType },
  })
  await arena.open({ workload, workers: 4, durability })
  await Promise.all([arena.produce({ underStrikes: true }), arena.strike()])
  await arena.quiet()
}

export const redisKills: Scenario = {
  name: 'redis-kills',
  promise: 'Redis killed as well, tier fsync: lost 0, duplicate effects 0',
  full: FULL,
  async run(arena) {
    await underFire(arena, 'fsync')
    const account = await arena.count()
    judge(arena, account)
    checkKills(arena)
  },
}

export const redisKillsEverysec: Scenario = {
  name: 'redis-kills-everysec',
  promise:
    'the same, tier everysec: what is lost is counted, lies within 2 s before a kill, views equal events',
  full: FULL,
  async run(arena) {
    await underFire(arena, 'everysec')
    const account = await arena.count()
    judge(arena, account, { lossAllowed: true })
    checkKills(arena)
    const { ledger, striker, baseMs } = arena
    const outside = account.effects.lostRows.filter((row) => {
      const atMs = tokenTimeMs(ledger.positionOf(row)?.token ?? 0, baseMs)
      return !striker.redisKillsAtMs.some((killMs) => atMs <= killMs && atMs >= killMs - LOSS_WINDOW_MS)
    })
    arena.check(outside.length === 0, `${outside.length} lost that were stored longer than 2 s before a kill`)
  },
}

function checkKills(arena: Arena): void {
  const { striker, size } = arena
  arena.check(
    striker.redisKills === size.redisKills,
    `only ${striker.redisKills} of ${size.redisKills} Redis kills came about`,
  )
  arena.check(
    striker.workerKills === size.workerKills,
    `only ${striker.workerKills} of ${size.workerKills} kills came about`,
  )
  arena.details['alarms'] = alarmsRaised(arena.fleet)
}
