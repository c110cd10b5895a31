/** Projectors are killed, paused and run twice at once; checkpoints are watched while they do. */

import type { Arena } from '../arena.ts'
import { judge } from '../judge.ts'
import { keyOf } from '../probe.ts'
import { strikeRole } from '../role-strikes.ts'
import type { Scenario } from '../scenario.ts'
import { mixedType, Workload } from '../workload.ts'

const PROJECTORS = 2
const LOOK_MS = 25

export const views: Scenario = {
  name: 'views',
  promise: 'projectors killed, paused, run twice: every view equals its events, checkpoints only go forward',
  full: { commands: 300_000, seconds: 60, workerKills: 30, pauses: 20, redisKills: 0, rounds: 0 },
  async run(arena) {
    const workload = new Workload({ rows: arena.size.commands, keys: 1000, bodyRows: 100, typeOf: mixedType })
    await arena.open({ workload, workers: 2, projectors: PROJECTORS })
    const watch = new CheckpointWatch(arena)
    const watching = watch.start()
    await Promise.all([
      arena.produce(),
      arena.guard(strikeRole(arena, 'project', () => arena.fleet.start('project'))),
    ])
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
