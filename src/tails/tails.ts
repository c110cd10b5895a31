/**
 * The event tails of this process: opens them, bounds how many there are, ends those that nobody reads from and, when the
 * process drains, all of them at once.
 *
 * A tail that was answered and is not asked again for `stallMs` belongs to a reader that takes nothing: it is ended as slow.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { HealthReport, HealthSource } from '../contracts/health.ts'
import { checkKnownOptions, nearest } from '../contracts/names.ts'
import type { StreamDefinition } from '../contracts/stream.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import type { RedisLink, RedisLinks } from '../redis/connection.ts'
import type { LoggedEvent } from '../redis/event-log.ts'
import { partitionKeys } from '../redis/keys.ts'
import type { Clock, Timer } from '../runtime/clock.ts'
import { Service } from '../runtime/service.ts'
import { EventCursors } from './event-cursor.ts'
import { EventFeed } from './event-feed.ts'
import { PageReader } from './page-reader.ts'
import { Tail, type TailStart } from './tail.ts'

export interface TailsOptions {
  /** Tails that are open at once. */
  readonly tailsMax: number
  /** Bytes of events that one tail holds for its reader; an event that is larger comes alone. */
  readonly bytesMax: number
  /** Bytes of new events that are kept for all. */
  readonly keptBytesMax: number
  /** A reader that takes nothing for this long is slow. */
  readonly stallMs: number
}

export const TAILS_DEFAULTS: TailsOptions = {
  tailsMax: 1000,
  bytesMax: 64 * 1024,
  keptBytesMax: 8 * 1024 * 1024,
  stallMs: 30_000,
}

export interface TailsDeps {
  readonly links: RedisLinks
  /** For pages; shared with the rest of the process. */
  readonly command: RedisLink
  readonly catalogue: Catalogue
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly options?: Partial<TailsOptions>
}

/** Why a tail ended: its reader left or takes nothing, the process drains, or a fault of ours. */
export type TailEnd = 'client' | 'slow' | 'draining' | 'failed'

/** Where a tail begins: with what comes from now on, with the oldest event that is kept, or after a cursor. */
export type TailBeginning = 'now' | 'start' | { readonly cursor: string }

export interface TailRequest {
  readonly stream: string
  readonly beginning: TailBeginning
  readonly sees: (event: LoggedEvent) => boolean
  /** This process has ended the tail. */
  readonly onEnd: (end: 'slow' | 'draining') => void
}

type Beginning = Omit<TailStart, 'topic'>

const RETRY_AFTER_S = 5
/** A feed that has heard nothing from Redis for this long beyond a block is not progressing. */
const SILENCE_GRACE_MS = 8000
const LOOKS_PER_STALL = 4

export class Tails extends Service implements HealthSource {
  readonly #deps: TailsDeps
  readonly #options: TailsOptions
  readonly #feed: EventFeed
  readonly #pages: PageReader
  readonly #open = new Map<Tail, TailRequest>()
  readonly #cursors = new Map<string, EventCursors>()
  /** Being opened. */
  #opening = 0
  #look: Timer | undefined

  constructor(deps: TailsDeps) {
    super('event tails')
    this.#deps = deps
    checkKnownOptions('Tails', deps.options ?? {}, Object.keys(TAILS_DEFAULTS))
    this.#options = { ...TAILS_DEFAULTS, ...deps.options }
    const { links, command, clock, telemetry } = deps
    const { keptBytesMax } = this.#options
    const signal = this.stopSignal
    this.#feed = new EventFeed({ links, command, clock, telemetry, keptBytesMax, signal })
    this.#pages = new PageReader(command)
  }

  /** Tails that are open or being opened. */
  get count(): number {
    return this.#open.size + this.#opening
  }

  /** True while the shared connection is held. */
  get reads(): boolean {
    return this.#feed.reads
  }

  health(): HealthReport {
    const { silentMs } = this.#feed
    const ready = silentMs <= this.#deps.links.options.blockMs + SILENCE_GRACE_MS
    const detail = ready
      ? `${this.#open.size} open`
      : `nothing heard from Redis for ${Math.round(silentMs)} ms`
    return { ready, detail }
  }

