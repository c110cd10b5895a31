/**
 * How hard Redis's memory presses on the workers. Pure.
 *
 *   none    read as usual
 *   drain   above maxmemory: one batch in flight for each partition, so that settling, projecting and trimming keep up
 *   stop    above 1.2 × maxmemory: what workers write while Redis refuses everybody else must not grow without a bound
 *
 * A level is left a little below where it was entered, so that it does not flap.
 */
export type MemoryPressure = 'none' | 'drain' | 'stop'

const DRAIN_RATIO = 1
const STOP_RATIO = 1.2
const LEAVE_SHARE = 0.97

/** `ratio` is used memory over maxmemory, 0 where no maxmemory is set. */
export function decidePressure(ratio: number, before: MemoryPressure): MemoryPressure {
  const stopAt = before === 'stop' ? STOP_RATIO * LEAVE_SHARE : STOP_RATIO
  if (ratio >= stopAt) return 'stop'
  const drainAt = before === 'none' ? DRAIN_RATIO : DRAIN_RATIO * LEAVE_SHARE
  return ratio >= drainAt ? 'drain' : 'none'
}
