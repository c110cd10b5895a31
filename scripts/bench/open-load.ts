/** Loads the whole path with a process of its own (`subjects/open-load.ts`) at a fixed rate, and tells how late things were. */
import type { NamedProcesses } from './processor-time.ts'

export interface OpenLoadInput {
  readonly port: number
  readonly type: string
  /** Projection whose view of an order holds `startedAtMs`, when its handler started. */
  readonly projection: string
  readonly ratePerS: number
  readonly seconds: number
  readonly seed: number
  readonly connections: number
  /** The first digit of all order numbers: views of other phases are left out by it. */
  readonly phase: number
  readonly processes: NamedProcesses
}

/** Milliseconds from the moment at which a command was to be sent. */
export interface Latencies {
  readonly count: number
  readonly p50: number
  readonly p99: number
  readonly p999: number
  readonly max: number
}

export interface OpenLoadResult {
  /** Until it was stored and said so. */
  readonly accepted: Latencies
  /** Until its handler started. */
  readonly handler: Latencies
  /** Until its view was read; of a sample. */
  readonly view: Latencies
  /** How late the generator itself was. */
  readonly sent: Latencies
  readonly cores: Readonly<Record<string, number>>
}
