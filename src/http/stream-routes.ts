/** Streams for operators: how much waits where, since when, and who works on it. Read-only. */
import type { Hono } from 'hono'
import { MillraceError } from '../contracts/errors.ts'
import { nearest } from '../contracts/names.ts'
import type { StreamDefinition } from '../contracts/stream.ts'
import type { RedisLink } from '../redis/connection.ts'
import { GROUP, orderedGroup, partitionKeys } from '../redis/keys.ts'
import { type PartitionOverview, readPartitionOverview } from '../redis/stream-overview.ts'
import { readTenantLoads } from '../redis/tenant-loads.ts'
import { type Answers, jsonResponse } from './answers.ts'
import type { HttpEnv } from './http-env.ts'
import { readQuery } from './query.ts'

export interface StreamRouteParts {
  readonly command: RedisLink
  readonly streams: ReadonlyMap<string, StreamDefinition>
  readonly answers: Answers
}

export function addStreamRoutes(app: Hono<HttpEnv>, parts: StreamRouteParts): void {
  const { answers, streams, command } = parts
  app.get(
    '/v1/streams',
    answers.on('stream.list', async (c) => {
      readQuery(c.req.raw.url, [])
      const overviews = await readOverviews(command, streams)
      const data = [...overviews].map(([name, partitions]) => summary(streams.get(name), name, partitions))
      return jsonResponse({ data, page: { next: null, prev: null } })
    }),
  )
  app.get(
    '/v1/streams/:name',
    answers.on('stream.show', async (c) => {
      const stream = findStream(streams, c.req.param('name') ?? '')
      const partitions = await readStream(command, stream)
      const { retention, parkedMax } = stream
      const bound = stream.ordering === 'key' ? { parkedMax } : {}
      const tenants = await readTenants(command, stream)
      const told = { ...summary(stream, stream.name, partitions), partitions, tenants }
      return jsonResponse({ ...told, retention, ...bound })
    }),
  )
}

/** Every stream's partitions as they are now. */
export async function readOverviews(
  command: RedisLink,
  streams: ReadonlyMap<string, StreamDefinition>,
): Promise<ReadonlyMap<string, readonly PartitionOverview[]>> {
  const found = new Map<string, readonly PartitionOverview[]>()
  for (const stream of streams.values()) found.set(stream.name, await readStream(command, stream))
  return found
}

export async function readStream(
  command: RedisLink,
  { name, partitions }: StreamDefinition,
): Promise<PartitionOverview[]> {
  const all = Array.from({ length: partitions }, (_, partition) => partitionKeys(name, partition))
  return await Promise.all(all.map((keys) => readPartitionOverview(command, keys)))
}

/** What a tenant has waiting in one partition, for its quota. */
interface TenantRow {
  readonly tenant: string
  readonly partition: number
  readonly waiting: number
  readonly waitingBytes: number
}

const TENANTS_TOLD_MAX = 100

/** Those with the most commands waiting in one partition, most first. */
async function readTenants(command: RedisLink, { name, partitions }: StreamDefinition): Promise<TenantRow[]> {
  const all = Array.from({ length: partitions }, async (_, partition) => {
    const loads = await readTenantLoads(command, partitionKeys(name, partition))
    return loads.map(({ tenant, count, bytes }) => {
      return { tenant, partition, waiting: count, waitingBytes: bytes }
    })
  })
  const rows = (await Promise.all(all)).flat()
  return rows.sort((a, b) => b.waiting - a.waiting).slice(0, TENANTS_TOLD_MAX)
}

/** @throws MillraceError `not-found` */
export function findStream(streams: ReadonlyMap<string, StreamDefinition>, name: string): StreamDefinition {
  const stream = streams.get(name)
  if (stream !== undefined) return stream
  const near = nearest(name.slice(0, 80), streams.keys())
  const hint = near === undefined ? '' : ` Did you mean "${near}"?`
  throw new MillraceError('not-found', `There is no stream "${name.slice(0, 80)}".${hint}`)
}

const SUMMED = ['depth', 'lag', 'pending', 'due', 'dead', 'events', 'outbox'] as const

function summary(
  stream: StreamDefinition | undefined,
  name: string,
  partitions: readonly PartitionOverview[],
): object {
  const sums = Object.fromEntries(
    SUMMED.map((field) => [field, partitions.reduce((total, partition) => total + partition[field], 0)]),
  )
  const workers = new Set(partitions.flatMap(({ consumers }) => consumers.map((consumer) => consumer.name)))
  return {
    name,
    ordering: stream?.ordering ?? 'none',
    partitionCount: partitions.length,
    ...sums,
    lagIsExact: partitions.every(({ lagIsExact }) => lagIsExact),
    oldestAgeMs: Math.max(0, ...partitions.map(({ oldestAgeMs }) => oldestAgeMs)),
    groups: groupsOf(partitions),
    consumerCount: workers.size,
  }
}

/** One group of all workers, or, in an ordered stream, one for the present epoch of each partition. */
function groupsOf(partitions: readonly PartitionOverview[]): string[] {
  const leased = partitions.flatMap(({ lease }) => (lease === undefined ? [] : [orderedGroup(lease.epoch)]))
  return leased.length === 0 ? [GROUP] : [...new Set(leased)]
}
