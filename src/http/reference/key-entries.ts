/** What is told of the routes of API keys, on the admin listener. */
import type { JsonSchema } from '../../contracts/json-schema.ts'
import type { ProblemName } from '../problem.ts'
import {
  inPath,
  inQuery,
  json,
  list,
  object,
  oneOf,
  type RouteFamily,
  ref,
  TEXT,
  TIME,
  told,
} from './route-entry.ts'

const id = inPath('id', 'Id of the key.')
const MAYBE_TIME: JsonSchema = { type: ['string', 'null'], format: 'date-time' }
const SPAN_MS: JsonSchema = { type: 'integer', minimum: 1 }

const READING: readonly ProblemName[] = [
  'malformed-request',
  'not-found',
  'temporary-reduced-capacity',
  'internal-error',
]
/** `forbidden` also without credentials: for web pages. */
const CHANGING: readonly ProblemName[] = [...READING, 'forbidden', 'outcome-unknown']
const TAKING: readonly ProblemName[] = ['body-too-large', 'unsupported-media-type', 'invalid-command']

const key: Readonly<Record<string, JsonSchema>> = {
  id: TEXT,
  label: TEXT,
  tenant: told(TEXT, 'Empty: none; `*`: all.'),
  scopes: told(list(TEXT), 'Such as `commands:write:orders`.'),
  createdAt: TIME,
  expiresAt: MAYBE_TIME,
  lastUsedAt: told(MAYBE_TIME, 'Within an hour.'),
  secrets: told(
    list(object({ createdAt: TIME, expiresAt: MAYBE_TIME })),
    'Newest first; two while it is rotated. What they are is never told again.',
  ),
}

export const KEY_ROUTES: RouteFamily = {
  name: 'API keys',
  description: 'Who may ask. A key is told once, in the answer that made it. Web pages may not change keys.',
  routes: [
    {
      route: 'key.list',
      method: 'GET',
      path: '/v1/keys',
      summary: 'A page of keys, oldest first',
      parameters: [
        inQuery('cursor', '`next` of another page.'),
        inQuery('limit', 'Keys on a page.', { type: 'integer', minimum: 1, maximum: 500, default: 50 }),
      ],
      answers: [
        {
          status: 200,
          description: 'The page.',
          headers: ['Link'],
          contents: json(
            object({
              data: list(ref('ApiKey')),
              page: object({ next: { type: ['string', 'null'] }, prev: { type: 'null' } }),
            }),
          ),
        },
      ],
      problems: ['malformed-request', 'temporary-reduced-capacity', 'internal-error'],
      scope: 'admin',
    },
    {
      route: 'key.create',
      method: 'POST',
      path: '/v1/keys',
      summary: 'Make a key',
      body: { required: true, contents: json(ref('KeyPlan')) },
      answers: [
        {
          status: 201,
          description: 'The key, for the only time.',
          headers: ['Location'],
          contents: json(ref('IssuedKey')),
        },
      ],
      problems: [...CHANGING.filter((name) => name !== 'not-found'), ...TAKING],
      scope: 'admin',
    },
    {
      route: 'key.show',
      method: 'GET',
      path: '/v1/keys/:id',
      summary: 'One key',
      parameters: [id],
      answers: [{ status: 200, description: 'What is known of it.', contents: json(ref('ApiKey')) }],
      problems: READING,
      scope: 'admin',
    },
    {
      route: 'key.rotate',
      method: 'POST',
      path: '/v1/keys/:id/rotate',
      summary: 'Give it a second secret',
      description: 'The old one stays valid until it is revoked, or until it expires.',
      parameters: [id],
      body: {
        required: false,
        contents: json(
          object({ oldExpiresAt: TIME, oldExpiresInMs: SPAN_MS }, ['oldExpiresAt', 'oldExpiresInMs']),
        ),
      },
      answers: [
        { status: 201, description: 'The new one, for the only time.', contents: json(ref('IssuedKey')) },
      ],
      problems: [...CHANGING, ...TAKING, 'key-conflict'],
      scope: 'admin',
    },
    {
      route: 'key.revoke',
      method: 'DELETE',
      path: '/v1/keys/:id',
      summary: 'End it, or only its old secret',
      parameters: [id, inQuery('secret', 'Only the old secret.', oneOf('old'))],
      answers: [{ status: 204, description: 'It is no longer valid.' }],
      problems: CHANGING,
      scope: 'admin',
    },
  ],
  schemas: {
    ApiKey: object(key),
    IssuedKey: object({ key: told(TEXT, 'Keep it: it is not told again.'), ...key }),
    KeyPlan: object(
      {
        scopes: list(TEXT),
        label: TEXT,
        tenant: TEXT,
        expiresAt: TIME,
        expiresInMs: SPAN_MS,
      },
      ['label', 'tenant', 'expiresAt', 'expiresInMs'],
    ),
  },
}
