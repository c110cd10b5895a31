/**
 * Waits until a projection has passed the effects of a command, for `Millrace-After`.
 *
 * One look tells the command's state together with the last event id of its partition, so once the command has ended, its
 * own events are at or before that id; the wait is over when the projection's checkpoint in that partition is there. Not
 * covered: effects of the commands that it sent on. A command that had no effects (dead, cancelled, status expired, lost)
 * ends the wait at once.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { ProjectionDefinition } from '../contracts/projection.ts'
import type { Tenant } from '../contracts/tenant.ts'
import { compareEntryIds } from '../redis/bytes.ts'
import type { CommandIds, CommandPosition } from '../redis/command-id.ts'
import { type CommandState, type CommandStatus, readStatus } from '../redis/command-log.ts'
import type { RedisLink } from '../redis/connection.ts'
import { type PartitionKeys, partitionKeys } from '../redis/keys.ts'
import { readerName, readViews } from '../redis/view-store.ts'
import type { Clock } from '../runtime/clock.ts'
import type { ViewCache } from './view-cache.ts'

export interface WaitLimits {
  readonly waitMs: number
  readonly signal: AbortSignal | undefined
}

/** What a view must have passed: an event id of one partition. */
export interface Passage {
  readonly partition: number
  readonly eventId: string
  readonly state: CommandState
}

interface ViewWaitDeps {
  readonly command: RedisLink
  readonly ids: CommandIds
  readonly clock: Clock
}

/** While the command is open: looks are at least this far apart, and get rarer. */
const LOOK_MIN_MS = 10
const LOOK_MAX_MS = 250
/** While the projection lags: a look without notice, should one have been missed. */
const RECHECK_MS = 500
const STOPPED_RETRY_S = 5

type Wakers = Set<() => void>

export class ViewWait {
  readonly #deps: ViewWaitDeps
  readonly #cache: ViewCache
  readonly #stopSignal: AbortSignal
  readonly #wakers = new Map<string, Wakers>()

  constructor(deps: ViewWaitDeps, cache: ViewCache, stopSignal: AbortSignal) {
    this.#deps = deps
    this.#cache = cache
    this.#stopSignal = stopSignal
  }

  /** A notice came for this projection and partition. */
  wake(reader: string, partition: number): void {
    for (const wake of this.#wakers.get(`${reader} ${partition}`) ?? []) wake()
  }

  /**
   * @throws MillraceError `command.malformed`, `not-found`, `projection.not-over-stream`, `projection.stopped`,
   *   `view.wait-timeout`, `redis.unavailable`, `redis.unknown`
   */
  async pass(
    projection: ProjectionDefinition,
    commandId: string,
    tenant: Tenant,
    limits: WaitLimits,
  ): Promise<Passage> {
    const position = this.#deps.ids.parse(commandId, tenant)
    if (position.stream !== projection.stream) {
      throw new MillraceError(
        'projection.not-over-stream',
        `Projection "${projection.name}" folds stream "${projection.stream}"; the command is of stream "${position.stream}" and never reaches it.`,
      )
    }
    const deadlineMs = this.#deps.clock.monotonicMs() + limits.waitMs
    const keys = partitionKeys(position.stream, position.partition)
    const reader = readerName(projection)
    const { state, lastEventId } = await this.#untilEnded(reader, keys, position, deadlineMs, limits.signal)
    if (state === 'done') await this.#untilPassed(projection, keys, lastEventId, deadlineMs, limits.signal)
    return { partition: position.partition, eventId: state === 'done' ? lastEventId : '0-0', state }
  }

  async #untilEnded(
    reader: string,
    keys: PartitionKeys,
    { token, partition }: CommandPosition,
    deadlineMs: number,
    signal: AbortSignal | undefined,
  ): Promise<CommandStatus> {
    for (let pauseMs = LOOK_MIN_MS; ; pauseMs = Math.min(2 * pauseMs, LOOK_MAX_MS)) {
      const status = await readStatus(this.#deps.command, keys, token)
      switch (status.state) {
        case 'done':
        case 'dead':
        case 'cancelled':
        case 'expired':
        case 'lost':
          return status
        case 'accepted':
        case 'processing':
        case 'scheduled':
        case 'retrying':
          break
        default:
          return status.state satisfies never
      }
      this.#checkTime(deadlineMs, signal, 'the command has not ended yet')
      await this.#sleep(LOOK_MIN_MS, deadlineMs, signal)
      await this.#notified(`${reader} ${partition}`, pauseMs - LOOK_MIN_MS, deadlineMs, signal)
    }
  }

  async #untilPassed(
    projection: ProjectionDefinition,
    keys: PartitionKeys,
    eventId: string,
    deadlineMs: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const reader = readerName(projection)
    const topic = `${reader} ${keys.partition}`
    while (!isAtLeast(this.#cache.seen(reader, keys.partition), eventId)) {
      const { checkpoint, stop } = await readViews(this.#deps.command, keys, reader, [])
      if (isAtLeast(checkpoint, eventId)) return
      if (stop !== undefined) {
        throw new MillraceError(
          'projection.stopped',
          `Projection "${projection.name}" stands still at ${stop.position} of partition ${keys.partition}: an event could not be folded.`,
          { retryAfterS: STOPPED_RETRY_S },
        )
      }
      this.#checkTime(deadlineMs, signal, 'the view has not passed the command yet')
      await this.#sleep(LOOK_MIN_MS, deadlineMs, signal)
      const recheckAtMs = Math.min(deadlineMs, this.#deps.clock.monotonicMs() + RECHECK_MS)
      for (;;) {
        const seen = this.#cache.seen(reader, keys.partition)
        if (isAtLeast(seen, eventId)) return
        const woken = await this.#notified(topic, RECHECK_MS, recheckAtMs, signal)
        // Without trust a notice says only that it is worth asking.
        if (!woken || seen === undefined) break
      }
    }
  }

  #checkTime(deadlineMs: number, signal: AbortSignal | undefined, why: string): void {
    if (this.#stopSignal.aborted) {
      throw new MillraceError('service.stopped', 'This process is shutting down; ask another one.', {
        retryAfterS: 1,
      })
    }
    if (signal?.aborted !== true && this.#deps.clock.monotonicMs() < deadlineMs) return
    throw new MillraceError('view.wait-timeout', `The wait is over: ${why}. Ask again.`, { retryAfterS: 1 })
  }

  async #sleep(ms: number, deadlineMs: number, signal: AbortSignal | undefined): Promise<void> {
    const leftMs = Math.max(0, Math.min(ms, deadlineMs - this.#deps.clock.monotonicMs()))
    const signals = signal === undefined ? [this.#stopSignal] : [this.#stopSignal, signal]
    await this.#deps.clock.sleep(leftMs, AbortSignal.any(signals))
  }

  /** Waits for a notice of this topic, at most `ms`; true when one came. */
  async #notified(
    topic: string,
    ms: number,
    deadlineMs: number,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const woken = new AbortController()
    const wake = () => woken.abort()
    const wakers = this.#wakers.get(topic) ?? new Set()
    this.#wakers.set(topic, wakers.add(wake))
    try {
      const own = signal === undefined ? woken.signal : AbortSignal.any([woken.signal, signal])
      await this.#sleep(ms, deadlineMs, own)
      return woken.signal.aborted
    } finally {
      wakers.delete(wake)
      if (wakers.size === 0 && this.#wakers.get(topic) === wakers) this.#wakers.delete(topic)
    }
  }
}

function isAtLeast(checkpoint: string | undefined, eventId: string): boolean {
  return checkpoint !== undefined && compareEntryIds(checkpoint, eventId) >= 0
}
