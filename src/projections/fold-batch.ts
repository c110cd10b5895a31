/**
 * One fold batch: some log entries, the views they touch, and what becomes of them. No I/O: the projector loads what is
 * missing and commits what comes out.
 *
 *   plan ──▶ (load missing views) ──▶ fold ──▶ pack ──▶ (commit) ──▶ keep
 *
 * A fold may change a view in place and then throw. So after any fault the batch and all views in memory are thrown away;
 * nothing half-folded is ever kept. With `skip-and-record` the batch is then folded again with care: each view is packed
 * before and after every event, so an event that fails leaves no trace but its record.
 */
import type { LRUCache } from 'lru-cache'
import { describeError, MillraceError } from '../contracts/errors.ts'
import type { Fold, ProjectionDefinition } from '../contracts/projection.ts'
import type { Tenant } from '../contracts/tenant.ts'
import { partitionOf } from '../policies/partition.ts'
import { scopedKey } from '../policies/scoped-key.ts'
import { type EventChunk, type EventOrigin, FoldedEvent, type LoggedEvent } from '../redis/event-log.ts'
import { packPayload, unpackPayload } from '../redis/payload-codec.ts'
import type { SkippedEvent, ViewChanges } from '../redis/view-store.ts'

/** A view in memory, between batches or in one. */
export interface HotView {
  /** With its tenant (`policies/scoped-key.ts`). */
  readonly key: string
  readonly tenant: Tenant
  /** As the fold names it. */
  readonly name: string
  /** Undefined: there is no such view. */
  value: unknown
  /** True when Redis has it. */
  stored: boolean
  /** msgpack bytes when last packed. */
  bytes: number
  /** What the cache was told about `bytes`. */
  accountedBytes: number
  packed: Buffer | undefined
  /** True from the first event of the present batch that names it until the batch is kept. */
  isTouched: boolean
  /** The last step of the present batch that changed it. */
  changedBy: Step | undefined
}

export type HotViews = LRUCache<string, HotView>

interface Step {
  readonly fold: Fold
  readonly logged: LoggedEvent
  readonly event: FoldedEvent
  readonly entry: number
  readonly views: readonly HotView[]
}

export interface FoldFault {
  /** Index in the chunk of the entry that can't be folded. */
  readonly entry: number
  readonly position: string
  readonly error: MillraceError
  /** False for events that a newer process may be able to fold. */
  readonly skippable: boolean
}

export interface FoldSetting {
  readonly projection: ProjectionDefinition
  readonly origin: EventOrigin
  readonly partitions: number
  readonly hot: HotViews
  /** Bounds of a batch; the entry that reaches one is folded whole. */
  readonly eventsMax: number
  readonly viewsMax: number
  readonly viewBytesMax: number
}

export const VIEW_KEY_BYTES_MAX = 512

export class FoldBatch {
  readonly #setting: FoldSetting
  readonly #chunk: EventChunk
  readonly #from: number
  readonly #careful: boolean
  readonly #fresh = new Map<string, HotView>()
  readonly #touched: HotView[] = []
  readonly #isCrowded: boolean
  readonly #steps: Step[] = []
  readonly #skipped: SkippedEvent[] = []
  /** Index of the first entry that is not in the batch. */
  end: number

  constructor(setting: FoldSetting, chunk: EventChunk, from: number, careful: boolean) {
    this.#setting = setting
    this.#chunk = chunk
    this.#from = from
    this.#careful = careful
    this.end = from
    this.#isCrowded = isCrowded(setting.hot)
  }

  /** The last entry of the batch. */
  get checkpoint(): string {
    return this.#chunk.entries[this.end - 1]?.id ?? this.#chunk.after
  }

  get eventCount(): number {
    return this.#steps.length
  }

  get viewCount(): number {
    return this.#touched.length
  }

