/**
 * Views over HTTP: one by key, conditional and on request not before a command's effects; or a page in key order.
 */
import type { Hono } from 'hono'
import { MillraceError } from '../contracts/errors.ts'
import type { Tenant } from '../contracts/tenant.ts'
import { type Answers, jsonText, type RouteContext } from './answers.ts'
import { COMPRESSED_CHARS_MIN, compressedResponse } from './compression.ts'
import type { DirectRoutes, Exchange } from './direct-routes.ts'
import { etagAsHeld, matchesEtag } from './etag.ts'
import type { HttpEnv } from './http-env.ts'
import { HttpMistake } from './problem.ts'
import { readQuery, readWhole } from './query.ts'
import { tenantOf, tenantOfContext } from './tenant-of.ts'

export interface ServedView {
  /** Undefined: there is no such view. The same object as long as the view is the same. */
  readonly value: unknown
  /** Without quotes. */
  readonly etag: string | undefined
  readonly position: string
  /** What became of the command in `after`. */
  readonly afterState: string | undefined
}

/** What is known of a view without reading it. */
export interface ServedAddress {
  readonly tenant: Tenant
}

/** What these routes need of whoever reads views. */
export interface ViewSource<Address extends ServedAddress = ServedAddress> {
  /** Where a view is to be found; it stays true. */
  address(projection: string, key: string, tenant: Tenant): Address
  /** From the memory of this process, and the same object as long as nothing in it changed; undefined: `read` it. */
  held(address: Address): ServedView | undefined
  read(
    projection: string,
    key: string,
    options?: {
      readonly tenant?: Tenant | undefined
      readonly after?: string | undefined
      readonly waitMs?: number | undefined
      readonly signal?: AbortSignal | undefined
    },
  ): Promise<ServedView>
  page(
    projection: string,
    options?: {
      readonly tenant?: Tenant | undefined
      readonly limit?: number | undefined
      readonly cursor?: string | undefined
      readonly prefix?: string | undefined
      readonly direction?: 'forward' | 'backward' | undefined
    },
  ): Promise<{
    readonly data: readonly { readonly key: string; readonly value: unknown; readonly etag: string }[]
    readonly next: string | undefined
    readonly prev: string | undefined
    readonly position: string
  }>
}

export interface ViewRouteParts<Address extends ServedAddress> {
  readonly views: ViewSource<Address>
  readonly answers: Answers
  /** How long a request with Millrace-After waits. */
  readonly viewWaitMs: number
  /** How many of them wait at once: each looks at Redis again and again. */
  readonly viewWaitsMax: number
}

export function addViewRoutes<Address extends ServedAddress>(
  app: Hono<HttpEnv>,
  direct: DirectRoutes,
  parts: ViewRouteParts<Address>,
): void {
  const { answers, views } = parts
  const waits = { count: 0 }
  /** By the parameters of a path, which are the same object for a URL that is asked for again: of who asked for it last. */
  const addresses = new WeakMap<readonly string[], Address>()
  const addressOf = (params: readonly string[], tenant: Tenant): Address => {
    const known = addresses.get(params)
    if (known !== undefined && known.tenant === tenant) return known
    const [projection = '', key = ''] = params
    const address = views.address(projection, key, tenant)
    addresses.set(params, address)
    return address
  }
  direct.add(
    'GET',
    '/v1/views/:projection/:key',
    answers.direct('view.read', (exchange) => readOne(exchange, parts, addressOf, waits)),
  )
  app.get(
    '/v1/views/:projection',
    answers.on('view.page', (c) => readPage(c, parts)),
  )
}

/** Beyond the wait itself, before the server gives up on the request. */
const GRACE_S = 10

/** At once, when the view lies in memory and nothing has to be waited for. */
function readOne<Address extends ServedAddress>(
  exchange: Exchange,
  { views, viewWaitMs, viewWaitsMax }: ViewRouteParts<Address>,
  addressOf: (params: readonly string[], tenant: Tenant) => Address,
  waits: { count: number },
): Response | Promise<Response> {
  const { request, server, url, params } = exchange
  readQuery(url, [])
  const { headers } = request
  const after = headers.get('millrace-after') ?? undefined
  const [, key = ''] = params
  const tenant = tenantOf(exchange)
  if (after === undefined) {
    const held = views.held(addressOf(params, tenant))
    if (held !== undefined) return viewResponse(headers, key, held)
  } else {
    server?.timeout?.(request, Math.ceil(viewWaitMs / 1000) + GRACE_S)
  }
  const [projection = ''] = params
  const reading = (options: ViewReadOptions): Promise<Response> =>
    readOrRefuse(views, projection, key, options).then((view) => viewResponse(headers, key, view))
  if (after === undefined) return reading({ tenant })
  if (waits.count >= viewWaitsMax) {
    throw new MillraceError('admission.overloaded', 'Too many requests wait for a view.', { retryAfterS: 1 })
  }
  waits.count += 1
  return reading({ tenant, after, waitMs: viewWaitMs, signal: request.signal }).finally(() => {
    waits.count -= 1
  })
}

