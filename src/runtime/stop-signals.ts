/**
 * What a person or a supervisor outside says to a process: SIGINT, SIGTERM or SIGHUP once means finish and end; twice
 * means end now. Whatever follows a quick end is recovered by other processes, or at the next start.
 *
 * A wrapper such as `bun run` may pass on what the terminal had already sent to all of us: an echo, not a second word.
 */
import type { Clock } from './clock.ts'

export type StopSignal = 'SIGINT' | 'SIGTERM' | 'SIGHUP'

export interface SignalSource {
  on(signal: StopSignal, listener: () => void): unknown
  off(signal: StopSignal, listener: () => void): unknown
}

export interface StopSignals {
  /** Called at the first signal. */
  readonly onStop: (signal: StopSignal) => void
  /** Called at the second one, with the exit code that tells of it (128 + its number). */
  readonly onAbandon: (exitCode: number) => void
}

const NUMBERS: Readonly<Record<StopSignal, number>> = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 }
const ECHO_MS = 300
const NAMES = Object.keys(NUMBERS) as readonly StopSignal[]

/** Returns the function that stops listening. */
export function listenForStop(source: SignalSource, clock: Clock, calls: StopSignals): () => void {
  let heardAtMs: number | undefined
  const listeners = NAMES.map((name) => {
    const listener = (): void => {
      if (heardAtMs === undefined) {
        heardAtMs = clock.monotonicMs()
        calls.onStop(name)
      } else if (clock.monotonicMs() - heardAtMs > ECHO_MS) {
        calls.onAbandon(128 + NUMBERS[name])
      }
    }
    source.on(name, listener)
    return { name, listener }
  })
  return () => {
    for (const { name, listener } of listeners) source.off(name, listener)
  }
}
