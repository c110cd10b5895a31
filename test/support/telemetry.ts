/** Telemetry for tests: silent, or recorded so that a test can wait for an event. */
import type { Telemetry, TelemetryEvents, TelemetryName } from '../../src/contracts/telemetry.ts'

export const SILENT_TELEMETRY: Telemetry = { emit: () => undefined }

interface Recorded<Name extends TelemetryName> {
  readonly name: Name
  readonly payload: TelemetryEvents[Name]
}

export class RecordedTelemetry implements Telemetry {
  readonly events: Recorded<TelemetryName>[] = []
  readonly #waiting = new Set<() => void>()

  emit<Name extends TelemetryName>(name: Name, payload: TelemetryEvents[Name]): void {
    this.events.push({ name, payload })
    for (const check of [...this.#waiting]) check()
  }

  of<Name extends TelemetryName>(name: Name): TelemetryEvents[Name][] {
    return this.events
      .filter((event) => event.name === name)
      .map((event) => event.payload as TelemetryEvents[Name])
  }

  /** Resolves as soon as `test` holds for the recorded events of this name. */
  async until<Name extends TelemetryName>(
    name: Name,
    test: (payloads: TelemetryEvents[Name][]) => boolean = (payloads) => payloads.length > 0,
    limitMs = 20_000,
  ): Promise<void> {
    if (test(this.of(name))) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const timer = setTimeout(() => reject(new Error(`no ${name} as expected within ${limitMs} ms`)), limitMs)
    const check = () => {
      if (test(this.of(name))) resolve()
    }
    this.#waiting.add(check)
    try {
      await promise
    } finally {
      clearTimeout(timer)
      this.#waiting.delete(check)
    }
  }
}
