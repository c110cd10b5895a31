/**
 * Views in the memory of this process (L1), each valid as long as every commit since its load is known not to touch it.
 *
 * Commit notices of a partition form a chain: each tells the checkpoint before and after. A notice that does not join on
 * to the last one, or a lost connection, ends an epoch of that partition, and with it everything cached from it. A notice
 * that comes while a view is being loaded forbids keeping what was loaded. And notices are trusted only for two seconds
 * after a ping was sent that came back by the same way; without trust nothing is served from here, and nothing is kept.
 *
 * A view from Redis always replaces what is cached under its key, so within one process a view never goes backwards.
 */
import { LRUCache } from 'lru-cache'
import { compareEntryIds } from '../redis/bytes.ts'
import type { CommitNotice } from '../redis/view-store.ts'

/** A view as read from Redis. Read-only: everyone who asks gets the same object. */
export interface LoadedView {
  /** Undefined: there is no such view. */
  readonly value: unknown
  readonly etag: string | undefined
  /** Checkpoint of each partition it was read from, in the order of its partitions. */
  readonly checkpoints: readonly string[]
  readonly bytes: number
}

/** Where a view is cached, and what it was loaded from. Keys in here are with their tenants (`policies/scoped-key.ts`). */
export interface ViewPlace {
  readonly id: string
  readonly reader: string
  readonly partitions: readonly number[]
}

export function viewPlace(reader: string, key: string, partitions: readonly number[]): ViewPlace {
  return { id: viewId(reader, key), reader, partitions }
}

interface CachedView {
  /** Another object only when something in it is different. */
  view: LoadedView
  readonly epochs: number
}

/** What is known of one partition of one projection. */
interface Watch {
  /** Checkpoint after the last notice; undefined until the first notice or load. */
  seen: string | undefined
  epoch: number
}

export interface Load {
  readonly id: string
  readonly watches: readonly Watch[]
  readonly epochs: number
  readonly trusted: boolean
}

interface RunningLoads {
  count: number
  dirty: boolean
}

export interface ViewCacheOptions {
  readonly viewsMax: number
  /** msgpack bytes of the cached views and their keys. */
  readonly bytesMax: number
  readonly trustMs: number
  readonly monotonicMs: () => number
}

const ENTRY_BYTES = 200

export class ViewCache {
  readonly #options: ViewCacheOptions
  readonly #views: LRUCache<string, CachedView>
  readonly #watches = new Map<string, Watch[]>()
  readonly #running = new Map<string, RunningLoads>()
  #trustedUntilMs = Number.NEGATIVE_INFINITY

  constructor(options: ViewCacheOptions) {
    this.#options = options
    this.#views = new LRUCache({ max: options.viewsMax, maxSize: options.bytesMax })
  }

  watch(reader: string, partitions: number): void {
    const watches = Array.from({ length: partitions }, (): Watch => ({ seen: undefined, epoch: 0 }))
    this.#watches.set(reader, watches)
  }

  get trusted(): boolean {
    return this.#options.monotonicMs() < this.#trustedUntilMs
  }

  /** The checkpoint up to which all notices of this partition are known; undefined without trust. */
  seen(reader: string, partition: number): string | undefined {
    return this.trusted ? this.#watches.get(reader)?.[partition]?.seen : undefined
  }

  /** A ping that was sent at this monotonic ms has come back: all notices published before it have arrived. */
  proven(sentMs: number): void {
    this.#trustedUntilMs = Math.max(this.#trustedUntilMs, sentMs + this.#options.trustMs)
  }

  /** Notices may have been missed. */
  lost(): void {
    this.#trustedUntilMs = Number.NEGATIVE_INFINITY
    for (const watches of this.#watches.values()) {
      for (const watch of watches) {
        watch.seen = undefined
        watch.epoch += 1
      }
    }
  }

