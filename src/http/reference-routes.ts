/**
 * What a listener tells of itself: `GET /openapi.json` for programs, `GET /docs` for people. Each is made at its first
 * request, and stays the same until the process ends. What makes them is loaded then too: most processes are never asked.
 */
import type { Hono } from 'hono'
import { version } from '../../package.json' with { type: 'json' }
import type { Catalogue } from '../policies/catalogue.ts'
import type { Answers, RouteContext } from './answers.ts'
import { etagAsHeld, etagOf, matchesEtag } from './etag.ts'
import type { HttpEnv } from './http-env.ts'
import type { Listener, ReferenceText } from './reference/reference.ts'

export interface ReferenceParts {
  readonly answers: Answers
  readonly listener: Listener
  readonly catalogue: Catalogue
  /** True when this listener asks for credentials. */
  readonly credentials: boolean
  /** True when this listener has rate limits. */
  readonly limited: boolean
}

export function addReferenceRoutes(app: Hono<HttpEnv>, parts: ReferenceParts): void {
  const { answers, listener, catalogue, credentials, limited } = parts
  const options = { version, credentials, limited }
  const load = () => import('./reference/reference.ts')
  const document = madeOnce(async () => (await load()).makeDocument(listener, catalogue, options))
  const page = madeOnce(async () => (await load()).makePage(listener, catalogue, options))
  app.get(
    '/openapi.json',
    answers.on('reference.openapi', async (c) => answer(c, await document())),
  )
  app.get(
    '/docs',
    answers.on('reference.page', async (c) => answer(c, await page())),
  )
}

interface TaggedText extends ReferenceText {
  readonly etag: string
}

/** A fault is not remembered: the next request tries again. */
function madeOnce(make: () => Promise<ReferenceText>): () => Promise<TaggedText> {
  let made: Promise<TaggedText> | undefined
  const tag = async (): Promise<TaggedText> => {
    const text = await make()
    return { ...text, etag: etagOf(text.text) }
  }
  return async () => {
    made ??= tag()
    try {
      return await made
    } catch (error) {
      made = undefined
      throw error
    }
  }
}

/** Kept by caches, and asked for again each time: after a deploy the old one is wrong. */
function answer(c: RouteContext, { text, etag, headers }: TaggedText): Response {
  const ifNoneMatch = c.req.raw.headers.get('if-none-match')
  if (matchesEtag(ifNoneMatch, etag)) {
    const held = { etag: etagAsHeld(ifNoneMatch, etag), 'cache-control': 'no-cache' }
    return new Response(null, { status: 304, headers: held })
  }
  return new Response(text, { headers: { ...headers, etag, 'cache-control': 'no-cache' } })
}
