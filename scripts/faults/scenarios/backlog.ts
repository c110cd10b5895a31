/** A long backlog and one worker: no process may grow with it, and Redis gets its memory back as the backlog shrinks. */
import type { Arena } from '../arena.ts'
import { judge } from '../judge.ts'
import { MEBIBYTE, MemoryWatch } from '../memory-watch.ts'
import type { Scenario } from '../scenario.ts'
import { plainType, Workload } from '../workload.ts'

const GROWTH_MAX = 64 * MEBIBYTE
/**
 * Before the watch: a backlog that is short against the real one, posted and drained in the same way, so that heaps and
 * compiled code have the size that the work needs, whatever waits.
 */
const WARM_ROWS = 50_000
const DRAIN_LIMIT_MS = 3_600_000
/** Entries that trimming may leave: it goes by whole nodes, a moment later. */
const LEFT_MAX = 5000

export const backlog: Scenario = {
  name: 'backlog',
  promise:
    '5,000,000 waiting, one worker: memory of every process flat (at most +64 MB), Redis trimmed as it drains',
  full: { commands: 5_000_000, seconds: 300, workerKills: 0, pauses: 0, redisKills: 0, rounds: 0 },
  skip: async () => (process.platform === 'linux' ? undefined : 'memory of processes is read from /proc'),
  async run(arena) {
    const { commands } = arena.size
    const warm = Math.min(WARM_ROWS, Math.floor(commands / 2))
    const workload = new Workload({ rows: commands, keys: 1000, bodyRows: 500, typeOf: plainType })
    const apiFlags = ['--idempotency-records-max', '50000000']
    await arena.open({ workload, workers: 1, apiFlags })
    const [worker] = arena.fleet.workers
    if (worker === undefined) throw new Error('there is no worker')
    const memory = new MemoryWatch(arena)
    memory.start()
    arena.fleet.pause(worker)
    await arena.produce({ from: 0, to: warm, ratePerSecond: 1e9 })
    arena.fleet.resume(worker)
    await arena.quiet()
    memory.warm()
    arena.fleet.pause(worker)
    await arena.produce({ from: warm, to: commands, ratePerSecond: 1e9 })
    const waiting = (await arena.probe.openWork(arena.places)).logged
    const before = await redisBytes(arena)
    arena.fleet.resume(worker)
    const startMs = performance.now()
    await arena.quiet(DRAIN_LIMIT_MS)
    const seconds = (performance.now() - startMs) / 1000
    await arena.until(async () => (await arena.probe.openWork(arena.places)).logged <= LEFT_MAX, 15_000, 250)
    const left = (await arena.probe.openWork(arena.places)).logged
    memory.stop()
    judge(arena, await arena.count(), { duplicateCallsMax: 0 })
    arena.check(waiting >= commands - warm, `only ${waiting} were waiting: nothing was tested`)
    arena.check(left <= LEFT_MAX, `${left} settled commands were not trimmed`)
    for (const [name, { grownBytes }] of memory.growth) {
      arena.check(grownBytes <= GROWTH_MAX, `${name} grew by ${Math.round(grownBytes / MEBIBYTE)} MB`)
    }
    Object.assign(arena.details, {
      waiting,
      left,
      drainedPerSecond: Math.round(waiting / seconds),
      memoryMb: memory.told(),
      redisMb: { waiting: before / MEBIBYTE, drained: (await redisBytes(arena)) / MEBIBYTE },
    })
  },
}

async function redisBytes(arena: Arena): Promise<number> {
  return Number((await arena.probe.info('memory')).get('used_memory'))
}
