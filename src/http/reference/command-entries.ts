/** What is told of the routes of commands: sending one, sending many, status, cancelling. */
import { DEAD_REASONS } from '../../contracts/dead-reason.ts'
import { DURABILITIES } from '../../contracts/durability.ts'
import type { JsonSchema } from '../../contracts/json-schema.ts'
import type { ProblemName } from '../problem.ts'
import {
  type AnswerEntry,
  COUNT,
  DECLARED,
  inHeader,
  inPath,
  inQuery,
  JSON_TYPE,
  json,
  list,
  MSGPACK_TYPE,
  object,
  oneOf,
  type Parameter,
  type RouteFamily,
  ref,
  TEXT,
  TIME,
  told,
  YES_OR_NO,
} from './route-entry.ts'

const STANDINGS = [
  ...['scheduled', 'accepted', 'processing', 'retrying'],
  ...['done', 'dead', 'cancelled', 'lost'],
]

const commandId = inPath('id', 'Id of the command, as it was answered when it was accepted.')

const key = inHeader(
  'Idempotency-Key',
  'Your name for this request, 1-255 printable ASCII characters, quoted or bare. Sent again within the window, it stores nothing and gets the first answer.',
)
const prefer = inHeader(
  'Prefer',
  '`wait=10`: answer with its end, if it ends within so many seconds; `respond-async`; `return=minimal`: no body (RFC 7240).',
)
const times = (): Parameter[] => [
  asQuery('delayMs', DELAY_MS),
  asQuery('deliverAt', DELIVER_AT),
  asQuery('expiresInMs', EXPIRES_IN_MS),
  asQuery('expiresAt', EXPIRES_AT),
]
const trace = inHeader('traceparent', 'The span that sends it (W3C Trace Context); its handler sees it.')

export const DELAY_MS: JsonSchema = told(
  COUNT,
  'Deliver no sooner than after this many ms, by the clock of Redis.',
)
export const EXPIRES_IN_MS: JsonSchema = told(
  { type: 'integer', minimum: 1 },
  'Start no later than after this many ms; then it is a dead letter, `expired`.',
)
export const DELIVER_AT: JsonSchema = told(TIME, 'Deliver no sooner than at this time. Not with `delayMs`.')
export const EXPIRES_AT: JsonSchema = told(TIME, 'Start no later than at this time. Not with `expiresInMs`.')

const asQuery = (name: string, { description, ...schema }: JsonSchema): Parameter =>
  inQuery(name, String(description), schema)

/** What any command may run into on its way to Redis. */
const STORING: readonly ProblemName[] = [
  // Of the tenant, where it has one; rate limits are told of all routes.
  'quota-exceeded',
  'temporary-reduced-capacity',
  'outcome-unknown',
  'stored-unconfirmed',
  'idempotency-keys-full',
  'internal-error',
]

/** Whatever its end is. */
const ENDED: AnswerEntry = {
  status: 200,
  description: 'It ended while `Prefer: wait` waited.',
  headers: ['Location', 'Idempotent-Replayed', 'Preference-Applied'],
  contents: json(ref('CommandStatus')),
}

const ATTRIBUTES: readonly Parameter[] = ['id', 'source', 'specversion', 'type', 'subject'].map((name) =>
  inHeader(`ce-${name}`, 'Of a CloudEvent in binary mode; of the first four all or none.'),
)

