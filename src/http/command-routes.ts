/**
 * Commands over HTTP: one, many, status, cancel.
 *
 * The order of checks is the order of cost: path, size, content type, headers, then whether anything is taken at all, then
 * the body. Answers to commands are put together by hand; everything in them is known to need no escaping.
 */
import type { Hono } from 'hono'
import type { CommandBus } from '../commands/command-bus.ts'
import type { CommandReport } from '../commands/command-status.ts'
import { fingerprintOf } from '../commands/idempotency.ts'
import { submitReadable } from '../commands/readable-submissions.ts'
import type { AcceptedCommand, SubmitOutcome } from '../contracts/producer.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Access } from './access.ts'
import { type Answers, jsonResponse, jsonText, type RouteContext } from './answers.ts'
import type { BodyReader } from './body-reader.ts'
import { parseBulk, parseJson } from './bulk-body.ts'
import { type CommandTimes, parseTimesQuery, TIME_NAMES } from './delivery.ts'
import type { DirectRoutes, Exchange } from './direct-routes.ts'
import { etagOf, matchesEtag } from './etag.ts'
import type { HttpEnv } from './http-env.ts'
import { parseIdempotencyKey } from './idempotency-key.ts'
import { mediaOf } from './media-type.ts'
import { decodeMsgpack } from './msgpack-body.ts'
import { checkPayload } from './payload-limits.ts'
import {
  describeProblem,
  HttpMistake,
  type Problem,
  problemFromError,
  problemOf,
  statusOf,
} from './problem.ts'
import { readQuery, readSwitch } from './query.ts'
import type { RateLimits } from './rate-limits.ts'
import { utf8Text } from './utf8-text.ts'

export interface CommandBounds {
  /** Bytes of the body of one command. Default 256 KiB. */
  readonly bodyBytesMax: number
  /** Bytes of a bulk body. Default 8 MiB. */
  readonly bulkBytesMax: number
  /** Commands in a bulk body. Default 10 000. */
  readonly bulkItemsMax: number
}

export const COMMAND_BOUNDS_DEFAULTS: CommandBounds = {
  bodyBytesMax: 256 * 1024,
  bulkBytesMax: 8 * 1024 ** 2,
  bulkItemsMax: 10_000,
}

export interface CommandRouteParts {
  readonly bus: CommandBus
  readonly bodies: BodyReader
  readonly answers: Answers
  readonly clock: Clock
  /** Undefined: everybody may send everything. */
  readonly access: Access | undefined
  readonly limits?: Pick<RateLimits, 'admitItems'> | undefined
  readonly bounds: CommandBounds
}

const SINGLE_TYPES = 'application/json, application/vnd.msgpack'
const BULK_TYPES = 'application/json, application/x-ndjson, application/jsonl, application/vnd.msgpack'

export function addCommandRoutes(app: Hono<HttpEnv>, direct: DirectRoutes, parts: CommandRouteParts): void {
  const { answers, bus, clock } = parts
  direct.add(
    'POST',
    '/v1/commands/:type',
    answers.direct('command.send', (exchange) => sendOne(exchange, parts)),
  )
  direct.add(
    'POST',
    '/v1/commands',
    answers.direct('command.send-bulk', (exchange) => sendMany(exchange, parts)),
  )
  app.get(
    '/v1/commands/:id',
    answers.on('command.status', async (c) =>
      statusResponse(c, await bus.status(c.req.param('id') ?? ''), clock),
    ),
  )
  app.delete(
    '/v1/commands/:id',
    answers.on('command.cancel', async (c) => {
      const { id, status } = await bus.cancel(c.req.param('id') ?? '')
      return jsonResponse({ id, status }, 202, { location: `/v1/commands/${id}` })
    }),
  )
}

