/** How many workers a stream wants, for autoscalers (KEDA's `metrics-api`) and for people. Read-only. */
import type { Hono } from 'hono'
import { MillraceError } from '../contracts/errors.ts'
import type { StreamDefinition } from '../contracts/stream.ts'
import { decideScale } from '../policies/autoscale.ts'
import type { RedisLink } from '../redis/connection.ts'
import type { PartitionOverview } from '../redis/stream-overview.ts'
import { type Answers, jsonResponse } from './answers.ts'
import type { HttpEnv } from './http-env.ts'
import { readQuery, readWhole } from './query.ts'
import { findStream, readStream } from './stream-routes.ts'

export interface AutoscaleParts {
  readonly command: RedisLink
  readonly streams: ReadonlyMap<string, StreamDefinition>
  readonly answers: Answers
  /** Commands for one worker, where the request says nothing. */
  readonly autoscaleTarget: number
}

const WORKERS_MAX = 100_000
const TARGET_MAX = 1_000_000_000

export function addAutoscaleRoutes(app: Hono<HttpEnv>, parts: AutoscaleParts): void {
  const { answers, command, streams, autoscaleTarget } = parts
  app.get(
    '/v1/autoscale',
    answers.on('autoscale.show', async (c) => {
      const query = readQuery(c.req.raw.url, ['stream', 'target', 'min', 'max'])
      if (query.stream === undefined) {
        throw new MillraceError('command.malformed', 'Name a stream, such as ?stream=orders.')
      }
      const stream = findStream(streams, query.stream)
      const min = readWhole('min', query.min, 0, WORKERS_MAX) ?? 0
      const max = readWhole('max', query.max, 0, WORKERS_MAX)
      if (max !== undefined && max < min) {
        throw new MillraceError('command.malformed', 'Query parameter "max" must not be less than "min".')
      }
      const target = readWhole('target', query.target, 1, TARGET_MAX) ?? autoscaleTarget
      const load = loadOf(stream, await readStream(command, stream))
      const wish = decideScale(load, { target, min, max: max ?? Number.POSITIVE_INFINITY })
      const { workersUseful: _, ...told } = load
      const answer = { ...wish, limitedBy: wish.limitedBy ?? null, stream: stream.name, ...told }
      return jsonResponse({ ...answer, target, min, max: max ?? null }, 200, { 'cache-control': 'no-store' })
    }),
  )
}

/** What is due and what is bound for other partitions needs a worker to move on, just as what waits for one. */
function loadOf({ ordering }: StreamDefinition, partitions: readonly PartitionOverview[]) {
  const sum = (pick: (partition: PartitionOverview) => number): number =>
    partitions.reduce((total, partition) => total + pick(partition), 0)
  const workers = new Set(partitions.flatMap(({ consumers }) => consumers.map(({ name }) => name)))
  return {
    waiting: sum(({ lag, overdue, outbox }) => lag + overdue + outbox),
    pending: sum(({ pending }) => pending),
    lagIsExact: partitions.every(({ lagIsExact }) => lagIsExact),
    oldestAgeMs: Math.max(0, ...partitions.map(({ oldestAgeMs }) => oldestAgeMs)),
    workers: workers.size,
    ordering,
    partitionCount: partitions.length,
    workersUseful: ordering === 'key' ? partitions.length : Number.POSITIVE_INFINITY,
  }
}
