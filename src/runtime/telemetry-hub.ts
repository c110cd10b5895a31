/** Fans telemetry out to subscribers. A subscriber that throws is dropped and reported, never propagated. */
import { describeError } from '../contracts/errors.ts'
import type { Telemetry, TelemetryEvents, TelemetryListener, TelemetryName } from '../contracts/telemetry.ts'

export class TelemetryHub implements Telemetry {
  readonly #listeners = new Set<TelemetryListener>()

  emit<Name extends TelemetryName>(name: Name, payload: TelemetryEvents[Name]): void {
    for (const listener of this.#listeners) {
      try {
        listener(name, payload)
      } catch (error) {
        this.#listeners.delete(listener)
        this.emit('alarm.raised', {
          alarm: 'telemetry-listener-failed',
          stream: undefined,
          detail: `A telemetry listener threw on "${name}" and was removed: ${describeError(error)}`,
        })
      }
    }
  }

  /** Returns the function that unsubscribes. */
  subscribe(listener: TelemetryListener): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