  /**
   * Close what it answers.
   *
   * @throws MillraceError `not-found`, `cursor.invalid`, `admission.overloaded`, `admission.draining`, `redis.unavailable`,
   * `redis.unknown`
   */
  async open(request: TailRequest): Promise<Tail> {
    const { stream, beginning } = request
    const { partitions } = this.#definition(stream)
    const cursors = this.#cursorsOf(stream, partitions)
    const resumed = typeof beginning === 'object' ? resume(cursors, beginning.cursor) : undefined
    this.#admit()
    this.#opening += 1
    try {
      const ends = resumed ?? (await this.#beginnings(stream, partitions, beginning === 'start'))
      if (this.stopSignal.aborted) throw draining()
      return this.#begin(request, cursors, ends)
    } finally {
      this.#opening -= 1
    }
  }

  /** Of a tail that was opened here; closing it twice is fine. */
  close(tail: Tail, end: TailEnd): void {
    tail.close()
    if (!this.#open.delete(tail)) return
    this.#deps.telemetry.emit('tail.closed', { stream: tail.stream, end })
    if (this.#open.size > 0) return
    this.#look?.cancel()
    this.#look = undefined
  }

  protected override async onStart(): Promise<void> {
    // Nothing lives before somebody tails.
  }

  protected override async onStop(): Promise<void> {
    for (const tail of [...this.#open.keys()]) this.#end(tail, 'draining')
    await this.#feed.close()
  }

  #definition(stream: string): StreamDefinition {
    const { streams } = this.#deps.catalogue
    const found = streams.get(stream)
    if (found !== undefined) return found
    const near = nearest(stream, streams.keys())
    const hint = near === undefined ? '' : ` Did you mean "${near}"?`
    throw new MillraceError('not-found', `There is no stream "${stream.slice(0, 80)}".${hint}`)
  }

  #cursorsOf(stream: string, partitions: number): EventCursors {
    let cursors = this.#cursors.get(stream)
    if (cursors === undefined) {
      cursors = new EventCursors(stream, partitions)
      this.#cursors.set(stream, cursors)
    }
    return cursors
  }

  #admit(): void {
    if (this.stopSignal.aborted) throw draining()
    const { tailsMax } = this.#options
    if (this.count < tailsMax) return
    throw new MillraceError(
      'admission.overloaded',
      `This process already has ${tailsMax} event tails open. Try again later, or another process.`,
      { retryAfterS: RETRY_AFTER_S },
    )
  }

  async #beginnings(stream: string, partitions: number, fromStart: boolean): Promise<Beginning[]> {
    return await Promise.all(
      Array.from({ length: partitions }, async (_, partition) => {
        const start = { id: '0-0', isEntry: false }
        const end = fromStart ? start : await this.#pages.end(partitionKeys(stream, partition))
        return { position: { id: end.id, seen: 0 }, isEntry: end.isEntry, isResumed: false }
      }),
    )
  }

  #begin(request: TailRequest, cursors: EventCursors, beginnings: readonly Beginning[]): Tail {
    const { clock, telemetry } = this.#deps
    const { stream, sees } = request
    const { bytesMax } = this.#options
    const shared = { feed: this.#feed, pages: this.#pages, clock, telemetry }
    const starts = beginnings.map((beginning, partition) => {
      const topic = this.#feed.topic(partitionKeys(stream, partition))
      return { topic, ...beginning }
    })
    const tail = new Tail({ stream, cursors, ...shared, bytesMax, sees }, starts)
    this.#open.set(tail, request)
    telemetry.emit('tail.opened', { stream })
    this.#look ??= this.#lookLater()
    return tail
  }

  #end(tail: Tail, end: 'slow' | 'draining'): void {
    const request = this.#open.get(tail)
    this.close(tail, end)
    request?.onEnd(end)
  }

  #lookLater(): Timer {
    const { clock } = this.#deps
    const { stallMs } = this.#options
    return clock.after(stallMs / LOOKS_PER_STALL, () => {
      const nowMs = clock.monotonicMs()
      this.#look = this.#lookLater()
      for (const tail of [...this.#open.keys()]) {
        if (tail.answeredMs !== undefined && nowMs - tail.answeredMs > stallMs) this.#end(tail, 'slow')
      }
    })
  }
}

/** Whether an entry lies at such a place is seen when it is read on from there. */
function resume(cursors: EventCursors, cursor: string): Beginning[] {
  return cursors.decode(cursor).map((position) => ({ position, isEntry: false, isResumed: true }))
}

function draining(): MillraceError {
  return new MillraceError('admission.draining', 'This process is shutting down. Try another one.', {
    retryAfterS: 1,
  })
}
