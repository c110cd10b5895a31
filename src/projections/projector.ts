/**
 * Folds the events of one partition into the views of one projection, each event once.
 *
 * View changes and checkpoint are one script that compares the checkpoint with what the batch was folded from. So any
 * number of projectors may run for the same views: whoever commits first wins, the other drops all it has in memory and
 * stands by until the checkpoint stops moving although events wait. Memory is only a cache; every doubt (a conflict, a
 * fault, a lost answer, a lost connection) empties it and starts again from the stored checkpoint.
 *
 *                 ┌───────── a fault of Redis: pause ─────────┐
 *                 ▼                                           │
 *   opening ──▶ folding ── another one committed ──▶ standby ─┴─▶ opening (nobody went on for a second)
 *                 └──────── an event can't be folded ──▶ stopped ──▶ opening (pause, doubled each time)
 */
import { LRUCache } from 'lru-cache'
import { describeError, MillraceError } from '../contracts/errors.ts'
import type { ProjectionDefinition } from '../contracts/projection.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { compareEntryIds } from '../redis/bytes.ts'
import type { RedisLink } from '../redis/connection.ts'
import type { ChunkPosition, EventChunk, EventLog, EventOrigin } from '../redis/event-log.ts'
import type { PartitionKeys } from '../redis/keys.ts'
import {
  commitViews,
  loadViews,
  type OpenedReader,
  openReader,
  type ReaderState,
  readerName,
  stopReader,
} from '../redis/view-store.ts'
import type { Clock } from '../runtime/clock.ts'
import { Service } from '../runtime/service.ts'
import { FoldBatch, type FoldFault, type FoldSetting, type HotView } from './fold-batch.ts'

export interface ProjectorOptions {
  /** Events in a fold batch; the entry that reaches it is folded whole. */
  readonly batchEventsMax: number
  /** Views that a fold batch touches. */
  readonly batchViewsMax: number
  /** msgpack bytes of the views of a fold batch, by what views had so far. */
  readonly batchBytesMax: number
  readonly viewBytesMax: number
  /** Views kept in memory, and their msgpack bytes (as objects they take several times that); shared out in a set. */
  readonly hotViewsMax: number
  readonly hotBytesMax: number
  /** Events wait and nobody commits for this long: a projector that stood by takes over. */
  readonly takeoverMs: number
  readonly stopPauseMinMs: number
  readonly stopPauseMaxMs: number
}

export const PROJECTOR_DEFAULTS: ProjectorOptions = {
  // Behind a backlog a batch this long writes a hot view once for several events: it is what most of the gain of
  // aggregate-view came from. Where events are folded as they come, batches are as short as what came.
  batchEventsMax: 4000,
  batchViewsMax: 4000,
  batchBytesMax: 8 * 1024 * 1024,
  viewBytesMax: 4 * 1024 * 1024,
  hotViewsMax: 100_000,
  hotBytesMax: 32 * 1024 * 1024,
  takeoverMs: 1000,
  stopPauseMinMs: 1000,
  stopPauseMaxMs: 60_000,
}

export interface ProjectorSetting {
  readonly projection: ProjectionDefinition
  readonly keys: PartitionKeys
  readonly partitions: number
  readonly log: EventLog
  readonly link: RedisLink
  readonly origin: EventOrigin
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly options: ProjectorOptions
}

export type ProjectorState = 'opening' | 'folding' | 'standby' | 'stopped' | 'unreachable'

type FoldResult = { readonly batch: FoldBatch } | { readonly fault: FoldFault }

/** Why a projector left its views. */
type Ending = 'ended' | 'conflicted' | { readonly position: string; readonly error: MillraceError }

const REDIS_PAUSE_MAX_MS = 500

export class Projector extends Service {
  readonly #setting: ProjectorSetting
  readonly #reader: string
  readonly #fold: FoldSetting
  #loop: Promise<void> | undefined
  #progress: ProjectorState = 'opening'
  #checkpoint = '0-0'
  #viewsMax: number
  #lastAnswerMs: number
  #stopCount = 0
  #reported = ''

