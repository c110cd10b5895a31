/**
 * Every route of both listeners, and which answers to it must be seen. A test holds this table against the routes of the apps: a
 * route that is not here fails it. One line is enough for a new route; its path tells which names it takes.
 */

export type Listener = 'public' | 'admin'
/** What its body is. */
export type Takes = 'command' | 'bulk' | 'redrive' | 'plan' | 'key' | 'rotation' | 'nothing'

export interface FuzzedRoute {
  readonly listener: Listener
  readonly method: string
  readonly path: string
  readonly takes: Takes
  /** Query parameters that it knows. */
  readonly query: readonly string[]
  /** Answers that a long run must have seen. */
  readonly expected: readonly AnswerClass[]
}

export type AnswerClass =
  | '2xx'
  | '3xx'
  | '400'
  | '403'
  | '404'
  | '405'
  | '409'
  | '413'
  | '415'
  | '422'
  | '425'
  | '503'
  | 'cut'

const TIMES = ['delayMs', 'deliverAt', 'expiresInMs', 'expiresAt']
const FILTER = ['stream', 'type', 'reason', 'error', 'from', 'to', 'cursor', 'limit']

const route = (
  listener: Listener,
  line: string,
  expected: string,
  { takes = 'nothing', query = [] }: { readonly takes?: Takes; readonly query?: readonly string[] } = {},
): FuzzedRoute => {
  const [method = '', path = ''] = line.split(' ')
  return { listener, method, path, takes, query, expected: expected.split(' ') as AnswerClass[] }
}

const both = (
  line: string,
  expected: string,
  more: { readonly query?: readonly string[] } = {},
): FuzzedRoute[] => (['public', 'admin'] as const).map((listener) => route(listener, line, expected, more))

/** 405 is seen under the route whose path was asked with a method that it has not. */
export const ROUTES: readonly FuzzedRoute[] = [
  route('public', 'POST /v1/commands/:type', '2xx 400 404 405 413 415 422 503 cut', {
    takes: 'command',
    query: TIMES,
  }),
  route('public', 'POST /v1/commands', '2xx 400 405 413 415 422 503 cut', {
    takes: 'bulk',
    query: ['atomic'],
  }),
  route('public', 'GET /v1/commands/:id', '2xx 3xx 400 404'),
  route('public', 'DELETE /v1/commands/:id', '2xx 400 404 409'),
  route('public', 'GET /v1/views/:projection/:key', '2xx 3xx 400 404 425'),
  route('public', 'GET /v1/views/:projection', '2xx 400 404', {
    query: ['limit', 'cursor', 'prefix', 'direction'],
  }),
  route('public', 'GET /v1/events/:stream', '2xx 400 404', { query: ['after', 'from', 'key', 'type'] }),
  ...both('GET /livez', '2xx 400 405', { query: ['verbose'] }),
  ...both('GET /readyz', '2xx 400 405', { query: ['verbose'] }),
  ...both('GET /startupz', '2xx 400 405', { query: ['verbose'] }),
  ...both('GET /openapi.json', '2xx 405'),
  ...both('GET /docs', '2xx 405'),
  ...both('GET /problems/:name', '2xx 404'),
  route('admin', 'GET /metrics', '2xx 405'),
  route('admin', 'GET /v1/streams', '2xx 400 405'),
  route('admin', 'GET /v1/streams/:name', '2xx 404'),
  route('admin', 'GET /v1/schedules', '2xx 405'),
  route('admin', 'GET /v1/schedules/:name', '2xx 404'),
  route('admin', 'POST /v1/schedules/:name/run', '2xx 404'),
  route('admin', 'POST /v1/schedules/:name/pause', '2xx 403 404'),
  route('admin', 'POST /v1/schedules/:name/resume', '2xx 404'),
  route('admin', 'GET /v1/dead-letters', '2xx 400 405', { query: FILTER }),
  route('admin', 'GET /v1/dead-letters/:id', '2xx 400 404'),
  route('admin', 'DELETE /v1/dead-letters/:id', '2xx 400 404'),
  route('admin', 'POST /v1/dead-letters/:id/redrive', '2xx 400 404 415 422', { takes: 'redrive' }),
  route('admin', 'POST /v1/dead-letters:redrive', '2xx 400 413 415', { takes: 'plan' }),
  route('admin', 'POST /v1/dead-letters:purge', '2xx 400 413 415', { takes: 'plan' }),
  route('admin', 'GET /v1/autoscale', '2xx 400 404', { query: ['stream', 'target', 'min', 'max'] }),
  route('admin', 'GET /v1/keys', '2xx 400', { query: ['limit', 'cursor'] }),
  route('admin', 'POST /v1/keys', '2xx 400 415', { takes: 'key' }),
  route('admin', 'GET /v1/keys/:id', '2xx 404'),
  route('admin', 'POST /v1/keys/:id/rotate', '2xx 400 404 415', { takes: 'rotation' }),
  route('admin', 'DELETE /v1/keys/:id', '2xx 400 404', { query: ['secret'] }),
  route('admin', 'GET /v1/operations/:id', '2xx 404'),
]

/** Cells of the table that can't be filled, by hand, with the reason. */
export const UNREACHABLE: readonly string[] = [
  'any 5xx but 503: would be a finding',
  '503 of the admin listener: it waits for Redis, and this run fills Redis without taking it away',
  '409 of the dead letters and schedules: needs two operators at the same instant; test/dead-letter-http.test.ts has it',
  'cut (no answer) of routes without a body: nothing can be left unfinished',
]

export const nameOf = ({ listener, method, path }: FuzzedRoute): string => `${listener} ${method} ${path}`

export function classOf(status: number): AnswerClass {
  if (status < 300) return '2xx'
  if (status < 400) return '3xx'
  return String(status) as AnswerClass
}
