/**
 * Calls over HTTP, by the routes of the public listener.
 *
 * A command goes as a line of `POST /v1/commands`, also when it is the only one: under a key the server knows a repetition by what
 * was sent and in which form, so a command must not go as a line first and alone on the second try. Alone goes, from the first try
 * to the last, what the bulk route has no place for: a wait for the result, and a trace of its own.
 */
import type { SendingOptions } from '../contracts/producer.ts'
import type { Call, Carried, Carrier, Departure, Look, LookOptions, Parcel } from './carrier.ts'
import type { ClientView, ClientViewPage, ViewPageOptions } from './client.ts'
import type { ClientClock } from './client-clock.ts'
import { ClientError } from './client-error.ts'
import type { ResolvedOptions } from './client-options.ts'
import { CommandQueue, type Fate, type Packed } from './command-queue.ts'
import { type HttpAnswer, HttpExchange, refusalOf } from './http-exchange.ts'
import { readAccepted, readFates, readPage, readSituation } from './wire.ts'

interface Line extends Packed {
  readonly type: string
  readonly content: Uint8Array<ArrayBuffer>
}

interface Letter extends Packed {
  readonly parcel: Parcel
  readonly path: string
  readonly content: string
}

/** A server holds a request no longer than this, whatever it was asked for. */
const HELD_MAX_MS = 30_000
const LOOK_PAUSE_MS = 1000
const NOT_MODIFIED = 304

export class HttpCarrier implements Carrier {
  /** The server says when to look again, unless something hides its headers. */
  readonly lookPauseMs: readonly [number, number] = [LOOK_PAUSE_MS, LOOK_PAUSE_MS]
  readonly #options: ResolvedOptions
  readonly #clock: ClientClock
  readonly #exchange: HttpExchange
  readonly #lines: CommandQueue<Line>
  readonly #letters: CommandQueue<Letter>

  constructor(options: ResolvedOptions, clock: ClientClock) {
    this.#options = options
    this.#clock = clock
    this.#exchange = new HttpExchange(options, clock)
    this.#lines = new CommandQueue({
      deliver: (lines, signal) => this.#deliver(lines, signal),
      ...{ bounds: options, clock },
    })
    const alone = { lingerMs: 0, batchCountMax: 1, requestsInFlightMax: options.waitsInFlightMax }
    this.#letters = new CommandQueue({
      deliver: async ([letter], signal) => (letter === undefined ? [] : [await this.#post(letter, signal)]),
      ...{ bounds: { ...options, ...alone }, clock },
    })
  }

  prepare(parcel: Parcel): Departure {
    const { waitUntilMs, options } = parcel
    const isAlone = waitUntilMs !== undefined || options.traceparent !== undefined
    if (isAlone) return this.#departure(this.#letters, letterOf(parcel), waitUntilMs)
    return this.#departure(this.#lines, lineOf(parcel), undefined)
  }

  async look(id: string, { etag, waitMs }: LookOptions, call: Call): Promise<Look> {
    const path = `/v1/commands/${segment(id)}`
    const waitS = waitSeconds(waitMs)
    const headersAsked = { 'if-none-match': etag, prefer: preferText(waitS) }
    const answer = await this.#exchange.ask(
      { method: 'GET', path, headers: headersAsked, heldMs: waitS * 1000 },
      call,
    )
    const { status, headers, body, retryAfterS } = answer
    const isSame = status === NOT_MODIFIED
    if (status !== 200 && !isSame) throw refusalOf(answer, { id })
    return {
      situation: isSame ? undefined : readSituation(body),
      etag: headers.get('etag') ?? etag,
      retryAfterMs: retryAfterS === undefined ? undefined : retryAfterS * 1000,
    }
  }

  async cancel(id: string, call: Call): Promise<void> {
    const answer = await this.#exchange.ask({ method: 'DELETE', path: `/v1/commands/${segment(id)}` }, call)
    if (answer.status !== 202) throw refusalOf(answer, { id })
  }

  async view(
    projection: string,
    key: string,
    { after, ifNoneMatch }: { readonly after: string | undefined; readonly ifNoneMatch: string | undefined },
    call: Call,
  ): Promise<ClientView> {
    const answer = await this.#exchange.ask(
      {
        method: 'GET',
        path: `/v1/views/${segment(projection)}/${segment(key)}`,
        headers: { 'millrace-after': after, 'if-none-match': ifNoneMatch },
        heldMs: after === undefined ? 0 : HELD_MAX_MS,
      },
      call,
    )
    const { status, headers, body } = answer
    const isMissing = status === 404 && isNotFound(body)
    if (status !== 200 && status !== NOT_MODIFIED && !isMissing) throw refusalOf(answer)
    return {
      value: status === 200 ? body : undefined,
      unchanged: status === NOT_MODIFIED,
      etag: isMissing ? undefined : (headers.get('etag') ?? undefined),
      position: headers.get('millrace-position') ?? undefined,
      afterStatus: headers.get('millrace-after-status') ?? undefined,
    }
  }

  async page(
    projection: string,
    options: Omit<ViewPageOptions, 'signal'>,
    call: Call,
  ): Promise<ClientViewPage> {
    const path = `/v1/views/${segment(projection)}${queryOf({ ...options })}`
    const answer = await this.#exchange.ask({ method: 'GET', path }, call)
    if (answer.status !== 200) throw refusalOf(answer)
    return readPage(answer.body)
  }

  async close(): Promise<void> {
    await Promise.all([this.#lines.close(), this.#letters.close()])
  }

  #departure<Item extends Packed>(
    queue: CommandQueue<Item>,
    item: Item,
    waitUntilMs: number | undefined,
  ): Departure {
    return {
      room: () => queue.room(item.bytes),
      send: (signal) => {
        const deadlineMs = this.#clock.monotonicMs() + this.#options.deadlineMs
        return queue.enqueue(item, Math.max(deadlineMs, waitUntilMs ?? 0), signal)
      },
    }
  }

  async #deliver(lines: readonly Line[], signal: AbortSignal): Promise<readonly Fate[]> {
    const answer = await this.#exchange.ask(
      {
        ...{ method: 'POST', path: '/v1/commands', body: joined(lines) },
        headers: { 'content-type': 'application/x-ndjson' },
      },
      { deadlineMs: Number.POSITIVE_INFINITY, signal },
    )
    const types = lines.map(({ type }) => type)
    const fates = readFates(types, answer.body, answer.retryAfterS)
    if (fates !== undefined) return fates
    throw refusalOf(answer)
  }

  async #post({ parcel, path, content }: Letter, signal: AbortSignal): Promise<Carried> {
    const { type, idempotencyKey, waitUntilMs, options } = parcel
    const waitS = waitUntilMs === undefined ? 0 : waitSeconds(waitUntilMs - this.#clock.monotonicMs())
    const answer = await this.#exchange.ask(
      {
        ...{ method: 'POST', path, body: content },
        heldMs: waitS * 1000,
        headers: {
          'idempotency-key': idempotencyKey === undefined ? undefined : quoted(idempotencyKey),
          prefer: preferText(waitS),
          traceparent: options.traceparent,
        },
      },
      { deadlineMs: Number.POSITIVE_INFINITY, signal },
    )
    if (answer.status !== 200 && answer.status !== 202) throw refusalOf(answer)
    return carriedOf(type, answer)
  }
}

