/**
 * Runs one batch of one handler and decides every command in it.
 *
 * A batch that throws (or answers nonsense, or overruns its time) is split in halves until the bad command stands alone.
 * Only what a command does alone counts as its attempt: neighbours run again with the same attempt number.
 */
import { describeError, MillraceError } from '../contracts/errors.ts'
import type { HandlerContext, HandlerDefinition } from '../contracts/handler.ts'
import type { Logger } from '../contracts/logger.ts'
import { type Outcome, retry } from '../contracts/outcome.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { decideSettlement } from '../policies/settlement.ts'
import type { Clock } from './clock.ts'
import type { CommandRun } from './command-run.ts'
import { toDecided } from './decisions.ts'
import type { Decided } from './settler.ts'

export interface BatchEnvironment {
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly logger: Logger
  /** Aborted when the process drains and its time is up. */
  readonly abandonSignal: AbortSignal
}

/** Answers what was decided; what the end of a drain cut off is missing from it, and not charged. */
export async function runBatch(
  environment: BatchEnvironment,
  handler: HandlerDefinition,
  runs: readonly CommandRun[],
): Promise<Decided[]> {
  const decided: Decided[] = []
  await runInto(environment, handler, runs, decided)
  return decided
}

async function runInto(
  environment: BatchEnvironment,
  handler: HandlerDefinition,
  runs: readonly CommandRun[],
  result: Decided[],
): Promise<void> {
  const { clock, telemetry, abandonSignal } = environment
  if (abandonSignal.aborted) return
  const startedMs = clock.monotonicMs()
  const { stream } = head(runs).scope
  const { type } = handler.command
  try {
    const outcomes = await runOnce(environment, handler, runs)
    telemetry.emit(
      'batch.handled',
      handled(stream, type, runs.length, clock.monotonicMs() - startedMs, false),
    )
    const decided = runs.map((run, i) => decide(environment, handler, run, outcomes[i]))
    result.push(...decided)
  } catch (error) {
    telemetry.emit('batch.handled', handled(stream, type, runs.length, clock.monotonicMs() - startedMs, true))
    if (abandonSignal.aborted) return
    if (runs.length === 1) {
      const alone = head(runs).again()
      result.push(decide(environment, handler, alone, retry(error)))
      return
    }
    telemetry.emit('batch.split', { stream, type, count: runs.length, error: describeError(error) })
    const middle = runs.length >> 1
    await runInto(environment, handler, again(runs.slice(0, middle)), result)
    await runInto(environment, handler, again(runs.slice(middle)), result)
  }
}

function handled(stream: string, type: string, count: number, durationMs: number, failed: boolean) {
  return { stream, type, count, durationMs, failed }
}

function again(runs: readonly CommandRun[]): CommandRun[] {
  return runs.map((run) => run.again())
}

async function runOnce(
  environment: BatchEnvironment,
  handler: HandlerDefinition,
  runs: readonly CommandRun[],
): Promise<readonly Outcome[]> {
  const { clock, logger, abandonSignal } = environment
  const { timeLimitMs } = handler.options
  const { stream, partition, epoch } = head(runs).scope
  const controller = new AbortController()
  const over = Promise.withResolvers<never>()
  const abort = (error: MillraceError) => {
    controller.abort(error)
    over.reject(error)
  }
  const timer = clock.after(timeLimitMs, () =>
    abort(
      new MillraceError(
        'handler.time-limit',
        `"${handler.command.type}" took longer than ${timeLimitMs} ms.`,
      ),
    ),
  )
  const onAbandon = () => abort(new MillraceError('service.stopped', 'The process is stopping.'))
  abandonSignal.addEventListener('abort', onAbandon, { once: true })
  const context: HandlerContext = { signal: controller.signal, logger, stream, partition, epoch }
  try {
    const outcomes = await Promise.race([handler.run(runs, context), over.promise])
    checkOutcomes(handler, runs.length, outcomes)
    return outcomes
  } finally {
    timer.cancel()
    abandonSignal.removeEventListener('abort', onAbandon)
  }
}

function checkOutcomes(handler: HandlerDefinition, wanted: number, outcomes: unknown): void {
  const what = `The handler of "${handler.command.type}"`
  if (!Array.isArray(outcomes) || outcomes.length !== wanted) {
    const got = Array.isArray(outcomes) ? `${outcomes.length}` : typeof outcomes
    throw new MillraceError(
      'handler.failed',
      `${what} must answer ${wanted} outcomes, one per command; got ${got}.`,
    )
  }
  for (const outcome of outcomes) {
    const kind: unknown = outcome?.outcome
    if (kind === 'done' || kind === 'retry' || kind === 'reject') continue
    throw new MillraceError(
      'handler.failed',
      `${what} answered something else than done(), retry() or reject().`,
    )
  }
}

function decide(
  environment: BatchEnvironment,
  handler: HandlerDefinition,
  run: CommandRun,
  outcome: Outcome | undefined,
): Decided {
  const { clock, telemetry } = environment
  const known = outcome ?? retry('no outcome')
  const settlement = decideSettlement(known, run.attempt, handler.options, clock.random())
  const { stream } = run.scope
  if (settlement.kind === 'retry') {
    const { delayMs, error } = settlement
    telemetry.emit('command.retried', {
      stream,
      type: run.type,
      id: run.id,
      attempt: run.attempt,
      delayMs,
      error,
    })
  } else if (settlement.kind === 'dead') {
    const { error } = settlement
    telemetry.emit('command.dead-lettered', {
      stream,
      type: run.type,
      id: run.id,
      attempt: run.attempt,
      error,
    })
  }
  return toDecided(run, settlement)
}

function head(runs: readonly CommandRun[]): CommandRun {
  const first = runs[0]
  if (first === undefined) throw new RangeError('a batch needs a command')
  return first
}
