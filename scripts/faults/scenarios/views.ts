/** Projectors are killed, paused and run twice at once; checkpoints are watched while they do. */

import type { Arena } from '../arena.ts'
import { judge } from '../judge.ts'
import { keyOf } from '../probe.ts'
import type { Random } from '../random.ts'
import type { Scenario } from '../scenario.ts'
import { mixedType, Workload } from '../workload.ts'

const PROJECTORS = 2
const LOOK_MS = 25
const PAUSE_MAX_MS = 5000

export const views: Scenario = {
  name: 'views',
  promise: 'projectors killed, paused, run twice: every view equals its events, checkpoints only go forward',
  full: { commands: 300_000, seconds: 60, workerKills: 30, pauses: 20, redisKills: 0, rounds: 0 },
  async run(arena) {
    const workload = new Workload({ rows: arena.size.commands, keys: 1000, bodyRows: 100, typeOf: mixedType })
    await arena.open({ workload, workers: 2, projectors: PROJECTORS })
    const watch = new CheckpointWatch(arena)
    const watching = watch.start()
    await Promise.all([arena.produce(), arena.guard(strikeProjectors(arena))])
    await arena.quiet()
    watch.stop()
    await watching
    const account = await arena.count()
    judge(arena, account)
    Object.assign(arena.details, { checkpointsSeen: watch.seen })
    arena.check(watch.seen > 0, 'no checkpoint was seen: nothing was tested')
    arena.check(watch.backward === 0, `${watch.backward} checkpoints went back: ${watch.example}`)
  },
}

async function strikeProjectors(arena: Arena): Promise<void> {
  const { size, fleet, signal } = arena
  const random = arena.random.fork('projectors')
  const [kills, pauses] = [size.workerKills, size.pauses]
  const everyMs = (size.seconds * 1000) / (kills + pauses + 1)
  const order = shuffled(random, [
    ...Array.from({ length: kills }, () => 'kill' as const),
    ...Array.from({ length: pauses }, () => 'pause' as const),
  ])
  const resumes: Promise<void>[] = []
  for (const kind of order) {
    signal.throwIfAborted()
    await Bun.sleep(everyMs * random.between(0.5, 1))
    const alive = fleet.ofRole('project')
    const victim = alive[Math.floor(random.next() * alive.length)]
    if (victim === undefined) continue
    if (kind === 'kill') {
      await victim.kill()
      arena.extraKills += 1
      await fleet.start('project')
      continue
    }
    victim.signal('SIGSTOP')
    arena.extraPauses += 1
    const pauseMs = random.between(0, Math.min(PAUSE_MAX_MS, size.seconds * 300))
    resumes.push(Bun.sleep(pauseMs).then(() => (victim.alive ? victim.signal('SIGCONT') : undefined)))
  }
  await Promise.all(resumes)
}

function shuffled<Value>(random: Random, values: readonly Value[]): Value[] {
  return values
    .map((value) => ({ value, place: random.next() }))
    .sort((a, b) => a.place - b.place)
    .map(({ value }) => value)
}

/** Reads every checkpoint again and again. */
class CheckpointWatch {
  readonly #arena: Arena
  readonly #last = new Map<string, string>()
  #stopped = false
  seen = 0
  backward = 0
  example = ''

  constructor(arena: Arena) {
    this.#arena = arena
  }

  async start(): Promise<void> {
    const { probe, places } = this.#arena
    while (!this.#stopped) {
      for (const place of places) {
        const reply = await probe.send('HGETALL', [keyOf(place, 'readers')]).catch(() => ({}))
        for (const [reader, checkpoint] of Object.entries(reply as Record<string, string>)) {
          this.#see(`${place.stream}.${place.partition} ${reader}`, checkpoint)
        }
      }
      await Bun.sleep(LOOK_MS)
    }
  }

  stop(): void {
    this.#stopped = true
  }

  #see(reader: string, checkpoint: string): void {
    const before = this.#last.get(reader)
    this.#last.set(reader, checkpoint)
    if (before === undefined || before === checkpoint) return
    this.seen += 1
    if (compareIds(before, checkpoint) < 0) return
    this.backward += 1
    this.example = `${reader} from ${before} to ${checkpoint}`
  }
}

function compareIds(a: string, b: string): number {
  const [aMs = 0, aSequence = 0] = a.split('-').map(Number)
  const [bMs = 0, bSequence = 0] = b.split('-').map(Number)
  return aMs - bMs || aSequence - bSequence
}
