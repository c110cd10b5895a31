/**
 * Commands over HTTP: one, many, status, cancel.
 *
 * The order of checks is the order of cost: path, size, content type, headers, then whether anything is taken at all, then
 * the body. Answers to commands are put together by hand; everything in them is known to need no escaping.
 */
import type { Hono } from 'hono'
import type { CommandBus } from '../commands/command-bus.ts'
import { fingerprintOf } from '../commands/idempotency.ts'
import { submitReadable } from '../commands/readable-submissions.ts'
import type { AcceptedCommand, SubmitOutcome } from '../contracts/producer.ts'
import type { Access } from './access.ts'
import { type Answers, jsonResponse, type RouteContext } from './answers.ts'
import type { BodyReader } from './body-reader.ts'
import { parseBulk, parseJson } from './bulk-body.ts'
import { decodeEventHeader, isDataType } from './cloud-event.ts'
import { EVENT_TYPES, eventModeOf, readEvent, readEventBatch } from './cloud-event-body.ts'
import { statusResponse } from './command-report.ts'
import { compressedResponse } from './compression.ts'
import { type CommandTimes, parseTimesQuery, TIME_NAMES } from './delivery.ts'
import type { DirectRoutes, Exchange } from './direct-routes.ts'
import type { HttpEnv } from './http-env.ts'
import { parseIdempotencyKey } from './idempotency-key.ts'
import { mediaOf } from './media-type.ts'
import { decodeMsgpack } from './msgpack-body.ts'
import { checkPayload } from './payload-limits.ts'
import { readPreferences } from './preferences.ts'
import { type PreferenceParts, preferredAnswer, preferredStatus } from './preferred-answer.ts'
import { HttpMistake, problemFromError, problemOf, statusOf } from './problem.ts'
import { readQuery, readSwitch } from './query.ts'
import type { RateLimits } from './rate-limits.ts'
import { tenantOf, tenantOfContext } from './tenant-of.ts'
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

export interface CommandRouteParts extends PreferenceParts {
  readonly bus: CommandBus
  readonly bodies: BodyReader
  readonly answers: Answers
  /** Undefined: everybody may send everything. */
  readonly access: Access | undefined
  readonly limits?: Pick<RateLimits, 'admitItems'> | undefined
  readonly bounds: CommandBounds
}

const SINGLE_TYPES = 'application/json, application/vnd.msgpack'
const BULK_TYPES = `application/json, application/x-ndjson, application/jsonl, application/vnd.msgpack, ${EVENT_TYPES}`

/** Content types of bodies, by path. */
export const ACCEPT_POST: Readonly<Record<string, string>> = {
  '/v1/commands/:type': SINGLE_TYPES,
  '/v1/commands': BULK_TYPES,
}

export function addCommandRoutes(app: Hono<HttpEnv>, direct: DirectRoutes, parts: CommandRouteParts): void {
  const { answers, bus } = parts
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
    answers.on('command.status', (c) => statusAnswer(c, parts)),
  )
  app.delete(
    '/v1/commands/:id',
    answers.on('command.cancel', async (c) => {
      readQuery(c.req.raw.url, [])
      const { id, status } = await bus.cancel(c.req.param('id') ?? '', tenantOfContext(c))
      return jsonResponse({ id, status }, 202, { location: `/v1/commands/${id}` })
    }),
  )
}

/** Waits first, if the client would rather have the end of the command. */
async function statusAnswer(c: RouteContext, parts: CommandRouteParts): Promise<Response> {
  const id = c.req.param('id') ?? ''
  const { raw } = c.req
  readQuery(raw.url, [])
  const tenant = tenantOfContext(c)
  const report = await parts.bus.status(id, tenant)
  const prefer = raw.headers.get('prefer')
  if (prefer === null) return statusResponse(raw.headers, report, parts.clock)
  const readStatus = () => parts.bus.status(id, tenant)
  return await preferredStatus({ request: raw, server: c.env, prefer, readStatus }, parts, report)
}

