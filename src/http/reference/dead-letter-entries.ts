/** Dead letters, on the admin listener: pages, one, redrive, discard, and many by filter. */
import { DEAD_REASONS } from '../../contracts/dead-reason.ts'
import type { JsonSchema } from '../../contracts/json-schema.ts'
import { RATE_MAX } from '../../dead-letters/dead-letters.ts'
import type { ProblemName } from '../problem.ts'
import {
  COUNT,
  inPath,
  inQuery,
  json,
  list,
  object,
  oneOf,
  type Parameter,
  type RouteEntry,
  type RouteFamily,
  ref,
  TEXT,
  TIME,
  told,
  YES_OR_NO,
} from './route-entry.ts'

const filter: Readonly<Record<string, JsonSchema>> = {
  stream: told(TEXT, 'Of this stream.'),
  type: told(TEXT, 'Commands of this type.'),
  tenant: told(TEXT, 'Commands of this tenant.'),
  reason: told(oneOf(...DEAD_REASONS), 'Dead for this reason.'),
  error: told(TEXT, 'With this fingerprint, or with this text in the error.'),
  from: told(TIME, 'Dead since this time or later.'),
  to: told(TIME, 'Dead before this time.'),
}

const asQuery = ([name, { description, ...schema }]: [string, JsonSchema]): Parameter =>
  inQuery(name, String(description), schema)

const id = inPath('id', 'Id of the command.')
const READING: readonly ProblemName[] = [
  'malformed-request',
  'not-found',
  'temporary-reduced-capacity',
  'internal-error',
]
const WRITING: readonly ProblemName[] = [...READING, 'outcome-unknown', 'dead-letter-conflict']
const TAKING: readonly ProblemName[] = ['body-too-large', 'unsupported-media-type']

const many = (kind: 'redrive' | 'purge', summary: string): RouteEntry => ({
  route: `dead-letter.${kind}-all`,
  method: 'POST',
  path: `/v1/dead-letters:${kind}`,
  summary,
  description: 'In the background, at a steady rate; follow the operation.',
  body: { required: true, contents: json(ref('Plan')) },
  answers: [
    {
      status: 202,
      description: 'The operation has begun.',
      headers: ['Location'],
      contents: json(ref('Operation')),
    },
  ],
  problems: [...READING, ...TAKING],
  scope: 'admin',
})

const summary: Readonly<Record<string, JsonSchema>> = {
  id: TEXT,
  stream: TEXT,
  partition: COUNT,
  type: told(TEXT, 'Empty when only a newer version can read it.'),
  version: COUNT,
  tenant: told(TEXT, 'Empty: none.'),
  key: TEXT,
  reason: oneOf(...DEAD_REASONS),
  error: told(TEXT, 'Why its last run failed, or never came.'),
  fingerprint: told(TEXT, 'Equal for errors that differ only in numbers, ids and quoted parts.'),
  attempts: COUNT,
  redrives: COUNT,
  payloadBytes: COUNT,
  acceptedAt: TIME,
  deadSince: TIME,
}

