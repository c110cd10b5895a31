/**
 * What somebody at a console can do to a Redis in use: forget all scripts, delete the log of a partition, delete everything.
 * The first costs nothing. The others lose what was there, with an alarm; what is accepted afterwards is done, once.
 */
import type { Arena } from '../arena.ts'
import { collectEffects } from '../effects.ts'
import { judge } from '../judge.ts'
import { keyOf } from '../probe.ts'
import type { Scenario } from '../scenario.ts'
import { alarmsRaised } from '../verdicts.ts'
import { mixedType, Workload } from '../workload.ts'

const FLUSH_EVERY_MS = 60
const ALARM_LIMIT_MS = 20_000

export const flush: Scenario = {
  name: 'flush',
  promise:
    'SCRIPT FLUSH storms: nothing lost; a deleted log, FLUSHALL: alarm, regroup, and everything later is done once',
  full: { commands: 120_000, seconds: 45, workerKills: 0, pauses: 0, redisKills: 0, rounds: 0 },
  async run(arena) {
    const { commands, seconds } = arena.size
    const workload = new Workload({ rows: commands, keys: 1000, bodyRows: 50, typeOf: mixedType })
    await arena.open({ workload, workers: 2 })
    const third = Math.floor(commands / 3)
    const ratePerSecond = commands / seconds
    await scriptFlushes(arena, { from: 0, to: third, ratePerSecond })
    const [second, last] = [third * 2, commands]
    const load = arena.produce({ from: third, to: second, ratePerSecond })
    const during = (share: number): Promise<void> => arena.guard(Bun.sleep((seconds * 1000 * share) / 3))
    await during(0.3)
    await arena.probe.send('DEL', [keyOf({ stream: 'steps', partition: 0 }, 'c')])
    arena.check(await alarmed(arena, 1), 'no alarm told of the deleted log')
    await arena.probe.send('FLUSHALL', [])
    arena.check(await alarmed(arena, 2), 'no alarm told of FLUSHALL')
    await load
    await arena.quiet()
    await arena.produce({ from: second, to: last, ratePerSecond })
    await arena.quiet()
    const account = await arena.count()
    judge(arena, account, { lossAllowed: true })
    const later = account.effects.lostRows.filter((row) => row >= second)
    arena.check(later.length === 0, `${later.length} that were accepted after all was well again are lost`)
    const alarms = alarmsRaised(arena.fleet)
    Object.assign(arena.details, { lostToFlush: account.effects.lostRows.length - later.length, alarms })
    // What the deletions took was lost with an alarm; the figure counts what should not have been.
    arena.figures = { lost: later.length }
  },
}

async function scriptFlushes(arena: Arena, load: Parameters<Arena['produce']>[0]): Promise<void> {
  let flushes = 0
  let isOver = false
  const storm = async (): Promise<void> => {
    while (!isOver) {
      await arena.probe.send('SCRIPT', ['FLUSH'])
      flushes += 1
      await Bun.sleep(FLUSH_EVERY_MS)
    }
  }
  const stormed = storm()
  await arena.produce(load)
  isOver = true
  await arena.guard(stormed)
  await arena.quiet()
  const { probe, places, ledger, workload } = arena
  const effects = await collectEffects({ probe, places, ledger, workload })
  const lost = effects.lostRows.length + effects.lostEchoes
  arena.check(effects.done > 0 && flushes > 0, 'no script was flushed under load: nothing was tested')
  arena.check(lost === 0, `${lost} lost under SCRIPT FLUSH`)
  arena.check(effects.duplicates === 0, `${effects.duplicates} effects more than one each under SCRIPT FLUSH`)
  Object.assign(arena.details, { scriptFlushes: flushes, doneUnderFlushes: effects.done })
}

/** Until a worker has raised so many alarms of a lost group. */
async function alarmed(arena: Arena, count: number): Promise<boolean> {
  const raised = (): number => alarmsRaised(arena.fleet)['group-vanished'] ?? 0
  return await arena.guard(arena.until(() => raised() >= count, ALARM_LIMIT_MS, 100))
}