  constructor(setting: ProjectorSetting) {
    const { projection, keys, options, origin, partitions, clock } = setting
    super(`projector ${readerName(projection)} ${keys.stream}.${keys.partition}`)
    this.#setting = setting
    this.#reader = readerName(projection)
    this.#viewsMax = options.batchViewsMax
    this.#lastAnswerMs = clock.monotonicMs()
    const hot = new LRUCache<string, HotView>({ max: options.hotViewsMax, maxSize: options.hotBytesMax })
    const bounds = { eventsMax: options.batchEventsMax, viewBytesMax: options.viewBytesMax }
    this.#fold = { projection, origin, partitions, hot, ...bounds, viewsMax: options.batchViewsMax }
  }

  get progress(): ProjectorState {
    return this.#progress
  }

  /** The last event entry that is committed, as this process knows it. */
  get checkpoint(): string {
    return this.#checkpoint
  }

  /** Monotonic ms of the last answer from Redis. */
  get lastAnswerMs(): number {
    return this.#lastAnswerMs
  }

  protected override async onStart(): Promise<void> {
    this.#loop = this.#run()
  }

  protected override async onStop(): Promise<void> {
    await this.#loop
  }

  async #run(): Promise<void> {
    const { clock, telemetry } = this.#setting
    let failures = 0
    while (!this.stopSignal.aborted) {
      try {
        const ending = await this.#own()
        failures = 0
        if (ending === 'conflicted') await this.#standBy()
        else if (ending !== 'ended') await this.#standStill(ending.position, ending.error)
      } catch (error) {
        if (this.stopSignal.aborted) return
        failures += 1
        this.#progress = 'unreachable'
        telemetry.emit('service.failed', { service: this.name, error: describeError(error) })
        const pauseMs = Math.min(REDIS_PAUSE_MAX_MS, 25 * 2 ** Math.min(failures, 7))
        await clock.sleep(pauseMs * (0.5 + clock.random()), this.stopSignal)
      }
    }
  }

  /** Folds from the stored checkpoint on, until somebody else commits, an event can't be folded, or it is told to stop. */
  async #own(): Promise<Ending> {
    const { log } = this.#setting
    this.#fold.hot.clear()
    const { incarnation } = log
    const opened = await this.#open()
    if (opened.state === 'gap') return { position: opened.checkpoint, error: gapError(this.#reader, opened) }
    while (!this.stopSignal.aborted) {
      const position = await log.next(this.#checkpoint)
      this.#lastAnswerMs = this.#setting.clock.monotonicMs()
      this.#progress = 'folding'
      const ending = position === undefined ? undefined : await this.#foldChunk(position, incarnation)
      if (ending !== undefined) return ending
      if (log.incarnation !== incarnation) return 'ended'
    }
    return 'ended'
  }

  async #open(): Promise<OpenedReader> {
    const { link, keys, clock, telemetry } = this.#setting
    const opened = await openReader(link, keys, this.#reader)
    this.#checkpoint = opened.checkpoint
    this.#lastAnswerMs = clock.monotonicMs()
    const detail = openingAlarm(opened.state, this.#reader, opened)
    if (detail !== undefined) {
      telemetry.emit('alarm.raised', { alarm: `events-${opened.state}`, stream: keys.stream, detail })
    }
    return opened
  }

  async #foldChunk({ chunk, from }: ChunkPosition, incarnation: number): Promise<Ending | undefined> {
    let next = from
    while (next < chunk.entries.length && !this.stopSignal.aborted) {
      const startedMs = this.#setting.clock.monotonicMs()
      const result = await this.#foldBatch(chunk, next)
      if ('fault' in result) return result.fault
      if (this.#setting.log.incarnation !== incarnation) return 'ended'
      if (!(await this.#commit(result.batch, startedMs))) return 'conflicted'
      next = result.batch.end
    }
    return undefined
  }

  /** Folds what it can from entry `from` on; a fault is one that stands at that very entry. */
  async #foldBatch(chunk: EventChunk, from: number): Promise<FoldResult> {
    const { projection, link, keys } = this.#setting
    let to = chunk.entries.length
    let careful = false
    for (;;) {
      const batch = new FoldBatch({ ...this.#fold, viewsMax: this.#viewsMax }, chunk, from, careful)
      let fault = batch.plan(to)
      if (fault === undefined) {
        const missing = batch.missing()
        if (missing.length > 0) batch.fill(await loadViews(link, keys, this.#reader, missing))
        fault = batch.fold() ?? batch.pack()
      }
      if (fault === undefined) return { batch }
      this.#fold.hot.clear()
      if (fault.skippable && projection.onError === 'skip-and-record' && !careful) careful = true
      else if (fault.entry > from) to = fault.entry
      else return { fault }
    }
  }

  async #commit(batch: FoldBatch, startedMs: number): Promise<boolean> {
    const { projection, link, keys, clock, telemetry, options } = this.#setting
    const { checkpoint } = batch
    const changes = batch.changes()
    const commit = { reader: this.#reader, expected: this.#checkpoint, checkpoint, changes }
    const committed = await commitViews(link, keys, commit)
    this.#lastAnswerMs = clock.monotonicMs()
    const where = { projection: projection.name, partition: keys.partition }
    if (!committed) {
      telemetry.emit('projection.conflicted', where)
      return false
    }
    this.#checkpoint = checkpoint
    this.#stopCount = 0
    batch.keep()
    const bytes = changes.written.reduce((sum, { blob }) => sum + blob.length, 0)
    if (bytes > 0) {
      const fitting = Math.floor((options.batchBytesMax * changes.written.length) / bytes)
      this.#viewsMax = Math.max(1, Math.min(options.batchViewsMax, fitting))
    }
    for (const { position, error } of changes.skipped) {
      telemetry.emit('projection.event-skipped', { ...where, position, error })
    }
    const { eventCount: events, viewCount: views } = batch
    const durationMs = clock.monotonicMs() - startedMs
    telemetry.emit('projection.committed', { ...where, events, views, durationMs })
    return true
  }

  /** Watches the one who committed, and returns when events wait and the checkpoint has stood still for `takeoverMs`. */
  async #standBy(): Promise<void> {
    const { clock, options } = this.#setting
    this.#fold.hot.clear()
    this.#progress = 'standby'
    let seen = ''
    let behindSinceMs = Number.POSITIVE_INFINITY
    for (;;) {
      await clock.sleep(options.takeoverMs * (0.3 + 0.3 * clock.random()), this.stopSignal)
      if (this.stopSignal.aborted) return
      const { checkpoint, lastEventId } = await this.#open()
      const nowMs = clock.monotonicMs()
      const isBehind = compareEntryIds(checkpoint, lastEventId) < 0
      if (!isBehind) behindSinceMs = Number.POSITIVE_INFINITY
      else if (checkpoint !== seen) behindSinceMs = nowMs
      else behindSinceMs = Math.min(behindSinceMs, nowMs)
      if (nowMs - behindSinceMs >= options.takeoverMs) return
      seen = checkpoint
    }
  }

  /** An event can't be folded: says so where readers see it, and tries again after a while, for a newer process may have gone on. */
  async #standStill(position: string, error: MillraceError): Promise<void> {
    const { clock, options, projection, link, keys, telemetry } = this.#setting
    this.#fold.hot.clear()
    this.#progress = 'stopped'
    const text = describeError(error)
    await stopReader(link, keys, this.#reader, this.#checkpoint, {
      position,
      error: text,
      atMs: clock.nowMs(),
    })
    if (this.#reported !== position) {
      this.#reported = position
      const where = { projection: projection.name, partition: keys.partition }
      telemetry.emit('projection.stopped', { ...where, position, error: text })
      telemetry.emit('alarm.raised', { alarm: 'projection-stopped', stream: keys.stream, detail: text })
    }
    const pauseMs = Math.min(
      options.stopPauseMaxMs,
      options.stopPauseMinMs * 2 ** Math.min(this.#stopCount, 16),
    )
    this.#stopCount += 1
    await clock.sleep(pauseMs * (0.8 + 0.4 * clock.random()), this.stopSignal)
  }
}

function openingAlarm(
  state: ReaderState,
  reader: string,
  { checkpoint, floor }: OpenedReader,
): string | undefined {
  switch (state) {
    case 'known':
    case 'new':
    case 'gap':
      return undefined
    case 'trimmed':
      return `"${reader}" is new, but events before ${floor} were trimmed: its views start there and miss what came before.`
    case 'behind':
      return `The event log ends before the checkpoint ${checkpoint} of "${reader}": Redis lost events that were folded. New events go on after the checkpoint.`
    default:
      return state satisfies never
  }
}

function gapError(reader: string, { checkpoint, floor }: OpenedReader): MillraceError {
  return new MillraceError(
    'fold.failed',
    `"${reader}" has read up to ${checkpoint}, but events before ${floor} were trimmed: what lies between is gone. Raise the projection's version to start a new view at ${floor}.`,
  )
}
