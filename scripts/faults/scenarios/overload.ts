/**
 * Twice what the workers settle, for a minute: what was accepted is settled, the rest is refused and told when to come back,
 * and when it ends nothing of it is left.
 */
import type { Arena } from '../arena.ts'
import { DepthWatch } from '../depth-watch.ts'
import { Flood } from '../flood.ts'
import { judge } from '../judge.ts'
import { MEBIBYTE, MemoryWatch } from '../memory-watch.ts'
import type { Scenario } from '../scenario.ts'
import { settledPerSecond } from '../settle-rate.ts'
import { Workload } from '../workload.ts'

const IN_FLIGHT_MAX = 100
const BODY_ROWS = 20
const WORKERS = 2
const SECONDS_MIN = 8
/** No more rows are provided than for this. */
const SETTLED_PER_S_MAX = 10_000
/** Of the refused bodies come back: half of the load is refused, so this adds at most 2.5 %, and 5 % in a short run. */
const RETRY_SHARE = 0.05
const RETRY_SHORT_SHARE = 0.1
const RETRY_ACCEPTED_MIN = 0.95
/** A short run has some dozens, and shares its machine. */
const RETRY_ACCEPTED_SHORT_MIN = 0.75
const POSTED_SHARE_MIN = 0.9
/** Beyond the limit may come in what is posted in this time. */
const OVERSHOOT_MS = 1000
const GROWTH_MAX = 64 * MEBIBYTE
const LOOK_MS = 50
/** After the load all must be over when the workers have settled what was left, at two thirds of their rate, and this: */
const RECOVERY_MARGIN_MS = 1500
const SETTLED_SLOWER = 1.5

/** A limit of admission, said in seconds of what workers settle. */
interface Limit {
  readonly environment: (settledPerS: number) => Record<string, string>
  /** Unfinished commands at which the door closes, at the latest. */
  readonly unfinishedMax: (settledPerS: number) => number
  /** Waiting when the load begins: the door is to close soon. */
  readonly prefillS: number
}

function onCount(seconds: number): Limit {
  const count = (settledPerS: number): number => Math.round(settledPerS * seconds)
  return {
    environment: (settledPerS) => ({ FAULTS_WAITING_COUNT_MAX: String(count(settledPerS)) }),
    unfinishedMax: count,
    prefillS: seconds * 0.8,
  }
}

/** Of what comes in twice as fast as it goes, twice as much waits as is settled until the first of it is so old. */
function onAge(seconds: number): Limit {
  return {
    environment: () => ({ FAULTS_WAITING_MS_MAX: String(seconds * 1000) }),
    unfinishedMax: (settledPerS) => settledPerS * seconds * 2,
    prefillS: seconds,
  }
}

const PROMISE =
  'what is accepted is settled, 95 % of the refused get in after their Retry-After, memory flat, over at once'
const FULL = { commands: 0, seconds: 60, workerKills: 0, pauses: 0, redisKills: 0, rounds: 0 }
const skip = async (): Promise<string | undefined> =>
  process.platform === 'linux' ? undefined : 'memory of processes is read from /proc'

export const overload: Scenario = {
  name: 'overload',
  promise: `twice what workers settle, a limit on what waits: ${PROMISE}`,
  full: FULL,
  skip,
  run: (arena) => flooded(arena, onCount(arena.size.full ? 10 : 4)),
}

export const overloadAge: Scenario = {
  name: 'overload-age',
  promise: `twice what workers settle, a limit on how long it waits: ${PROMISE}`,
  full: FULL,
  skip,
  run: (arena) => flooded(arena, onAge(arena.size.full ? 5 : 1.5)),
}

