/**
 * The primary dies and a replica takes its place, chosen by Sentinels; every second time the replicas were 0.9 s behind. What
 * was accepted under `replicated` is there afterwards; under a lower tier what is not is counted, and somebody raises an alarm.
 */
import type { Arena } from '../arena.ts'
import { judge } from '../judge.ts'
import { spreadOf } from '../result.ts'
import type { Scenario } from '../scenario.ts'
import { DOWN_AFTER_MS, FAILOVER_TIMEOUT_MS, REPLICATION, SentinelTrio } from '../sentinel-trio.ts'
import { alarmsRaised } from '../verdicts.ts'
import { mixedType, Workload } from '../workload.ts'

const OUTAGE_MAX_MS = DOWN_AFTER_MS + 2500
const BEHIND_MS = 900
const WATCHED_MS = 15_000
const GAP_LOOK_MS = 5
const FULL = { commands: 120_000, seconds: 180, workerKills: 0, pauses: 0, redisKills: 20, rounds: 0 }

export const failover: Scenario = {
  name: 'failover',
  promise: 'the primary killed, tier replicated: outage at most down-after + 2.5 s, lost 0',
  full: FULL,
  async run(arena) {
    const outages = await failOver(arena, 'replicated')
    judge(arena, await arena.count())
    report(arena, outages)
  },
}

export const failoverEverysec: Scenario = {
  name: 'failover-everysec',
  promise: 'the same, tier everysec: outage at most down-after + 2.5 s, loss counted and told by an alarm',
  full: FULL,
  async run(arena) {
    const outages = await failOver(arena, 'everysec')
    const account = await arena.count()
    judge(arena, account, { lossAllowed: true })
    report(arena, outages)
    const lost = account.effects.lostRows.length
    const isTold = Object.keys(alarmsRaised(arena.fleet)).length > 0
    arena.check(lost === 0 || isTold, `${lost} were lost, and no alarm told of it`)
  },
}

async function failOver(arena: Arena, durability: 'replicated' | 'everysec'): Promise<number[]> {
  const { size, signal, folder } = arena
  const workload = new Workload({ rows: size.commands, keys: 1000, bodyRows: 10, typeOf: mixedType })
  const opening = Promise.withResolvers<SentinelTrio>()
  await arena.open({
    ...{ workload, workers: 2, durability, redis: { settings: REPLICATION } },
    redisUrl: async (redis) => {
      const trio = await SentinelTrio.open(redis, { folder, fsync: 'everysec', signal })
      arena.onClose(() => trio.close())
      opening.resolve(trio)
      return trio.url
    },
  })
  const trio = await opening.promise
  const outages: number[] = []
  const random = arena.random.fork('failovers')
  const rounds = async (): Promise<void> => {
    for (let round = 0; round < size.redisKills; round++) {
      // Sentinels that have just tried wait before they try again: a second failover right away would measure that.
      if (round > 0) await Bun.sleep(2 * FAILOVER_TIMEOUT_MS)
      await Bun.sleep(random.between(800, 1800))
      outages.push(await killPrimary(arena, trio, round % 2 === 1))
    }
  }
  await Promise.all([arena.produce(), arena.guard(rounds())])
  await arena.quiet()
  return outages
}

/** Answers how long nothing was accepted, ms. */
async function killPrimary(arena: Arena, trio: SentinelTrio, areBehind: boolean): Promise<number> {
  const old = arena.redis
  const replicas = trio.replicasOf(old)
  if (areBehind) {
    for (const replica of replicas) replica.pause()
    await Bun.sleep(BEHIND_MS)
  }
  const killedAtMs = performance.now()
  await old.kill()
  arena.striker.redisKills += 1
  for (const replica of replicas) replica.resume()
  const outage = longestGap(arena, killedAtMs)
  const successor = await trio.successorOf(old)
  arena.follow(successor)
  const outageMs = await outage
  await old.start(['--replicaof', `127.0.0.1 ${successor.port}`])
  await trio.untilFollowing(successor)
  return outageMs
}

/**
 * The longest time without an acceptance around a kill. It ends one that is longer than what Sentinels wait before they act:
 * anything shorter was an answer of the old primary that was still on its way.
 */
async function longestGap(arena: Arena, killedAtMs: number): Promise<number> {
  let [count, lastMs, gapMs] = [arena.ledger.acceptedCount, killedAtMs, 0]
  while (gapMs <= DOWN_AFTER_MS && performance.now() - killedAtMs < WATCHED_MS) {
    await Bun.sleep(GAP_LOOK_MS)
    if (arena.ledger.acceptedCount === count) continue
    count = arena.ledger.acceptedCount
    gapMs = Math.max(gapMs, performance.now() - lastMs)
    lastMs = performance.now()
  }
  return gapMs > DOWN_AFTER_MS ? gapMs : WATCHED_MS
}

function report(arena: Arena, outages: readonly number[]): void {
  const late = outages.filter((ms) => ms > arena.limitMs(OUTAGE_MAX_MS))
  arena.check(outages.length > 0, 'no primary was killed: nothing was tested')
  arena.check(late.length === 0, `${late.length} outages were longer than ${OUTAGE_MAX_MS} ms`)
  Object.assign(arena.details, { outageMs: spreadOf(outages), alarms: alarmsRaised(arena.fleet) })
}