type ViewReadOptions = NonNullable<Parameters<ViewSource['read']>[2]>

function viewResponse(given: Headers, key: string, view: ServedView): Response | Promise<Response> {
  const { headers, etag } = formOf(view)
  if (etag === undefined) {
    const detail = `There is no view "${key.slice(0, 80)}" in this projection.`
    throw new HttpMistake('not-found', detail, Object.fromEntries(headers))
  }
  if (matchesEtag(given.get('if-none-match'), etag)) {
    const unchanged = new Headers(headers)
    unchanged.delete('content-type')
    unchanged.set('etag', etagAsHeld(given.get('if-none-match'), etag))
    return new Response(null, { status: 304, headers: unchanged })
  }
  const text = viewText(view.value)
  if (text.length < COMPRESSED_CHARS_MIN) return new Response(text, { headers })
  return compressedResponse(given, text, { status: 200, headers: new Headers(headers) })
}

/** What is sent before a view. */
interface Form {
  readonly headers: Headers
  /** With quotes. */
  readonly etag: string | undefined
}

/** A view from memory is the same object each time, and so is what is sent before it: `Headers` are taken over twice as fast as a record. */
const forms = new WeakMap<ServedView, Form>()

function formOf(view: ServedView): Form {
  const known = forms.get(view)
  if (known !== undefined) return known
  const { position, afterState } = view
  const etag = view.etag === undefined ? undefined : `"${view.etag}"`
  const headers = new Headers({ 'millrace-position': position, 'cache-control': 'no-cache' })
  if (afterState !== undefined) headers.set('millrace-after-status', afterState)
  if (etag !== undefined) {
    headers.set('etag', etag)
    headers.set('content-type', 'application/json')
  }
  const form = { headers, etag }
  forms.set(view, form)
  return form
}

/** An id that was never given out is a mistake in the header, not a missing view. */
async function readOrRefuse(
  views: Pick<ViewSource, 'read'>,
  projection: string,
  key: string,
  options: ViewReadOptions,
): ReturnType<ViewSource['read']> {
  try {
    return await views.read(projection, key, options)
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'not-found') {
      throw new MillraceError(
        'command.malformed',
        'Millrace-After is not the id of a command that was ever accepted.',
      )
    }
    throw error
  }
}

/** A cached view is the same object each time, and so is its text. */
const texts = new WeakMap<object, string>()

function viewText(value: unknown): string {
  if (typeof value !== 'object' || value === null) return jsonText(value)
  const known = texts.get(value)
  if (known !== undefined) return known
  const text = jsonText(value)
  texts.set(value, text)
  return text
}

async function readPage(
  c: RouteContext,
  { views }: { readonly views: Pick<ViewSource, 'page'> },
): Promise<Response> {
  const { url, headers } = c.req.raw
  if (headers.has('millrace-after')) {
    throw new MillraceError('command.malformed', 'Millrace-After works for one view, not for a page.')
  }
  const query = readQuery(url, ['limit', 'cursor', 'prefix', 'direction'])
  const page = await views.page(c.req.param('projection') ?? '', {
    tenant: tenantOfContext(c),
    limit: readWhole('limit', query.limit, 1, 500),
    cursor: query.cursor,
    prefix: query.prefix,
    direction: readDirection(query.direction),
  })
  const answer = { data: page.data, page: { next: page.next ?? null, prev: page.prev ?? null } }
  return new Response(jsonText(answer), {
    headers: {
      'content-type': 'application/json',
      'cache-control': 'no-cache',
      'millrace-position': page.position,
      ...linkHeader(url, page),
    },
  })
}

function readDirection(value: string | undefined): 'forward' | 'backward' | undefined {
  if (value === undefined || value === 'forward' || value === 'backward') return value
  throw new MillraceError('command.malformed', 'Query parameter "direction" is "forward" or "backward".')
}

/** A host may be anything that a client sent. */
function pathAndQuery(url: string): string {
  return url.slice(url.indexOf('/', url.indexOf('://') + 3))
}

/** The neighbours of a page (RFC 8288), relative to this server. */
export function linkHeader(
  url: string,
  { next, prev }: { readonly next: string | undefined; readonly prev: string | undefined },
): { link?: string } {
  const links: string[] = []
  for (const [rel, cursor] of [
    ['next', next],
    ['prev', prev],
  ] as const) {
    if (cursor === undefined) continue
    const target = new URL(pathAndQuery(url), 'http://localhost')
    target.searchParams.set('cursor', cursor)
    links.push(`<${target.pathname}${target.search}>; rel="${rel}"`)
  }
  return links.length === 0 ? {} : { link: links.join(', ') }
}
