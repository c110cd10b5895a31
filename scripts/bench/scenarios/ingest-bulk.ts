/** How many commands a second one API process takes in when producers send many in a request. */
import { RunError } from '../../fleet/failure.ts'
import { duel } from '../duel.ts'
import { HttpLoad } from '../http-load.ts'
import { orderLine } from '../payload.ts'
import { ProcessorTime } from '../processor-time.ts'
import type { Measure, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'

const TYPE = 'line.add'
const STREAM = 'mr:{lines.0}:c'
const COUNT = 500
const CONNECTIONS = 8
const PIPELINE = 64
/** Between 1 and 50 it is fastest with this many. */
const RAW_CONNECTIONS = 16
/** So many a second and more; the run is as long as a measurement. */
const RAW_PER_S = 800_000
const REDIS_BENCHMARK = process.env['MILLRACE_REDIS_BENCHMARK'] ?? 'redis-benchmark'

export const ingestBulk: Scenario = {
  name: 'ingest-bulk',
  summary: 'many commands a request, each validated, appended before they are answered',
  async play(stage) {
    if (Bun.which(REDIS_BENCHMARK) === null) {
      throw new RunError(
        'unavailable',
        `There is no ${REDIS_BENCHMARK}: it comes with redis-server (Debian: redis-tools), or name it with MILLRACE_REDIS_BENCHMARK.`,
      )
    }
    const load = new HttpLoad(stage)
    const entry = await storedEntry(stage)
    const row = await duel(stage, {
      name: 'ingest-bulk',
      unit: 'commands/s',
      millrace: { name: 'millrace', play: () => playMillrace(stage, load) },
      baseline: { name: `redis-benchmark -P ${PIPELINE} XADD`, play: () => playRaw(stage, entry) },
      budget: { of: 'ratio', is: 'at least', bound: 0.5 },
      rounds: { full: 5, quick: 2 },
      setting: {
        ...{
          connections: CONNECTIONS,
          commandsPerBody: COUNT,
          entryBytes: entry.length,
          partitions: 1,
          apis: 1,
        },
        redisBenchmark: `-P ${PIPELINE} -c ${RAW_CONNECTIONS}`,
      },
    })
    return [row]
  },
}

async function playMillrace(stage: Stage, load: HttpLoad): Promise<Measure> {
  const redis = await stage.redis()
  const api = await stage.role('api', { redis, app: 'noop' })
  const measure = await load.measure({
    url: api.told('public'),
    connections: CONNECTIONS,
    request: { kind: 'bulk', type: TYPE, count: COUNT },
    processes: { api: api.pid, redis: redis.pid },
    status: 202,
  })
  await stage.end(api)
  await stage.endRedis(redis)
  return { ...measure, value: measure.value * COUNT }
}

/** One command as the product stores it. */
async function storedEntry(stage: Stage): Promise<Buffer> {
  const redis = await stage.redis()
  const api = await stage.role('api', { redis, app: 'noop' })
  const body = JSON.stringify(orderLine(1))
  const headers = { 'content-type': 'application/json' }
  await fetch(`${api.told('public')}/v1/commands/${TYPE}`, { method: 'POST', headers, body })
  const [stored] = await stage.client(redis).xrangeBuffer(STREAM, '-', '+', 'COUNT', 1)
  await stage.end(api)
  await stage.endRedis(redis)
  const entry = stored?.[1][1]
  if (entry === undefined) throw new RunError('failed', 'The command that was posted is not in its stream.')
  return entry
}

async function playRaw(stage: Stage, entry: Buffer): Promise<Measure> {
  const redis = await stage.redis()
  const count = Math.round(RAW_PER_S * stage.seconds)
  const child = Bun.spawn(
    [
      ...[REDIS_BENCHMARK, '-p', String(redis.port), '-P', String(PIPELINE), '-c', String(RAW_CONNECTIONS)],
      // The last argument comes from stdin: the entry as the product stores it, whatever bytes are in it.
      ...['-n', String(count), '--csv', '-x', 'XADD', STREAM, '*', '-'],
    ],
    { stdin: entry, stdout: 'pipe', stderr: 'ignore' },
  )
  const startMs = performance.now()
  const used = new ProcessorTime({ redis: redis.pid })
  const text = await new Response(child.stdout).text()
  await child.exited
  const elapsedMicros = (performance.now() - startMs) * 1000
  const load = Number(child.resourceUsage()?.cpuTime.total ?? 0) / elapsedMicros
  const cores = { load: Number(load.toFixed(2)), ...used.cores() }
  await stage.endRedis(redis)
  return { value: rateOf(text), cores }
}

/** The last line is the figures of the one test: its name, requests a second, … */
function rateOf(csv: string): number {
  const rate = Number(/","(\d+\.?\d*)","/.exec(csv.trim().split('\n').at(-1) ?? '')?.[1])
  if (rate > 0) return rate
  throw new RunError('failed', `${REDIS_BENCHMARK} told no rate: ${csv.slice(-300)}`)
}
