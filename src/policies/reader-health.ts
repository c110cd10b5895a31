/**
 * Whether the reader of a partition gets on: judged from what it did, and from what waits in Redis. Pure.
 *
 * It is fine when a read was issued no longer ago than a block and two seconds, or when it waits for room while runs end
 * within their limits, or when it was told to wait. It is stuck when there is room, entries wait, and over ten seconds of
 * this process's clock nobody was given one: a read that blocks for ever on a dead connection looks just like an idle one.
 */
export interface ReaderView {
  /** All monotonic ms. */
  readonly nowMs: number
  readonly readIssuedMs: number
  readonly blockMs: number
  /** Undefined while it does not wait for room. */
  readonly waitingSinceMs: number | undefined
  /** Last time that its loop came round, and that a run of any handler ended. */
  readonly turnMs: number
  readonly runEndedMs: number
  /** The longest that a run may take. */
  readonly runLimitMs: number
  readonly isPaused: boolean
}

export interface ReaderVerdict {
  readonly ready: boolean
  readonly detail: string
}

const READ_GRACE_MS = 2000
const TURN_MAX_MS = 5000
const RUN_GRACE_MS = 10_000

export function judgeReader(view: ReaderView): ReaderVerdict {
  const { nowMs, readIssuedMs, blockMs, waitingSinceMs, turnMs, runEndedMs, runLimitMs, isPaused } = view
  if (waitingSinceMs === undefined) {
    const ageMs = nowMs - readIssuedMs
    return {
      ready: ageMs <= blockMs + READ_GRACE_MS,
      detail: `last read issued ${Math.round(ageMs)} ms ago`,
    }
  }
  if (nowMs - turnMs > TURN_MAX_MS) return { ready: false, detail: 'its loop stands still' }
  if (isPaused) return { ready: true, detail: 'told to wait' }
  const quietMs = nowMs - Math.max(waitingSinceMs, runEndedMs)
  if (quietMs <= runLimitMs + RUN_GRACE_MS) return { ready: true, detail: 'waits for running batches' }
  return { ready: false, detail: `waits for room, and no run has ended for ${Math.round(quietMs)} ms` }
}

/** What one look at the streams shows. */
export interface ProgressLook {
  readonly atMs: number
  /** Last ids that workers were given, of all streams of the partition. */
  readonly delivered: string
  readonly hasWaiting: boolean
  /** This process could take more. */
  readonly hasRoom: boolean
}

/** Entries wait, there is room, and nobody is given one for this long. */
const STUCK_AFTER_MS = 10_000

export class StuckSigns {
  #delivered = ''
  #sinceMs: number | undefined

  /** True when the readers of the partition are stuck by now. */
  observe({ atMs, delivered, hasWaiting, hasRoom }: ProgressLook): boolean {
    const goesOn = delivered !== this.#delivered || !hasWaiting || !hasRoom
    this.#delivered = delivered
    if (goesOn) this.#sinceMs = undefined
    else this.#sinceMs ??= atMs
    return this.#sinceMs !== undefined && atMs - this.#sinceMs >= STUCK_AFTER_MS
  }

  /** Starts again, after a look that failed. */
  forget(): void {
    this.#sinceMs = undefined
  }
}
