/**
 * Two tenants on one stream: one sends twice what the workers settle, up to its quota; the other one now and then a command.
 * How long that one waits for its handler is held against the bound that docs/tenants.md states.
 */
import type { Arena } from '../arena.ts'
import { DepthWatch } from '../depth-watch.ts'
import { Flood } from '../flood.ts'
import { journalEntries } from '../handler-calls.ts'
import { KIND_START } from '../journal-format.ts'
import { judge } from '../judge.ts'
import { type Spread, spreadOf } from '../result.ts'
import type { Scenario } from '../scenario.ts'
import { settledPerSecond } from '../settle-rate.ts'
import { Workload } from '../workload.ts'

const IN_FLIGHT_MAX = 100
const WORKERS = 2
const BODY_ROWS = 20
const SETTLED_PER_S_MAX = 10_000
const NEIGHBOUR_PER_S = 40
const SECONDS_MIN = 4
/** A third of the time nobody floods. */
const CALM_SHARE = 1 / 3
/** The delay that a quota allows one tenant to cause, from what a partition settled before. */
const DELAY_S = 2
const DELAY_SHORT_S = 0.5
/** The bound is stated as "about". */
const BOUND_SLACK = 1.1

export const tenants: Scenario = {
  name: 'tenants',
  promise:
    "one tenant floods up to its quota: the other's p99 to handler start is within quota / settle rate",
  full: { commands: 0, seconds: 45, workerKills: 0, pauses: 0, redisKills: 0, rounds: 0 },
  async run(arena) {
    const ms = Math.max(SECONDS_MIN, arena.size.seconds) * 1000
    const rows = SETTLED_PER_S_MAX * ((2 * ms) / 1000 + 20)
    const workload = new Workload({ rows, keys: 1000, bodyRows: BODY_ROWS, typeOf: () => 'flood.step' })
    await arena.open({
      ...{ workload, workers: WORKERS, inFlightMax: IN_FLIGHT_MAX, app: 'flood', streams: ['floods'] },
      apiFlags: ['--idempotency-records-max', '50000000'],
    })
    const settledPerS = Math.min(SETTLED_PER_S_MAX, await settledPerSecond(arena, IN_FLIGHT_MAX))
    await arena.quiet()
    const partitions = arena.places.length
    const quota = Math.round((settledPerS / partitions) * (arena.size.full ? DELAY_S : DELAY_SHORT_S))
    const flags = ['--tenant-from', 'header', '--tenant-waiting-max', String(quota)]
    const api = await arena.fleet.start('api', { flags: [...flags, '--idempotency-records-max', '50000000'] })
    const { ledger, signal, name: runId, random } = arena
    const parts = { baseUrl: api.told('public'), ledger, workload, runId, random, retryShare: 0, signal }
    const postedAtMs = new Map<number, number>()
    const from = ledger.acceptedCount + BODY_ROWS * 100
    const onPost = ([row = 0]: readonly number[]): void => void postedAtMs.set(row, monotonicMs())
    const neighbour = new Flood({ ...parts, tenant: 'neighbour', bodyRows: 1, onPost }, from)
    const room = NEIGHBOUR_PER_S * Math.ceil(ms / 1000) * 2
    const flood = new Flood({ ...parts, tenant: 'flood' }, from + room)

    await arena.guard(neighbour.run(NEIGHBOUR_PER_S, ms * CALM_SHARE))
    const calmRows = neighbour.posted
    await flood.fill(quota * partitions)
    const depth = new DepthWatch(arena)
    const floodMs = ms * (1 - CALM_SHARE)
    await arena.guard(
      Promise.all([flood.run(2 * settledPerS, floodMs), neighbour.run(NEIGHBOUR_PER_S, floodMs)]),
    )
    await depth.stop()
    for (const each of [flood, neighbour]) {
      arena.check(await each.settleUnknown(), 'posts without a certain answer had none in the end')
    }
    await arena.quiet()
    judge(arena, await arena.count({ views: false }), {
      ...{ refusalAllowed: true, viewsApart: true, duplicateCallsMax: 0 },
    })
    const waits = waitsOf(arena, postedAtMs)
    const calm = spread(waits.filter(({ row }) => row < from + calmRows))
    const flooded = spread(waits.filter(({ row }) => row >= from + calmRows))
    const bound = depth.settling(quota)
    const allowedMs = arena.limitMs(bound.longestMs * BOUND_SLACK + calm.p99)
    arena.check(
      flooded.p99 <= allowedMs,
      `the neighbour's p99 is ${flooded.p99} ms, the bound ${bound.longestMs} ms and ${calm.p99} ms without a flood`,
    )
    arena.check(neighbour.refused === 0, `${neighbour.refused} commands of the neighbour were refused`)
    arena.check(waits.length === neighbour.posted, `${waits.length} of ${neighbour.posted} were handled`)
    arena.check(flood.overQuota > 0, 'the flood never reached its quota: nothing was tested')
    const most = quota * partitions + neighbour.posted
    arena.check(depth.most <= most, `${depth.most} were unfinished, at most ${most} may be`)
    Object.assign(arena.details, {
      settledPerS: Math.round(settledPerS),
      ...{ quota, boundMs: bound, calmMs: calm, floodedMs: flooded },
      neighbour: neighbour.posted,
      flood: { posted: flood.posted, accepted: flood.accepted, overQuota: flood.overQuota },
      unfinishedMost: depth.most,
    })
  },
}

function monotonicMs(): number {
  return performance.timeOrigin + performance.now()
}

/** From the post to the first handler call, ms. */
function waitsOf(arena: Arena, postedAtMs: ReadonlyMap<number, number>): { row: number; ms: number }[] {
  const waits: { row: number; ms: number }[] = []
  for (const { kind, row, attempt, monotonicMs: startedMs } of journalEntries(arena.fleet.journalsFolder)) {
    const fromMs = postedAtMs.get(row)
    if (kind === KIND_START && attempt === 1 && fromMs !== undefined)
      waits.push({ row, ms: startedMs - fromMs })
  }
  return waits
}

function spread(waits: readonly { readonly ms: number }[]): Spread {
  return spreadOf(waits.map(({ ms }) => ms)) ?? { p50: 0, p99: 0, max: 0 }
}