  committed(reader: string, partition: number, { previous, checkpoint, keys }: CommitNotice): void {
    const watch = this.#watches.get(reader)?.[partition]
    if (watch === undefined) return
    const { seen } = watch
    if (seen !== undefined && compareEntryIds(checkpoint, seen) <= 0) return
    watch.seen = checkpoint
    if (keys === undefined || previous !== seen) {
      watch.epoch += 1
      return
    }
    for (const key of keys) {
      const id = viewId(reader, key)
      this.#views.delete(id)
      const running = this.#running.get(id)
      if (running !== undefined) running.dirty = true
    }
  }

  /** The cached view, with the checkpoints up to which it is known to be current; undefined when it must be loaded. */
  get({ id, reader, partitions }: ViewPlace): LoadedView | undefined {
    if (!this.trusted) return undefined
    const cached = this.#views.get(id)
    if (cached === undefined) return undefined
    const watches = this.#watches.get(reader) ?? []
    let epochs = 0
    for (const partition of partitions) epochs += watches[partition]?.epoch ?? 0
    if (epochs !== cached.epochs) {
      this.#views.delete(id)
      return undefined
    }
    const { checkpoints } = cached.view
    for (let i = 0; i < checkpoints.length; i++) {
      const loaded = checkpoints[i] ?? ''
      if (newer(loaded, seenOf(watches, partitions, i)) === loaded) continue
      const current = checkpoints.map((at, j) => newer(at, seenOf(watches, partitions, j)))
      cached.view = { ...cached.view, checkpoints: current }
      break
    }
    return cached.view
  }

  /** Announces a load; end it with `finish` or `abandon`. */
  begin({ id, reader, partitions }: ViewPlace): Load {
    const running = this.#running.get(id)
    if (running === undefined) this.#running.set(id, { count: 1, dirty: false })
    else running.count += 1
    const watches = this.#watchesOf(reader, partitions)
    return { id, watches, epochs: epochSum(watches), trusted: this.trusted }
  }

  /** Keeps the loaded view, if nothing says that it may already be old. */
  finish(load: Load, view: LoadedView): void {
    const dirty = this.#end(load)
    const current = load.trusted && !dirty && epochSum(load.watches) === load.epochs
    if (!current || view.value === undefined) {
      this.#views.delete(load.id)
      return
    }
    load.watches.forEach((watch, i) => {
      watch.seen ??= view.checkpoints[i]
    })
    const size = view.bytes + load.id.length + ENTRY_BYTES
    this.#views.set(load.id, { view, epochs: load.epochs }, { size })
  }

  abandon(load: Load): void {
    this.#end(load)
  }

  /** A view was read from Redis by another way, at this checkpoint: an older one must not be served from here. */
  overtake(reader: string, key: string, partition: number, checkpoint: string): void {
    const seen = this.#watches.get(reader)?.[partition]?.seen
    if (seen !== undefined && compareEntryIds(checkpoint, seen) <= 0) return
    this.#views.delete(viewId(reader, key))
  }

  #end(load: Load): boolean {
    const running = this.#running.get(load.id)
    if (running === undefined) return true
    running.count -= 1
    if (running.count === 0) this.#running.delete(load.id)
    return running.dirty
  }

  #watchesOf(reader: string, partitions: readonly number[]): readonly Watch[] {
    const watches = this.#watches.get(reader) ?? []
    const found: Watch[] = []
    for (const partition of partitions) {
      const watch = watches[partition]
      if (watch !== undefined) found.push(watch)
    }
    return found
  }
}

function viewId(reader: string, key: string): string {
  return `${reader} ${key}`
}

function seenOf(watches: readonly Watch[], partitions: readonly number[], at: number): string | undefined {
  return watches[partitions[at] ?? -1]?.seen
}

/** Epochs only grow, so their sum changes when any of them does. */
function epochSum(watches: readonly Watch[]): number {
  let sum = 0
  for (const watch of watches) sum += watch.epoch
  return sum
}

function newer(a: string, b: string | undefined): string {
  return b !== undefined && compareEntryIds(b, a) > 0 ? b : a
}
