/**
 * The main-loop side of the heartbeat: starts the thread, ticks for it, waits for its first beat, hears what it sees.
 *
 * A thread takes as long to load as a small process does. Who knows that it will be needed starts a `HeartbeatThread` early:
 * it loads on another processor while this one loads the application and talks to Redis, and beats when it is told for whom.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { Clock } from './clock.ts'
import type { LeaseSighting, Sighting, WatchedPartition, WatchedStream } from './lookout.ts'
import { Service } from './service.ts'

/** What the thread is told. */
export interface HeartbeatOrder {
  readonly url: string
  readonly partitions: readonly WatchedPartition[]
  readonly orderedStreams: readonly WatchedStream[]
  readonly consumer: string
  readonly intervalMs: number
  /** How often the other consumers of each partition are looked at. */
  readonly lookEveryMs: number
  /** A main loop that has not ticked for so long is stuck. */
  readonly stuckAfterMs: number
  readonly tick: SharedArrayBuffer
}

/** What the thread tells. */
export type HeartbeatReport = 'beating' | 'stopped' | Sighting | LeaseSighting

export interface HeartbeatOptions extends Omit<HeartbeatOrder, 'tick'> {
  readonly clock: Clock
  readonly onSighting: (sighting: Sighting) => void
  readonly onLeases: (sighting: LeaseSighting) => void
}

const TICK_EVERY_MS = 100
const FIRST_BEAT_WAIT_MS = 10_000
const STOP_WAIT_MS = 1000

type ThreadListener = (report: HeartbeatReport | { readonly failure: string }) => void

/** The thread, from its start on; what it tells before anybody listens is kept. */
export class HeartbeatThread extends Service {
  readonly #told: Parameters<ThreadListener>[0][] = []
  #worker: Worker | undefined
  #listener: ThreadListener = (report) => this.#told.push(report)

  constructor() {
    super('heartbeat thread')
  }

  listen(listener: ThreadListener): void {
    this.#listener = listener
    for (const report of this.#told.splice(0)) listener(report)
  }

  tell(word: HeartbeatOrder | 'leave' | 'stop'): void {
    this.#worker?.postMessage(word)
  }

  /** Resolves at once; the thread loads by itself. */
  protected override async onStart(): Promise<void> {
    const worker = new Worker(new URL('./heartbeat-thread.ts', import.meta.url))
    worker.onmessage = ({ data }: { data: HeartbeatReport }) => this.#listener(data)
    worker.onerror = (event: { readonly message: string }) => this.#listener({ failure: event.message })
    this.#worker = worker
  }

  protected override async onStop(): Promise<void> {
    this.#worker?.terminate()
  }
}

export class Heartbeat extends Service {
  readonly #options: HeartbeatOptions
  readonly #tick = new SharedArrayBuffer(4)
  readonly #thread: HeartbeatThread
  #stopped: Promise<void> | undefined
  #ticking: Promise<void> | undefined

  /** `thread` may have been started before; it ends with this heartbeat. */
  constructor(options: HeartbeatOptions, thread: HeartbeatThread = new HeartbeatThread()) {
    super('heartbeat')
    this.#options = options
    this.#thread = thread
  }

  protected override async onStart(): Promise<void> {
    const { clock, onSighting, onLeases, ...order } = this.#options
    await this.#thread.start()
    const first = Promise.withResolvers<void>()
    const stopped = Promise.withResolvers<void>()
    let beating = false
    const fail = (failure: string): void => {
      const error = new MillraceError('redis.unavailable', `The heartbeat thread failed: ${failure}`)
      first.reject(error)
      // A worker without a heartbeat is taken over from while it runs: better to end it, as a crash.
      if (beating) queueMicrotask(() => raise(error))
    }
    this.#thread.listen((report) => {
      if (report === 'beating') first.resolve()
      else if (report === 'stopped') stopped.resolve()
      else if ('failure' in report) fail(report.failure)
      else if ('leases' in report) onLeases(report)
      else onSighting(report)
    })
    this.#stopped = stopped.promise
    this.#ticking = this.#tickAlong()
    this.#thread.tell({ ...order, tick: this.#tick })
    const limit = clock.after(FIRST_BEAT_WAIT_MS, () =>
      first.reject(
        new MillraceError(
          'redis.unavailable',
          'The first heartbeat could not be written; is Redis reachable?',
        ),
      ),
    )
    try {
      await first.promise
      beating = true
    } finally {
      limit.cancel()
    }
  }

  /** Shows from the next beat on that this worker takes nothing more; it still lives. */
  announceLeaving(): void {
    this.#thread.tell('leave')
  }

  protected override async onStop(): Promise<void> {
    await this.#ticking
    const { clock } = this.#options
    this.#thread.tell('stop')
    await Promise.race([this.#stopped, clock.sleep(this.#options.intervalMs + STOP_WAIT_MS)])
    await this.#thread.stop()
  }

  async #tickAlong(): Promise<void> {
    const tick = new Int32Array(this.#tick)
    while (!this.stopSignal.aborted) {
      Atomics.add(tick, 0, 1)
      await this.#options.clock.sleep(TICK_EVERY_MS, this.stopSignal)
    }
  }
}

function raise(error: MillraceError): never {
  throw error
}
