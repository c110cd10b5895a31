/**
 * Runs one batch of one handler and decides every command in it.
 *
 * A batch that throws (or answers nonsense, or overruns its time) is split in halves until the bad command stands alone.
 * Only what a command does alone counts as its attempt: neighbours run again with the same attempt number, and each part is
 * settled as soon as it is decided. A command whose deadline has passed is decided without its handler, before each run.
 *
 * Handlers are strangers: they get a list of their own, their answer is read once, and when they have answered, or their time
 * is over, the run takes nothing more from them.
 */
import { describeError, MillraceError } from '../contracts/errors.ts'
import type { HandlerContext, HandlerDefinition } from '../contracts/handler.ts'
import type { Logger } from '../contracts/logger.ts'
import { type Outcome, retry } from '../contracts/outcome.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { readOutcomes } from '../policies/outcomes.ts'
import { decideSettlement, type Settlement } from '../policies/settlement.ts'
import type { Clock } from './clock.ts'
import type { CommandRun } from './command-run.ts'
import { expiredText, toDecided, toExpired } from './decisions.ts'
import type { OverdueRuns } from './overdue-runs.ts'
import type { Decided } from './settler.ts'

export interface BatchEnvironment {
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly logger: Logger
  readonly overdue: OverdueRuns
  /** Called when a run has ended, well or not. */
  readonly onRunEnded: () => void
  /** Aborted when the process drains and its time is up. */
  readonly abandonSignal: AbortSignal
  /** Asked before each run; what it refuses is not decided. */
  readonly isOurs: () => boolean | Promise<boolean>
}

/** Takes what is decided, part by part. What the end of a drain cuts off never comes, and is not charged. */
export type OnDecided = (decided: readonly Decided[]) => void

export async function runBatch(
  environment: BatchEnvironment,
  handler: HandlerDefinition,
  given: readonly CommandRun[],
  onDecided: OnDecided,
): Promise<void> {
  const { clock, telemetry, abandonSignal } = environment
  if (abandonSignal.aborted) return
  const isOurs = environment.isOurs()
  if (isOurs !== true && !(await unlessAborted(isOurs, abandonSignal))) return
  const runs = dropExpired(environment, given, onDecided)
  if (runs.length === 0) return
  const startedMs = clock.monotonicMs()
  const { stream } = head(runs).scope
  const { type } = handler.command
  const handled = (failed: boolean) => {
    const durationMs = clock.monotonicMs() - startedMs
    telemetry.emit('batch.handled', { stream, type, count: runs.length, durationMs, failed })
  }
  let outcomes: readonly Outcome[]
  try {
    outcomes = await runOnce(environment, handler, runs)
  } catch (error) {
    handled(true)
    if (abandonSignal.aborted) return
    const failed = again(runs)
    if (failed.length === 1) {
      onDecided([decide(environment, handler, head(failed), retry(error))])
      return
    }
    telemetry.emit('batch.split', { stream, type, count: runs.length, error: describeError(error) })
    const middle = failed.length >> 1
    await runBatch(environment, handler, failed.slice(0, middle), onDecided)
    await runBatch(environment, handler, failed.slice(middle), onDecided)
    return
  }
  handled(false)
  onDecided(runs.map((run, i) => decide(environment, handler, run, outcomes[i] ?? retry('no outcome'))))
}

/** False as soon as the signal aborts: an answer may be long in coming. */
async function unlessAborted(answer: boolean | Promise<boolean>, signal: AbortSignal): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<false>()
  const onAbort = () => resolve(false)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    return await Promise.race([answer, promise])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

function again(runs: readonly CommandRun[]): CommandRun[] {
  return runs.map((run) => run.again())
}

/** Decides what must not be started any more; answers the others. */
function dropExpired(
  { telemetry }: BatchEnvironment,
  runs: readonly CommandRun[],
  onDecided: OnDecided,
): readonly CommandRun[] {
  if (!runs.some(isExpired)) return runs
  const expired = runs.filter(isExpired)
  for (const run of expired) {
    telemetry.emit('command.dead-lettered', {
      ...run.called,
      attempt: run.trail.attempts,
      reason: 'expired',
      error: expiredText(run),
    })
  }
  onDecided(expired.map(toExpired))
  const gone = new Set(expired)
  return runs.filter((run) => !gone.has(run))
}

