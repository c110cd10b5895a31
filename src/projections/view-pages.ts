/**
 * Pages of views in the byte order of their keys, over all partitions of a projection.
 *
 * A cursor names the key it stands at, and the list it belongs to: projection, version, prefix, direction and tenant. Keys that
 * are there during the whole walk come exactly once; what is created or deleted meanwhile may be seen or not.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { ProjectionDefinition } from '../contracts/projection.ts'
import { checkTenant, NO_TENANT, type Tenant } from '../contracts/tenant.ts'
import { mergePages } from '../policies/merge-pages.ts'
import { partitionOf } from '../policies/partition.ts'
import { scopedKey } from '../policies/scoped-key.ts'
import type { RedisLink } from '../redis/connection.ts'
import { type PartitionKeys, partitionKeys } from '../redis/keys.ts'
import { keyFromStored } from '../redis/view-keys.ts'
import { pageViewKeys, readerName, readViews } from '../redis/view-store.ts'
import { VIEW_KEY_BYTES_MAX } from './fold-batch.ts'
import type { ViewCache } from './view-cache.ts'
import { formatPosition, joinParts } from './view-parts.ts'

export type PageDirection = 'forward' | 'backward'

export interface PageOptions {
  /** Whose views. Default none: those that have no tenant. */
  readonly tenant?: Tenant | undefined
  /** 1-500. Default 50. */
  readonly limit?: number | undefined
  /** From `next` or `prev` of another page of the same list. */
  readonly cursor?: string | undefined
  /** Order of the list: `forward` ascending (default), `backward` descending. */
  readonly direction?: PageDirection | undefined
  /** Only keys that start with this. Default: all. */
  readonly prefix?: string | undefined
}

export interface PagedView {
  readonly key: string
  readonly value: unknown
  readonly etag: string
}

export interface ViewPage {
  readonly data: readonly PagedView[]
  /** Cursors, where there is more. */
  readonly next: string | undefined
  readonly prev: string | undefined
  /** Checkpoint of every partition, as `<partition>:<entry id>`, comma separated. */
  readonly position: string
}

const LIMIT_DEFAULT = 50
const LIMIT_MAX = 500

interface List {
  readonly reader: string
  readonly tenant: Tenant
  readonly prefix: string
  readonly direction: PageDirection
}

interface Cursor {
  /** Where to go from `key`, along the list or against it. */
  readonly way: 'next' | 'prev'
  readonly key: string
}

export class ViewPages {
  readonly #command: RedisLink
  readonly #cache: ViewCache

  constructor(command: RedisLink, cache: ViewCache) {
    this.#command = command
    this.#cache = cache
  }

  /** @throws MillraceError `cursor.invalid`, `command.malformed`, `redis.unavailable`, `redis.unknown` */
  async read(projection: ProjectionDefinition, partitions: number, options: PageOptions): Promise<ViewPage> {
    const { limit = LIMIT_DEFAULT, prefix = '', direction = 'forward' } = options
    const tenant = checkTenant(options.tenant ?? NO_TENANT)
    if (!Number.isInteger(limit) || limit < 1 || limit > LIMIT_MAX) {
      throw new MillraceError('command.malformed', `"limit" must be a whole number from 1 to ${LIMIT_MAX}.`)
    }
    if (Buffer.byteLength(prefix) > VIEW_KEY_BYTES_MAX || !prefix.isWellFormed()) {
      const wanted = `at most ${VIEW_KEY_BYTES_MAX} bytes of well-formed Unicode`
      throw new MillraceError('command.malformed', `"prefix" has ${wanted}.`)
    }
    const list = { reader: readerName(projection), tenant, prefix, direction }
    const cursor = options.cursor === undefined ? undefined : readCursor(options.cursor, list)
    const places = Array.from({ length: partitions }, (_, partition) =>
      partitionKeys(projection.stream, partition),
    )
    const found = await this.#keys(places, list, cursor, limit + 1)
    const hasMore = found.length > limit
    const before = scopedKey(tenant, '').length
    const keys = found.slice(0, limit).map((key) => keyFromStored(key).slice(before))
    if (cursor?.way === 'prev') keys.reverse()
    const { data, position } = await this.#views(projection, places, tenant, keys)
    const [first, last] = [keys[0], keys.at(-1)]
    const isBefore = cursor?.way === 'prev' ? hasMore : cursor !== undefined
    const isBehind = cursor?.way === 'prev' ? true : hasMore
    return {
      data,
      position,
      next: isBehind && last !== undefined ? formatCursor(list, { way: 'next', key: last }) : undefined,
      prev: isBefore && first !== undefined ? formatCursor(list, { way: 'prev', key: first }) : undefined,
    }
  }