export const COMMAND_ROUTES: RouteFamily = {
  name: 'Commands',
  description:
    'A command is accepted when it is stored, as durably as `durability` says, and answered with an id to follow it by.',
  routes: [
    {
      route: 'command.send',
      method: 'POST',
      path: '/v1/commands/:type',
      each: 'command',
      summary: 'Send one command',
      description: 'The body is the payload. 202 means stored, not done.',
      parameters: [
        inPath('type', 'Type of the command, as the application declares it.'),
        key,
        prefer,
        trace,
        ...times(),
      ],
      body: {
        required: true,
        contents: { [JSON_TYPE]: DECLARED.payload, [MSGPACK_TYPE]: DECLARED.payload },
      },
      answers: [
        ENDED,
        {
          status: 202,
          description: 'Stored.',
          headers: ['Location', 'Idempotent-Replayed', 'Preference-Applied'],
          contents: json(ref('Accepted')),
        },
      ],
      problems: [
        'malformed-request',
        'unknown-command-type',
        'body-too-large',
        'unsupported-media-type',
        'invalid-command',
        'idempotency-key-reused',
        ...STORING,
      ],
      scope: 'commands:write',
    },
    {
      route: 'command.send-bulk',
      method: 'POST',
      path: '/v1/commands',
      summary: 'Send many commands',
      description:
        'Each command has its own fate: 202 when one or more were accepted, so look at `rejected`. With `atomic` all are stored or none. One CloudEvent (structured, or binary by its `ce-` headers) is answered as one command.',
      parameters: [
        inQuery('atomic', 'All or none; then all must go to one partition.', YES_OR_NO),
        inHeader('Idempotency-Key', 'For the whole body: a command without its own gets `<key>/<index>`.'),
        prefer,
        trace,
        ...times().map((each) => ({ ...each, description: `${each.description} For one CloudEvent.` })),
        ...ATTRIBUTES,
      ],
      body: {
        required: true,
        description:
          'An array, or lines of one JSON object each. A command has `type`, `payload`, and where wanted `idempotencyKey`, `delayMs` or `deliverAt`, `expiresInMs` or `expiresAt`.',
        contents: {
          [JSON_TYPE]: list(DECLARED.item),
          [MSGPACK_TYPE]: list(DECLARED.item),
          'application/x-ndjson': told(TEXT, 'On each line what an item of the JSON array is.'),
          'application/jsonl': told(TEXT, 'On each line what an item of the JSON array is.'),
          'application/cloudevents-batch+json': list(ref('CloudEvent')),
          'application/cloudevents+json': ref('CloudEvent'),
        },
      },
      answers: [
        { ...ENDED, description: 'One CloudEvent, that ended while `Prefer: wait` waited.' },
        {
          status: 202,
          description:
            'One or more were stored; `results` tells which, in the order of the body. For one CloudEvent, as for one command.',
          headers: ['Location', 'Idempotent-Replayed', 'Preference-Applied'],
          contents: json({ anyOf: [ref('BulkAccepted'), ref('Accepted')] }),
        },
      ],
      problems: [
        'malformed-request',
        'unknown-command-type',
        'body-too-large',
        'unsupported-media-type',
        'invalid-command',
        'idempotency-key-reused',
        'nothing-accepted',
        ...STORING,
      ],
      scope: 'commands:write',
    },
    {
      route: 'command.status',
      method: 'GET',
      path: '/v1/commands/:id',
      summary: 'What became of a command',
      description: '200 whatever its fate: a command that failed has its problem inside.',
      parameters: [
        commandId,
        inHeader('If-None-Match', 'ETag of the state that is known.'),
        inHeader('Prefer', '`wait=10`: answer when it has ended, or after so many seconds.'),
      ],
      answers: [
        {
          status: 200,
          description: 'Its state now.',
          headers: ['ETag', 'Retry-After', 'Preference-Applied'],
          contents: json(ref('CommandStatus')),
        },
        {
          status: 304,
          description: 'Nothing changed.',
          headers: ['ETag', 'Retry-After', 'Preference-Applied'],
        },
      ],
      problems: [
        'malformed-request',
        'not-found',
        'status-expired',
        'temporary-reduced-capacity',
        'internal-error',
      ],
      scope: 'commands:read',
    },
    {
      route: 'command.cancel',
      method: 'DELETE',
      path: '/v1/commands/:id',
      summary: 'Cancel a command that has not started',
      description: 'Cancelling twice is fine.',
      parameters: [commandId],
      answers: [
        {
          status: 202,
          description: 'It will not run.',
          headers: ['Location'],
          contents: json(ref('Cancelled')),
        },
      ],
      problems: [
        'malformed-request',
        'not-found',
        'status-expired',
        'cancel-too-late',
        'temporary-reduced-capacity',
        'outcome-unknown',
        'stored-unconfirmed',
        'internal-error',
      ],
      scope: 'commands:write',
    },
  ],
  schemas: {
    Accepted: object({
      id: told(TEXT, 'For its status, and for Millrace-After.'),
      type: TEXT,
      status: oneOf('accepted', 'scheduled'),
      durability: told(oneOf(...DURABILITIES), 'What it survives, from the least to the most.'),
      deduplicated: told(YES_OR_NO, 'The key was known: the id is that of the first.'),
    }),
    BulkAccepted: object(
      {
        accepted: COUNT,
        rejected: COUNT,
        durability: oneOf(...DURABILITIES),
        results: told(list(ref('BulkResult')), 'Not with `return=minimal`.'),
      },
      ['results'],
    ),
    CloudEvent: {
      ...object(
        {
          specversion: { type: 'string', const: '1.0' },
          type: told(TEXT, 'Type of the command.'),
          source: told(TEXT, 'With `id` the idempotency key.'),
          id: TEXT,
          subject: told(TEXT, 'Key of a command whose definition has none.'),
          time: TIME,
          dataschema: TEXT,
          datacontenttype: TEXT,
          data: told({}, 'The payload.'),
          data_base64: TEXT,
        },
        ['subject', 'time', 'dataschema', 'datacontenttype', 'data', 'data_base64'],
      ),
      additionalProperties: true,
    },
    BulkResult: told(
      object(
        {
          index: told(COUNT, 'Place in the body.'),
          id: told(TEXT, 'When it was accepted.'),
          status: { type: 'string', const: 'scheduled' },
          deduplicated: { type: 'boolean', const: true },
          problem: told(ref('Problem'), 'When it was not.'),
        },
        ['id', 'status', 'deduplicated', 'problem'],
      ),
      'Has an id, or a problem.',
    ),
    CommandStatus: object(
      {
        id: TEXT,
        stream: TEXT,
        status: oneOf(...STANDINGS),
        attempt: told(COUNT, 'Runs that counted, the present one included.'),
        result: told({}, 'What its handler answered, when it is done.'),
        reason: told(oneOf(...DEAD_REASONS), 'Why it is dead.'),
        problem: told(ref('Problem'), 'Why it is not done. A problem of the command, not of this request.'),
        dueAt: told(TIME, 'When a scheduled or retrying command is due.'),
        deadLetterId: TEXT,
      },
      ['attempt', 'result', 'reason', 'problem', 'dueAt', 'deadLetterId'],
    ),
    Cancelled: object({ id: TEXT, status: { type: 'string', const: 'cancelled' } }),
  },
}
