/**
 * Settles the runs of one partition: turns outcomes into requests, keeps several requests in flight, and sends a request
 * again until it is answered. The last thing to stop.
 *
 * A request whose reply was lost is sent again unchanged; what it had applied then answers "settled before", which counts
 * as resolved, not as stale.
 */
import { describeError, errorCode } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { RedisLink } from '../redis/connection.ts'
import type { Membership } from '../redis/membership.ts'
import {
  FAILURE_ARGUMENTS,
  type Failure,
  isPlain,
  SETTLE_ARGUMENTS_MAX,
  SETTLE_BYTES_MAX,
  SETTLE_ENTRIES_MAX,
  type SettleAnswer,
  type SettleRequest,
  type Success,
  settle,
  successArguments,
  successBytes,
} from '../redis/settlements.ts'
import type { Clock } from './clock.ts'
import type { CommandRun } from './command-run.ts'

/** A run that has been decided. */
export type Decided =
  | { readonly run: CommandRun; readonly success: Success }
  | { readonly run: CommandRun; readonly failure: Failure }

/** What a run's settlement came to: the command is out of our hands, or stays in them for a retry in place. */
export type Fate = 'ended' | 'held'

export interface SettlerOptions {
  readonly link: RedisLink
  readonly membership: Membership
  readonly clock: Clock
  readonly telemetry: Telemetry
  /** Called on the answer, once for each run; `failure` tells what was asked for it, if it had failed. */
  readonly onSettled: (run: CommandRun, fate: Fate, failure: Failure | undefined) => void
  /** Called on each answer with the monotonic time at which the request was sent: the partition was ours then. */
  readonly onAnswered?: (sentMs: number) => void
  /** Called when the lease of the partition was lost: nothing more can be settled. */
  readonly onFenced?: () => void
  /** Requests on their way at once. */
  readonly requestsMax: number
  /** Called for a run that lost a version race. */
  readonly onConflict: (run: CommandRun) => void
}

interface Batch {
  readonly request: SettleRequest
  readonly plain: readonly CommandRun[]
  readonly successes: readonly CommandRun[]
  readonly failures: readonly CommandRun[]
}

const RESEND_MIN_MS = 20
const RESEND_MAX_MS = 500
/** After so many failures of one request its entries are sent one by one, so that one of them can't hold the rest. */
const FAILURES_BEFORE_SPLIT = 4

export class Settler {
  readonly #options: SettlerOptions
  #queue: Decided[] = []
  readonly #sent = new Set<Batch>()
  #scheduled = false
  #idle: (() => void)[] = []
  #isFenced = false

  constructor(options: SettlerOptions) {
    this.#options = options
  }

  /** Takes over decided runs; they are settled soon, in requests as large as the bounds allow. */
  push(decided: readonly Decided[]): void {
    if (this.#isFenced) {
      this.#refuse(decided.length)
      return
    }
    this.#queue = this.#queue.concat(decided)
    if (this.#scheduled) return
    this.#scheduled = true
    queueMicrotask(() => {
      this.#scheduled = false
      this.#pump()
    })
  }

  /** Gives up what is not settled: the partition belongs to another worker now. What comes later is only counted. */
  fence(): void {
    if (this.#isFenced) return
    this.#isFenced = true
    const given = this.#queue.length
    this.#queue = []
    this.#refuse(given)
    this.#options.onFenced?.()
    if (this.open === 0) this.#resolveIdle()
  }

  /** What has been decided and is not settled. */
  get runs(): CommandRun[] {
    const sent = [...this.#sent].flatMap(({ plain, successes, failures }) => [
      ...plain,
      ...successes,
      ...failures,
    ])
    return [...sent, ...this.#queue.map(({ run }) => run)]
  }

  /** True once the partition is known to belong to another worker. */
  get isFenced(): boolean {
    return this.#isFenced
  }

  get open(): number {
    return this.#queue.length + this.#sent.size
  }

  /** Resolves when nothing waits and nothing is on its way. */
  async idle(): Promise<void> {
    if (this.open === 0) return
    await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  #pump(): void {
    while (this.#queue.length > 0 && this.#sent.size < this.#options.requestsMax) {
      const batch = this.#cut()
      this.#sent.add(batch)
      void this.#deliver(batch, 0).finally(() => {
        this.#sent.delete(batch)
        this.#pump()
        if (this.open === 0) this.#resolveIdle()
      })
    }
  }

