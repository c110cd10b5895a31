/**
 * Reads views: one by key or a page in key order, from this process's cache or from Redis, and on request not before the
 * effects of a given command are in them.
 *
 * A view without `merge` lies in the partition of its key. A view with `merge` is joined from all partitions. Every answer
 * carries its position: the checkpoint of each partition it was read from, as `<partition>:<entry id>`, comma separated.
 *
 * Every read is one of a tenant, or of none, and sees that one's views alone.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { HealthReport, HealthSource } from '../contracts/health.ts'
import { checkKnownOptions } from '../contracts/names.ts'
import type { ProjectionDefinition } from '../contracts/projection.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { checkTenant, NO_TENANT, type Tenant } from '../contracts/tenant.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import { partitionOf } from '../policies/partition.ts'
import { scopedKey } from '../policies/scoped-key.ts'
import { compareEntryIds } from '../redis/bytes.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { CommandState } from '../redis/command-log.ts'
import { CommitFeed } from '../redis/commit-feed.ts'
import type { RedisLink, RedisLinks } from '../redis/connection.ts'
import { partitionKeys } from '../redis/keys.ts'
import { readerName, readViews } from '../redis/view-store.ts'
import { type Clock, randomId } from '../runtime/clock.ts'
import { PeriodicService, Service } from '../runtime/service.ts'
import { VIEW_KEY_BYTES_MAX } from './fold-batch.ts'
import { type LoadedView, ViewCache, type ViewPlace, viewPlace } from './view-cache.ts'
import { type PageOptions, type ViewPage, ViewPages } from './view-pages.ts'
import { formatPosition, joinParts } from './view-parts.ts'
import { ViewWait } from './view-wait.ts'

export interface ViewReaderOptions {
  /** Views kept in this process; 0 turns the cache off. */
  readonly cachedViewsMax: number
  /** msgpack bytes; as objects they take several times that. */
  readonly cachedBytesMax: number
  /** How long a read with `after` waits unless it says otherwise, and at most. */
  readonly waitDefaultMs: number
  readonly waitMaxMs: number
  /** How long notices are trusted after a ping was sent that came back. */
  readonly trustMs: number
}

const VIEW_READER_DEFAULTS: ViewReaderOptions = {
  cachedViewsMax: 50_000,
  cachedBytesMax: 32 * 1024 * 1024,
  waitDefaultMs: 10_000,
  waitMaxMs: 30_000,
  trustMs: 2000,
}

export interface ViewReaderDeps {
  readonly links: RedisLinks
  readonly command: RedisLink
  readonly catalogue: Catalogue
  readonly ids: CommandIds
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly options?: Partial<ViewReaderOptions>
}

export interface ReadOptions {
  /** Whose view. Default none. */
  readonly tenant?: Tenant | undefined
  /** Id of a command whose effects the view must hold. */
  readonly after?: string | undefined
  readonly waitMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

export interface ViewAnswer {
  /** Undefined: there is no such view. Read-only, and the same object while the view is cached. */
  readonly value: unknown
  /** Strong entity tag without quotes: version of the fold, and a hash of the content. */
  readonly etag: string | undefined
  readonly position: string
  readonly cached: boolean
  /** What became of the command in `after`; anything but `done` has no effects to wait for. */
  readonly afterState: CommandState | undefined
}

const PINGS_PER_TRUST = 4

interface NamedProjection {
  readonly projection: ProjectionDefinition
  readonly reader: string
}

/** A view by its key, and all that is known of it without reading it. */
export interface ViewAddress extends ViewPlace {
  readonly projection: ProjectionDefinition
  readonly tenant: Tenant
  /** With its tenant (`policies/scoped-key.ts`). */
  readonly key: string
}

export class ViewReader extends Service implements HealthSource {
  readonly #deps: ViewReaderDeps
  readonly #options: ViewReaderOptions
  readonly #cache: ViewCache
  readonly #wait: ViewWait
  readonly #pages: ViewPages
  readonly #flights = new Map<string, Promise<LoadedView>>()
  readonly #projections = new Map<string, NamedProjection>()
  readonly #held = new WeakMap<LoadedView, ViewAnswer>()
  #subscriber: RedisLink | undefined
  #pings: PeriodicService | undefined

