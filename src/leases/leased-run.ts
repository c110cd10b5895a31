/**
 * One singleton in this process: waits for its lease, runs it, gives the lease back, and so on until stopped.
 *
 *   waiting ──lease──▶ running ──returned, threw, lease lost──▶ pausing ──▶ waiting
 *
 * The lease is given back only after the run has ended, also at a stop and also when it was lost. A run that goes on long
 * after its signal was aborted (by the lease's `takeoverMs`) raises an alarm: another process may run beside it, and only the epoch keeps them apart.
 */
import { describeError, errorCode } from '../contracts/errors.ts'
import type { Lease } from '../contracts/lease.ts'
import type { Logger } from '../contracts/logger.ts'
import type { SingletonDefinition } from '../contracts/singleton.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Clock } from '../runtime/clock.ts'
import { Service } from '../runtime/service.ts'
import type { Leases } from './leases.ts'

export interface LeasedRunParts {
  readonly leases: Leases
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly logger: Logger
}

const FAILED_PAUSE_MS_MIN = 1000
const FAILED_PAUSE_MS_MAX = 30_000

export class LeasedRun extends Service {
  readonly #parts: LeasedRunParts
  readonly #singleton: SingletonDefinition
  #loop: Promise<void> | undefined
  #epoch: number | undefined
  #failures = 0

  constructor(parts: LeasedRunParts, singleton: SingletonDefinition) {
    super(`singleton ${singleton.name}`)
    this.#parts = parts
    this.#singleton = singleton
  }

  /** Whether it runs here now. */
  get running(): boolean {
    return this.#epoch !== undefined
  }

  protected override async onStart(): Promise<void> {
    this.#loop = this.#turns()
  }

  protected override async onStop(): Promise<void> {
    await this.#loop
  }

  async #turns(): Promise<void> {
    const { clock } = this.#parts
    const signal = this.stopSignal
    while (!signal.aborted) {
      try {
        await this.#turn()
        this.#failures = 0
      } catch (error) {
        // A lost lease and a stop are no failures of the run: what it throws then says nothing new.
        if (signal.aborted) return
        if (errorCode(error) !== 'lease.lost') this.#fail(error)
      }
      await clock.sleep(this.#pauseMs() * (1 + clock.random() / 2), signal)
    }
  }

  #fail(error: unknown): void {
    this.#failures += 1
    this.#parts.telemetry.emit('service.failed', { service: this.name, error: describeError(error) })
  }

  #pauseMs(): number {
    const { pauseMs } = this.#singleton
    if (this.#failures === 0) return pauseMs
    const failedMs = Math.min(FAILED_PAUSE_MS_MAX, FAILED_PAUSE_MS_MIN * 2 ** (this.#failures - 1))
    return Math.max(pauseMs, failedMs)
  }

  async #turn(): Promise<void> {
    const { leases, logger } = this.#parts
    const { name, takeoverMs, run } = this.#singleton
    const lease = await leases.acquire(name, { takeoverMs, signal: this.stopSignal })
    const signal = AbortSignal.any([lease.signal, this.stopSignal])
    const late = new AbortController()
    void this.#alarmWhenLate(signal, late.signal)
    this.#epoch = lease.epoch
    try {
      await run(withSignal(lease, signal), { logger })
    } catch (error) {
      if (!signal.aborted) throw error
    } finally {
      this.#epoch = undefined
      late.abort()
      await lease.release()
    }
  }

  async #alarmWhenLate(signal: AbortSignal, ended: AbortSignal): Promise<void> {
    const { clock, telemetry } = this.#parts
    const { name, takeoverMs } = this.#singleton
    await aborted(AbortSignal.any([signal, ended]))
    await clock.sleep(takeoverMs, ended)
    if (ended.aborted) return
    const detail = `Singleton "${name}" goes on although its signal was aborted ${takeoverMs} ms ago; another process may run it too. Make it heed the signal.`
    telemetry.emit('alarm.raised', { alarm: 'singleton-overrun', stream: undefined, detail })
  }
}

/** The lease as its run sees it: a stop of the process aborts the signal, and yet the lease is kept until the run has ended. */
function withSignal(lease: Lease, signal: AbortSignal): Lease {
  return {
    name: lease.name,
    epoch: lease.epoch,
    signal,
    get held() {
      return lease.held
    },
    assertHeld: () => lease.assertHeld(),
    release: () => lease.release(),
    [Symbol.asyncDispose]: () => lease.release(),
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
