/**
 * How late a command is at its handler, and its effects in the view, while API, worker and projector run as processes of
 * their own and commands arrive whenever they like.
 *
 * The load is an open loop: a timetable of arrivals that is fixed before the first one (`send-times.ts`), and every latency
 * runs from the moment at which a command was to be sent. A stall is thus told by everybody who would have met it; nothing
 * is left out because the generator was waiting too. How late the generator was is part of each figure, and told beside.
 *
 * Capacity is measured in the same round by a closed loop of the same requests against the same processes, from the first
 * request until everything is in the views.
 */
import { RunError } from '../../fleet/failure.ts'
import type { RoleProcess } from '../../fleet/role-process.ts'
import { HttpLoad } from '../http-load.ts'
import type { Latencies, OpenLoadInput, OpenLoadResult } from '../open-load.ts'
import { orderLine } from '../payload.ts'
import type { NamedProcesses } from '../processor-time.ts'
import type { Round, Row, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'
import { median, rounded } from '../statistics.ts'

const APP = 'stopwatch'
const TYPE = 'order.place'
const PROJECTION = 'starts'
const CONNECTIONS = 64
const ROUNDS = { full: 3, quick: 1 }
const SHARES = [0.2, 0.6]
const SEED = 4711
/** Number of the order that is sent when a closed loop is over. */
const LAST_NUMBER = 99_999_999
const LOOK_MS = 2

interface Played {
  readonly capacity: number
  /** By share of the capacity. */
  readonly loads: ReadonlyMap<number, OpenLoadResult>
}

export const latency: Scenario = {
  name: 'latency',
  summary: 'from POST to handler and to view, at 20 % and 60 % of capacity, open loop',
  async play(stage) {
    const played: Played[] = []
    for (let round = 0; round < (stage.quick ? ROUNDS.quick : ROUNDS.full); round++) {
      stage.tell(`latency: round ${round + 1}`)
      played.push(await playRound(stage, round))
    }
    return [
      rowOf(played, 'handler', 0.2, 10),
      rowOf(played, 'view', 0.2, 25),
      rowOf(played, 'handler', 0.6),
      rowOf(played, 'view', 0.6),
    ]
  },
}

async function playRound(stage: Stage, round: number): Promise<Played> {
  const redis = await stage.redis()
  const roles: RoleProcess[] = []
  for (const role of ['project', 'work', 'api'] as const)
    roles.push(await stage.role(role, { redis, app: APP }))
  const url = roles.at(-1)?.told('public') ?? ''
  const processes = {
    redis: redis.pid,
    ...Object.fromEntries(roles.map((each) => [each.role, each.pid])),
  }
  const capacity = await measureCapacity(stage, url, processes)
  const loads = new Map<number, OpenLoadResult>()
  for (const [i, share] of SHARES.entries()) {
    const load = stage.subject('open-load', {
      port: Number(new URL(url).port),
      type: TYPE,
      projection: PROJECTION,
      ratePerS: capacity * share,
      seconds: stage.seconds * (stage.quick ? 1 : 2),
      seed: SEED + round,
      connections: CONNECTIONS,
      phase: i + 1,
      processes,
    } satisfies OpenLoadInput)
    loads.set(share, await load.result<OpenLoadResult>())
    await stage.end(load)
  }
  for (const role of roles.toReversed()) await stage.end(role)
  await stage.endRedis(redis)
  return { capacity, loads }
}

/** Commands a second, counted until the last one's view is there. */
async function measureCapacity(stage: Stage, url: string, processes: NamedProcesses): Promise<number> {
  const startMs = performance.now()
  const { value } = await new HttpLoad(stage).measure({
    ...{ url, processes, status: 202, connections: CONNECTIONS },
    request: { kind: 'single', type: TYPE },
  })
  const loadedMs = performance.now() - startMs
  const drainStartMs = performance.now()
  await untilReadable(stage, url)
  return value * (loadedMs / (loadedMs + performance.now() - drainStartMs))
}

/** One partition keeps its order: when a last command is in its view, all before it are in theirs. */
async function untilReadable(stage: Stage, url: string): Promise<void> {
  const line = orderLine(LAST_NUMBER)
  const headers = { 'content-type': 'application/json' }
  const body = JSON.stringify(line)
  const { status } = await fetch(`${url}/v1/commands/${TYPE}`, { method: 'POST', headers, body })
  if (status !== 202) throw new RunError('failed', `The API answered ${status}.`)
  for (;;) {
    stage.signal.throwIfAborted()
    const answer = await fetch(`${url}/v1/views/${PROJECTION}/${line.order}`)
    await answer.arrayBuffer()
    if (answer.ok) return
    await Bun.sleep(LOOK_MS)
  }
}

function rowOf(played: readonly Played[], what: 'handler' | 'view', share: number, boundMs?: number): Row {
  const rounds: Round[] = []
  const found: Latencies[] = []
  for (const { capacity, loads } of played) {
    const load = loads.get(share)
    if (load === undefined) continue
    found.push(load[what])
    rounds.push({
      ...{ value: load[what].p99, baseline: null, ratio: null, cores: { open: load.cores } },
      details: {
        ratePerS: Math.round(capacity * share),
        ...load[what],
        ...{ 'accepted p99': load.accepted.p99, 'generator late p99': load.sent.p99 },
      },
    })
  }
  const values = rounds.map(({ value }) => value)
  const value = median(values)
  const at = (quantile: 'p50' | 'p999' | 'max') => rounded(median(found.map((each) => each[quantile])))
  return {
    name: `latency-${what}-${share * 100}`,
    unit: 'ms p99',
    value: rounded(value),
    ...{ baseline: null, baselineName: '', ratio: null },
    budget: boundMs === undefined ? '' : `value <= ${boundMs}`,
    pass: boundMs === undefined || value <= boundMs,
    spread: [rounded(Math.min(...values)), rounded(Math.max(...values))],
    rounds,
    setting: {
      ...{ arrivals: 'Poisson, open loop', share, connections: CONNECTIONS, partitions: 1 },
      'capacity, commands/s': rounded(median(played.map(({ capacity }) => capacity))),
    },
    beside: { p50: at('p50'), 'p99.9': at('p999'), max: at('max') },
  }
}
