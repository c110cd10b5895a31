/**
 * Dead letters for operators: pages, one, redrive, discard; many by filter as an operation that can be followed.
 *
 * What a request means is read strictly: a filter with an unknown name would mean more dead letters than was intended.
 */
import type { Hono } from 'hono'
import { DEAD_REASONS } from '../contracts/dead-reason.ts'
import type { DeadLetter, DeadLetterSummary } from '../dead-letters/dead-letter.ts'
import type { DeadLetterFilter } from '../dead-letters/dead-letter-filter.ts'
import type { Operation } from '../dead-letters/dead-letter-operations.ts'
import { type DeadLetters, type OperationOptions, RATE_MAX } from '../dead-letters/dead-letters.ts'
import { type Answers, jsonResponse, type RouteContext } from './answers.ts'
import type { BodyReader } from './body-reader.ts'
import { timeOf } from './delivery.ts'
import type { HttpEnv } from './http-env.ts'
import { malformed, readFields, readJsonBody } from './json-fields.ts'
import { checkPayload } from './payload-limits.ts'
import { readQuery, readWhole } from './query.ts'
import { linkHeader } from './view-routes.ts'

export interface DeadLetterRouteParts {
  readonly deadLetters: DeadLetters
  readonly bodies: BodyReader
  readonly answers: Answers
}

/** Content types of bodies, by path. */
export const ADMIN_ACCEPT_POST: Readonly<Record<string, string>> = {
  '/v1/dead-letters/:id/redrive': 'application/json',
  '/v1/dead-letters:redrive': 'application/json',
  '/v1/dead-letters:purge': 'application/json',
}

const ERROR_CHARS_MAX = 500
const FILTER_NAMES = ['stream', 'type', 'tenant', 'reason', 'error', 'from', 'to'] as const

export function addDeadLetterRoutes(app: Hono<HttpEnv>, parts: DeadLetterRouteParts): void {
  const { deadLetters, answers } = parts
  app.get(
    '/v1/dead-letters',
    answers.on('dead-letter.page', (c) => readPage(c, deadLetters)),
  )
  app.get(
    '/v1/dead-letters/:id',
    answers.on('dead-letter.show', async (c) => {
      readQuery(c.req.raw.url, [])
      return jsonResponse(toldWhole(await deadLetters.inspect(idOf(c))), 200, NO_STORE)
    }),
  )
  app.delete(
    '/v1/dead-letters/:id',
    answers.on('dead-letter.discard', async (c) => {
      await deadLetters.discard(idOf(c))
      return new Response(null, { status: 204 })
    }),
  )
  app.post(
    '/v1/dead-letters/:id/redrive',
    answers.on('dead-letter.redrive', (c) => redriveOne(c, parts)),
  )
  for (const kind of ['redrive', 'purge'] as const) {
    app.post(
      `/v1/dead-letters:${kind}`,
      answers.on(`dead-letter.${kind}-all`, async (c) => {
        const { filter, options } = readPlan(await readJsonBody(c, parts.bodies))
        const operation =
          kind === 'redrive' ? deadLetters.redriveAll(filter, options) : deadLetters.purgeAll(filter, options)
        return jsonResponse(toldOperation(operation), 202, { location: `/v1/operations/${operation.id}` })
      }),
    )
  }
  app.get(
    '/v1/operations/:id',
    answers.on('operation.show', (c) =>
      jsonResponse(toldOperation(deadLetters.operation(idOf(c))), 200, NO_STORE),
    ),
  )
}

const NO_STORE = { 'cache-control': 'no-store' }

function idOf(c: RouteContext): string {
  return c.req.param('id') ?? ''
}

async function readPage(c: RouteContext, deadLetters: DeadLetters): Promise<Response> {
  const { url } = c.req.raw
  const { limit, cursor, ...rest } = readQuery(url, [...FILTER_NAMES, 'cursor', 'limit'])
  const options = { limit: readWhole('limit', limit, 1, 500), cursor }
  const { data, next, groups } = await deadLetters.page(readFilter(rest, 'Query parameter'), options)
  const body = {
    data: data.map(told),
    page: { next: next ?? null, prev: null },
    ...(groups === undefined ? {} : { groups }),
  }
  return jsonResponse(body, 200, { ...NO_STORE, ...linkHeader(url, { next, prev: undefined }) })
}

