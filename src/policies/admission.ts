/**
 * Whether producers may append to a stream: decided from samples of how many commands are unfinished, of how long the oldest
 * has waited, and of Redis's memory, never from a request.
 *
 *   open ──a value reaches its limit──▶ closed ──every value that closed it fell a little below its limit──▶ open
 *
 * The way between the two marks keeps the door from flapping. While it is closed nothing comes in, so how fast a value falls
 * is how fast the workers settle: from that follows when the door will open, and that is what producers are told.
 *
 * They are told whole seconds, so a door that was closed for the blink of an eye would have closed again before they are
 * back. It stays closed for some seconds therefore: what is settled in them is what it can take in when it opens.
 */
export interface AdmissionLimits {
  /** Unfinished commands of one stream, all partitions, at which the door closes. */
  readonly depthMax: number
  /** Share of Redis's memory limit at which it closes, (0, 1]. */
  readonly memoryRatioMax: number
  /** How long the oldest entry that no worker was given may have waited, ms. */
  readonly waitedMsMax: number
}

export interface LoadSample {
  /** Monotonic ms. */
  readonly atMs: number
  /** Unfinished commands: those that wait and those in the hands of workers. */
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

/** A value at a time. */
interface Point {
  readonly atMs: number
  readonly value: number
}

/** How fast something falls: measured from `from`, and from `next` later on. */
interface Fall {
  readonly from: Point
  readonly next: Point
}

/** Since a value closed the door: how it falls, and how the commands do that are unfinished. */
interface Closing {
  readonly sinceMs: number
  readonly value: Fall
  readonly depth: Fall
}

const CAUSES = ['memory', 'depth', 'age'] as const
type Cause = (typeof CAUSES)[number]

/** What must be remembered from one sample to the next. */
export interface AdmissionState {
  readonly verdict: AdmissionVerdict
  readonly sample: LoadSample | undefined
  /** How fast commands became fewer when a door was last closed for long enough to tell. */
  readonly settledPerMs: number | undefined
  readonly closings: { readonly [Name in Cause]?: Closing }
}

export const NOT_SAMPLED: AdmissionState = Object.freeze({
  verdict: OPEN,
  sample: undefined,
  settledPerMs: undefined,
  closings: {},
})

/** A closed door opens again at this share of the limit that closed it, and not before it was closed for so long. */
const REOPEN_SHARE = 0.95
const CLOSED_MS_MIN = 4000
/** At this share of the limit it opens at once: workers are not to run out of commands behind a closed door. */
const LOW_SHARE = 0.25
const RETRY_MIN_S = 1
const RETRY_MAX_S = 3600
const RETRY_UNKNOWN_S = 5
/** What falls more slowly than it did so far is waited for too. */
const RETRY_MARGIN = 1.1
/** How fast a value falls is measured over this long at least, once it was closed for as long, ms. */
const MEASURE_MS = 5000
/** What was measured over less than this counts only where nothing better is known, ms. */
const TRUST_MS = 1000

/** `sampleMs` is the longest pause between two samples. */
export function decideAdmission(
  state: AdmissionState,
  sample: LoadSample,
  limits: AdmissionLimits,
  sampleMs: number,
): AdmissionState {
  const closings: { [Name in Cause]?: Closing } = {}
  let reason = ''
  let retryAfterS = 0
  let { settledPerMs } = state
  for (const cause of CAUSES) {
    const value = levelOf(cause, sample)
    const limit = limitOf(cause, limits)
    const before = state.closings[cause]
    if (before === undefined ? value < limit : opensAgain(before, sample.atMs, value, limit)) continue
    const { atMs, depth } = sample
    const closing: Closing = {
      sinceMs: before?.sinceMs ?? atMs,
      value: follow(before?.value, { atMs, value }),
      depth: follow(before?.depth, { atMs, value: depth }),
    }
    closings[cause] = closing
    if (reason === '') reason = reasonOf(cause, value)
    settledPerMs = trusted(closing.depth, atMs, depth) ?? settledPerMs
    const untilMs = untilOpenMs(cause, closing, sample, { limit, settledPerMs })
    retryAfterS = Math.max(retryAfterS, toldSeconds(untilMs, sampleMs))
  }
  const verdict: AdmissionVerdict = reason === '' ? OPEN : { open: false, reason, retryAfterS }
  return { verdict, sample, settledPerMs, closings }
}

function levelOf(cause: Cause, { memoryRatio, depth, waitedMs }: LoadSample): number {
  switch (cause) {
    case 'memory':
      return memoryRatio
    case 'depth':
      return depth
    case 'age':
      return waitedMs
    default:
      return cause satisfies never
  }
}

function limitOf(cause: Cause, { memoryRatioMax, depthMax, waitedMsMax }: AdmissionLimits): number {
  switch (cause) {
    case 'memory':
      return memoryRatioMax
    case 'depth':
      return depthMax
    case 'age':
      return waitedMsMax
    default:
      return cause satisfies never
  }
}

function reasonOf(cause: Cause, value: number): string {
  switch (cause) {
    case 'memory':
      return `Redis uses ${Math.round(value * 100)} % of its memory`
    case 'depth':
      return `${value} commands wait in the stream`
    case 'age':
      return `its oldest command waits for ${Math.round(value / 1000)} s`
    default:
      return cause satisfies never
  }
}

function opensAgain({ sinceMs }: Closing, atMs: number, value: number, limit: number): boolean {
  if (value < limit * LOW_SHARE) return true
  return value < limit * REOPEN_SHARE && atMs - sinceMs >= CLOSED_MS_MIN
}

/** A value that still grows is measured from its top. */
function follow(before: Fall | undefined, now: Point): Fall {
  if (before === undefined || now.value >= before.from.value) return { from: now, next: now }
  return now.atMs - before.next.atMs >= MEASURE_MS ? { from: before.next, next: now } : before
}

/**
 * Infinite where nothing is known yet. The age of the oldest command may grow until the last one that came in is given out,
 * as it does when they came in faster than they went: then it falls all at once.
 */
function untilOpenMs(
  cause: Cause,
  { sinceMs, value, depth }: Closing,
  sample: LoadSample,
  { limit, settledPerMs }: { readonly limit: number; readonly settledPerMs: number | undefined },
): number {
  const { atMs } = sample
  const level = levelOf(cause, sample)
  const depthPerMs =
    trusted(depth, atMs, sample.depth) ?? settledPerMs ?? fallPerMs(depth, atMs, sample.depth)
  // Age falls by jumps: what it did in a moment tells nothing.
  const perMs = cause === 'depth' ? depthPerMs : (trusted(value, atMs, level) ?? 0)
  const reopenMs = Math.max(sinceMs + CLOSED_MS_MIN - atMs, fallMs(level, limit * REOPEN_SHARE, perMs))
  const lowMs = fallMs(level, limit * LOW_SHARE, perMs)
  const emptyMs = cause === 'age' ? fallMs(sample.depth, 0, depthPerMs) : Number.POSITIVE_INFINITY
  return Math.min(reopenMs, lowMs, emptyMs)
}

/** Undefined when it was not measured for long enough, or does not fall. */
function trusted(fall: Fall, atMs: number, value: number): number | undefined {
  const perMs = fallPerMs(fall, atMs, value)
  return perMs > 0 && atMs - fall.from.atMs >= TRUST_MS ? perMs : undefined
}

function fallPerMs({ from }: Fall, atMs: number, value: number): number {
  return atMs > from.atMs ? (from.value - value) / (atMs - from.atMs) : 0
}

/** How long until something has fallen so far; infinite while it does not fall. */
function fallMs(value: number, goal: number, perMs: number): number {
  if (value < goal) return 0
  return perMs > 0 ? (value - goal) / perMs : Number.POSITIVE_INFINITY
}

function toldSeconds(untilMs: number, sampleMs: number): number {
  if (untilMs === Number.POSITIVE_INFINITY) return RETRY_UNKNOWN_S
  const told = Math.ceil((untilMs * RETRY_MARGIN + sampleMs) / 1000)
  return Math.min(RETRY_MAX_S, Math.max(RETRY_MIN_S, told))
}

/**
 * The pause before the next sample: half of the time after which the first value would reach its limit if it went on as since
 * the sample before. So what is let in beyond a limit is, for a load that does not jump, what comes in during `minMs` and the
 * time of one sample; for one that jumps, during `maxMs`.
 */
export function samplePauseMs(
  previous: LoadSample | undefined,
  sample: LoadSample,
  limits: AdmissionLimits,
  { minMs, maxMs }: { readonly minMs: number; readonly maxMs: number },
): number {
  if (previous === undefined) return maxMs
  const elapsedMs = sample.atMs - previous.atMs
  let pauseMs = maxMs
  for (const cause of CAUSES) {
    const value = levelOf(cause, sample)
    const perMs = (value - levelOf(cause, previous)) / elapsedMs
    const left = limitOf(cause, limits) - value
    if (perMs > 0 && left > 0) pauseMs = Math.min(pauseMs, left / perMs / 2)
  }
  return Math.max(minMs, pauseMs)
}
