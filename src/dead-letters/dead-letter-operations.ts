/**
 * Redriving or discarding many dead letters by filter, in the background, at a steady rate.
 *
 *   running ──every place walked──▶ finished
 *      ├──stop of the process─────▶ stopped
 *      └──Redis stays away────────▶ failed
 *
 * A place (partition) is walked from its oldest dead letter to the one that was newest when the walk came to it, so what is
 * redriven and dies again is not met twice. Operations live in the process that started them; an interrupted one is simply
 * started again, because what it has done is no longer there to be found. Only headers are read: memory does not grow with
 * the number of dead letters or their payloads.
 */
import { describeError, MillraceError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { entryIdAfter } from '../redis/bytes.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { RedisLink } from '../redis/connection.ts'
import {
  type DeadEntry,
  discardDead,
  lastDeadId,
  readDead,
  redriveDead,
} from '../redis/dead-letter-stream.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import { type Clock, randomId } from '../runtime/clock.ts'
import { decodeOrNothing, summarise } from './dead-letter.ts'
import { type DeadLetterFilter, matches, rangeOf } from './dead-letter-filter.ts'
import { toRedrive } from './dead-letter-moves.ts'
import { Pace } from './pace.ts'

export type OperationKind = 'redrive' | 'purge'

export interface Operation {
  readonly id: string
  readonly kind: OperationKind
  readonly state: 'running' | 'finished' | 'stopped' | 'failed'
  readonly dryRun: boolean
  readonly ratePerSecond: number
  /** Dead letters that the filter means, so far. */
  readonly matched: number
  readonly done: number
  /** Somebody else took them meanwhile, or this version can't read them. */
  readonly failed: number
  readonly startedAtMs: number
  readonly endedAtMs: number | undefined
  /** Why it failed, or what it is waiting for. */
  readonly error: string | undefined
}

type Progress = { -readonly [Name in keyof Operation]: Operation[Name] }

export interface OperationParts {
  readonly link: RedisLink
  readonly ids: CommandIds
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly runningMax: number
  readonly rememberedMax: number
}

export interface OperationPlan {
  readonly kind: OperationKind
  readonly filter: DeadLetterFilter
  readonly places: readonly PartitionKeys[]
  readonly dryRun: boolean
  readonly ratePerSecond: number
}

const READ_COUNT_MAX = 200
const BATCH_COUNT_MAX = 100
/** A batch is what goes in this part of a second. */
const BATCHES_PER_SECOND = 20
const RESENDS_MAX = 30
const RESEND_MIN_MS = 25
const RESEND_MAX_MS = 2000

export class DeadLetterOperations {
  readonly #parts: OperationParts
  readonly #abort = new AbortController()
  readonly #remembered = new Map<string, Progress>()
  readonly #running = new Set<Promise<void>>()

  constructor(parts: OperationParts) {
    this.#parts = parts
  }

  get runningCount(): number {
    return this.#running.size
  }

  /** @throws MillraceError `service.stopped`, `admission.overloaded` when too many run already */
  start(plan: OperationPlan): Operation {
    const { clock, runningMax } = this.#parts
    if (this.#abort.signal.aborted) {
      throw new MillraceError('service.stopped', 'This process is shutting down; ask another one.')
    }
    if (this.#running.size >= runningMax) {
      throw new MillraceError(
        'admission.overloaded',
        `${this.#running.size} operations run in this process already.`,
        { retryAfterS: 5 },
      )
    }
    const { kind, dryRun, ratePerSecond } = plan
    const progress: Progress = {
      ...{ id: `op_${randomId()}`, kind, state: 'running', dryRun, ratePerSecond },
      ...{ matched: 0, done: 0, failed: 0 },
      ...{ startedAtMs: clock.nowMs(), endedAtMs: undefined, error: undefined },
    }
    this.#remember(progress)
    const run = this.#run(plan, progress).finally(() => this.#running.delete(run))
    this.#running.add(run)
    return { ...progress }
  }

  /** @throws MillraceError `not-found` */
  read(id: string): Operation {
    const progress = this.#remembered.get(id)
    if (progress !== undefined) return { ...progress }
    throw new MillraceError(
      'not-found',
      'This process knows no such operation: it was started elsewhere, or so long ago that it is forgotten.',
    )
  }

  /** Ends what runs; each ends after the batch that is on its way. */
  async stop(): Promise<void> {
    this.#abort.abort()
    await Promise.all(this.#running)
  }

  #remember(progress: Progress): void {
    this.#remembered.set(progress.id, progress)
    for (const { id, state } of this.#remembered.values()) {
      if (this.#remembered.size <= this.#parts.rememberedMax) return
      if (state !== 'running') this.#remembered.delete(id)
    }
  }

  async #run(plan: OperationPlan, progress: Progress): Promise<void> {
    const pace = new Pace(this.#parts.clock, plan.ratePerSecond)
    try {
      for (const keys of plan.places) {
        if (this.#abort.signal.aborted) break
        await this.#walk(plan, keys, progress, pace)
      }
      progress.state = this.#abort.signal.aborted ? 'stopped' : 'finished'
    } catch (error) {
      progress.state = this.#abort.signal.aborted ? 'stopped' : 'failed'
      if (progress.state === 'failed') progress.error = describeError(error)
    }
    progress.endedAtMs = this.#parts.clock.nowMs()
  }

  async #walk(plan: OperationPlan, keys: PartitionKeys, progress: Progress, pace: Pace): Promise<void> {
    const { link, ids } = this.#parts
    const range = rangeOf(plan.filter)
    const last = await this.#surely(progress, () => lastDeadId(link, keys))
    if (last === undefined) return
    const to = range.to === '+' || Number(range.to) >= Number(last.split('-', 1)[0]) ? last : range.to
    for (let from = range.from; !this.#abort.signal.aborted; ) {
      const page = { from, to, countMax: READ_COUNT_MAX, newestFirst: false }
      const { entries, ended } = await this.#surely(progress, () => readDead(link, keys, page))
      const meant = entries.filter((entry) => matches(plan.filter, summarise(ids, keys, entry)))
      progress.matched += meant.length
      if (!plan.dryRun) await this.#act(plan, keys, meant, progress, pace)
      const end = entries.at(-1)
      if (end === undefined || ended) return
      from = entryIdAfter(end.entryId)
    }
  }

  async #act(
    { kind, ratePerSecond }: OperationPlan,
    keys: PartitionKeys,
    entries: readonly DeadEntry[],
    progress: Progress,
    pace: Pace,
  ): Promise<void> {
    const { telemetry } = this.#parts
    const { stream, partition } = keys
    const able =
      kind === 'purge' ? entries : entries.filter(({ head }) => decodeOrNothing(head) !== undefined)
    progress.failed += entries.length - able.length
    const batchMax = Math.min(BATCH_COUNT_MAX, Math.max(1, Math.floor(ratePerSecond / BATCHES_PER_SECOND)))
    for (let at = 0; at < able.length; at += batchMax) {
      const batch = able.slice(at, at + batchMax)
      await pace.wait(batch.length, this.#abort.signal)
      if (this.#abort.signal.aborted) return
      let isResent = false
      const verdicts = await this.#surely(
        progress,
        () => (kind === 'redrive' ? this.#redrive(keys, batch) : discardDead(this.#parts.link, keys, batch)),
        () => {
          isResent = true
        },
      )
      // After a lost answer, what is gone was most likely taken by the request whose answer it was.
      const count = isResent ? batch.length : verdicts.filter(Boolean).length
      progress.done += count
      progress.failed += batch.length - count
      if (count === 0) continue
      telemetry.emit(kind === 'redrive' ? 'dead-letters.redriven' : 'dead-letters.purged', {
        stream,
        partition,
        count,
      })
    }
  }

  #redrive(keys: PartitionKeys, batch: readonly DeadEntry[]): Promise<boolean[]> {
    return redriveDead(this.#parts.link, keys, batch.map(toRedrive))
  }

  /** Asks Redis until it answers, with growing pauses; gives up after about a minute, or when the process stops. */
  async #surely<Answer>(
    progress: Progress,
    ask: () => Promise<Answer>,
    onResend: () => void = () => undefined,
  ): Promise<Answer> {
    const { clock } = this.#parts
    for (let resends = 0; ; resends++) {
      try {
        const answer = await ask()
        progress.error = undefined
        return answer
      } catch (error) {
        if (resends === RESENDS_MAX || this.#abort.signal.aborted) throw error
        progress.error = describeError(error)
        onResend()
        const pauseMs = Math.min(RESEND_MAX_MS, RESEND_MIN_MS * 2 ** resends)
        await clock.sleep(pauseMs * (0.5 + clock.random()), this.#abort.signal)
        if (this.#abort.signal.aborted) throw error
      }
    }
  }
}
