/**
 * The leases of this process, over a connection of their own, which is opened when the first one is asked for: a renewal
 * must not wait behind a batch. Stopping ends all waiting and releases what is held.
 */
import { MillraceError } from '../contracts/errors.ts'
import {
  type Lease,
  type LeaseOptions,
  type ResolvedLeaseOptions,
  resolveLeaseOptions,
} from '../contracts/lease.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { RedisLink, RedisLinks } from '../redis/connection.ts'
import type { Clock } from '../runtime/clock.ts'
import { Service } from '../runtime/service.ts'
import { HeldLease } from './held-lease.ts'
import { LeaseContender } from './lease-contender.ts'

export interface LeasesParts {
  readonly links: RedisLinks
  readonly clock: Clock
  readonly telemetry: Telemetry
}

const FIRST_CONNECT_WAIT_MS = 5000

export class Leases extends Service {
  readonly #parts: LeasesParts
  readonly #held = new Set<HeldLease>()
  readonly #waiting = new Set<Promise<unknown>>()
  #link: RedisLink | undefined
  #opening: Promise<unknown> | undefined

  constructor(parts: LeasesParts) {
    super('leases')
    this.#parts = parts
  }

  /**
   * Waits for the lease and takes it. Two calls of one process contend like two processes.
   *
   * @throws MillraceError `definition.invalid`, `config.unknown-option`; `lease.held`, `redis.unavailable` or `redis.unknown`
   * when `waitMs` is over; `service.stopped`; or the reason of the given signal
   */
  async acquire(name: string, options: LeaseOptions = {}): Promise<Lease> {
    const resolved = resolveLeaseOptions(name, options)
    if (this.state !== 'running') throw this.#stopped()
    const waiting = this.#wait(name, resolved)
    this.#waiting.add(waiting)
    try {
      return await waiting
    } finally {
      this.#waiting.delete(waiting)
    }
  }

  async #wait(name: string, resolved: ResolvedLeaseOptions): Promise<Lease> {
    const { clock, telemetry } = this.#parts
    const stop =
      resolved.signal === undefined ? this.stopSignal : AbortSignal.any([this.stopSignal, resolved.signal])
    const startedMs = clock.monotonicMs()
    try {
      stop.throwIfAborted()
      const link = await this.#open(stop)
      const contender = new LeaseContender({ link, clock }, name, resolved)
      const { hold, sentMs } = await contender.win(stop)
      const { takeoverMs } = resolved
      const lease: HeldLease = new HeldLease({
        ...{ link, clock, telemetry, name, hold, takeoverMs, sentMs },
        onEnd: () => this.#held.delete(lease),
      })
      this.#held.add(lease)
      const waitedMs = clock.monotonicMs() - startedMs
      telemetry.emit('lease.acquired', { lease: name, epoch: hold.epoch, waitedMs })
      // Somebody who gave up while the answer was on its way gets nothing, and nothing stays behind.
      if (stop.aborted) {
        await lease.release()
        stop.throwIfAborted()
      }
      return lease
    } catch (error) {
      if (this.stopSignal.aborted) throw this.#stopped()
      throw error
    }
  }

  protected override async onStart(): Promise<void> {
    // The connection waits for the first lease.
  }

  protected override async onStop(): Promise<void> {
    // A take that is on its way may still win: then it is to be released while there is a connection.
    await Promise.allSettled(this.#waiting)
    await Promise.all([...this.#held].map((lease) => lease.release()))
    if (this.#link !== undefined) this.#parts.links.close(this.#link)
  }

  async #open(stop: AbortSignal): Promise<RedisLink> {
    this.#link ??= this.#parts.links.open('command')
    if (!this.#link.ready) {
      // Not there in time is no reason to give up: the contender asks again.
      this.#opening ??= this.#link.whenReady(FIRST_CONNECT_WAIT_MS, this.stopSignal).catch(() => undefined)
      const opened = new AbortController()
      const ended = AbortSignal.any([stop, opened.signal])
      await Promise.race([this.#opening, this.#parts.clock.sleep(FIRST_CONNECT_WAIT_MS, ended)])
      opened.abort()
    }
    stop.throwIfAborted()
    return this.#link
  }

  #stopped(): MillraceError {
    return new MillraceError('service.stopped', 'This process is stopping, and takes no leases any more.')
  }
}
