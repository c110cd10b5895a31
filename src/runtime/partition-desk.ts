/**
 * What the dispatcher needs to know of a partition: where decided runs go, and how suspects are marked.
 */
import type { Telemetry } from '../contracts/telemetry.ts'
import type { RedisLink } from '../redis/connection.ts'
import { clearRunning, markRunning } from '../redis/consumer-group.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import type { Clock } from './clock.ts'
import type { CommandRun, RunScope } from './command-run.ts'
import { toDeferred, toExpired } from './decisions.ts'
import type { Settler } from './settler.ts'

const DEFER_MIN_MS = 500
const DEFER_MAX_MS = 30_000
const DEFER_ALARM_AFTER_MS = 60_000

export interface PartitionDeskOptions {
  readonly link: RedisLink
  readonly keys: PartitionKeys
  readonly consumer: string
  readonly scope: RunScope
  readonly settler: Settler
  readonly clock: Clock
  readonly telemetry: Telemetry
  /** Called for a run that is given up without being settled. */
  readonly onForget: (run: CommandRun) => void
  /** In an ordered partition: whether the lease is still ours, known or asked. */
  readonly isOurs?: () => boolean | Promise<boolean>
}

export class PartitionDesk {
  readonly scope: RunScope
  readonly settler: Settler
  readonly #options: PartitionDeskOptions

  constructor(options: PartitionDeskOptions) {
    this.scope = options.scope
    this.settler = options.settler
    this.#options = options
  }

  get tag(): string {
    return `${this.scope.stream}.${this.scope.partition}`
  }

  /**
   * Puts a command of an unknown type or version back for another worker; the longer nobody knows it, the less often.
   * After a minute it is an alarm, but never a dead letter: a newer worker may be on its way. The same for a command whose
   * handler is suspended in this process, which has an alarm of its own.
   */
  defer(run: CommandRun, cause: 'unknown' | 'suspended' = 'unknown'): void {
    const { clock, telemetry } = this.#options
    const nowMs = clock.nowMs()
    const sinceMs = run.trail.unknownSinceMs ?? nowMs
    const waitedMs = Math.max(0, nowMs - sinceMs)
    const delayMs = Math.min(DEFER_MAX_MS, Math.max(DEFER_MIN_MS, waitedMs)) * (0.75 + clock.random() / 2)
    const { stream } = this.scope
    if (run.expiresAtMs !== undefined && run.scope.serverNowMs() >= run.expiresAtMs) {
      this.settler.push([toExpired(run)])
      return
    }
    telemetry.emit('command.deferred', { ...run.called, version: run.version })
    if (cause === 'unknown' && waitedMs > DEFER_ALARM_AFTER_MS) {
      telemetry.emit('alarm.raised', {
        alarm: 'command-type-unknown',
        stream,
        detail: `No worker handles "${run.type}" version ${run.version} for ${Math.round(waitedMs / 1000)} s; deploy one that does.`,
      })
    }
    const reason =
      cause === 'unknown' ? `no handler for version ${run.version} here` : 'its handler is suspended here'
    this.settler.push([toDeferred(run, Math.floor(delayMs), sinceMs, reason)])
  }

  /**
   * Asked right before a handler starts: a worker that was paused may have lost the partition without knowing it, and its
   * handlers would run beside the new owner's, in no order.
   */
  isOurs(): boolean | Promise<boolean> {
    return this.#options.isOurs?.() ?? true
  }

  /** Gives up a run without settling it: the entry stays pending, and will run again. */
  forget(run: CommandRun): void {
    this.#options.onForget(run)
  }

  /** Marks a suspect group before it starts; waits until Redis has the mark. */
  async mark(tokens: readonly string[], signal: AbortSignal): Promise<void> {
    const { link, keys, consumer, clock } = this.#options
    while (!signal.aborted) {
      try {
        return await markRunning(link, keys, consumer, tokens)
      } catch {
        await clock.sleep(50 + clock.random() * 100, signal)
      }
    }
  }

  async unmark(): Promise<void> {
    const { link, keys, consumer } = this.#options
    await clearRunning(link, keys, consumer).catch(() => undefined)
  }
}
