/**
 * Whether producers may append to a stream: decided from samples of its depth, of how long its oldest entry has waited, and of
 * Redis's memory, never from a request.
 *
 * The door closes at a limit and opens again a little below it, so that it does not flap. How long a producer should wait
 * follows from how fast the backlog shrank between the last two samples.
 */
export interface AdmissionLimits {
  /** Entries of one stream, all partitions, at which the door closes. */
  readonly depthMax: number
  /** Share of Redis's memory limit at which every door closes, (0, 1]. */
  readonly memoryRatioMax: number
  /** How long the oldest entry that no worker was given may have waited, ms. */
  readonly waitedMsMax: number
}

export interface LoadSample {
  /** Monotonic ms. */
  readonly atMs: number
  /** Entries in the command and ready streams. */
  readonly depth: number
  /** Used memory as a share of the limit. */
  readonly memoryRatio: number
  /** Since the oldest entry that no worker was given came in, by Redis's clock; 0 when none waits. */
  readonly waitedMs: number
}

export type AdmissionVerdict =
  | { readonly open: true }
  | { readonly open: false; readonly reason: string; readonly retryAfterS: number }

export const OPEN: AdmissionVerdict = Object.freeze({ open: true })

/** A closed door opens again at this share of the limit that closed it. */
const REOPEN_SHARE = 0.95
const RETRY_MIN_S = 1
const RETRY_MAX_S = 60
const RETRY_UNKNOWN_S = 5

/** `previous` is the sample before, if there was one; `wasOpen` tells what was decided from it. */
export function decideAdmission(
  sample: LoadSample,
  previous: LoadSample | undefined,
  wasOpen: boolean,
  limits: AdmissionLimits,
): AdmissionVerdict {
  const share = wasOpen ? 1 : REOPEN_SHARE
  const memoryGoal = limits.memoryRatioMax * share
  if (sample.memoryRatio >= memoryGoal) {
    const percent = Math.round(sample.memoryRatio * 100)
    const retryAfterS = secondsUntil(
      memoryGoal,
      sample.memoryRatio,
      previous?.memoryRatio,
      elapsedMs(sample, previous),
    )
    return { open: false, reason: `Redis uses ${percent} % of its memory`, retryAfterS }
  }
  const depthGoal = limits.depthMax * share
  if (sample.depth >= depthGoal) {
    const retryAfterS = secondsUntil(depthGoal, sample.depth, previous?.depth, elapsedMs(sample, previous))
    return { open: false, reason: `${sample.depth} commands wait in the stream`, retryAfterS }
  }
  const waitedGoalMs = limits.waitedMsMax * share
  if (sample.waitedMs < waitedGoalMs) return OPEN
  return {
    open: false,
    reason: `its oldest command waits for ${Math.round(sample.waitedMs / 1000)} s`,
    retryAfterS: secondsUntil(waitedGoalMs, sample.waitedMs, previous?.waitedMs, elapsedMs(sample, previous)),
  }
}

function elapsedMs(sample: LoadSample, previous: LoadSample | undefined): number {
  return previous === undefined ? 0 : sample.atMs - previous.atMs
}

function secondsUntil(goal: number, now: number, before: number | undefined, spanMs: number): number {
  if (before === undefined || spanMs <= 0 || before <= now) return RETRY_UNKNOWN_S
  const perMs = (before - now) / spanMs
  const seconds = Math.ceil((now - goal) / perMs / 1000)
  return Math.min(RETRY_MAX_S, Math.max(RETRY_MIN_S, seconds))
}
