/**
 * `GET /v1/events/{stream}`: the events of a stream as they are committed, as server-sent events.
 *
 * A reader begins with what comes from now on, with `?from=start` at the oldest event that is kept, or after a cursor: the
 * `Last-Event-ID` that a browser sends when it comes back, else `?after=`. Whatever `Accept` says, the answer is a stream.
 */
import type { Hono } from 'hono'
import { MillraceError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { NO_TENANT, type Tenant } from '../contracts/tenant.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { LoggedEvent } from '../redis/event-log.ts'
import type { Clock } from '../runtime/clock.ts'
import type { TailBeginning, Tails } from '../tails/tails.ts'
import type { Answers, RouteContext } from './answers.ts'
import { EventStream } from './event-stream.ts'
import type { HttpEnv } from './http-env.ts'
import { readQuery } from './query.ts'
import { tenantOfContext } from './tenant-of.ts'

export interface EventRouteParts {
  readonly tails: Tails
  readonly answers: Answers
  readonly ids: CommandIds
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly heartbeatMs: number
}

const TYPES_MAX = 100

const HEADERS: Readonly<Record<string, string>> = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-store',
  // For nginx and those who follow it: don't collect.
  'x-accel-buffering': 'no',
}

export function addEventRoutes(app: Hono<HttpEnv>, parts: EventRouteParts): void {
  app.get(
    '/v1/events/:stream',
    parts.answers.on('event.tail', (c) => tailEvents(c, parts)),
  )
}

async function tailEvents(c: RouteContext, parts: EventRouteParts): Promise<Response> {
  const { tails, ids, clock, telemetry, heartbeatMs } = parts
  const request = c.req.raw
  const stream = c.req.param('stream') ?? ''
  const { beginning, types, key } = readTailQuery(request)
  let body: EventStream | undefined
  const tail = await tails.open({
    stream,
    beginning,
    sees: visibleTo({ types, key }, tenantOfContext(c)),
    onEnd: (end) => body?.end(end),
  })
  const origins = tail.partitions.map((partition) => ({ ids, stream, partition }))
  const limitSilence = (seconds: number): void => c.env?.timeout?.(request, seconds)
  const close: Tails['close'] = (closed, end) => tails.close(closed, end)
  body = new EventStream(tail, { origins, heartbeatMs, clock, telemetry, limitSilence, close })
  // Both may have come while the tail was being opened.
  if (tail.closed) body.end('draining')
  if (request.signal.aborted) body.leave()
  request.signal.addEventListener('abort', () => body.leave(), { once: true })
  return new Response(body.body, { headers: HEADERS })
}

interface EventFilter {
  readonly types: ReadonlySet<string>
  readonly key: string | undefined
}

/**
 * The one place that decides which events of a stream a reader may see: those of its tenant, or, without one, those that have none. It
 * is asked before anything of an event is made into text. An event that can't be read matches no filter, and is told to no tenant.
 */
function visibleTo({ types, key }: EventFilter, tenant: Tenant): (event: LoggedEvent) => boolean {
  if (types.size === 0 && key === undefined) return ({ header }) => (header?.tenant ?? NO_TENANT) === tenant
  return ({ header }) =>
    header !== undefined &&
    header.tenant === tenant &&
    (types.size === 0 || types.has(header.type)) &&
    (key === undefined || header.key === key)
}

interface TailQuery extends EventFilter {
  readonly beginning: TailBeginning
}

/** @throws MillraceError `command.malformed` */
function readTailQuery({ url, headers }: Request): TailQuery {
  const given = new URL(url)
  const types = given.searchParams.getAll('type')
  given.searchParams.delete('type')
  const { after, from, key } = readQuery(given.href, ['after', 'from', 'key', 'type'])
  if (types.length > TYPES_MAX)
    throw malformed(`Query parameter "type" is given more than ${TYPES_MAX} times.`)
  if (types.includes('')) throw malformed('Query parameter "type" is the type of an event.')
  if (after !== undefined && from !== undefined) throw malformed('Give "after" or "from", not both.')
  if (from !== undefined && from !== 'start' && from !== 'now') {
    throw malformed('Query parameter "from" is "start" or "now".')
  }
  // A browser comes back with the URL that it began with, so the header knows better.
  const cursor = headers.get('last-event-id') || after
  return { beginning: cursor === undefined ? (from ?? 'now') : { cursor }, types: new Set(types), key }
}

function malformed(sentence: string): MillraceError {
  return new MillraceError('command.malformed', sentence)
}