async function sendOne(
  { request, params }: Exchange,
  { bus, bodies, bounds }: CommandRouteParts,
): Promise<Response> {
  const [type = ''] = params
  bus.admit(type)
  const { headers, url } = request
  const media = mediaOf(headers.get('content-type'))
  if (media === undefined || media === 'ndjson') throw unsupported(headers, SINGLE_TYPES)
  const idempotencyKey = readKey(headers)
  const times = url.includes('?') ? readTimes(url) : undefined
  const trace = headers.get('traceparent') ?? undefined
  const place = bodies.enter(request, bounds.bodyBytesMax)
  try {
    const body = await bodies.read(request, place)
    const payload = decodePayload(media, headers, body)
    const fingerprint =
      idempotencyKey === undefined ? undefined : fingerprintOf(type, media, new Uint8Array(body))
    return acceptedResponse(await bus.submit(type, payload, { idempotencyKey, fingerprint, trace, ...times }))
  } finally {
    bodies.leave(place)
  }
}

function decodePayload(media: 'json' | 'msgpack', headers: Headers, body: ArrayBuffer): unknown {
  if (media === 'msgpack') return parseBody(headers, SINGLE_TYPES, () => decodeMsgpack(Buffer.from(body)))
  const payload = parseBody(headers, SINGLE_TYPES, () => parseJson(utf8Text(body)))
  checkPayload(payload)
  return payload
}

/** A compressed body does not parse; then the honest answer is 415. */
function parseBody<Value>(headers: Headers, types: string, parse: () => Value): Value {
  try {
    return parse()
  } catch (error) {
    const encoding = headers.get('content-encoding')
    if (encoding === null || encoding.toLowerCase() === 'identity') throw error
    throw unsupported(headers, types)
  }
}

function unsupported(headers: Headers, types: string): HttpMistake {
  const given = headers.get('content-encoding') ?? headers.get('content-type') ?? 'none'
  return new HttpMistake(
    'unsupported-media-type',
    `"${given.slice(0, 80)}" is not taken here; send ${types}.`,
    {
      'accept-post': types,
    },
  )
}

function readKey(headers: Headers): string | undefined {
  const key = headers.get('idempotency-key')
  return key === null ? undefined : parseIdempotencyKey(key)
}

function readTimes(url: string): CommandTimes {
  return parseTimesQuery(readQuery(url, TIME_NAMES))
}

function acceptedResponse({ id, type, status, durability, deduplicated }: AcceptedCommand): Response {
  const body = `{"id":"${id}","type":"${type}","status":"${status}","durability":"${durability}","deduplicated":${deduplicated}}`
  const location = `/v1/commands/${id}`
  return new Response(body, {
    status: 202,
    headers: deduplicated
      ? { 'content-type': 'application/json', location, 'idempotent-replayed': 'true' }
      : { 'content-type': 'application/json', location },
  })
}

async function sendMany(
  { request, principal }: Exchange,
  { bus, bodies, access, limits, bounds }: CommandRouteParts,
): Promise<Response> {
  const { headers, url } = request
  const media = mediaOf(headers.get('content-type'))
  if (media === undefined) throw unsupported(headers, BULK_TYPES)
  const key = readKey(headers)
  const trace = headers.get('traceparent') ?? undefined
  const atomic = readSwitch('atomic', readQuery(url, ['atomic']).atomic)
  bus.admitAny()
  const place = bodies.enter(request, bounds.bulkBytesMax)
  try {
    const body = Buffer.from(await bodies.read(request, place))
    const items = parseBody(headers, BULK_TYPES, () =>
      parseBulk(media, body, { itemsMax: bounds.bulkItemsMax, key, trace }),
    )
    const allowed = access?.allowedItems(principal, items) ?? items
    const admitted =
      limits === undefined ? allowed : await limits.admitItems(request, principal, allowed, atomic)
    return bulkResponse(await submitReadable(bus, admitted, { atomic }), bus.options.durability)
  } finally {
    bodies.leave(place)
  }
}

