/** Schedulers that die: several processes, killed and frozen at random, and each tick still runs exactly once, never early. */
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { decodeEntry } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { tickingCatalogue } from './fixtures/scheduler/scheduler.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const PROGRAM = join(import.meta.dir, 'fixtures/scheduler/scheduler.ts')
const LONG = Bun.env['MILLRACE_LONG'] === '1'

/** Numbers in [0, 1) that a seed repeats (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

interface Ran {
  readonly tickMs: number
  /** When Redis took the command, by its own clock. */
  readonly atMs: number
}

async function ranTicks(redis: TestRedis): Promise<Ran[]> {
  const { ready } = partitionKeys('main', 0)
  const link = await redis.open()
  const rows = await link.client.xrangeBuffer(ready, '-', '+')
  redis.links.close(link)
  return rows.map(([id, fields]) => ({
    tickMs: decodeEntry(fields[1] ?? Buffer.alloc(0)).tickMs ?? 0,
    atMs: Number(id.toString().split('-')[0]),
  }))
}

interface Faults {
  readonly kills: number
  readonly freezes: number
}

/** Three scheduler processes for a while; one after another is killed and started anew, or frozen and woken. */
async function disturbedRun(
  redis: TestRedis,
  periodMs: number,
  durationMs: number,
  seed: number,
): Promise<Faults> {
  const random = randomFrom(seed)
  const living = new Map<number, Subprocess>()
  const start = (place: number) => {
    const program = [process.execPath, PROGRAM, redis.url, String(periodMs)]
    living.set(place, Bun.spawn(program, { stdout: 'ignore', stderr: 'inherit' }))
  }
  const wakes: Promise<unknown>[] = []
  let [kills, freezes] = [0, 0]
  try {
    for (const place of [0, 1, 2]) start(place)
    await until('the first tick', async () => (await ranTicks(redis)).length > 0)
    const end = performance.now() + durationMs
    while (performance.now() < end) {
      await Bun.sleep(100 + random() * 500)
      const place = Math.floor(random() * 3)
      const victim = living.get(place)
      if (victim === undefined) continue
      if (random() < 0.7) {
        victim.kill('SIGKILL')
        await victim.exited
        kills += 1
        start(place)
      } else {
        victim.kill('SIGSTOP')
        freezes += 1
        wakes.push(Bun.sleep(random() * 1500).then(() => victim.kill('SIGCONT')))
      }
    }
    await Promise.all(wakes)
    const endMs = Date.now()
    await until('the last tick', async () => ((await ranTicks(redis)).at(-1)?.tickMs ?? 0) > endMs)
    return { kills, freezes }
  } finally {
    for (const each of living.values()) each.kill('SIGKILL')
    await Promise.all([...living.values()].map((each) => each.exited))
  }
}

function judge(ran: readonly Ran[], periodMs: number) {
  const counts = new Map<number, number>()
  for (const { tickMs } of ran) counts.set(tickMs, (counts.get(tickMs) ?? 0) + 1)
  const ticks = [...counts.keys()].sort((a, b) => a - b)
  const [first = 0, last = 0] = [ticks[0], ticks.at(-1)]
  const expected = (last - first) / periodMs + 1
  const lateMs = ran.map(({ tickMs, atMs }) => atMs - tickMs).sort((a, b) => a - b)
  const share = (q: number): number => lateMs[Math.min(lateMs.length - 1, Math.floor(q * lateMs.length))] ?? 0
  return {
    expected,
    missed: expected - counts.size,
    doubled: [...counts.values()].filter((count) => count > 1).length,
    offBeat: ticks.filter((tick) => tick % periodMs !== 0).length,
    early: lateMs.filter((late) => late < 0).length,
    lateMs: { p50: share(0.5), p99: share(0.99), max: lateMs.at(-1) ?? 0 },
  }
}

async function prove(periodMs: number, durationMs: number): Promise<void> {
  const seed = Number(Bun.env['MILLRACE_SEED'] ?? Date.now() % 1_000_000)
  await using redis = await startTestRedis()
  const faults = await disturbedRun(redis, periodMs, durationMs, seed)
  const result = judge(await ranTicks(redis), periodMs)
  const summary = `schedulers under faults: seed ${seed}, every ${periodMs} ms, ${JSON.stringify({ ...result, ...faults })}`
  console.log(summary)
  expect(faults.kills).toBeGreaterThan(0)
  expect(result).toMatchObject({ missed: 0, doubled: 0, offBeat: 0, early: 0 })
  expect(result.expected).toBeGreaterThanOrEqual(Math.floor(durationMs / periodMs))
}

test('three schedulers, killed and frozen at random, run each tick exactly once', async () => {
  expect(tickingCatalogue(200).schedules.size).toBe(1)
  await prove(200, 8000)
}, 60_000)

test.if(LONG)('for a whole minute', async () => prove(1000, 60_000), 120_000)
