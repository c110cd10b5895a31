/**
 * Views over HTTP: one by key, conditional and on request not before a command's effects; or a page in key order.
 */
import type { Hono } from 'hono'
import { MillraceError } from '../contracts/errors.ts'
import { type Answers, jsonText, type RouteContext } from './answers.ts'
import { matchesEtag } from './etag.ts'
import type { HttpEnv } from './http-env.ts'
import { HttpMistake } from './problem.ts'
import { readQuery, readWhole } from './query.ts'

/** What these routes need of whoever reads views. */
export interface ViewSource {
  read(
    projection: string,
    key: string,
    options?: {
      readonly after?: string | undefined
      readonly waitMs?: number | undefined
      readonly signal?: AbortSignal | undefined
    },
  ): Promise<{
    /** Undefined: there is no such view. The same object as long as the view is the same. */
    readonly value: unknown
    /** Without quotes. */
    readonly etag: string | undefined
    readonly position: string
    /** What became of the command in `after`. */
    readonly afterState: string | undefined
  }>
  page(
    projection: string,
    options?: {
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

export interface ViewRouteParts {
  readonly views: ViewSource
  readonly answers: Answers
  /** How long a request with Millrace-After waits. */
  readonly viewWaitMs: number
}

export function addViewRoutes(app: Hono<HttpEnv>, parts: ViewRouteParts): void {
  const { answers } = parts
  app.get(
    '/v1/views/:projection/:key',
    answers.on('view.read', (c) => readOne(c, parts)),
  )
  app.get(
    '/v1/views/:projection',
    answers.on('view.page', (c) => readPage(c, parts)),
  )
}

/** Beyond the wait itself, before the server gives up on the request. */
const GRACE_S = 10

async function readOne(c: RouteContext, { views, viewWaitMs }: ViewRouteParts): Promise<Response> {
  const request = c.req.raw
  readQuery(request.url, [])
  const after = request.headers.get('millrace-after') ?? undefined
  if (after !== undefined) c.env?.timeout?.(request, Math.ceil(viewWaitMs / 1000) + GRACE_S)
  const projection = c.req.param('projection') ?? ''
  const key = c.req.param('key') ?? ''
  const options = after === undefined ? {} : { after, waitMs: viewWaitMs, signal: request.signal }
  const { value, etag, position, afterState } = await readOrRefuse(views, projection, key, options)
  const headers: Record<string, string> = { 'millrace-position': position, 'cache-control': 'no-cache' }
  if (afterState !== undefined) headers['millrace-after-status'] = afterState
  if (etag === undefined) {
    throw new HttpMistake('not-found', `There is no view "${key.slice(0, 80)}" in this projection.`, headers)
  }
  headers['etag'] = `"${etag}"`
  if (matchesEtag(request.headers.get('if-none-match'), headers['etag'])) {
    return new Response(null, { status: 304, headers })
  }
  headers['content-type'] = 'application/json'
  return new Response(viewText(value), { headers })
}

/** An id that was never given out is a mistake in the header, not a missing view. */
async function readOrRefuse(
  views: ViewSource,
  projection: string,
  key: string,
  options: NonNullable<Parameters<ViewSource['read']>[2]>,
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

async function readPage(c: RouteContext, { views }: ViewRouteParts): Promise<Response> {
  const { url, headers } = c.req.raw
  if (headers.has('millrace-after')) {
    throw new MillraceError('command.malformed', 'Millrace-After works for one view, not for a page.')
  }
  const query = readQuery(url, ['limit', 'cursor', 'prefix', 'direction'])
  const page = await views.page(c.req.param('projection') ?? '', {
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
    const target = new URL(url)
    target.searchParams.set('cursor', cursor)
    links.push(`<${target.pathname}${target.search}>; rel="${rel}"`)
  }
  return links.length === 0 ? {} : { link: links.join(', ') }
}
