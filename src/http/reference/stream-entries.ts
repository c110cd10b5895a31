/** Streams, on the admin listener: how much waits where, and who works on it. */
import type { JsonSchema } from '../../contracts/json-schema.ts'
import {
  COUNT,
  inPath,
  inQuery,
  json,
  list,
  object,
  oneOf,
  type RouteFamily,
  ref,
  TEXT,
  told,
  YES_OR_NO,
} from './route-entry.ts'

/** The same for a stream, where they are sums, and for a partition. */
const counts: Readonly<Record<string, JsonSchema>> = {
  depth: told(COUNT, 'Entries in its command and ready streams, untrimmed ones included.'),
  lag: told(COUNT, 'Entries that no worker has been given.'),
  pending: told(COUNT, 'Entries in the hands of workers.'),
  due: told(COUNT, 'Commands that wait for their time.'),
  dead: told(COUNT, 'Dead letters.'),
  events: told(COUNT, 'Events that are kept.'),
  outbox: told(COUNT, 'Commands on their way to other partitions.'),
  lagIsExact: told(YES_OR_NO, 'False: `lag` is an upper bound.'),
  oldestAgeMs: told(COUNT, 'Since the oldest unfinished entry came in.'),
}

const summary: Readonly<Record<string, JsonSchema>> = {
  name: TEXT,
  ordering: oneOf('none', 'key'),
  partitionCount: COUNT,
  ...counts,
  groups: told(list(TEXT), 'Consumer groups.'),
  consumerCount: COUNT,
}

export const STREAM_ROUTES: RouteFamily = {
  name: 'Streams',
  description: 'How much waits where, since when, and who works on it.',
  routes: [
    {
      route: 'stream.list',
      method: 'GET',
      path: '/v1/streams',
      summary: 'All streams',
      answers: [{ status: 200, description: 'All of them.', contents: json(ref('StreamList')) }],
      problems: ['malformed-request', 'temporary-reduced-capacity', 'internal-error'],
      scope: 'admin',
    },
    {
      route: 'stream.show',
      method: 'GET',
      path: '/v1/streams/:name',
      summary: 'One stream, by partition',
      parameters: [inPath('name', 'Name of the stream.')],
      answers: [{ status: 200, description: 'The stream.', contents: json(ref('Stream')) }],
      problems: ['not-found', 'temporary-reduced-capacity', 'internal-error'],
      scope: 'admin',
    },
    {
      route: 'autoscale.show',
      method: 'GET',
      path: '/v1/autoscale',
      summary: 'How many workers a stream wants',
      description: "For KEDA's `metrics-api`, and for people.",
      parameters: [
        { ...inQuery('stream', 'Name of the stream.'), required: true },
        inQuery('target', 'Commands for one worker.', { type: 'integer', minimum: 1 }),
        inQuery('min', 'Workers that are wanted in any case.', { ...COUNT, default: 0 }),
        inQuery('max', 'Workers that are wanted at most.', COUNT),
      ],
      answers: [{ status: 200, description: 'What it wants now.', contents: json(ref('ScaleWish')) }],
      problems: ['malformed-request', 'not-found', 'temporary-reduced-capacity', 'internal-error'],
      scope: 'admin',
    },
  ],
  schemas: {
    ScaleWish: object({
      value: told(COUNT, 'Commands that want a worker.'),
      desired: told(COUNT, 'Workers.'),
      limitedBy: told(
        { enum: ['min', 'max', 'partitions', null] },
        'What holds `desired` away from what the load alone would ask for.',
      ),
      stream: TEXT,
      waiting: COUNT,
      pending: COUNT,
      lagIsExact: YES_OR_NO,
      oldestAgeMs: COUNT,
      workers: COUNT,
      ordering: oneOf('none', 'key'),
      partitionCount: COUNT,
      target: COUNT,
      min: COUNT,
      max: { type: ['integer', 'null'], minimum: 0 },
    }),
    StreamList: object({ data: list(ref('StreamSummary')), page: ref('OnlyPage') }),
    OnlyPage: told(object({ next: { type: 'null' }, prev: { type: 'null' } }), 'There is one page.'),
    StreamSummary: object(summary),
    Stream: object(
      {
        ...summary,
        partitions: list(ref('Partition')),
        tenants: told(
          list(object({ tenant: TEXT, partition: COUNT, waiting: COUNT, waitingBytes: COUNT })),
          'Those with the most commands waiting in one partition, for their quota.',
        ),
        retention: object({
          eventsMs: COUNT,
          eventsBytesMax: COUNT,
          resultsMs: COUNT,
          deadLettersMs: COUNT,
        }),
        parkedMax: told(
          COUNT,
          'Commands that may wait behind others of their key; only when ordered by key.',
        ),
      },
      ['parkedMax'],
    ),
    Partition: object(
      {
        partition: COUNT,
        ...counts,
        overdue: told(COUNT, 'Of `due`, whose time has come.'),
        consumers: list(object({ name: TEXT, pending: COUNT, idleMs: COUNT })),
        lease: told(
          object({ owner: told(TEXT, 'Empty while nobody has it.'), epoch: COUNT }),
          'Of a partition that is ordered by key.',
        ),
      },
      ['lease'],
    ),
  },
}
