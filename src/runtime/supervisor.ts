/**
 * Starts services one after another and stops them in reverse, under one limit, whatever a single one of them does.
 *
 * If one fails to start, those before it are stopped and its error is thrown. A service that does not stop in time is
 * left behind with an alarm, and the next one is stopped: the process ends, and what it held is recovered by others.
 */
import { describeError, MillraceError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Clock } from './clock.ts'
import { Service } from './service.ts'

export interface SupervisorOptions {
  readonly clock: Clock
  readonly telemetry: Telemetry
  /** For all services together. */
  readonly drainLimitMs: number
}

export interface Supervised {
  readonly service: Service
  /** A limit of its own, for what must end properly even when the drain took all its time. */
  readonly stopLimitMs?: number
}

/** What is left for a service when the limit was used up before its turn. */
const LAST_CHANCE_MS = 250

export class Supervisor extends Service {
  readonly #options: SupervisorOptions
  readonly #running: Supervised[] = []
  #clean = true

  constructor(options: SupervisorOptions) {
    super('supervisor')
    this.#options = options
  }

  /** False when a service failed to stop, or did not in time. */
  get endedCleanly(): boolean {
    return this.#clean
  }

  /** True from the moment a stop was asked for. */
  get draining(): boolean {
    return this.stopSignal.aborted
  }

  /** Starts a service; it will be stopped before all that were started earlier. */
  async run<Kind extends Service>(
    service: Kind,
    limits: { readonly stopLimitMs?: number } = {},
  ): Promise<Kind> {
    if (this.stopSignal.aborted) {
      throw new MillraceError('service.stopped', `Stopped before ${service.name} started.`)
    }
    this.#running.push({ service, ...limits })
    await service.start()
    this.#options.telemetry.emit('service.started', { service: service.name })
    return service
  }

  protected override async onStart(): Promise<void> {
    // Services are started by `run`, because a later one needs what an earlier one found out.
  }

  protected override async onStop(): Promise<void> {
    const { clock, drainLimitMs } = this.#options
    const endMs = clock.monotonicMs() + drainLimitMs
    for (const { service, stopLimitMs } of this.#running.toReversed()) {
      const leftMs = Math.max(LAST_CHANCE_MS, endMs - clock.monotonicMs())
      await this.#stopOne(service, stopLimitMs ?? leftMs)
    }
  }

  async #stopOne(service: Service, limitMs: number): Promise<void> {
    const { clock, telemetry } = this.#options
    const limit = new AbortController()
    const stopped = service.stop().then(
      () => undefined,
      (error: unknown) => ({ detail: `${service.name} failed to stop: ${describeError(error)}` }),
    )
    const late = clock.sleep(limitMs, limit.signal).then(() => ({
      detail: `${service.name} did not stop within ${Math.round(limitMs)} ms and is left behind; others will recover what it held.`,
    }))
    const failure = await Promise.race([stopped, late])
    limit.abort()
    if (failure === undefined) {
      telemetry.emit('service.stopped', { service: service.name })
      return
    }
    this.#clean = false
    telemetry.emit('alarm.raised', { alarm: 'stop-failed', stream: undefined, detail: failure.detail })
  }
}
