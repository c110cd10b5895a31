/**
 * A link goes silent without a word: nothing passes, nothing closes. Whoever waits on it must notice by itself, dial again
 * and go on, in the same process.
 */
import { judge } from '../judge.ts'
import { type Connection, RedisProxy } from '../proxy.ts'
import { spreadOf } from '../result.ts'
import type { Scenario } from '../scenario.ts'
import { mixedType, Workload } from '../workload.ts'

const ROLES = ['reader', 'command', 'ingest'] as const
/** How long a blocked read waits, and 2 s; and what a timer may come late. */
const DETECTION_MAX_MS = 4000 + 100
const GIVE_UP_MS = 20_000

export const blackhole: Scenario = {
  name: 'blackhole',
  promise:
    'reader, command and ingest links go silent: noticed within block + 2 s, dialled again, no restart',
  full: { commands: 60_000, seconds: 60, workerKills: 0, pauses: 0, redisKills: 0, rounds: 3 },
  async run(arena) {
    const { size } = arena
    const workload = new Workload({ rows: size.commands, keys: 1000, bodyRows: 10, typeOf: mixedType })
    const opening = Promise.withResolvers<RedisProxy>()
    await arena.open({
      workload,
      workers: 2,
      redisUrl: async (redis) => {
        const proxy = await RedisProxy.open(redis.port)
        arena.onClose(() => proxy.close())
        opening.resolve(proxy)
        return proxy.url
      },
    })
    const proxy = await opening.promise
    const pids = processIds()
    const load = arena.produce()
    const detections: Record<string, number[]> = {}
    for (let round = 0; round < size.rounds; round++) {
      for (const role of ROLES) {
        await arena.guard(Bun.sleep(500))
        const struck = proxy.blackHole(role)
        const times = await arena.guard(Promise.all(struck.map(detectionMs)))
        const noticed = times.filter((ms) => ms !== undefined)
        detections[role] = [...(detections[role] ?? []), ...noticed]
        const late = noticed.filter((ms) => ms > arena.limitMs(DETECTION_MAX_MS))
        arena.check(noticed.length > 0, `no ${role} link was in use while it was silent: nothing was tested`)
        const worst = Math.round(Math.max(...noticed))
        arena.check(
          late.length === 0,
          `${late.length} of ${noticed.length} silent ${role} links were noticed after up to ${worst} ms`,
        )
      }
    }
    await load
    await arena.quiet()
    const account = await arena.count()
    judge(arena, account)
    arena.check(processIds() === pids, 'a process was started again')
    const spreads = Object.entries(detections).map(([role, times]) => [role, spreadOf(times)])
    arena.details['noticedMs'] = Object.fromEntries(spreads)

    function processIds(): string {
      const roles = ['api', 'project', 'work'] as const
      return roles.flatMap((role) => arena.fleet.ofRole(role).map(({ pid }) => pid)).join(' ')
    }
  },
}

/**
 * From the first request that went into the dark until the client gave the link up. Undefined when nobody used it; the
 * limit when nobody ever noticed.
 */
async function detectionMs(connection: Connection): Promise<number | undefined> {
  const startMs = performance.now()
  await Promise.race([connection.clientClosed, Bun.sleep(GIVE_UP_MS)])
  const { darkSinceMs } = connection
  if (darkSinceMs === undefined) {
    connection.close()
    return undefined
  }
  connection.close()
  return performance.now() - Math.max(startMs, darkSinceMs)
}
