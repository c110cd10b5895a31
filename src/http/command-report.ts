/**
 * The status of a command as it is shown: the same body for a GET, and for a POST that waited for the end.
 */
import type { CommandReport } from '../commands/command-status.ts'
import type { Clock } from '../runtime/clock.ts'
import { jsonText } from './answers.ts'
import { etagAsHeld, etagOf, matchesEtag } from './etag.ts'
import { describeProblem, type Problem } from './problem.ts'

const OPEN_STATES: ReadonlySet<string> = new Set(['scheduled', 'accepted', 'processing', 'retrying'])

/** It waits, runs, or will. */
export function isOpen({ status }: CommandReport): boolean {
  return OPEN_STATES.has(status)
}

/** 200 whatever became of the command; `extra` are headers for this answer. */
export function statusResponse(
  given: Headers,
  report: CommandReport,
  clock: Clock,
  extra: Readonly<Record<string, string>> = {},
): Response {
  const body = statusText(report)
  const etag = etagOf(body)
  const retryAfter = isOpen(report) ? { 'retry-after': retryAfterText(report, clock) } : {}
  const headers = { etag, 'cache-control': 'no-cache', ...retryAfter, ...extra }
  const ifNoneMatch = given.get('if-none-match')
  if (matchesEtag(ifNoneMatch, etag)) {
    return new Response(null, { status: 304, headers: { ...headers, etag: etagAsHeld(ifNoneMatch, etag) } })
  }
  return new Response(body, { headers: { 'content-type': 'application/json', ...headers } })
}

export function statusText(report: CommandReport): string {
  return jsonText(statusBody(report))
}

function statusBody(report: CommandReport): object {
  const { id, stream, status, attempt, result, reason, dueAtMs, deadLetterId } = report
  const problem = problemOfCommand(report)
  return {
    id,
    stream,
    status,
    ...(attempt === undefined ? {} : { attempt }),
    ...(result === undefined ? {} : { result }),
    ...(reason === undefined ? {} : { reason }),
    ...(problem === undefined ? {} : { problem }),
    ...(dueAtMs === undefined ? {} : { dueAt: new Date(dueAtMs).toISOString() }),
    ...(deadLetterId === undefined ? {} : { deadLetterId }),
  }
}

/** Why a command is not done; a problem of the command, not of this request. */
function problemOfCommand({ status, reason, error }: CommandReport): Problem | undefined {
  if (status === 'lost') {
    return describeProblem('command-lost', 'It was acknowledged, and Redis no longer has it.')
  }
  const name = reason === 'expired' ? 'command-expired' : 'command-failed'
  return error === undefined ? undefined : describeProblem(name, error)
}

const RETRY_AFTER_MAX_S = 60

function retryAfterText({ dueAtMs }: CommandReport, clock: Clock): string {
  if (dueAtMs === undefined) return '1'
  const seconds = Math.ceil((dueAtMs - clock.nowMs()) / 1000)
  return String(Math.min(RETRY_AFTER_MAX_S, Math.max(1, seconds)))
}