  constructor(deps: ViewReaderDeps) {
    super('view reader')
    this.#deps = deps
    checkKnownOptions('ViewReader', deps.options ?? {}, Object.keys(VIEW_READER_DEFAULTS))
    this.#options = { ...VIEW_READER_DEFAULTS, ...deps.options }
    const { cachedViewsMax, cachedBytesMax, trustMs } = this.#options
    this.#cache = new ViewCache({
      viewsMax: Math.max(1, cachedViewsMax),
      bytesMax: Math.max(1, cachedViewsMax === 0 ? 1 : cachedBytesMax),
      trustMs,
      monotonicMs: deps.clock.monotonicMs,
    })
    this.#wait = new ViewWait(deps, this.#cache, this.stopSignal)
    this.#pages = new ViewPages(deps.command, this.#cache)
    for (const projection of deps.catalogue.projections.values()) {
      const reader = readerName(projection)
      this.#projections.set(projection.name, { projection, reader })
      this.#cache.watch(reader, this.#partitionsOf(projection))
    }
  }

  /**
   * Where a view is to be found. It stays true: keep it where the same view is asked for again and again.
   *
   * @throws MillraceError `view.unknown-projection`, `command.malformed` for what is no tenant's name
   */
  address(name: string, key: string, tenant: Tenant = NO_TENANT): ViewAddress {
    const { projection, reader } = this.#named(name)
    if (tenant !== NO_TENANT) checkTenant(tenant)
    const places = this.#placesOf(projection, key, tenant)
    // What lies nowhere may be spelt like the key of a tenant's view.
    const scoped = places.length === 0 ? '' : scopedKey(tenant, key)
    return { ...viewPlace(reader, scoped, places), projection, tenant, key: scoped }
  }

  /**
   * The view, if it lies in the memory of this process and is known to be current: the same object each time, as long as
   * nothing in it changed.
   */
  held(address: ViewAddress): ViewAnswer | undefined {
    const view = this.#cache.get(address)
    if (view === undefined) return undefined
    this.#deps.telemetry.emit('view.read', { projection: address.projection.name, cached: true })
    const known = this.#held.get(view)
    if (known !== undefined) return known
    const { value, etag } = view
    const position = formatPosition(address.partitions, view.checkpoints)
    const answer = { value, etag, position, cached: true, afterState: undefined }
    this.#held.set(view, answer)
    return answer
  }

  /**
   * One view. With `after` it waits until the view holds the effects of that command, at most `waitMs`.
   *
   * @throws MillraceError `view.unknown-projection`, `command.malformed` and `not-found` for a wrong command id,
   *   `projection.not-over-stream`, `projection.stopped`, `view.wait-timeout`, `redis.unavailable`, `redis.unknown`
   */
  async read(name: string, key: string, options: ReadOptions = {}): Promise<ViewAnswer> {
    const { after, signal, tenant = NO_TENANT } = options
    const address = this.address(name, key, tenant)
    const { projection, partitions } = address
    const waitMs = Math.min(
      this.#options.waitMaxMs,
      Math.max(0, options.waitMs ?? this.#options.waitDefaultMs),
    )
    const passage =
      after === undefined ? undefined : await this.#wait.pass(projection, after, tenant, { waitMs, signal })
    const cached = this.#cache.get(address)
    const at = passage === undefined ? -1 : partitions.indexOf(passage.partition)
    const isOlder =
      at >= 0 && compareEntryIds(cached?.checkpoints[at] ?? '0-0', passage?.eventId ?? '0-0') < 0
    const hit = isOlder ? undefined : cached
    const view = hit ?? (await this.#load(address, passage !== undefined))
    this.#deps.telemetry.emit('view.read', { projection: name, cached: hit !== undefined })
    const position = formatPosition(partitions, view.checkpoints)
    const { value, etag } = view
    return { value, etag, position, cached: hit !== undefined, afterState: passage?.state }
  }

  /**
   * A page of views in the byte order of their keys.
   *
   * @throws MillraceError `view.unknown-projection`, `cursor.invalid`, `command.malformed` for a limit out of bounds
   */
  async page(name: string, options: PageOptions = {}): Promise<ViewPage> {
    const { projection } = this.#named(name)
    return await this.#pages.read(projection, this.#partitionsOf(projection), options)
  }

  health(): HealthReport {
    const cache = this.#cache.trusted
      ? 'views are served from memory'
      : 'notices are not proven: every view is read from Redis'
    return { ready: this.state === 'running', detail: `${cache}.` }
  }

  protected override async onStart(): Promise<void> {
    const { links, command, clock, telemetry, catalogue } = this.#deps
    const subscriber = links.open('subscriber')
    this.#subscriber = subscriber
    const feed = new CommitFeed(subscriber, command, randomId(), {
      onCommit: ({ partition }, reader, notice) => {
        this.#cache.committed(reader, partition, notice)
        this.#wait.wake(reader, partition)
      },
      onPing: (sentMs) => this.#cache.proven(sentMs),
      onLost: () => this.#cache.lost(),
    })
    const topics = [...catalogue.projections.values()].flatMap((projection) =>
      this.#allPartitions(projection).map((partition) => ({
        keys: partitionKeys(projection.stream, partition),
        reader: readerName(projection),
      })),
    )
    let subscribed = false
    const pauseMs = this.#options.trustMs / PINGS_PER_TRUST
    const pauses = { pauseMinMs: pauseMs, pauseMaxMs: pauseMs }
    this.#pings = new PeriodicService({ name: 'view notices', clock, telemetry, ...pauses }, async () => {
      if (!subscribed) await feed.subscribe(topics)
      subscribed = true
      await feed.ping(Math.floor(clock.monotonicMs()))
      return undefined
    })
    await this.#pings.start()
  }

  protected override async onStop(): Promise<void> {
    if (this.#subscriber !== undefined) this.#deps.links.close(this.#subscriber)
    await this.#pings?.stop()
  }

  /** From Redis. Readers of one view share a load, unless they need one that starts now. */
  #load(address: ViewAddress, startsNow: boolean): Promise<LoadedView> {
    const { id } = address
    const flight = this.#flights.get(id)
    if (flight !== undefined && !startsNow) return flight
    const loading = this.#loadNow(address).finally(() => {
      if (this.#flights.get(id) === loading) this.#flights.delete(id)
    })
    this.#flights.set(id, loading)
    return loading
  }

  async #loadNow(address: ViewAddress): Promise<LoadedView> {
    const { projection, reader, key, partitions } = address
    const load = this.#cache.begin(address)
    try {
      const stored = await Promise.all(
        partitions.map((partition) =>
          readViews(this.#deps.command, partitionKeys(projection.stream, partition), reader, [key]),
        ),
      )
      const blobs = stored.flatMap((part) => part.blobs[0] ?? [])
      const checkpoints = stored.map(({ checkpoint }) => checkpoint)
      const bytes = blobs.reduce((sum, blob) => sum + blob.length, 0)
      const view = { ...joinParts(projection, blobs), checkpoints, bytes }
      this.#cache.finish(load, view)
      return view
    } catch (error) {
      this.#cache.abandon(load)
      throw error
    }
  }

  #named(name: string): NamedProjection {
    const named = this.#projections.get(name)
    if (named !== undefined) return named
    throw new MillraceError('view.unknown-projection', 'There is no projection of this name.')
  }

  #partitionsOf(projection: ProjectionDefinition): number {
    return this.#deps.catalogue.streams.get(projection.stream)?.partitions ?? 1
  }

  #allPartitions(projection: ProjectionDefinition): number[] {
    return Array.from({ length: this.#partitionsOf(projection) }, (_, partition) => partition)
  }

  /** Where the view lies; nowhere for a key that no fold could have written. */
  #placesOf(projection: ProjectionDefinition, key: string, tenant: Tenant): readonly number[] {
    if (key === '' || !key.isWellFormed() || Buffer.byteLength(key) > VIEW_KEY_BYTES_MAX) return []
    if (projection.merge !== undefined) return this.#allPartitions(projection)
    try {
      return [partitionOf(projection.partitionKey?.(key) ?? key, this.#partitionsOf(projection), tenant)]
    } catch {
      return []
    }
  }
}