async function flooded(arena: Arena, limit: Limit): Promise<void> {
  const ms = Math.max(SECONDS_MIN, arena.size.seconds) * 1000
  const rows = SETTLED_PER_S_MAX * ((2 * ms) / 1000 + 20)
  const workload = new Workload({ rows, keys: 1000, bodyRows: BODY_ROWS, typeOf: () => 'flood.step' })
  await arena.open({
    ...{ workload, workers: WORKERS, inFlightMax: IN_FLIGHT_MAX, app: 'flood', streams: ['floods'] },
    apiFlags: ['--idempotency-records-max', '50000000'],
  })
  const { fleet, probe, places } = arena
  const settledPerS = Math.min(SETTLED_PER_S_MAX, await settledPerSecond(arena, IN_FLIGHT_MAX))
  await arena.quiet()
  const api = await fleet.start('api', { environment: limit.environment(settledPerS) })
  const flood = floodOf(arena, api.told('public'), arena.ledger.acceptedCount)
  await flood.fill(settledPerS * limit.prefillS)
  const memory = new MemoryWatch(arena)
  memory.start()
  const depth = new DepthWatch(arena)
  const warm = setTimeout(() => memory.warm(), ms / 3)
  const before = await probe.backlog(places)
  const taken = flood.accepted
  const ratePerS = 2 * settledPerS
  const tookMs = await arena.guard(flood.run(ratePerS, ms))
  clearTimeout(warm)
  const recovery = await recover(arena, flood)
  arena.check(await flood.settleUnknown(), 'posts without a certain answer had none in the end')
  const added = (await probe.backlog(places)).added - before.added
  const told = flood.accepted - taken
  await depth.stop()
  memory.stop()
  await arena.quiet()
  judge(arena, await arena.count(), { refusalAllowed: true, duplicateCallsMax: 0 })
  arena.check(added === told, `${added} came in, ${told} were told so`)
  judgeRefusals(arena, flood)
  const postedPerS = (flood.posted / tookMs) * 1000
  arena.check(
    postedPerS >= ratePerS * POSTED_SHARE_MIN,
    `only ${Math.round(postedPerS)} a second were posted`,
  )
  const unfinishedMax = limit.unfinishedMax(settledPerS) + (ratePerS * OVERSHOOT_MS) / 1000
  arena.check(
    depth.most <= unfinishedMax,
    `${depth.most} were unfinished, more than ${Math.round(unfinishedMax)}`,
  )
  for (const [name, { grownBytes }] of memory.growth) {
    arena.check(grownBytes <= GROWTH_MAX, `${name} grew by ${Math.round(grownBytes / MEBIBYTE)} MB`)
  }
  const recoveryMs = arena.limitMs((depth.most / settledPerS) * 1000 * SETTLED_SLOWER + RECOVERY_MARGIN_MS)
  const { openMs, emptyMs } = recovery
  arena.check(openMs <= recoveryMs, `the door opened ${openMs} ms after the load, at most ${recoveryMs}`)
  arena.check(
    emptyMs <= recoveryMs,
    `the backlog was gone ${emptyMs} ms after the load, at most ${recoveryMs}`,
  )
  Object.assign(arena.details, {
    settledPerS: Math.round(settledPerS),
    postedPerS: Math.round(postedPerS),
    limit: limit.environment(settledPerS),
    unfinishedMost: depth.most,
    posted: flood.posted,
    refused: flood.refused,
    unknown: flood.unknown,
    statuses: Object.fromEntries(flood.statuses),
    retries: flood.retries.length,
    retriesByWait: byWait(flood),
    memoryMb: memory.told(),
    ...{ openMs, emptyMs },
  })
}

function judgeRefusals(arena: Arena, { silent, refused, retries, statuses }: Flood): void {
  const accepted = retries.filter((retry) => retry.accepted).length
  arena.check(silent === 0, `${silent} refusals did not tell when to come back`)
  const others = [...statuses.keys()].filter((status) => ![202, 429, 503].includes(status))
  arena.check(others.length === 0, `there were answers with status ${others.join(', ')}`)
  arena.check(refused > 0 && retries.length > 0, 'nobody was refused and came back: nothing was tested')
  arena.check(
    accepted >= retries.length * (arena.size.full ? RETRY_ACCEPTED_MIN : RETRY_ACCEPTED_SHORT_MIN),
    `${accepted} of ${retries.length} who came back as told were accepted`,
  )
}

function byWait(flood: Flood): Record<string, string> {
  const out: Record<string, string> = {}
  for (const told of [...new Set(flood.retries.map(({ toldS }) => toldS))].sort((a, b) => a - b)) {
    const own = flood.retries.filter(({ toldS }) => toldS === told)
    out[`${told} s`] = `${own.filter(({ accepted }) => accepted).length} of ${own.length}`
  }
  return out
}

function floodOf(arena: Arena, baseUrl: string, fromRow: number): Flood {
  const { ledger, workload, signal, name, size } = arena
  const random = arena.random.fork('retries')
  const retryShare = size.full ? RETRY_SHARE : RETRY_SHORT_SHARE
  return new Flood({ ...{ baseUrl, ledger, workload, runId: name }, random, retryShare, signal }, fromRow)
}

/** After the load: how long until a command is taken again, and until nothing waits any more. */
async function recover(arena: Arena, flood: Flood): Promise<{ openMs: number; emptyMs: number }> {
  const startMs = performance.now()
  const row = flood.nextRow
  await arena.until(async () => (await flood.post([row])).all, 120_000, LOOK_MS)
  const openMs = Math.round(performance.now() - startMs)
  await arena.until(async () => (await arena.probe.backlog(arena.places)).unfinished === 0, 120_000, LOOK_MS)
  return { openMs, emptyMs: Math.round(performance.now() - startMs) }
}
