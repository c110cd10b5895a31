/**
 * Redis is restarted in good order, or stands still for a while. Settling must go on soon after it answers again, and what
 * producers did not get an answer for must be safe to post again.
 */
import type { Arena } from '../arena.ts'
import { judge } from '../judge.ts'
import { spreadOf } from '../result.ts'
import type { Scenario } from '../scenario.ts'
import { mixedType, Workload } from '../workload.ts'

const SETTLED_AGAIN_MAX_MS = 3000
const GIVE_UP_MS = 30_000
const BETWEEN_MS = 1500
/** Rows that are posted once more at the end, each in three ways. */
const REPEATED_ROWS = 20

async function away(arena: Arena, goAway: (arena: Arena, share: number) => Promise<number>): Promise<void> {
  const { size } = arena
  const workload = new Workload({ rows: size.commands, keys: 1000, bodyRows: 25, typeOf: mixedType })
  await arena.open({ workload, workers: 2 })
  const random = arena.random.fork('away')
  const load = arena.produce()
  const times: number[] = []
  for (let round = 0; round < size.rounds; round++) {
    await arena.guard(Bun.sleep(BETWEEN_MS * random.between(0.6, 1.4)))
    const before = await arena.eventEntries()
    const answeredAtMs = await goAway(arena, random.next())
    const settled = await arena.until(async () => (await arena.eventEntries()) > before, GIVE_UP_MS)
    const ms = performance.now() - answeredAtMs
    times.push(ms)
    arena.check(
      settled && ms <= arena.limitMs(SETTLED_AGAIN_MAX_MS),
      `nothing was settled for ${Math.round(ms)} ms after Redis answered again`,
    )
  }
  await load
  await arena.quiet()
  await repeat(arena)
  judge(arena, await arena.count())
  arena.details['settledAgainMs'] = spreadOf(times)
  arena.check(times.length > 0, 'Redis never went away: nothing was tested')
}

/** The same key and body: the same id. Another body, also one that belongs to another partition: 422, nothing stored. */
async function repeat(arena: Arena): Promise<void> {
  const { workload, ledger } = arena
  const rows = Array.from({ length: Math.min(REPEATED_ROWS, workload.rows) }, (_, i) => i)
  const line = (row: number, members: string): string =>
    `{${members},"idempotencyKey":"${arena.rowKey(row)}"}`
  const same = await arena.post(rows.map((row) => line(row, workload.members(row))))
  const others = rows.map((row) => {
    const type = workload.typeOf(row)
    const payload = `{"n":${row},"k":${workload.keyOf(row) + 1},"s":${workload.sequenceOf(row)}}`
    return line(row, `"type":"${type}","payload":${payload}`)
  })
  const different = await arena.post(others)
  for (const row of rows) {
    const { id = '', status } = same[row] ?? {}
    const [, partition, token = ''] = id.split('.', 3)
    const known = ledger.positionOf(row)
    const isSame = known?.token === ledger.tokenNumber(token) && known?.partition === Number(partition)
    arena.check(status === 202 && isSame, `row ${row} posted again got ${status} ${id}, not its first id`)
    const refused = different[row]?.status
    arena.check(refused === 422, `row ${row} with another body got ${refused}, not 422`)
  }
}

export const redisRestart: Scenario = {
  name: 'redis-restart',
  promise:
    'Redis restarted in good order: first settlement within 3 s, unknown results are safe to post again',
  full: { commands: 60_000, seconds: 45, workerKills: 0, pauses: 0, redisKills: 0, rounds: 10 },
  run: (arena) =>
    away(arena, async ({ redis }, share) => {
      await redis.end()
      await Bun.sleep(share * 2000)
      await redis.start()
      return redis.answeredAtMs
    }),
}

export const redisPause: Scenario = {
  name: 'redis-pause',
  promise:
    'Redis stands still for up to 8 s: first settlement within 3 s, unknown results are safe to post again',
  full: { commands: 60_000, seconds: 60, workerKills: 0, pauses: 0, redisKills: 0, rounds: 8 },
  run: (arena) =>
    away(arena, async ({ redis }, share) => {
      redis.pause()
      await Bun.sleep(500 + share * Math.min(7500, arena.size.seconds * 400))
      redis.resume()
      return performance.now()
    }),
}
