/**
 * When an open loop sends: a timetable that is made before the first request and never asks how the server is doing.
 *
 * A closed loop waits for an answer before it sends again, so a server that stalls for a second is asked nothing meanwhile,
 * and the second shows as one slow answer among thousands of quick ones (coordinated omission). Users do not wait for each
 * other. Here each request has a moment at which it is to be sent, gaps between them are exponential (arrivals of many who
 * know nothing of each other: a Poisson process), and its latency runs from that moment, however late the generator itself
 * got to send it.
 */

/** Milliseconds from the start, ascending; the same for the same seed. */
export function sendTimes(ratePerS: number, seconds: number, seed: number): Float64Array {
  const random = uniform(seed)
  const endMs = seconds * 1000
  const times: number[] = []
  for (let atMs = gapMs(ratePerS, random); atMs < endMs; atMs += gapMs(ratePerS, random)) times.push(atMs)
  return Float64Array.from(times)
}

/** How many of these are due at `nowMs`; `from` are known to be. */
export function dueBy(times: Float64Array, nowMs: number, from: number): number {
  let count = from
  while (count < times.length && (times[count] ?? 0) <= nowMs) count += 1
  return count
}

function gapMs(ratePerS: number, random: () => number): number {
  return (-Math.log(1 - random()) * 1000) / ratePerS
}

/** Uniform in [0, 1): mulberry32. */
function uniform(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
