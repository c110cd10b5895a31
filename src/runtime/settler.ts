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
import type { PartitionKeys } from '../redis/keys.ts'
import {
  FAILURE_ARGUMENTS,
  type Failure,
  isPlain,
  SETTLE_ARGUMENTS_MAX,
  SETTLE_ENTRIES_MAX,
  type SettleRequest,
  type Success,
  settle,
  successArguments,
  type Verdict,
} from '../redis/settlements.ts'
import type { Clock } from './clock.ts'
import type { CommandRun } from './command-run.ts'
import { type InFlight, inFlightKey } from './in-flight.ts'

/** A run that has been decided. */
export type Decided =
  | { readonly run: CommandRun; readonly success: Success }
  | { readonly run: CommandRun; readonly failure: Failure }

export interface SettlerOptions {
  readonly link: RedisLink
  readonly keys: PartitionKeys
  readonly consumer: string
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly inFlight: InFlight
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
const RESEND_MAX_MS = 2000
/** After so many failures of one request its entries are sent one by one, so that one of them can't hold the rest. */
const FAILURES_BEFORE_SPLIT = 4

export class Settler {
  readonly #options: SettlerOptions
  #queue: Decided[] = []
  #requests = 0
  #scheduled = false
  #idle: (() => void)[] = []

  constructor(options: SettlerOptions) {
    this.#options = options
  }

  /** Takes over decided runs; they are settled soon, in requests as large as the bounds allow. */
  push(decided: readonly Decided[]): void {
    if (this.#queue.length === 0) this.#queue = [...decided]
    else this.#queue.push(...decided)
    if (this.#scheduled) return
    this.#scheduled = true
    queueMicrotask(() => {
      this.#scheduled = false
      this.#pump()
    })
  }

  get open(): number {
    return this.#queue.length + this.#requests
  }

  /** Resolves when nothing waits and nothing is on its way. */
  async idle(): Promise<void> {
    if (this.open === 0) return
    await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  #pump(): void {
    while (this.#queue.length > 0 && this.#requests < this.#options.requestsMax) {
      const batch = this.#cut()
      this.#requests += 1
      void this.#deliver(batch, 0).finally(() => {
        this.#requests -= 1
        this.#pump()
        if (this.open > 0) return
        const idle = this.#idle
        this.#idle = []
        for (const resolve of idle) resolve()
      })
    }
  }

  /** The largest request that fits the bounds, from the head of the queue. */
  #cut(): Batch {
    const taken: Decided[] = []
    let room = SETTLE_ARGUMENTS_MAX
    for (const decided of this.#queue) {
      const needs = 'success' in decided ? successArguments(decided.success) : FAILURE_ARGUMENTS
      if (taken.length > 0 && (taken.length >= SETTLE_ENTRIES_MAX || needs > room)) break
      room -= needs
      taken.push(decided)
    }
    this.#queue = taken.length === this.#queue.length ? [] : this.#queue.slice(taken.length)
    return toBatch(taken)
  }

  async #deliver(batch: Batch, resends: number): Promise<void> {
    const { link, keys, consumer, clock, telemetry } = this.#options
    const startedMs = clock.monotonicMs()
    for (let failures = 0; ; ) {
      try {
        const answer = await settle(link, keys, consumer, batch.request)
        this.#answered(batch, answer, resends + failures > 0, clock.monotonicMs() - startedMs)
        return
      } catch (error) {
        failures += 1
        telemetry.emit('service.failed', { service: 'settler', error: describeError(error) })
        const pauseMs = Math.min(RESEND_MAX_MS, RESEND_MIN_MS * 2 ** Math.min(failures, 7))
        await clock.sleep(pauseMs * (0.5 + clock.random()))
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

  #answered(
    batch: Batch,
    answer: { plainAcknowledged: number; successes: readonly Verdict[]; failures: readonly Verdict[] },
    resent: boolean,
    durationMs: number,
  ): void {
    const { inFlight, telemetry, keys, onConflict } = this.#options
    const count = { done: answer.plainAcknowledged, retried: 0, dead: 0, conflicts: 0, events: 0 }
    let stale = batch.plain.length - answer.plainAcknowledged
    for (const run of batch.plain) inFlight.leave(inFlightKey(run.ref.source, run.ref.entryId))
    for (const [i, run] of batch.successes.entries()) {
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
      inFlight.leave(inFlightKey(run.ref.source, run.ref.entryId))
    }
    for (const [i, run] of batch.failures.entries()) {
      if (answer.failures[i] === 'conflict') {
        count.conflicts += 1
        onConflict(run)
        continue
      }
      if (answer.failures[i] === 'applied') {
        if (batch.request.failures[i]?.move === 'retry') count.retried += 1
        else count.dead += 1
      } else stale += 1
      inFlight.leave(inFlightKey(run.ref.source, run.ref.entryId))
    }
    const { stream, partition } = keys
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