  /** Asks which views each event touches. Takes entries before `to`, until a bound is reached or one can't be folded. */
  plan(to: number): FoldFault | undefined {
    const { eventsMax, viewsMax } = this.#setting
    const { entries } = this.#chunk
    for (let entry = this.#from; entry < to; entry++) {
      const { id = '', events = [] } = entries[entry] ?? {}
      const stepsBefore = this.#steps.length
      for (let index = 0; index < events.length; index++) {
        const logged = events[index]
        const fault = logged === undefined ? undefined : this.#planEvent(logged, entry, `${id}/${index}`)
        if (fault === undefined) continue
        this.#steps.length = stepsBefore
        return entry === this.#from ? fault : undefined
      }
      this.end = entry + 1
      if (this.#steps.length >= eventsMax || this.#touched.length >= viewsMax) return undefined
    }
    return undefined
  }

  #planEvent(logged: LoggedEvent, entry: number, position: string): FoldFault | undefined {
    const { projection, origin } = this.#setting
    const { header, token } = logged
    if (header === undefined) return unreadable(logged, entry, position)
    const fold = projection.folds.get(header.type)
    if (fold === undefined) return undefined
    if (header.version > fold.event.version) {
      const text = `The event has version ${header.version} of "${header.type}", this process knows ${fold.event.version}. Run a process with the newer definition.`
      return { entry, position, error: new MillraceError('fold.failed', text), skippable: false }
    }
    try {
      const event = new FoldedEvent(origin, position, token, header)
      const views = this.#viewsOf(fold, event)
      if (views.length > 0) this.#steps.push({ fold, logged, event, entry, views })
      return undefined
    } catch (thrown) {
      const error = foldError(projection.name, header.type, position, thrown)
      if (projection.onError === 'stop') return { entry, position, error, skippable: true }
      this.#skip(logged, position, error)
      return undefined
    }
  }

  #viewsOf(fold: Fold, event: FoldedEvent): readonly HotView[] {
    const keys: unknown = fold.keys(event)
    const { tenant } = event
    if (typeof keys === 'string') return [this.#view(keys, tenant)]
    if (keys === undefined) return []
    if (!Array.isArray(keys)) {
      throw new MillraceError(
        'fold.failed',
        'The view keys of an event are a string, a list of strings, or undefined.',
      )
    }
    return keys.length < 2
      ? keys.map((key) => this.#view(key, tenant))
      : [...new Set(keys)].map((key) => this.#view(key, tenant))
  }

  #view(name: string, tenant: Tenant): HotView {
    const { hot } = this.#setting
    const key = scopedKey(tenant, name)
    const known = (this.#isCrowded ? hot.get(key) : hot.peek(key)) ?? this.#fresh.get(key)
    // A name is checked when it is new: until then it may be anything, also the key of a tenant's view.
    if (known !== undefined && known.tenant === tenant && typeof name === 'string') {
      if (known.isTouched) return known
      known.isTouched = true
      this.#touched.push(known)
      return known
    }
    this.#checkKey(name, tenant)
    const view: HotView = {
      key,
      tenant,
      name,
      value: undefined,
      stored: false,
      bytes: 0,
      accountedBytes: 0,
      packed: undefined,
      isTouched: true,
      changedBy: undefined,
    }
    this.#fresh.set(key, view)
    this.#touched.push(view)
    return view
  }

  #checkKey(key: unknown, tenant: Tenant): void {
    if (typeof key !== 'string' || key === '' || !key.isWellFormed()) {
      throw new MillraceError('fold.failed', 'A view key must be a non-empty string of well-formed Unicode.')
    }
    if (key.length * 3 > VIEW_KEY_BYTES_MAX && Buffer.byteLength(key) > VIEW_KEY_BYTES_MAX) {
      throw new MillraceError('fold.failed', `A view key has at most ${VIEW_KEY_BYTES_MAX} bytes.`)
    }
    const { projection, partitions, origin } = this.#setting
    if (projection.merge !== undefined || partitions === 1) return
    const home = partitionOf(projection.partitionKey?.(key) ?? key, partitions, tenant)
    if (home === origin.partition) return
    throw new MillraceError(
      'fold.failed',
      `View key ${JSON.stringify(key)} is read from partition ${home} of stream "${origin.stream}", but the event is in partition ${origin.partition}. Key the view as the command is keyed, declare "partitionKey", or declare "merge" for views fed from several partitions.`,
    )
  }

  /** Views that are not in memory; hand their msgpack, in this order, to `fill`. */
  missing(): string[] {
    return [...this.#fresh.keys()]
  }

  fill(blobs: readonly (Buffer | undefined)[]): void {
    let at = 0
    for (const view of this.#fresh.values()) {
      const blob = blobs[at++]
      if (blob === undefined) continue
      view.value = unpackPayload(blob)
      view.stored = true
      view.bytes = blob.length
    }
  }

  /** Folds every event. After a fault, drop this batch and the views in memory. */
  fold(): FoldFault | undefined {
    for (const step of this.#steps) {
      const restore = this.#careful ? step.views.map(snapshot) : undefined
      try {
        this.#foldStep(step)
        if (restore !== undefined) for (const view of step.views) this.#pack(view)
      } catch (thrown) {
        const fault = this.#faultOf(step, thrown)
        if (restore === undefined) return fault
        for (const undo of restore) undo()
        this.#skip(step.logged, fault.position, fault.error)
      }
    }
    return undefined
  }

  #foldStep(step: Step): void {
    const { projection } = this.#setting
    const { fold, views } = step
    let event = step.event
    for (let i = 0; i < views.length; i++) {
      const view = views[i]
      if (view === undefined) continue
      if (i > 0 && step.logged.header !== undefined) event = event.fresh(step.logged.header)
      const before = view.value === undefined ? initialView(projection, view.name) : view.value
      const after: unknown = fold.fold(before, event)
      if (after === undefined || after instanceof Promise) {
        const what = after === undefined ? 'undefined' : 'a promise'
        throw new MillraceError(
          'fold.failed',
          `The fold returned ${what}: return the view, or null to delete it.`,
        )
      }
      view.value = after === null ? undefined : after
      view.packed = undefined
      view.changedBy = step
    }
  }

  /** Packs every changed view. */
  pack(): FoldFault | undefined {
    for (const view of this.#touched) {
      if (view.changedBy === undefined) continue
      try {
        this.#pack(view)
      } catch (thrown) {
        return this.#faultOf(view.changedBy, thrown)
      }
    }
    return undefined
  }

  #pack(view: HotView): void {
    if (view.value === undefined || view.packed !== undefined) return
    const blob = packPayload(view.value)
    if (blob.length > this.#setting.viewBytesMax) {
      throw new MillraceError(
        'fold.failed',
        `View ${JSON.stringify(view.name)} would have ${blob.length} bytes, at most ${this.#setting.viewBytesMax} are allowed. Keep less in one view.`,
      )
    }
    view.packed = blob
  }