/** 200: it ended within the wait, and the body tells how. */
function carriedOf(type: string, { status, headers, body }: HttpAnswer): Carried {
  const accepted = readAccepted(type, body)
  if (status !== 200) return { accepted, ended: undefined }
  const deduplicated = accepted.deduplicated || headers.get('idempotent-replayed') === 'true'
  return { accepted: { ...accepted, deduplicated }, ended: readSituation(body) }
}

/** Whole seconds (RFC 7240); a server that waits longer than it can is cut off. */
function waitSeconds(waitMs: number): number {
  return Math.max(0, Math.floor(Math.min(waitMs, HELD_MAX_MS) / 1000))
}

function preferText(waitS: number): string | undefined {
  return waitS === 0 ? undefined : `wait=${waitS}`
}

/** @throws ClientError `invalid` */
function lineOf({ type, payload, options, idempotencyKey }: Parcel): Line {
  const text = jsonOf({ type, payload, idempotencyKey, ...timesOf(options) })
  const content = new TextEncoder().encode(`${text}\n`)
  return { type, content, bytes: content.length, idempotencyKey }
}

/** @throws ClientError `invalid` */
function letterOf(parcel: Parcel): Letter {
  const { type, payload, options, idempotencyKey } = parcel
  const content = jsonOf(payload)
  const path = `/v1/commands/${segment(type)}${queryOf(timesOf(options))}`
  // Its bytes are counted as if each character had two: it is sent as a text.
  return { parcel, path, content, bytes: 2 * content.length, idempotencyKey }
}

function timesOf({ delayMs, deliverAt, expiresInMs, expiresAt }: SendingOptions): Record<string, unknown> {
  return { delayMs, deliverAt: timeText(deliverAt), expiresInMs, expiresAt: timeText(expiresAt) }
}

/** A Date that is none is refused by the server like any other text that is no time. */
function timeText(time: Date | string | undefined): string | undefined {
  if (!(time instanceof Date)) return time
  return Number.isNaN(time.getTime()) ? 'no time' : time.toISOString()
}

function joined(lines: readonly Line[]): Uint8Array<ArrayBuffer> {
  const body = new Uint8Array(lines.reduce((sum, { bytes }) => sum + bytes, 0))
  let at = 0
  for (const { content, bytes } of lines) {
    body.set(content, at)
    at += bytes
  }
  return body
}

function jsonOf(value: unknown): string {
  try {
    return JSON.stringify(value) ?? 'null'
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : 'it can not be written'
    throw new ClientError('invalid', `The payload is no JSON: ${why.slice(0, 300)}.`)
  }
}

function queryOf(values: Readonly<Record<string, unknown>>): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(values)) if (value !== undefined) query.set(name, String(value))
  const text = query.toString()
  return text === '' ? '' : `?${text}`
}

/** A structured string (RFC 8941). */
function quoted(key: string): string {
  return `"${key.replace(/["\\]/g, '\\$&')}"`
}

/** What a path can not carry, no view and no command is called. */
function segment(text: string): string {
  try {
    if (text !== '' && text !== '.' && text !== '..') return encodeURIComponent(text)
  } catch {
    // Half of a surrogate pair.
  }
  throw new ClientError(
    'invalid',
    'A name in a URL is a well-formed text, and neither empty nor "." or "..".',
  )
}

function isNotFound(body: unknown): boolean {
  if (typeof body !== 'object' || body === null || !('type' in body)) return false
  return typeof body.type === 'string' && body.type.endsWith('/problems/not-found')
}
