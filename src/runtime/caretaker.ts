/**
 * Trims what everybody has behind them and drops dead letters and records past their retention. Every worker does it; the
 * scripts compute the safe point themselves, so it does not matter who comes first.
 */
import type { StreamDefinition } from '../contracts/stream.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { RedisLink } from '../redis/connection.ts'
import { trimDead } from '../redis/dead-letter-stream.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import {
  dropFinished,
  type SlowestReader,
  sweepRecords,
  trimCommands,
  trimEvents,
} from '../redis/partition-care.ts'
import { recountTenants } from '../redis/tenant-loads.ts'
import type { Clock } from './clock.ts'
import { PeriodicService } from './service.ts'

export interface CaretakerOptions {
  readonly link: RedisLink
  readonly keys: PartitionKeys
  readonly stream: StreamDefinition
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly trimEveryMs: number
  /** Memory is short: what can be trimmed is trimmed at once. */
  readonly isPressed: () => boolean
}

const PRESSED_PAUSE_MS = 50

const ROUNDS_MAX = 50
/** Events and records change slowly: every so many rounds. */
const SLOW_ROUND = 10
const SWEEP_COUNT_MAX = 2000
const DEAD_COUNT_MAX = 500
/** An entry that is pending for this long no longer keeps what is finished behind it. */
const PIN_PATIENCE_MS = 5000
const PENDING_ALARM_AFTER_MS = 600_000
/** Beyond the retention of events: a projection that is merely being mended or rebuilt is no alarm. */
const READER_ALARM_AFTER_MS = 86_400_000

export class Caretaker extends PeriodicService {
  readonly #options: CaretakerOptions
  #round = 0
  /** The reader that an alarm was raised for. */
  #alarmedReader: string | undefined
  #pinned: { readonly id: string; readonly sinceMs: number; alarmed: boolean } | undefined

  constructor(options: CaretakerOptions) {
    const { keys, clock, telemetry, trimEveryMs } = options
    const name = `caretaker ${keys.stream}.${keys.partition}`
    const pauses = { pauseMinMs: Math.min(PRESSED_PAUSE_MS, trimEveryMs / 2), pauseMaxMs: trimEveryMs }
    super({ name, clock, telemetry, ...pauses }, async () => {
      await this.#trimCommands()
      if (this.#round % SLOW_ROUND === 0) await this.#slowly()
      this.#round += 1
      if (options.isPressed()) return PRESSED_PAUSE_MS
      return trimEveryMs * (0.5 + clock.random() / 2)
    })
    this.#options = options
  }

  async #trimCommands(): Promise<void> {
    const { link, keys } = this.#options
    for (let i = 0; i < ROUNDS_MAX && !this.stopSignal.aborted; i++) {
      const { commands, ready, oldestPending } = await trimCommands(link, keys)
      this.#report('commands', commands)
      this.#report('ready', ready)
      this.#watchOldest(oldestPending)
      if (commands === 0 && ready === 0) break
    }
    const { clock } = this.#options
    if (this.#pinned === undefined || clock.monotonicMs() - this.#pinned.sinceMs < PIN_PATIENCE_MS) return
    await this.#dropFinished('commands')
    if (keys.ready !== keys.commands) await this.#dropFinished('ready')
  }

  /** Trimming stops at the oldest pending entry; what is finished behind it goes entry by entry. */
  async #dropFinished(source: 'commands' | 'ready'): Promise<void> {
    const { link, keys } = this.#options
    let after: string | undefined
    for (let i = 0; i < ROUNDS_MAX && !this.stopSignal.aborted; i++) {
      const drop = await dropFinished(link, keys, source, after)
      this.#report(source, drop.deleted)
      after = drop.after
      if (after === undefined) return
    }
  }

  async #slowly(): Promise<void> {
    const { link, keys, stream } = this.#options
    for (let i = 0; i < ROUNDS_MAX && !this.stopSignal.aborted; i++) {
      const { events, slowest } = await trimEvents(link, keys, stream.retention)
      this.#watchReader(slowest)
      this.#report('events', events)
      if (events === 0) break
    }
    await this.#trimDead()
    for (let i = 0; i < ROUNDS_MAX && !this.stopSignal.aborted; i++) {
      const swept = await sweepRecords(link, keys, stream.retention.resultsMs, SWEEP_COUNT_MAX)
      if (swept < SWEEP_COUNT_MAX) break
    }
    await this.#recount()
  }

  /** What tenants have waiting is kept by every script that changes it; if it was wrong all the same, somebody should know. */
  async #recount(): Promise<void> {
    const { link, keys, telemetry } = this.#options
    for (const { kept, counted } of (await recountTenants(link, keys)) ?? []) {
      telemetry.emit('alarm.raised', {
        alarm: 'tenant-load-wrong',
        stream: keys.stream,
        detail: `Tenant ${kept.tenant} was thought to have ${kept.count} commands (${kept.bytes} bytes) waiting in ${keys.stream}.${keys.partition}, and has ${counted.count} (${counted.bytes} bytes); mended. Were entries deleted by hand?`,
      })
    }
  }

  /** Before the records: those of trimmed dead letters go in the same round. */
  async #trimDead(): Promise<void> {
    const { link, keys, stream } = this.#options
    for (let i = 0; i < ROUNDS_MAX && !this.stopSignal.aborted; i++) {
      const dead = await trimDead(link, keys, stream.retention.deadLettersMs, DEAD_COUNT_MAX)
      this.#report('dead', dead)
      if (dead === 0) return
    }
  }

  #report(log: 'commands' | 'ready' | 'events' | 'dead', count: number): void {
    const { keys, telemetry } = this.#options
    if (count === 0) return
    telemetry.emit('stream.trimmed', { stream: keys.stream, partition: keys.partition, log, count })
  }

  /** One entry that stays pending keeps what is after it from being trimmed at once. */
  #watchOldest(id: string | undefined): void {
    const { clock, telemetry, keys } = this.#options
    if (id === undefined) {
      this.#pinned = undefined
      return
    }
    if (this.#pinned?.id !== id) this.#pinned = { id, sinceMs: clock.monotonicMs(), alarmed: false }
    const ageMs = clock.monotonicMs() - this.#pinned.sinceMs
    if (ageMs < PENDING_ALARM_AFTER_MS || this.#pinned.alarmed) return
    this.#pinned.alarmed = true
    telemetry.emit('alarm.raised', {
      alarm: 'entry-pins-stream',
      stream: keys.stream,
      detail: `Entry ${id} of ${keys.stream}.${keys.partition} is pending for ${Math.round(ageMs / 1000)} s; what comes after it can only be deleted entry by entry. See which worker holds it.`,
    })
  }

  /** Events that a projection has not read are kept, also for one that nobody runs any more. */
  #watchReader(slowest: SlowestReader | undefined): void {
    const { telemetry, keys, stream } = this.#options
    const behindMs = slowest?.behindMs ?? 0
    if (slowest === undefined || behindMs <= stream.retention.eventsMs + READER_ALARM_AFTER_MS) {
      this.#alarmedReader = undefined
      return
    }
    if (this.#alarmedReader === slowest.name) return
    this.#alarmedReader = slowest.name
    const place = `${keys.stream}.${keys.partition}`
    telemetry.emit('alarm.raised', {
      alarm: 'reader-pins-events',
      stream: keys.stream,
      detail: `Projection ${slowest.name} has not read the events of ${place} for ${Math.round(behindMs / 3_600_000)} h, so they can't be trimmed. Run it again, or, if it is retired, forget it: HDEL ${keys.readers} ${slowest.name}`,
    })
  }
}