  changes(): ViewChanges {
    const written: { key: string; blob: Buffer; isNew: boolean }[] = []
    const deleted: string[] = []
    for (const { key, packed, stored, value, changedBy } of this.#touched) {
      if (changedBy === undefined) continue
      if (value !== undefined && packed !== undefined) written.push({ key, blob: packed, isNew: !stored })
      else if (stored) deleted.push(key)
    }
    return { written, deleted, skipped: this.#skipped }
  }

  /**
   * After the commit: keeps the views in memory. A new view is kept as it was stored, so that a value that msgpack does not
   * give back as it was (a Map, a class) shows with the second event and not with the next restart.
   */
  keep(): void {
    const { hot } = this.#setting
    for (const view of this.#touched) {
      view.changedBy = undefined
      view.isTouched = false
      if (view.value === undefined) {
        hot.delete(view.key)
        continue
      }
      if (view.packed !== undefined) {
        view.bytes = view.packed.length
        if (!view.stored) view.value = unpackPayload(view.packed)
        view.stored = true
        view.packed = undefined
      }
      if (view.accountedBytes > 0 && view.bytes < 2 * view.accountedBytes) continue
      view.accountedBytes = Math.max(1, view.bytes)
      hot.set(view.key, view, { size: view.accountedBytes })
    }
  }

  #skip(logged: LoggedEvent, position: string, error: MillraceError): void {
    this.#skipped.push({ position, error: describeError(error), blob: logged.blob })
  }

  #faultOf(step: Step, thrown: unknown): FoldFault {
    const { position, type } = step.event
    const error = foldError(this.#setting.projection.name, type, position, thrown)
    return { entry: step.entry, position, error, skippable: true }
  }
}

/** While there is room for as much again nothing leaves, and who was used last need not be known. */
function isCrowded({ size, max, calculatedSize, maxSize }: HotViews): boolean {
  return 2 * size > max || 2 * calculatedSize > maxSize
}

/** A view of its own, whatever `initial` hands out. */
function initialView(projection: ProjectionDefinition, key: string): unknown {
  const initial: unknown = projection.initial(key)
  if (initial === undefined || initial === null) {
    throw new MillraceError(
      'fold.failed',
      '"initial" returned nothing: return the view before its first event.',
    )
  }
  return typeof initial === 'object' ? unpackPayload(packPayload(initial)) : initial
}

/** Remembers a view as bytes; the function it returns puts it back. */
function snapshot(view: HotView): () => void {
  const { changedBy, packed } = view
  const bytes = view.value === undefined ? undefined : (packed ?? packPayload(view.value))
  return () => {
    view.value = bytes === undefined ? undefined : unpackPayload(bytes)
    view.packed = packed
    view.changedBy = changedBy
  }
}

function unreadable(logged: LoggedEvent, entry: number, position: string): FoldFault {
  const error = logged.fault ?? new MillraceError('entry.unreadable', 'An event could not be read.')
  return { entry, position, error, skippable: false }
}

function foldError(projection: string, type: string, position: string, cause: unknown): MillraceError {
  const text = `Projection "${projection}" could not fold "${type}" at ${position}: ${describeError(cause)}`
  return new MillraceError('fold.failed', text, { cause })
}
