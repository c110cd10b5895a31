/**
 * The queue in front of one partition. What arrives in one turn of the event loop goes to Redis in one script.
 *
 *   add ──▶ waiting ──(end of turn, or an answer came)──▶ in flight, at most `batchesInFlightMax` ──▶ sink
 *
 * Order of arrival is order in the stream: a batch that holds one command with a key or a delay goes through the script
 * that knows both, as a whole. One without either that holds a command of a tenant goes through the script that knows what tenants
 * may have waiting. Nothing is sent a second time: a lost answer is told to the producer as unknown.
 *
 * In tier `replicated` scripts go through a quorum, and what it does not confirm is told as stored, but unconfirmed: also what
 * was known by its key, for the first time may have been unconfirmed too.
 */
import { errorCode, MillraceError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { NO_TENANT } from '../contracts/tenant.ts'
import {
  type AppendResult,
  appendKeyed,
  appendPlain,
  type IdempotencyLimits,
  type NewCommand,
} from '../redis/command-log.ts'
import type { ScriptRunner } from '../redis/connection.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import { appendOwned } from '../redis/owned-append.ts'
import { ConfirmedAppend, type ReplicaQuorum } from '../redis/replica-quorum.ts'
import type { TenantQuota } from '../redis/tenant-loads.ts'
import type { Clock } from '../runtime/clock.ts'

/** Who waits for the fate of an append; it made the command, and gets it back. */
export interface AppendSink {
  settle(item: Waiting, result: AppendResult): void
  fail(item: Waiting, error: MillraceError): void
}

export interface Waiting extends NewCommand {
  readonly sink: AppendSink
}

export interface LaneLimits extends IdempotencyLimits {
  /** What a tenant may have waiting in the partition. */
  readonly tenantQuota: TenantQuota
  readonly batchCountMax: number
  readonly batchBytesMax: number
  readonly batchesInFlightMax: number
}

export interface LaneParts {
  readonly link: ScriptRunner
  /** Tier `replicated`: appends go through it instead. */
  readonly quorum: ReplicaQuorum | undefined
  readonly keys: PartitionKeys
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly limits: LaneLimits
  /** Id of a command of this partition, from its token. */
  readonly toId: (token: string) => string
}

export class AppendLane {
  readonly toId: LaneParts['toId']
  readonly #parts: LaneParts
  #waiting: Waiting[] = []
  #inFlight = 0
  #armed = false

  constructor(parts: LaneParts) {
    this.#parts = parts
    this.toId = parts.toId
  }

  add(item: Waiting): void {
    this.#waiting.push(item)
    if (this.#armed || this.#inFlight >= this.#parts.limits.batchesInFlightMax) return
    this.#armed = true
    setImmediate(this.#endOfTurn)
  }

  /** Appends all or none, in a script of their own. */
  addAtomic(items: readonly Waiting[]): void {
    while (this.#waiting.length > 0) this.#send(this.#nextBatch())
    this.#inFlight += 1
    void this.#append(items, true)
  }

  readonly #endOfTurn = (): void => {
    this.#armed = false
    this.#flush()
  }

  #flush(): void {
    while (this.#waiting.length > 0 && this.#inFlight < this.#parts.limits.batchesInFlightMax) {
      this.#send(this.#nextBatch())
    }
  }

  #nextBatch(): Waiting[] {
    const { batchCountMax, batchBytesMax } = this.#parts.limits
    let count = 0
    let bytes = 0
    for (const { entry } of this.#waiting) {
      const size = entry.to - entry.from
      if (count >= batchCountMax || (count > 0 && bytes + size > batchBytesMax)) break
      bytes += size
      count += 1
    }
    if (count < this.#waiting.length) return this.#waiting.splice(0, count)
    const all = this.#waiting
    this.#waiting = []
    return all
  }

  #send(batch: readonly Waiting[]): void {
    this.#inFlight += 1
    void this.#append(batch, false)
  }

  async #append(batch: readonly Waiting[], atomic: boolean): Promise<void> {
    try {
      this.#settle(batch, await this.#run(batch, atomic))
    } catch (error) {
      const told = toAppendError(error)
      for (const item of batch) item.sink.fail(item, told)
    }
    this.#inFlight -= 1
    this.#flush()
  }

  async #run(batch: readonly Waiting[], atomic: boolean): Promise<readonly AppendResult[]> {
    const { link, quorum } = this.#parts
    if (quorum === undefined) return await this.#store(link, batch, atomic)
    const append = new ConfirmedAppend(quorum)
    const results = await this.#store(append, batch, atomic)
    return append.confirmed ? results : results.map(unconfirmed)
  }

  async #store(
    link: ScriptRunner,
    batch: readonly Waiting[],
    atomic: boolean,
  ): Promise<readonly AppendResult[]> {
    const { keys, limits, clock } = this.#parts
    if (!atomic && batch.every(isPlain)) {
      const tokens = await appendPlain(
        link,
        keys,
        batch.map((item) => item.entry),
      )
      return tokens.map((token) => ({ kind: 'stored', token }))
    }
    if (!atomic && batch.every(isBare)) return await appendOwned(link, keys, batch, limits.tenantQuota)
    return await appendKeyed(link, keys, batch, limits, clock.nowMs(), atomic)
  }

  #settle(batch: readonly Waiting[], results: readonly AppendResult[]): void {
    let stored = 0
    let known = 0
    let open = 0
    for (let i = 0; i < batch.length; i++) {
      const item = batch[i]
      const result = results[i]
      if (item === undefined) continue
      if (result === undefined) {
        item.sink.fail(
          item,
          new MillraceError('redis.unknown', 'Redis answered for fewer commands than were sent.'),
        )
        continue
      }
      if (result.kind === 'stored') stored += 1
      else if (result.kind === 'known') known += 1
      else if (result.kind === 'unconfirmed') open += 1
      item.sink.settle(item, result)
    }
    const { stream, partition } = this.#parts.keys
    if (open > 0) this.#parts.telemetry.emit('commands.unconfirmed', { stream, partition, count: open })
    if (stored + known === 0) return
    this.#parts.telemetry.emit('commands.accepted', { stream, partition, count: stored, deduplicated: known })
  }
}

function unconfirmed(result: AppendResult): AppendResult {
  if (result.kind !== 'stored' && result.kind !== 'known') return result
  return { kind: 'unconfirmed', token: result.token }
}

function isPlain(item: Waiting): boolean {
  return isBare(item) && (item.tenant === undefined || item.tenant === NO_TENANT)
}

function isBare(item: Waiting): boolean {
  return item.mark === undefined && item.deliver === undefined
}

function toAppendError(error: unknown): MillraceError {
  if (errorCode(error) !== undefined) return error as MillraceError
  return new MillraceError(
    'redis.unknown',
    'The append ended in a way that tells nothing about its outcome.',
    {
      cause: error,
      retryAfterS: 1,
    },
  )
}
