/** Which problems a route may answer, by status; told once for each set of them, because many routes share theirs. */
import type { JsonSchema } from '../../contracts/json-schema.ts'
import { PROBLEM_KINDS, type ProblemName, problemType } from '../problem.ts'
import type { AnswerHeader } from './answer-headers.ts'
import type { DocumentOptions } from './document-options.ts'
import { COUNT, list, object, type RouteEntry, ref, TEXT, told } from './route-entry.ts'

export interface ProblemAnswer {
  readonly status: number
  readonly names: readonly ProblemName[]
  readonly headers: readonly AnswerHeader[]
}

type Refusing = Pick<RouteEntry, 'problems' | 'problemHeaders' | 'scope'>

type Front = Pick<DocumentOptions, 'credentials' | 'limited'>

/** Those of its entry, and those that come from what stands in front of every route. */
function problemsOf({ problems, scope }: Refusing, { credentials, limited }: Front): readonly ProblemName[] {
  // What is open to everybody is not limited either.
  if (scope === undefined) return problems
  return [
    ...problems,
    ...(limited ? (['quota-exceeded'] as const) : []),
    // Keys that could not be looked up for a while are nobody's any more: 503.
    ...(credentials ? (['unauthenticated', 'temporary-reduced-capacity'] as const) : []),
    ...(credentials && scope !== 'known' ? (['forbidden'] as const) : []),
  ]
}

/** What answers of any status carry, where the listener has rate limits. */
export function limitHeaders(
  { scope }: Pick<RouteEntry, 'scope'>,
  { limited }: Front,
): readonly AnswerHeader[] {
  return limited && scope !== undefined ? ['RateLimit', 'RateLimit-Policy'] : []
}

export function problemAnswers(entry: Refusing, front: Front): readonly ProblemAnswer[] {
  const wanted = problemsOf(entry, front)
  const names = (Object.keys(PROBLEM_KINDS) as ProblemName[]).filter((name) => wanted.includes(name))
  const statuses = [...new Set(names.map((name) => PROBLEM_KINDS[name].status))].sort((a, b) => a - b)
  return statuses.map((status) => ({
    status,
    names: names.filter((name) => PROBLEM_KINDS[name].status === status),
    headers: [...headersOf(status), ...(entry.problemHeaders?.[status] ?? []), ...limitHeaders(entry, front)],
  }))
}

const OWN_HEADERS: Readonly<Record<number, readonly AnswerHeader[]>> = {
  401: ['WWW-Authenticate'],
  403: ['WWW-Authenticate'],
  415: ['Accept-Post'],
  425: ['Retry-After'],
  429: ['Retry-After'],
  503: ['Retry-After'],
}

function headersOf(status: number): readonly AnswerHeader[] {
  return ['X-Request-Id', ...(OWN_HEADERS[status] ?? [])]
}

const TYPES = [...Object.keys(PROBLEM_KINDS)].map((name) => problemType(name as ProblemName))

/** RFC 9457, and what Millrace adds. */
export const PROBLEM_SCHEMA: JsonSchema = {
  ...object(
    {
      type: told(
        { type: 'string', enum: TYPES },
        'What it is; compare this. Relative ones lead to a page about it.',
      ),
      title: TEXT,
      status: { type: 'integer' },
      detail: told(TEXT, 'What to do about this one.'),
      instance: told(TEXT, 'Path of the request.'),
      requestId: told(TEXT, 'Found in the log.'),
      errors: told(
        list(object({ pointer: told(TEXT, 'JSON pointer, such as `#/items/0/qty`.'), detail: TEXT })),
        'Places that were refused. What was sent is never repeated.',
      ),
      'violated-policies': told(list(TEXT), 'Of `quota-exceeded`: the limits that it was over.'),
      accepted: told(COUNT, 'Of a bulk request.'),
      rejected: told(COUNT, 'Of a bulk request.'),
      results: told(list(ref('RefusedItem')), 'Of a bulk request, why each command was refused.'),
    },
    ['detail', 'instance', 'requestId', 'errors', 'violated-policies', 'accepted', 'rejected', 'results'],
  ),
  description: 'What went wrong (RFC 9457).',
}

/** A problem inside of a problem. */
export const REFUSED_ITEM_SCHEMA: JsonSchema = object({ index: COUNT, problem: ref('Problem') })
