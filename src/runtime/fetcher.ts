/**
 * Reads the commands of one partition, never more than there is room for.
 *
 *   connect ─▶ kill the old connection ─▶ re-read own pending ─▶ read new ─┐
 *      ▲                                        ▲                          │
 *      └── any error, any silence ──────────────┴── every 10 s ────────────┘
 *
 * As soon as what a read brought is in hand the next one is on its way, if there is room: so Redis reads while commands are
 * handled here. While reads come back full, two are on their way: Redis answers one after the other
 * without waiting for us in between.
 *
 * The server may go on serving a connection that this side has lost, and hand it entries that nobody sees. So after every
 * reconnect the old connection is killed first, and the own pending list is read, on this connection and with no other read
 * under way, before anything new is asked for.
 */
import { describeError, MillraceError } from '../contracts/errors.ts'
import type { HealthReport } from '../contracts/health.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { judgeReader } from '../policies/reader-health.ts'
import type { RedisLink } from '../redis/connection.ts'
import {
  type ConnectionIdentity,
  forgetGone,
  identifyConnection,
  killConnection,
  listOwnPending,
  type ReadEntry,
  readLevels,
  readNew,
  readPending,
  unblock,
} from '../redis/consumer-group.ts'
import type { Membership } from '../redis/membership.ts'
import type { Source } from '../redis/settlements.ts'
import type { Clock } from './clock.ts'
import { Service } from './service.ts'

/** What this process holds of the partition, and how much more it may read. */
export interface Holdings {
  readonly room: number
  has(entry: Pick<ReadEntry, 'source' | 'entryId'>): boolean
  rereadStarted(): void
  rereadEnded(): void
  /** Resolves when there may be more room, or after `limitMs`. */
  change(limitMs: number, signal: AbortSignal): Promise<void>
}

export interface FetcherOptions {
  readonly reader: RedisLink
  readonly command: RedisLink
  readonly membership: Membership
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly inFlight: Holdings
  readonly blockMs: number
  /** Most entries of one read. */
  readonly readCountMax: number
  readonly onEntries: (entries: readonly ReadEntry[]) => void
  /** True while reading should wait, for a moment. */
  readonly isHeld: () => boolean
  /** Called when the consumer group is not there. */
  readonly onGroupGone: () => Promise<void>
  /** Called after each look through the own pending list, before anything new is read. */
  readonly onReread?: () => Promise<void>
  /** True while it was told to wait for as long as it takes. */
  readonly isPaused: () => boolean
  /** Monotonic ms at which a run of any handler last ended. */
  readonly runEndedMs: () => number
  /** The longest that a run may take. */
  readonly runLimitMs: number
}

const REREAD_EVERY_MS = 10_000
const READ_GRACE_MS = 2000
const HELD_PAUSE_MS = 5
const CONNECT_WAIT_MS = 2000
const PENDING_PAGE = 500
/** Reads on their way at once, while they come back full. */
const READS_MAX = 2
/** Bodies fetched at once: they may be large. */
const PENDING_BODIES = 16

interface Read {
  readonly countMax: number
  readonly answer: Promise<ReadEntry[]>
}

export class Fetcher extends Service {
  readonly #options: FetcherOptions
  readonly #sources: readonly Source[]
  #loop: Promise<void> | undefined
  #connection: ConnectionIdentity | undefined
  #generation = 0
  #rereadDueMs = 0
  #readIssuedMs = Number.NEGATIVE_INFINITY
  #waitingSinceMs: number | undefined
  #turnMs = Number.NEGATIVE_INFINITY
  /** Reads that are on their way, in the order in which they are answered. */
  readonly #reads: Read[] = []
  /** Whether the last read that brought anything brought retries; true until one has told. */
  #hasRetries = true

  constructor(options: FetcherOptions) {
    const { keys } = options.membership
    super(`fetcher ${keys.stream}.${keys.partition}`)
    this.#options = options
    // A worker that takes over one more partition is as ready as before, if it gets to read it in time.
    if (options.membership.epoch !== undefined) this.#readIssuedMs = options.clock.monotonicMs()
    this.#sources = keys.ready === keys.commands ? ['commands'] : ['ready', 'commands']
  }

  /** See `policies/reader-health.ts`. */
  health(): HealthReport {
    const { clock, blockMs, membership, isPaused, runEndedMs, runLimitMs } = this.#options
    const { keys } = membership
    const { ready, detail } = judgeReader({
      nowMs: clock.monotonicMs(),
      readIssuedMs: this.#readIssuedMs,
      blockMs,
      waitingSinceMs: this.#waitingSinceMs,
      turnMs: this.#turnMs,
      runEndedMs: runEndedMs(),
      runLimitMs,
      isPaused: isPaused(),
    })
    return { ready, detail: `${keys.stream}.${keys.partition}: ${detail}` }
  }

