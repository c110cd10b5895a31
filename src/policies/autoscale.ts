/**
 * How many workers a stream wants: one for every so many commands that wait or are in hand, inside bounds. Pure.
 *
 * One worker at least wherever there is anything to do, so that a fleet that was scaled to none comes back. In a stream that is
 * ordered by key each partition belongs to one worker, so more workers than partitions would stand by.
 */

export interface ScaleLoad {
  /** Commands that no worker has been given, those that became due included. */
  readonly waiting: number
  /** Commands in the hands of workers. */
  readonly pending: number
  /** Workers that can have work at all; infinite where the order is free. */
  readonly workersUseful: number
}

export interface ScaleBounds {
  /** Commands that one worker is meant to have before it, 1 or more. */
  readonly target: number
  readonly min: number
  /** Infinite: none. */
  readonly max: number
}

export interface ScaleWish {
  /** Commands that want a worker. */
  readonly value: number
  readonly desired: number
  /** What holds `desired` away from what the load alone would ask for. */
  readonly limitedBy: 'min' | 'max' | 'partitions' | undefined
}

/** `min` goes before everything: whoever asks for standby workers gets them. */
export function decideScale({ waiting, pending, workersUseful }: ScaleLoad, bounds: ScaleBounds): ScaleWish {
  const value = waiting + pending
  const wanted = Math.ceil(value / bounds.target)
  const desired = Math.max(bounds.min, Math.min(wanted, workersUseful, bounds.max))
  return { value, desired, limitedBy: limitOf(wanted, desired, workersUseful, bounds.max) }
}

function limitOf(
  wanted: number,
  desired: number,
  workersUseful: number,
  max: number,
): ScaleWish['limitedBy'] {
  if (desired === wanted) return undefined
  if (desired > Math.min(wanted, workersUseful, max)) return 'min'
  return workersUseful < max ? 'partitions' : 'max'
}