async function redriveOne(c: RouteContext, parts: DeadLetterRouteParts): Promise<Response> {
  const { deadLetters } = parts
  // What is not there is told before a body is looked at.
  if (c.req.raw.body !== null) await deadLetters.inspect(idOf(c))
  const body = await readJsonBody(c, parts.bodies)
  let edit: { readonly payload: unknown } | undefined
  if (body !== undefined) {
    const fields = readFields(body, ['payload'])
    if ('payload' in fields) {
      checkPayload(fields['payload'])
      edit = { payload: fields['payload'] }
    }
  }
  const { id, redrives } = await deadLetters.redrive(idOf(c), edit)
  return jsonResponse({ id, status: 'accepted', redrives }, 202)
}

/** `filter` must be there: `{}` says in so many words that all dead letters are meant. */
function readPlan(body: unknown): { readonly filter: DeadLetterFilter; readonly options: OperationOptions } {
  const { filter, dryRun, ratePerSecond } = readFields(body, ['filter', 'dryRun', 'ratePerSecond'])
  if (filter === undefined) {
    throw malformed(
      '"filter" is missing. It names stream, type, tenant, reason, error, from, to; {} means all dead letters.',
    )
  }
  if (dryRun !== undefined && typeof dryRun !== 'boolean') throw malformed('"dryRun" is true or false.')
  if (ratePerSecond !== undefined && typeof ratePerSecond !== 'number') {
    throw malformed(`"ratePerSecond" is a whole number from 1 to ${RATE_MAX}.`)
  }
  return { filter: readFilter(readFields(filter, FILTER_NAMES), 'Field'), options: { dryRun, ratePerSecond } }
}

/** @throws MillraceError `command.malformed` */
function readFilter(given: Readonly<Record<string, unknown>>, what: string): DeadLetterFilter {
  const text = (name: 'stream' | 'type' | 'tenant' | 'error'): string | undefined => {
    const value = given[name]
    if (value === undefined || (typeof value === 'string' && value !== '' && value.length <= ERROR_CHARS_MAX))
      return value
    throw malformed(`${what} "${name}" is a text of 1 to ${ERROR_CHARS_MAX} characters.`)
  }
  const time = (name: 'from' | 'to'): number | undefined => {
    const value = given[name]
    const atMs = timeOf(value)
    if (value === undefined || atMs !== undefined) return atMs
    throw malformed(`${what} "${name}" is a time such as "2030-01-31T08:00:00Z" (RFC 3339).`)
  }
  const [stream, type, tenant, error] = [text('stream'), text('type'), text('tenant'), text('error')]
  const reason = DEAD_REASONS.find((known) => known === given['reason'])
  if (given['reason'] !== undefined && reason === undefined)
    throw malformed(`${what} "reason" is one of ${DEAD_REASONS.join(', ')}.`)
  return { stream, type, tenant, reason, error, fromMs: time('from'), toMs: time('to') }
}

/** Times as people and programs read them. */
function told({ acceptedAtMs, deadSinceMs, ...rest }: DeadLetterSummary): object {
  return { ...rest, acceptedAt: timeText(acceptedAtMs), deadSince: timeText(deadSinceMs) }
}

function toldWhole({ failures, tickMs, payload, ...summary }: DeadLetter): object {
  return {
    ...told(summary),
    payload,
    failures: failures.map(({ attempt, atMs, error }) => ({ attempt, at: timeText(atMs), error })),
    ...(tickMs === undefined ? {} : { tick: timeText(tickMs) }),
  }
}

function toldOperation({ startedAtMs, endedAtMs, error, ...rest }: Operation): object {
  return {
    ...rest,
    startedAt: timeText(startedAtMs),
    ...(endedAtMs === undefined ? {} : { endedAt: timeText(endedAtMs) }),
    ...(error === undefined ? {} : { error }),
  }
}

function timeText(ms: number): string {
  return new Date(ms).toISOString()
}