  /** True when it could take more now. */
  get hasRoom(): boolean {
    const { inFlight, isHeld } = this.#options
    return inFlight.room >= this.#sources.length && !isHeld()
  }

  /** Dials again: whatever is waited for on this connection fails, and the own pending list is read before anything new. */
  renew(): void {
    this.#options.reader.reconnect()
  }

  protected override async onStart(): Promise<void> {
    this.#loop = this.#work()
  }

  protected override async onStop(): Promise<void> {
    this.#unblock()
    await this.#loop
  }

  async #work(): Promise<void> {
    const { clock, telemetry } = this.#options
    // A read that is on its way may bring entries: they are this consumer's, and must be in hand to be handed back.
    while (!this.stopSignal.aborted || this.#reads.length > 0) {
      try {
        await this.#round()
      } catch (error) {
        // A read that is still on its way must not bring anything any more when the own pending list is read.
        if (this.#reads.length > 1) this.#options.reader.reconnect()
        this.#reads.length = 0
        this.#rereadDueMs = 0
        this.#waitingSinceMs = undefined
        if (this.stopSignal.aborted) return
        telemetry.emit('service.failed', { service: this.name, error: describeError(error) })
        await this.#mend(error)
        await clock.sleep(10 + clock.random() * 90, this.stopSignal)
      }
    }
  }

  async #round(): Promise<void> {
    const { clock, inFlight, membership, telemetry, isHeld } = this.#options
    this.#turnMs = clock.monotonicMs()
    if (this.#reads.length === 0) {
      await this.#connect()
      if (clock.monotonicMs() >= this.#rereadDueMs) await this.#reread()
      const countMax = this.#countMax()
      if (countMax < 1 || isHeld()) {
        this.#waitingSinceMs ??= clock.monotonicMs()
        await inFlight.change(countMax < 1 ? 100 : HELD_PAUSE_MS, this.stopSignal)
        return
      }
      if (this.stopSignal.aborted) return
      this.#read(countMax)
    }
    const { entries, isFull } = await this.#answer()
    if (this.stopSignal.aborted) this.#unblock()
    if (entries.length === 0) return
    const { stream, partition } = membership.keys
    telemetry.emit('entries.read', { stream, partition, count: entries.length })
    this.#accept(entries)
    const readsMax = isFull ? READS_MAX : 1
    while (this.#reads.length < readsMax && this.#mayReadOn()) this.#read(this.#countMax())
  }

  /**
   * How many entries of each stream may be asked for. Room is kept for the
   * second stream only while it brings something: when retries come due after none had for a while, as many as were asked
   * for may come on top, once.
   */
  #countMax(): number {
    const { inFlight, readCountMax } = this.#options
    const parts = this.#hasRetries ? this.#sources.length : 1
    const expected = this.#reads.reduce((sum, { countMax }) => sum + countMax * parts, 0)
    return Math.min(readCountMax, Math.floor((inFlight.room - expected) / parts))
  }