function isExpired({ expiresAtMs, scope }: CommandRun): boolean {
  return expiresAtMs !== undefined && scope.serverNowMs() >= expiresAtMs
}

async function runOnce(
  environment: BatchEnvironment,
  handler: HandlerDefinition,
  runs: readonly CommandRun[],
): Promise<readonly Outcome[]> {
  const { clock, logger, overdue, onRunEnded, abandonSignal } = environment
  const { timeLimitMs } = handler.options
  const { stream, partition, epoch } = head(runs).scope
  const controller = new AbortController()
  const over = Promise.withResolvers<never>()
  const abort = (error: MillraceError) => {
    over.reject(error)
    controller.abort(error)
  }
  let work: Promise<unknown> | undefined
  const onLimit = () => {
    if (work !== undefined) overdue.add(stream, handler, work)
    const what = `"${handler.command.type}" took longer than ${timeLimitMs} ms.`
    abort(new MillraceError('handler.time-limit', what))
  }
  const timer = clock.after(timeLimitMs, onLimit)
  const onAbandon = () => abort(new MillraceError('service.stopped', 'The process is stopping.'))
  abandonSignal.addEventListener('abort', onAbandon, { once: true })
  const context: HandlerContext = { signal: controller.signal, logger, stream, partition, epoch }
  try {
    work = start(handler, runs, context)
    const answer = await Promise.race([work, over.promise])
    return readOutcomes(handler.command.type, runs.length, answer)
  } finally {
    timer.cancel()
    onRunEnded()
    abandonSignal.removeEventListener('abort', onAbandon)
    const onLate = () => overdue.effectsDropped(stream, handler)
    for (const run of runs) run.seal(onLate)
  }
}

/** The list is the handler's own: it may sort or empty it. A handler that throws at once is one that rejects. */
async function start(
  handler: HandlerDefinition,
  runs: readonly CommandRun[],
  context: HandlerContext,
): Promise<unknown> {
  return await handler.run([...runs], context)
}

function decide(
  environment: BatchEnvironment,
  handler: HandlerDefinition,
  run: CommandRun,
  outcome: Outcome,
): Decided {
  const { clock } = environment
  const random = outcome.outcome === 'retry' ? clock.random() : 0
  const settlement = decideSettlement(outcome, run.attempt, handler.options, random)
  const timely = settlement.kind === 'retry' ? beforeDeadline(run, settlement) : settlement
  let decided: Decided
  try {
    decided = toDecided(run, timely)
  } catch (error) {
    // Only a result can be something that can't be stored: that is this command's own failure.
    if (outcome.outcome !== 'done') throw error
    return decide(environment, handler, run, retry(error))
  }
  report(environment, run, timely)
  return decided
}

/** A retry is due at the deadline at the latest, so that it is told as expired then, not when a long backoff ends. */
function beforeDeadline(
  { expiresAtMs, scope }: CommandRun,
  settlement: Extract<Settlement, { kind: 'retry' }>,
): Settlement {
  if (expiresAtMs === undefined) return settlement
  const leftMs = Math.max(0, Math.ceil(expiresAtMs - scope.serverNowMs()))
  return { ...settlement, delayMs: Math.min(settlement.delayMs, leftMs) }
}

function report({ telemetry }: BatchEnvironment, run: CommandRun, settlement: Settlement): void {
  if (settlement.kind === 'done') return
  const { error } = settlement
  const command = { ...run.called, attempt: run.attempt }
  if (settlement.kind === 'retry') {
    telemetry.emit('command.retried', { ...command, delayMs: settlement.delayMs, error })
  } else {
    telemetry.emit('command.dead-lettered', { ...command, reason: settlement.reason, error })
  }
}

function head(runs: readonly CommandRun[]): CommandRun {
  const first = runs[0]
  if (first === undefined) throw new RangeError('a batch needs a command')
  return first
}