async function sendOne(exchange: Exchange, parts: CommandRouteParts): Promise<Response> {
  const { request, params } = exchange
  const { bus, bodies, bounds } = parts
  const [type = ''] = params
  bus.admit(type)
  const { headers, url } = request
  const media = mediaOf(headers.get('content-type'))
  if (media === undefined || media === 'ndjson') throw unsupported(headers, SINGLE_TYPES)
  const idempotencyKey = readKey(headers)
  const times = url.includes('?') ? readTimes(url) : undefined
  const trace = headers.get('traceparent') ?? undefined
  const prefer = headers.get('prefer')
  const place = bodies.enter(request, bounds.bodyBytesMax)
  let accepted: AcceptedCommand
  try {
    const body = await bodies.read(request, place)
    const payload = decodePayload(media, headers, body)
    const fingerprint =
      idempotencyKey === undefined ? undefined : fingerprintOf(type, media, new Uint8Array(body))
    const tenant = tenantOf(exchange)
    accepted = await bus.submit(type, payload, { idempotencyKey, fingerprint, trace, tenant, ...times })
  } finally {
    bodies.leave(place)
  }
  const answer = acceptedResponse(accepted)
  if (prefer === null) return answer
  const readStatus = () => bus.status(accepted.id, tenantOf(exchange))
  return await preferredAnswer({ ...exchange, prefer, readStatus }, parts, accepted, answer)
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

/** One CloudEvent; answered as one command is. */
async function sendEvent(
  exchange: Exchange,
  parts: CommandRouteParts,
  mode: 'structured' | 'binary',
): Promise<Response> {
  const { request, principal } = exchange
  const { bus, bodies, access, limits, bounds } = parts
  const { headers, url } = request
  if (mode === 'structured') bus.admitAny()
  else {
    const eventType = decodeEventHeader('ce-type', headers.get('ce-type') ?? '')
    access?.checkSending(principal, eventType)
    bus.admit(eventType)
    if (!isDataType(headers.get('content-type') ?? undefined)) throw unsupported(headers, BULK_TYPES)
  }
  const times = url.includes('?') ? readTimes(url) : undefined
  const trace = headers.get('traceparent') ?? undefined
  const prefer = headers.get('prefer')
  const place = bodies.enter(request, bounds.bodyBytesMax)
  let accepted: AcceptedCommand
  try {
    const body = Buffer.from(await bodies.read(request, place))
    const { type, payload, ...options } = parseBody(headers, BULK_TYPES, () =>
      readEvent(mode, headers, body, trace),
    )
    access?.checkSending(principal, type)
    await limits?.admitItems(request, principal, [{ type, payload }], true)
    accepted = await bus.submit(type, payload, { ...options, ...times, tenant: tenantOf(exchange) })
  } finally {
    bodies.leave(place)
  }
  const answer = acceptedResponse(accepted)
  if (prefer === null) return answer
  const readStatus = () => bus.status(accepted.id, tenantOf(exchange))
  return await preferredAnswer({ ...exchange, prefer, readStatus }, parts, accepted, answer)
}

async function sendMany(exchange: Exchange, parts: CommandRouteParts): Promise<Response> {
  const { request, principal } = exchange
  const { bus, bodies, access, limits, bounds } = parts
  const { headers, url } = request
  const mode = eventModeOf(headers)
  if (mode === 'structured' || mode === 'binary') return await sendEvent(exchange, parts, mode)
  const media = mode ?? mediaOf(headers.get('content-type'))
  if (media === undefined) throw unsupported(headers, BULK_TYPES)
  const key = readKey(headers)
  const trace = headers.get('traceparent') ?? undefined
  const atomic = readSwitch('atomic', readQuery(url, ['atomic']).atomic)
  bus.admitAny()
  const place = bodies.enter(request, bounds.bulkBytesMax)
  try {
    const body = Buffer.from(await bodies.read(request, place))
    const items = parseBody(headers, BULK_TYPES, () =>
      media === 'batch'
        ? readEventBatch(body, bounds.bulkItemsMax, trace)
        : parseBulk(media, body, { itemsMax: bounds.bulkItemsMax, key, trace }),
    )
    const allowed = access?.allowedItems(principal, items) ?? items
    const admitted =
      limits === undefined ? allowed : await limits.admitItems(request, principal, allowed, atomic)
    const outcomes = await submitReadable(bus, admitted, { atomic, tenant: tenantOf(exchange) })
    return await bulkResponse(headers, outcomes, bus.options.durability)
  } finally {
    bodies.leave(place)
  }
}

/** True for counts without results. Many commands are not waited for. */
function readBulkPreference(headers: Headers): boolean {
  const prefer = headers.get('prefer')
  return prefer !== null && readPreferences(prefer, 0).minimal
}

/** 202 when one or more were accepted; else the problem of the request, with every item's own. */
function bulkResponse(
  given: Headers,
  outcomes: readonly SubmitOutcome[],
  durability: string,
): Response | Promise<Response> {
  const minimal = readBulkPreference(given)
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
  if (accepted === 0 && outcomes.length > 0) throw nothingAccepted(outcomes)
  const rejected = outcomes.length - accepted
  const body = `{"accepted":${accepted},"rejected":${rejected},"durability":"${durability}"${minimal ? '' : `,"results":[${results}]`}}`
  const headers = new Headers({
    'content-type': 'application/json',
    ...(replayed > 0 && replayed === outcomes.length ? { 'idempotent-replayed': 'true' } : {}),
    ...(minimal ? { 'preference-applied': 'return=minimal' } : {}),
  })
  return compressedResponse(given, body, { status: 202, headers })
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
