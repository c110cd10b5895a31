/**
 * Time and chance of the client, as a parameter: the only file of it that reads a clock, sets a timer or draws a random number.
 * The runtime's clock has these too, so a test's clock fits; but nothing of the runtime may come along into a browser.
 */

export interface ClientTimer {
  cancel(): void
}

export interface ClientClock {
  /** Wall clock, ms since 1970: only for dates that a server gives. */
  nowMs(): number
  /** Monotonic, ms: for every limit. */
  monotonicMs(): number
  /** Calls once after `ms`. */
  after(ms: number, call: () => void): ClientTimer
  /** Uniform in [0, 1). */
  random(): number
}

export const CLIENT_CLOCK: ClientClock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after: (ms, call) => {
    const timer = setTimeout(call, ms)
    return { cancel: () => clearTimeout(timer) }
  },
  random: () => Math.random(),
}

const KEY_BYTES = 12

/** A key that nobody else has drawn: 96 random bits as 24 hexadecimal digits. */
export function randomKey(): string {
  let key = ''
  for (const byte of crypto.getRandomValues(new Uint8Array(KEY_BYTES)))
    key += byte.toString(16).padStart(2, '0')
  return key
}