export const DEAD_LETTER_ROUTES: RouteFamily = {
  name: 'Dead letters',
  description: 'Commands that will not run again unless somebody says so.',
  routes: [
    {
      route: 'dead-letter.page',
      method: 'GET',
      path: '/v1/dead-letters',
      summary: 'A page of dead letters, newest first',
      description: 'The first page counts them by error too. A cursor belongs to its filter.',
      parameters: [
        ...Object.entries(filter).map(asQuery),
        inQuery('cursor', '`next` of another page.'),
        inQuery('limit', 'Dead letters on a page.', {
          type: 'integer',
          minimum: 1,
          maximum: 500,
          default: 50,
        }),
      ],
      answers: [
        { status: 200, description: 'The page.', headers: ['Link'], contents: json(ref('DeadLetterPage')) },
      ],
      problems: READING,
      scope: 'admin',
    },
    {
      route: 'dead-letter.show',
      method: 'GET',
      path: '/v1/dead-letters/:id',
      summary: 'One dead letter, whole',
      parameters: [id],
      answers: [{ status: 200, description: 'The dead letter.', contents: json(ref('DeadLetter')) }],
      problems: [...READING, 'dead-letter-conflict'],
      scope: 'admin',
    },
    {
      route: 'dead-letter.discard',
      method: 'DELETE',
      path: '/v1/dead-letters/:id',
      summary: 'Discard one dead letter',
      parameters: [id],
      answers: [{ status: 204, description: 'It is gone.' }],
      problems: WRITING,
      scope: 'admin',
    },
    {
      route: 'dead-letter.redrive',
      method: 'POST',
      path: '/v1/dead-letters/:id/redrive',
      summary: 'Let one run again',
      description: 'With another payload, when the body has one.',
      parameters: [id],
      body: { required: false, contents: json(object({ payload: {} }, ['payload'])) },
      answers: [
        {
          status: 202,
          description: 'It waits for a worker.',
          contents: json(
            object({ id: TEXT, status: { type: 'string', const: 'accepted' }, redrives: COUNT }),
          ),
        },
      ],
      problems: [...WRITING, ...TAKING, 'invalid-command'],
      scope: 'admin',
    },
    many('redrive', 'Let many run again'),
    many('purge', 'Discard many'),
    {
      route: 'operation.show',
      method: 'GET',
      path: '/v1/operations/:id',
      summary: 'How an operation stands',
      description: 'Only the process that began it knows it.',
      parameters: [inPath('id', 'Id of the operation.')],
      answers: [{ status: 200, description: 'The operation.', contents: json(ref('Operation')) }],
      problems: ['not-found', 'internal-error'],
      scope: 'admin',
    },
  ],
  schemas: {
    DeadLetterFilter: object(filter, Object.keys(filter)),
    Plan: object(
      {
        filter: told(ref('DeadLetterFilter'), '`{}` means all dead letters.'),
        dryRun: told(YES_OR_NO, 'Count only.'),
        ratePerSecond: { type: 'integer', minimum: 1, maximum: RATE_MAX, default: 500 },
      },
      ['dryRun', 'ratePerSecond'],
    ),
    DeadLetterPage: object(
      {
        data: list(ref('DeadLetterSummary')),
        page: object({ next: { type: ['string', 'null'] }, prev: { type: 'null' } }),
        groups: told(
          object({
            data: list(object({ fingerprint: TEXT, error: TEXT, count: COUNT })),
            scanned: COUNT,
            complete: told(YES_OR_NO, 'False: there are more than were counted.'),
          }),
          'With the first page.',
        ),
      },
      ['groups'],
    ),
    DeadLetterSummary: object(summary, ['reason']),
    DeadLetter: object(
      {
        ...summary,
        payload: {},
        failures: told(list(object({ attempt: COUNT, at: TIME, error: TEXT })), 'Oldest first.'),
        tick: told(TIME, 'Of the schedule that caused it.'),
        cloudEvent: told(
          object(
            {
              ...{ id: TEXT, source: TEXT, subject: TEXT, time: TEXT, dataschema: TEXT },
              datacontenttype: TEXT,
              extensions: { type: 'object', additionalProperties: true },
            },
            ['subject', 'time', 'dataschema', 'datacontenttype'],
          ),
          'What it came as, when it came as a CloudEvent.',
        ),
      },
      ['reason', 'tick', 'cloudEvent'],
    ),
    Operation: object(
      {
        id: TEXT,
        kind: oneOf('redrive', 'purge'),
        state: oneOf('running', 'finished', 'stopped', 'failed'),
        dryRun: YES_OR_NO,
        ratePerSecond: COUNT,
        matched: told(COUNT, 'Dead letters that the filter means, so far.'),
        done: COUNT,
        failed: told(COUNT, 'Taken by somebody else meanwhile, or unreadable.'),
        startedAt: TIME,
        endedAt: TIME,
        error: TEXT,
      },
      ['endedAt', 'error'],
    ),
  },
}