  #resolveIdle(): void {
    const idle = this.#idle
    this.#idle = []
    for (const resolve of idle) resolve()
  }

  #refuse(count: number): void {
    const { telemetry, membership } = this.#options
    const { stream, partition } = membership.keys
    if (count > 0) telemetry.emit('settlements.refused', { stream, partition, count })
  }

  /** The largest request that fits the bounds, from the head of the queue. */
  #cut(): Batch {
    const taken: Decided[] = []
    let room = SETTLE_ARGUMENTS_MAX
    let bytesLeft = SETTLE_BYTES_MAX
    for (const decided of this.#queue) {
      const needs = 'success' in decided ? successArguments(decided.success) : FAILURE_ARGUMENTS
      const bytes = 'success' in decided ? successBytes(decided.success) : decided.failure.blob.length
      const fits = taken.length < SETTLE_ENTRIES_MAX && needs <= room && bytes <= bytesLeft
      if (taken.length > 0 && !fits) break
      room -= needs
      bytesLeft -= bytes
      taken.push(decided)
    }
    this.#queue = taken.length === this.#queue.length ? [] : this.#queue.slice(taken.length)
    return toBatch(taken)
  }

  async #deliver(batch: Batch, resends: number): Promise<void> {
    const { link, membership, clock, telemetry } = this.#options
    const startedMs = clock.monotonicMs()
    for (let failures = 0; ; ) {
      const sentMs = clock.monotonicMs()
      try {
        const answer = await settle(link, membership, batch.request)
        if (answer.isFenced) {
          this.#refuse(sizeOf(batch))
          return this.fence()
        }
        this.#options.onAnswered?.(sentMs)
        this.#answered(batch, answer, resends + failures > 0, clock.monotonicMs() - startedMs)
        return
      } catch (error) {
        failures += 1
        telemetry.emit('service.failed', { service: 'settler', error: describeError(error) })
        const pauseMs = Math.min(RESEND_MAX_MS, RESEND_MIN_MS * 2 ** Math.min(failures, 7))
        await clock.sleep(pauseMs * (0.5 + clock.random()))
        if (this.#isFenced) return this.#refuse(sizeOf(batch))
        // Refused as a whole (no disk, no primary): no entry of it is to blame.
        if (errorCode(error) === 'redis.unavailable') continue
        if (failures >= FAILURES_BEFORE_SPLIT && sizeOf(batch) > 1 && link.ready)
          return this.#deliverSingly(batch)
      }
    }
  }

  async #deliverSingly(batch: Batch): Promise<void> {
    const singles: Decided[] = [
      ...batch.request.plain.map((ref, i) => ({ run: at(batch.plain, i), success: bare(ref) })),
      ...batch.request.successes.map((success, i) => ({ run: at(batch.successes, i), success })),
      ...batch.request.failures.map((failure, i) => ({ run: at(batch.failures, i), failure })),
    ]
    for (const single of singles) await this.#deliver(toBatch([single]), 1)
  }

  #answered(batch: Batch, answer: SettleAnswer, resent: boolean, durationMs: number): void {
    const { telemetry, membership, onConflict, onSettled } = this.#options
    const count = { done: answer.plainAcknowledged, retried: 0, dead: 0, conflicts: 0, events: 0 }
    let stale = batch.plain.length - answer.plainAcknowledged
    for (const run of batch.plain) onSettled(run, 'ended', undefined)
    // By index: pairs of an iterator, one for each command, were 6 % of a worker's time with events, by profile.
    for (let i = 0; i < batch.successes.length; i++) {
      const run = at(batch.successes, i)
      const verdict = answer.successes[i]
      if (verdict === 'conflict') {
        count.conflicts += 1
        onConflict(run)
        continue
      }
      if (verdict === 'applied') {
        count.done += 1
        count.events += run.events.length
      } else stale += 1
      onSettled(run, 'ended', undefined)
    }
    for (let i = 0; i < batch.failures.length; i++) {
      const run = at(batch.failures, i)
      const failure = batch.request.failures[i]
      if (answer.failures[i] === 'conflict') {
        count.conflicts += 1
        onConflict(run)
        continue
      }
      if (answer.failures[i] === 'applied') {
        if (failure?.move === 'dead') count.dead += 1
        else count.retried += 1
      } else stale += 1
      const isHeld = answer.failures[i] === 'applied' && failure?.move === 'hold'
      onSettled(run, isHeld ? 'held' : 'ended', failure)
    }
    const { stream, partition } = membership.keys
    telemetry.emit('batch.settled', { stream, partition, ...count, stale: resent ? 0 : stale, durationMs })
  }
}

function toBatch(decided: readonly Decided[]): Batch {
  const plain: CommandRun[] = []
  const successes: [CommandRun, Success][] = []
  const failures: [CommandRun, Failure][] = []
  for (const item of decided) {
    if ('failure' in item) failures.push([item.run, item.failure])
    else if (isPlain(item.success)) plain.push(item.run)
    else successes.push([item.run, item.success])
  }
  return {
    request: {
      plain: plain.map((run) => run.ref),
      successes: successes.map(([, success]) => success),
      failures: failures.map(([, failure]) => failure),
    },
    plain,
    successes: successes.map(([run]) => run),
    failures: failures.map(([run]) => run),
  }
}

function bare(ref: Success['ref']): Success {
  return { ref, events: [], followUps: [], append: undefined, record: '' }
}

function sizeOf(batch: Batch): number {
  return batch.plain.length + batch.successes.length + batch.failures.length
}

function at<Item>(list: readonly Item[], index: number): Item {
  const item = list[index]
  if (item === undefined) throw new RangeError(`no item ${index} of ${list.length}`)
  return item
}
