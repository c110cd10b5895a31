/**
 * Who waits for a caller's signal. One signal may end thousands of sends, and Node warns of a leak from the eleventh listener on:
 * so each signal gets one listener, which calls them all, and loses it when nobody waits any more.
 */

interface Calls {
  readonly waiting: Set<() => void>
  readonly ring: () => void
}

const known = new WeakMap<AbortSignal, Calls>()

/** Calls once when the signal aborts, not if it has; answers how to stop listening. */
export function onAbort(signal: AbortSignal | undefined, call: () => void): () => void {
  if (signal === undefined) return stopNothing
  const calls = known.get(signal) ?? listenTo(signal)
  // A call of its own, should the same function wait twice.
  const own = (): void => call()
  calls.waiting.add(own)
  return () => {
    calls.waiting.delete(own)
    if (calls.waiting.size > 0 || known.get(signal) !== calls) return
    known.delete(signal)
    signal.removeEventListener('abort', calls.ring)
  }
}

function stopNothing(): void {}

function listenTo(signal: AbortSignal): Calls {
  const waiting = new Set<() => void>()
  const ring = (): void => {
    known.delete(signal)
    for (const call of waiting) call()
  }
  const calls = { waiting, ring }
  known.set(signal, calls)
  signal.addEventListener('abort', ring, { once: true })
  return calls
}
