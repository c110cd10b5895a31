/**
 * A backlog that stays as long as it is while it is worked off: for every command that was done, one is appended, by a script on
 * the server. So the same work is measured over the same time, however long the backlog.
 */
import type { Redis } from 'ioredis'
import { acknowledged } from './group-watch.ts'
import { type NamedProcesses, ProcessorTime, residentBytes } from './processor-time.ts'
import type { Measure } from './scenario.ts'

/** At the fastest that was seen, a twentieth of the shortest backlog is done between two looks. */
const LOOK_MS = 2
/** Connecting, compiling and the first collections of garbage are not counted. */
const WARM_MS = 2000
const RESIDENT_EVERY_MS = 100

/** KEYS: stream. ARGV: how many, field, value. */
const APPEND = `for _ = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', ARGV[2], ARGV[3]) end`

export interface SteadyBacklogOptions {
  readonly client: Redis
  readonly stream: string
  /** How long it is measured. */
  readonly seconds: number
  readonly worker: number
  readonly processes: NamedProcesses
  readonly signal: AbortSignal
}

/** Commands per second; `residentMiB` among the details is the most that the worker had resident. */
export async function watchSteadily(options: SteadyBacklogOptions): Promise<Measure> {
  const { client, stream, seconds, worker, processes, signal } = options
  const [[, fields] = []] = await client.xrangeBuffer(stream, '-', '+', 'COUNT', 1)
  const [field = '-', value = ''] = fields ?? []
  let appended = await acknowledged(client, [stream])
  const topUp = async (): Promise<{ readonly done: number; readonly atMs: number }> => {
    const done = await acknowledged(client, [stream])
    const atMs = performance.now()
    if (done > appended) await client.eval(APPEND, 1, stream, done - appended, field, value)
    appended = Math.max(appended, done)
    return { done, atMs }
  }
  const untilMs = async (endMs: number, look: (atMs: number) => void): Promise<void> => {
    while (performance.now() < endMs) {
      signal.throwIfAborted()
      look((await topUp()).atMs)
      await Bun.sleep(LOOK_MS)
    }
  }
  await untilMs(performance.now() + WARM_MS, () => undefined)
  const [from, used] = [await topUp(), new ProcessorTime(processes)]
  let [resident, nextMs] = [0, 0]
  await untilMs(from.atMs + seconds * 1000, (atMs) => {
    if (atMs < nextMs) return
    nextMs = atMs + RESIDENT_EVERY_MS
    resident = Math.max(resident, residentBytes(worker) ?? 0)
  })
  const to = await topUp()
  return {
    value: ((to.done - from.done) * 1000) / (to.atMs - from.atMs),
    cores: used.cores(),
    details: { residentMiB: Math.round(resident / 1024 ** 2) },
  }
}