  /** Whether the next read may be sent while what is in hand is handled: nothing else is due in between. */
  #mayReadOn(): boolean {
    const { clock, reader, isHeld } = this.#options
    const isSameConnection = reader.ready && reader.generation === this.#generation
    const isDue = clock.monotonicMs() >= this.#rereadDueMs
    return isSameConnection && !isDue && !this.stopSignal.aborted && !isHeld() && this.#countMax() >= 1
  }

  #read(countMax: number): void {
    const { clock, reader, membership, blockMs } = this.#options
    this.#waitingSinceMs = undefined
    this.#readIssuedMs = clock.monotonicMs()
    const answer = readNew(reader, membership, countMax, blockMs)
    // Whoever awaits it is told of its failure; until then it is nobody's.
    answer.catch(() => undefined)
    this.#reads.push({ countMax, answer })
  }

  /** What the oldest read brought. One that neither answers nor fails in time gets a new connection. */
  async #answer(): Promise<{ readonly entries: readonly ReadEntry[]; readonly isFull: boolean }> {
    const { clock } = this.#options
    const [read] = this.#reads
    if (read === undefined) return { entries: [], isFull: false }
    const entries = await this.#watched(() => read.answer)
    this.#reads.shift()
    // Those of `ready` come first.
    if (entries.length > 0) this.#hasRetries = entries[0]?.source === 'ready'
    // The next one has its time from now on: Redis serves one read of a connection after the other.
    if (this.#reads.length > 0) this.#readIssuedMs = clock.monotonicMs()
    return { entries, isFull: entries.length >= read.countMax }
  }

  /** Ends the read that Redis is holding, if there is one. */
  #unblock(): void {
    const { command } = this.#options
    if (this.#connection === undefined || this.#reads.length === 0) return
    unblock(command, this.#connection.id).catch(() => undefined)
  }

  /** A read that neither answers nor fails in time gets a new connection. */
  async #watched<Result>(read: () => Promise<Result>): Promise<Result> {
    const { clock, reader, blockMs } = this.#options
    const watchdog = clock.after(blockMs + READ_GRACE_MS, () => reader.reconnect())
    try {
      return await read()
    } finally {
      watchdog.cancel()
    }
  }

  async #connect(): Promise<void> {
    const { reader, command } = this.#options
    await reader.whenReady(CONNECT_WAIT_MS, this.stopSignal)
    const { generation } = reader
    if (generation === this.#generation) return
    const present = await identifyConnection(reader)
    const last = this.#connection
    if (last !== undefined && last.runId === present.runId) await killConnection(command, last.id)
    this.#connection = present
    this.#generation = generation
    this.#rereadDueMs = 0
  }

  async #reread(): Promise<void> {
    const { command, membership, clock, inFlight, telemetry, onReread } = this.#options
    const { keys } = membership
    inFlight.rereadStarted()
    try {
      const missed: ReadEntry[] = []
      for (const source of this.#sources) missed.push(...(await this.#readMissed(source)))
      if (missed.length > 0) {
        const levels = await readLevels(
          command,
          keys,
          missed.map((entry) => entry.token),
        )
        const known = missed.map((entry, i) => ({ ...entry, level: levels[i] ?? 0 }))
        const { stream, partition } = keys
        telemetry.emit('entries.reconciled', { stream, partition, count: known.length })
        this.#accept(known)
      }
    } finally {
      inFlight.rereadEnded()
    }
    await onReread?.()
    this.#rereadDueMs = clock.monotonicMs() + REREAD_EVERY_MS
  }

  /** Own pending entries that are not in hand; of all others not even the bodies are asked for. */
  async #readMissed(source: Source): Promise<ReadEntry[]> {
    const { reader, membership, inFlight } = this.#options
    const missed: ReadEntry[] = []
    let after: string | undefined = ''
    while (after !== undefined) {
      const from: string = after
      const page = await this.#watched(() => listOwnPending(reader, membership, source, from, PENDING_PAGE))
      const ids = page.filter((id) => !inFlight.has({ source, entryId: id }))
      for (let i = 0; i < ids.length; i += PENDING_BODIES) {
        const some = ids.slice(i, i + PENDING_BODIES)
        missed.push(...(await this.#watched(() => readPending(reader, membership.keys, source, some))))
      }
      after = page.length < PENDING_PAGE ? undefined : page.at(-1)
    }
    return missed
  }

  #accept(entries: readonly ReadEntry[]): void {
    const whole = entries.filter((entry) => entry.blob !== undefined)
    if (whole.length < entries.length)
      void this.#reportGone(entries.filter((entry) => entry.blob === undefined))
    this.#options.onEntries(whole)
  }

  /** Pending entries whose bodies are gone: loss, reported once and then acknowledged. */
  async #reportGone(gone: readonly ReadEntry[]): Promise<void> {
    const { command, membership, telemetry } = this.#options
    const ids = gone.map((entry) => entry.entryId)
    telemetry.emit('alarm.raised', {
      alarm: 'entries-lost',
      stream: membership.keys.stream,
      detail: `${gone.length} pending entries have no body any more: ${ids.slice(0, 10).join(', ')}. Somebody trimmed or deleted them.`,
    })
    for (const source of ['commands', 'ready'] as const) {
      const own = gone.filter((entry) => entry.source === source).map((entry) => entry.entryId)
      if (own.length > 0) await forgetGone(command, membership, source, own).catch(() => undefined)
    }
  }

  /** The group vanished (FLUSHALL, DEL), or somebody else has the partition now. */
  async #mend(error: unknown): Promise<void> {
    const text = error instanceof MillraceError ? error.message : describeError(error)
    if (!/NOGROUP|UNBLOCKED|no longer exists/.test(text)) return
    try {
      await this.#options.onGroupGone()
    } catch {
      // Redis is away: the next round comes here again.
    }
  }
}
