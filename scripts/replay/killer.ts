/**
 * Kills workers while they hold commands, as a crash would, and starts others in their place.
 *
 *   wait until 10 % are in ─▶ pick a worker with pending entries ─▶ SIGSTOP ─▶ still pending? ─▶ SIGKILL ─▶ new worker
 *                                       ▲                                        │ no
 *                                       └──────────────── SIGCONT ◀──────────────┘
 *
 * The first kill is sure to come. After it there is one look per period, at a random moment of it: a crash does not wait
 * for a command to be in a worker's hands, and a killer that did would strike the same few commands again and again.
 *
 * Frozen for a look, a worker can't settle between the question and the shot: each kill that is counted left entries
 * behind that somebody else has to run again.
 */
import type { Stack, StackWorker } from './stack.ts'

export interface KillerOptions {
  readonly stack: Stack
  readonly everyMs: number
  /** True once enough records are in. */
  readonly mayBegin: () => boolean
  readonly onKill: (worker: StackWorker, pending: number) => void
}

const LOOK_AGAIN_MS = 15
/** A settlement that a frozen worker had already sent arrives within this time. */
const IN_SOCKET_MS = 5

export class Killer {
  readonly #options: KillerOptions
  readonly #stop = new AbortController()
  #running: Promise<void> = Promise.resolve()
  kills = 0
  /** Entries that were pending with killed workers. */
  orphaned = 0

  constructor(options: KillerOptions) {
    this.#options = options
  }

  start(): Promise<void> {
    this.#running = this.#run()
    return this.#running
  }

  async stop(): Promise<void> {
    this.#stop.abort()
    await this.#running.catch(() => undefined)
  }

  async #run(): Promise<void> {
    const { everyMs, mayBegin, stack } = this.#options
    let nextMs = 0
    while (!this.#stop.signal.aborted) {
      const due = performance.now() >= nextMs
      if (!mayBegin() || !due || !(await this.#killOne())) {
        if (due && this.kills > 0) nextMs = performance.now() + everyMs
        await Bun.sleep(LOOK_AGAIN_MS)
        continue
      }
      nextMs = performance.now() + everyMs * (0.75 + Math.random() / 2)
      await stack.startWorker()
    }
  }

  async #killOne(): Promise<boolean> {
    const { stack, onKill } = this.#options
    const pending = await stack.probe.pending()
    const busy = stack.workers.filter((worker) => heldBy(worker, pending) > 0)
    const victim = busy[Math.floor(Math.random() * busy.length)]
    if (victim === undefined) return false
    if ((await this.#freeze(victim)) === 0) {
      victim.process.signal('SIGCONT')
      return false
    }
    await stack.kill(victim)
    // A read that was waiting may have been served meanwhile, so this is more than what the freezing showed.
    const left = heldBy(victim, await stack.probe.pending())
    this.kills += 1
    this.orphaned += left
    onKill(victim, left)
    return true
  }

  async #freeze(worker: StackWorker): Promise<number> {
    worker.process.signal('SIGSTOP')
    await Bun.sleep(IN_SOCKET_MS)
    return heldBy(worker, await this.#options.stack.probe.pending())
  }
}

function heldBy(worker: StackWorker, pending: ReadonlyMap<string, number>): number {
  let sum = 0
  for (const name of worker.consumers) sum += pending.get(name) ?? 0
  return sum
}
