/** The main-loop side of the heartbeat: starts the thread, ticks for it, waits for its first beat, hears what it sees. */
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

export class Heartbeat extends Service {
  readonly #options: HeartbeatOptions
  readonly #tick = new SharedArrayBuffer(4)
  #worker: Worker | undefined
  #stopped: Promise<void> | undefined
  #ticking: Promise<void> | undefined

  constructor(options: HeartbeatOptions) {
    super('heartbeat')
    this.#options = options
  }

  protected override async onStart(): Promise<void> {
    const { clock, onSighting, onLeases, ...order } = this.#options
    const worker = new Worker(new URL('./heartbeat-thread.ts', import.meta.url))
    this.#worker = worker
    const first = Promise.withResolvers<void>()
    const stopped = Promise.withResolvers<void>()
    worker.onmessage = ({ data }: { data: HeartbeatReport }) => {
      if (data === 'beating') first.resolve()
      else if (data === 'stopped') stopped.resolve()
      else if ('leases' in data) onLeases(data)
      else onSighting(data)
    }
    let beating = false
    worker.onerror = (event: { readonly message: string }) => {
      const error = new MillraceError('redis.unavailable', `The heartbeat thread failed: ${event.message}`)
      first.reject(error)
      // A worker without a heartbeat is taken over from while it runs: better to end it, as a crash.
      if (beating) queueMicrotask(() => raise(error))
    }
    this.#stopped = stopped.promise
    this.#ticking = this.#tickAlong()
    worker.postMessage({ ...order, tick: this.#tick } satisfies HeartbeatOrder)
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
    this.#worker?.postMessage('leave')
  }

  protected override async onStop(): Promise<void> {
    await this.#ticking
    const { clock } = this.#options
    this.#worker?.postMessage('stop')
    await Promise.race([this.#stopped, clock.sleep(this.#options.intervalMs + STOP_WAIT_MS)])
    this.#worker?.terminate()
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
