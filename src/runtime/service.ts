/**
 * One lifecycle for everything that lives.
 *
 *   idle ──start──▶ starting ──▶ running ──stop──▶ stopping ──▶ stopped
 *                        └──────── fails ───────────────────────▶ stopped
 *
 * Stopping twice, or before starting, is fine. A stopped service does not start again: make a new one.
 */
import { describeError, MillraceError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Clock } from './clock.ts'

export type ServiceState = 'idle' | 'starting' | 'running' | 'stopping' | 'stopped'

export abstract class Service implements AsyncDisposable {
  readonly name: string
  readonly #abort = new AbortController()
  #state: ServiceState = 'idle'
  #starting: Promise<void> | undefined
  #stopping: Promise<void> | undefined

  constructor(name: string) {
    this.name = name
  }

  get state(): ServiceState {
    return this.#state
  }

  /** Aborts when `stop` is called; hand it to everything that waits. */
  protected get stopSignal(): AbortSignal {
    return this.#abort.signal
  }

  /** Brings the service to life; throws what kept it from starting. */
  start(): Promise<void> {
    if (this.#stopping !== undefined) {
      return Promise.reject(new MillraceError('service.stopped', `${this.name} was stopped; make a new one.`))
    }
    this.#starting ??= this.#run()
    return this.#starting
  }

  /** Ends the service and waits until it has ended. */
  stop(): Promise<void> {
    this.#stopping ??= this.#end()
    return this.#stopping
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  protected abstract onStart(): Promise<void>
  protected abstract onStop(): Promise<void>

  async #run(): Promise<void> {
    this.#state = 'starting'
    try {
      await this.onStart()
      if (this.#state === 'starting') this.#state = 'running'
    } catch (error) {
      void this.stop()
      throw error
    }
  }

  async #end(): Promise<void> {
    const started = this.#starting
    this.#state = 'stopping'
    this.#abort.abort()
    if (started !== undefined) {
      await started.catch(() => undefined)
      await this.onStop()
    }
    this.#state = 'stopped'
  }
}

/** Between rounds that fail, before jitter: after an outage of Redis nothing should start late. */
const FAILED_PAUSE_MAX_MS = 500

export interface PeriodicOptions {
  readonly name: string
  readonly clock: Clock
  readonly telemetry: Telemetry
  /** Shortest and longest pause between two rounds, ms; a round may ask for one in between. */
  readonly pauseMinMs: number
  readonly pauseMaxMs: number
}

/**
 * A service that does a small round of work again and again. A round that throws is reported and followed by a longer
 * pause with jitter; it never ends the service.
 */
export class PeriodicService extends Service {
  readonly #options: PeriodicOptions
  readonly #round: (signal: AbortSignal) => Promise<number | undefined>
  #loop: Promise<void> | undefined
  #wake: AbortController = new AbortController()

  /** `round` answers the pause before the next round in ms, or undefined for the longest. */
  constructor(options: PeriodicOptions, round: (signal: AbortSignal) => Promise<number | undefined>) {
    super(options.name)
    this.#options = options
    this.#round = round
  }

  /** Ends the present pause. */
  wake(): void {
    this.#wake.abort()
  }

  protected override async onStart(): Promise<void> {
    this.#loop = this.#run()
  }

  protected override async onStop(): Promise<void> {
    this.#wake.abort()
    await this.#loop
  }

  async #run(): Promise<void> {
    const { clock, pauseMinMs, pauseMaxMs, telemetry } = this.#options
    let failures = 0
    while (!this.stopSignal.aborted) {
      let pauseMs = pauseMaxMs
      try {
        const wanted = await this.#round(this.stopSignal)
        if (wanted !== undefined) pauseMs = Math.min(pauseMaxMs, Math.max(pauseMinMs, wanted))
        failures = 0
      } catch (error) {
        if (this.stopSignal.aborted) return
        failures += 1
        telemetry.emit('service.failed', { service: this.name, error: describeError(error) })
        pauseMs = Math.min(FAILED_PAUSE_MAX_MS, 25 * 2 ** Math.min(failures, 7)) * (0.5 + clock.random())
      }
      this.#wake = new AbortController()
      await clock.sleep(pauseMs, AbortSignal.any([this.stopSignal, this.#wake.signal]))
    }
  }
}