/** 202 when one or more were accepted; else the problem of the request, with every item's own. */
function bulkResponse(outcomes: readonly SubmitOutcome[], durability: string): Response {
  let accepted = 0
  let replayed = 0
  let results = ''
  for (let index = 0; index < outcomes.length; index++) {
    const outcome = outcomes[index]
    if (outcome === undefined) continue
    if (index > 0) results += ','
    if (outcome.accepted === undefined) {
      results += `{"index":${index},"problem":${JSON.stringify(problemFromError(outcome.error))}}`
      continue
    }
    const { id, status, deduplicated } = outcome.accepted
    accepted += 1
    if (deduplicated) replayed += 1
    const scheduled = status === 'scheduled' ? ',"status":"scheduled"' : ''
    results += `{"index":${index},"id":"${id}"${scheduled}${deduplicated ? ',"deduplicated":true' : ''}}`
  }
  if (accepted === 0) throw nothingAccepted(outcomes)
  const rejected = outcomes.length - accepted
  const body = `{"accepted":${accepted},"rejected":${rejected},"durability":"${durability}","results":[${results}]}`
  return new Response(body, {
    status: 202,
    headers: {
      'content-type': 'application/json',
      ...(replayed === outcomes.length ? { 'idempotent-replayed': 'true' } : {}),
    },
  })
}

/** When one of the items may go better later, so may the request. */
function nothingAccepted(outcomes: readonly SubmitOutcome[]): HttpMistake {
  const results = outcomes.map((outcome, index) => ({
    index,
    problem: outcome.accepted === undefined ? problemFromError(outcome.error) : undefined,
  }))
  const members = { accepted: 0, rejected: outcomes.length, results }
  for (const outcome of outcomes) {
    if (outcome.accepted !== undefined) continue
    const name = problemOf(outcome.error)
    if (statusOf(name) !== 503 && name !== 'quota-exceeded') continue
    const retryAfterS = Math.ceil(outcome.error.retryAfterS ?? 1)
    const more = name === 'quota-exceeded' ? { 'violated-policies': outcome.error.policies } : {}
    const headers = { 'retry-after': String(retryAfterS) }
    return new HttpMistake(name, outcome.error.message, headers, { ...members, ...more })
  }
  return new HttpMistake('nothing-accepted', `All ${outcomes.length} commands were refused.`, {}, members)
}

const OPEN_STATES: ReadonlySet<string> = new Set(['scheduled', 'accepted', 'processing', 'retrying'])

function statusResponse(c: RouteContext, report: CommandReport, clock: Clock): Response {
  const body = jsonText(statusBody(report))
  const etag = etagOf(body)
  const retryAfter = OPEN_STATES.has(report.status) ? { 'retry-after': retryAfterText(report, clock) } : {}
  const headers = { etag, 'cache-control': 'no-cache', ...retryAfter }
  if (matchesEtag(c.req.raw.headers.get('if-none-match'), etag))
    return new Response(null, { status: 304, headers })
  return new Response(body, { headers: { 'content-type': 'application/json', ...headers } })
}

function statusBody(report: CommandReport): object {
  const { id, stream, status, attempt, result, reason, dueAtMs, deadLetterId } = report
  const problem = problemOfCommand(report)
  return {
    id,
    stream,
    status,
    ...(attempt === undefined ? {} : { attempt }),
    ...(result === undefined ? {} : { result }),
    ...(reason === undefined ? {} : { reason }),
    ...(problem === undefined ? {} : { problem }),
    ...(dueAtMs === undefined ? {} : { dueAt: new Date(dueAtMs).toISOString() }),
    ...(deadLetterId === undefined ? {} : { deadLetterId }),
  }
}

/** Why a command is not done; a problem of the command, not of this request. */
function problemOfCommand({ status, reason, error }: CommandReport): Problem | undefined {
  if (status === 'lost') {
    return describeProblem('command-lost', 'It was acknowledged, and Redis no longer has it.')
  }
  const name = reason === 'expired' ? 'command-expired' : 'command-failed'
  return error === undefined ? undefined : describeProblem(name, error)
}

const RETRY_AFTER_MAX_S = 60

function retryAfterText({ dueAtMs }: CommandReport, clock: Clock): string {
  if (dueAtMs === undefined) return '1'
  const seconds = Math.ceil((dueAtMs - clock.nowMs()) / 1000)
  return String(Math.min(RETRY_AFTER_MAX_S, Math.max(1, seconds)))
}
