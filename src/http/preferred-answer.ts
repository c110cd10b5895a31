/**
 * Answers as a client would rather have them (RFC 7240): after the end of the command, at once, or without a body.
 *
 * A command that was accepted stays accepted: whatever goes wrong while its end is waited for, the answer is the 202 that it
 * would have been without.
 */
import type { CommandReport } from '../commands/command-status.ts'
import type { EndWatch } from '../commands/end-watch.ts'
import { errorCode } from '../contracts/errors.ts'
import type { AcceptedCommand } from '../contracts/producer.ts'
import type { Clock } from '../runtime/clock.ts'
import { isOpen, statusResponse, statusText } from './command-report.ts'
import type { Exchange } from './direct-routes.ts'
import { appliedText, type Preferences, readPreferences } from './preferences.ts'

export interface PreferenceParts {
  readonly ends: Pick<EndWatch, 'untilEnded'>
  readonly clock: Clock
  /** The longest wait that is granted. */
  readonly commandWaitMaxMs: number
}

/** A request with the header, and how to learn what became of its command. */
export interface PreferringExchange extends Pick<Exchange, 'request' | 'server'> {
  readonly prefer: string
  readonly readStatus: () => Promise<CommandReport>
}

/** Beyond the wait itself, before the server gives up on the request. */
const GRACE_S = 10

/** The answer to a command that was just accepted; `plain` is the one without preferences. */
export async function preferredAnswer(
  asked: PreferringExchange,
  parts: PreferenceParts,
  { id }: AcceptedCommand,
  plain: Response,
): Promise<Response> {
  const wanted = readPreferences(asked.prefer, Math.floor(parts.commandWaitMaxMs / 1000))
  const waiting = startWait(asked, parts, id, wanted)
  const applied = appliedText({ ...wanted, waitS: waiting === undefined ? 0 : wanted.waitS })
  const report = waiting && (await reportOrNothing(waiting))
  const { headers } = plain
  if (applied !== '') headers.set('preference-applied', applied)
  if (report === undefined && !wanted.minimal) return plain
  if (wanted.minimal) headers.delete('content-type')
  const body = wanted.minimal || report === undefined ? null : statusText(report)
  return new Response(body, { status: report === undefined ? plain.status : 200, headers })
}

/** The status that was just read, or a later one if the client would rather have the end. */
export async function preferredStatus(
  asked: PreferringExchange,
  parts: PreferenceParts,
  report: CommandReport,
): Promise<Response> {
  const wanted = readPreferences(asked.prefer, Math.floor(parts.commandWaitMaxMs / 1000))
  const waiting = isOpen(report) ? startWait(asked, parts, report.id, wanted) : undefined
  const isApplied = waiting !== undefined || (wanted.waitS > 0 && !wanted.respondAsync && !isOpen(report))
  const applied = isApplied ? { 'preference-applied': `wait=${wanted.waitS}` } : {}
  const last = waiting === undefined ? report : ((await waiting) ?? (await asked.readStatus()))
  return statusResponse(asked.request.headers, last, parts.clock, applied)
}

/** Settles with the report of a command that is over, or undefined when the wait is; undefined at once where none is wanted or possible. */
function startWait(
  { request, server, readStatus }: PreferringExchange,
  parts: PreferenceParts,
  id: string,
  { waitS, respondAsync }: Preferences,
): Promise<CommandReport | undefined> | undefined {
  if (waitS === 0 || respondAsync) return undefined
  const ended = parts.ends.untilEnded(id, waitS * 1000, request.signal)
  if (ended === undefined) return undefined
  server?.timeout?.(request, waitS + GRACE_S)
  return waitOut(ended, request.signal, parts, id, waitS * 1000, readStatus)
}

/** What only seemed to be over is waited for again. */
async function waitOut(
  first: Promise<boolean>,
  signal: AbortSignal,
  { ends, clock }: PreferenceParts,
  id: string,
  waitMs: number,
  readStatus: () => Promise<CommandReport>,
): Promise<CommandReport | undefined> {
  const endMs = clock.monotonicMs() + waitMs
  let ended: Promise<boolean> | undefined = first
  while (await ended) {
    const report = await readStatus()
    if (!isOpen(report)) return report
    ended = ends.untilEnded(id, endMs - clock.monotonicMs(), signal)
  }
  return undefined
}

/** Redis gone, or a result that is no longer kept: of the command there is no more to tell than that it was accepted. */
async function reportOrNothing(
  waiting: Promise<CommandReport | undefined>,
): Promise<CommandReport | undefined> {
  try {
    return await waiting
  } catch (error) {
    if (errorCode(error) === undefined) throw error
    return undefined
  }
}