  async #keys(
    places: readonly PartitionKeys[],
    list: List,
    cursor: Cursor | undefined,
    countMax: number,
  ): Promise<Buffer[]> {
    const direction = cursor?.way === 'prev' ? opposite(list.direction) : list.direction
    const { tenant, prefix } = list
    const beyond = cursor && scopedKey(tenant, cursor.key)
    const range = { prefix: scopedKey(tenant, prefix), beyond, direction, countMax }
    const lists = await Promise.all(
      places.map((keys) => pageViewKeys(this.#command, keys, list.reader, range)),
    )
    return mergePages(lists, direction, countMax)
  }

  async #views(
    projection: ProjectionDefinition,
    places: readonly PartitionKeys[],
    tenant: Tenant,
    keys: readonly string[],
  ): Promise<{ data: PagedView[]; position: string }> {
    const reader = readerName(projection)
    const wanted = keysByPartition(projection, places.length, tenant, keys)
    const stored = await Promise.all(
      places.map((place, partition) => {
        const scoped = (wanted[partition] ?? []).map((key) => scopedKey(tenant, key))
        return readViews(this.#command, place, reader, scoped)
      }),
    )
    const parts = new Map<string, Buffer[]>(keys.map((key) => [key, []]))
    stored.forEach(({ blobs, checkpoint }, partition) => {
      wanted[partition]?.forEach((key, i) => {
        const blob = blobs[i]
        if (blob !== undefined) parts.get(key)?.push(blob)
        this.#cache.overtake(reader, scopedKey(tenant, key), partition, checkpoint)
      })
    })
    const data: PagedView[] = []
    for (const [key, blobs] of parts) {
      const { value, etag } = joinParts(projection, blobs)
      if (etag !== undefined) data.push({ key, value, etag })
    }
    const numbers = places.map(({ partition }) => partition)
    const checkpoints = stored.map(({ checkpoint }) => checkpoint)
    return { data, position: formatPosition(numbers, checkpoints) }
  }
}

/** Which keys to read where: a merged view everywhere, another in its own partition. */
function keysByPartition(
  projection: ProjectionDefinition,
  partitions: number,
  tenant: Tenant,
  keys: readonly string[],
): string[][] {
  const wanted = Array.from({ length: partitions }, (): string[] => [])
  for (const key of keys) {
    if (projection.merge !== undefined) for (const each of wanted) each.push(key)
    else wanted[partitionOf(projection.partitionKey?.(key) ?? key, partitions, tenant)]?.push(key)
  }
  return wanted
}

function opposite(direction: PageDirection): PageDirection {
  return direction === 'forward' ? 'backward' : 'forward'
}

function formatCursor({ reader, prefix, direction, tenant }: List, { way, key }: Cursor): string {
  const parts = [reader, prefix, direction, way, key, ...(tenant === NO_TENANT ? [] : [tenant])]
  return Buffer.from(JSON.stringify(parts)).toString('base64url')
}

const CURSOR_CHARS_MAX = 4000

function readCursor(text: string, list: List): Cursor {
  const parts = text.length > CURSOR_CHARS_MAX ? [] : parseCursor(text)
  const [reader, prefix, direction, way, key, tenant = NO_TENANT] = parts
  const isWhole = (way === 'next' || way === 'prev') && typeof key === 'string'
  if (!isWhole || !key.isWellFormed() || Buffer.byteLength(key) > VIEW_KEY_BYTES_MAX) {
    throw new MillraceError('cursor.invalid', 'This is not a cursor; use "next" or "prev" of a page.')
  }
  const isOfList = prefix === list.prefix && direction === list.direction && tenant === list.tenant
  if (reader !== list.reader || !isOfList) {
    throw new MillraceError(
      'cursor.invalid',
      'This cursor belongs to another list: use it with the projection, prefix and direction it came from, or start without one.',
    )
  }
  return { way, key }
}

function parseCursor(text: string): readonly unknown[] {
  try {
    const parsed: unknown = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'))
    return Array.isArray(parsed) ? parsed : []
  } catch {
    return []
  }
}
