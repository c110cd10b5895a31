/**
 * What a handler answered, read once and made our own: one outcome per command, each of a known kind. Handlers are strangers:
 * an answer may be too short, a proxy, or an array that is changed after it was given.
 */
import { describeError, MillraceError } from '../contracts/errors.ts'
import { done, type Outcome } from '../contracts/outcome.ts'

const REASON_CHARS_MAX = 500
/** What most handlers answer most of the time; frozen. */
const DONE = done()

/** @throws MillraceError `handler.failed` when the answer is not one outcome per command; what reading it throws */
export function readOutcomes(type: string, wanted: number, answer: unknown): Outcome[] {
  const what = `The handler of "${type}"`
  if (!Array.isArray(answer) || answer.length !== wanted) {
    const got = Array.isArray(answer) ? `${answer.length}` : typeof answer
    throw new MillraceError(
      'handler.failed',
      `${what} must answer ${wanted} outcomes, one per command; got ${got}.`,
    )
  }
  const given: readonly unknown[] = answer
  const read: Outcome[] = []
  for (let i = 0; i < wanted; i++) {
    const outcome = readOutcome(given[i])
    if (outcome === undefined) {
      throw new MillraceError(
        'handler.failed',
        `${what} answered something else than done(), retry() or reject().`,
      )
    }
    read.push(outcome)
  }
  return read
}

function readOutcome(value: unknown): Outcome | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  if (value === DONE) return DONE
  const { outcome, result, reason, delayMs } = value as Record<string, unknown>
  switch (outcome) {
    case 'done':
      return { outcome, result }
    case 'retry':
      return { outcome, reason: textOf(reason), delayMs: typeof delayMs === 'number' ? delayMs : undefined }
    case 'reject':
      return { outcome, reason: textOf(reason) }
    default:
      return undefined
  }
}

function textOf(reason: unknown): string {
  return typeof reason === 'string' ? reason.slice(0, REASON_CHARS_MAX) : describeError(reason)
}
