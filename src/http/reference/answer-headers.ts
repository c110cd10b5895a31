/** Headers that answers carry beside the common ones, each told in one place. */
import type { JsonSchema } from '../../contracts/json-schema.ts'

export interface HeaderEntry {
  readonly description: string
  readonly schema: JsonSchema
}

export type AnswerHeader =
  | 'Accept-Post'
  | 'ETag'
  | 'Idempotent-Replayed'
  | 'Link'
  | 'Location'
  | 'Millrace-After-Status'
  | 'Millrace-Position'
  | 'Preference-Applied'
  | 'RateLimit'
  | 'RateLimit-Policy'
  | 'Retry-After'
  | 'WWW-Authenticate'
  | 'X-Request-Id'

const TEXT: JsonSchema = { type: 'string' }

export const ANSWER_HEADERS: Readonly<Record<AnswerHeader, HeaderEntry>> = {
  'Accept-Post': { description: 'The content types that this path takes.', schema: TEXT },
  ETag: { description: 'Names this state of the resource, for If-None-Match.', schema: TEXT },
  'Idempotent-Replayed': {
    description: 'The answer repeats that of the first request under this key.',
    schema: { type: 'string', const: 'true' },
  },
  Link: {
    description: 'The neighbours of this page, `rel="next"` and `rel="prev"` (RFC 8288).',
    schema: TEXT,
  },
  Location: { description: 'Where to follow what was accepted.', schema: TEXT },
  'Millrace-After-Status': {
    description: 'What became of the command in Millrace-After.',
    schema: { type: 'string', enum: ['done', 'dead', 'cancelled', 'expired', 'lost'] },
  },
  'Millrace-Position': { description: 'How far the events were folded, by partition.', schema: TEXT },
  'Preference-Applied': { description: 'Which preferences of Prefer were followed.', schema: TEXT },
  RateLimit: { description: 'What is left of each limit, and when it is full again.', schema: TEXT },
  'RateLimit-Policy': { description: 'The limits that this request fell under.', schema: TEXT },
  'Retry-After': {
    description: 'Seconds after which to ask again.',
    schema: { type: 'integer', minimum: 1 },
  },
  'WWW-Authenticate': {
    description: 'How to come with a credential, or what is wrong with the one that came (RFC 6750).',
    schema: TEXT,
  },
  'X-Request-Id': { description: "The request's own, or a new one; it is in the log.", schema: TEXT },
}
