/**
 * Looks at the streams of a partition once a second, from outside the loop that reads them.
 *
 * Entries that wait while there is room and nobody is given one for ten seconds: the reader is stuck. That is an alarm, the
 * process is not ready, and the reader gets a new connection. A stream that is gone, or is another one than before, is told
 * as loss; groups are made again by the reader itself.
 */
import type { Telemetry } from '../contracts/telemetry.ts'
import { LossSigns } from '../policies/loss-signs.ts'
import { StuckSigns } from '../policies/reader-health.ts'
import type { RedisLink } from '../redis/connection.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import { type LogProgress, readProgress, signOf } from '../redis/stream-progress.ts'
import type { Clock } from './clock.ts'
import { PeriodicService } from './service.ts'

export interface ReaderWatchOptions {
  readonly link: RedisLink
  readonly keys: PartitionKeys
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly hasRoom: () => boolean
  /** Gives the reader a new connection. */
  readonly renew: () => void
  /** Mends what the whole fleet needs, after a stream was lost. */
  readonly onLoss: () => Promise<void>
}

const LOOK_EVERY_MS = 1000
const LOGS = ['commands', 'ready', 'events'] as const

export class ReaderWatch extends PeriodicService {
  readonly #options: ReaderWatchOptions
  readonly #signs = new StuckSigns()
  readonly #loss = new LossSigns()
  readonly #seen = new Map<string, LogProgress>()
  #stuck = false

  constructor(options: ReaderWatchOptions) {
    const { keys, clock, telemetry } = options
    const name = `reader watch ${keys.stream}.${keys.partition}`
    const pauses = { pauseMinMs: LOOK_EVERY_MS, pauseMaxMs: LOOK_EVERY_MS }
    super({ name, clock, telemetry, ...pauses }, async () => {
      await this.#look()
      return LOOK_EVERY_MS
    })
    this.#options = options
  }

  /** True while entries wait that this process could take and nobody is given. */
  get isStuck(): boolean {
    return this.#stuck
  }

  async #look(): Promise<void> {
    const { link, keys, clock, hasRoom } = this.#options
    let progress: Awaited<ReturnType<typeof readProgress>>
    try {
      progress = await readProgress(link, keys)
    } catch (error) {
      this.#signs.forget()
      throw error
    }
    // In an ordered partition ready commands stand among the others.
    const logs = LOGS.filter((log) => log !== 'ready' || keys.ready !== keys.commands)
    for (const log of logs) await this.#watchLoss(log, progress[log])
    const { commands, ready } = progress
    const stuck = this.#signs.observe({
      atMs: clock.monotonicMs(),
      delivered: `${commands.deliveredId} ${ready.deliveredId}`,
      hasWaiting: commands.waitingId !== undefined || ready.waitingId !== undefined,
      hasRoom: hasRoom(),
    })
    if (stuck) this.#heal()
    this.#stuck = stuck
  }

  #heal(): void {
    const { keys, telemetry, renew } = this.#options
    if (!this.#stuck) {
      telemetry.emit('alarm.raised', {
        alarm: 'reader-stuck',
        stream: keys.stream,
        detail: `Entries of ${keys.stream}.${keys.partition} wait, and no worker was given one for 10 s although this one has room; its reader gets a new connection.`,
      })
    }
    renew()
  }

  async #watchLoss(log: (typeof LOGS)[number], now: LogProgress): Promise<void> {
    const { keys, telemetry, onLoss } = this.#options
    const before = this.#seen.get(log)
    this.#seen.set(log, now)
    if (!this.#loss.observe(log, signOf(now))) return
    telemetry.emit('alarm.raised', {
      alarm: 'stream-vanished',
      stream: keys.stream,
      detail: `The stream ${keys[log]} was deleted or replaced: it held ${before?.entries} entries up to ${before?.lastId}. What was not finished is lost.`,
    })
    await onLoss()
  }
}
