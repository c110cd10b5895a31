/** The table of routes, the OpenAPI documents and the documentation page that are made of it. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { version } from '../package.json' with { type: 'json' }
import { defineCommand } from '../src/contracts/command.ts'
import { MillraceError } from '../src/contracts/errors.ts'
import { defineEvent } from '../src/contracts/event.ts'
import { ANYBODY } from '../src/contracts/principal.ts'
import { defineProjection } from '../src/contracts/projection.ts'
import { ACCESS } from '../src/http/access.ts'
import { createAdminApp } from '../src/http/admin-app.ts'
import type { Guard } from '../src/http/guard.ts'
import { docsPage } from '../src/http/reference/docs-page.ts'
import { openApiDocument } from '../src/http/reference/openapi-document.ts'
import { listOperations } from '../src/http/reference/operations.ts'
import { ADMIN_TABLE, PUBLIC_TABLE, type RouteTable } from '../src/http/reference/route-tables.ts'
import { exampleOf } from '../src/http/reference/schema-text.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { TelemetryHub } from '../src/runtime/telemetry-hub.ts'
import { Contract, documentMistakes, type OpenApi } from './support/openapi-contract.ts'
import { type PublicServer, startPublicServer } from './support/public-server.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'

const item = z.object({ sku: z.string(), quantity: z.int().min(1) })
const placeFirst = defineCommand({ type: 'order.place', payload: z.object({ sku: z.string() }) })
const place = defineCommand({
  type: 'order.place',
  version: 2,
  payload: z.object({ items: z.array(item).min(1), note: z.string().default('none') }),
})
const hostile = defineCommand({
  type: 'order.note',
  payload: z.object({ text: z.string().describe('</style><script>alert(1)</script> `x` "y"') }),
})
const placed = defineEvent({ type: 'order.placed', payload: z.object({ sku: z.string() }) })
const key = (event: { readonly payload: { readonly sku: string } }): string => event.payload.sku
const counts = defineProjection({
  name: 'counts',
  version: 3,
  view: z.object({ count: z.number() }),
  initial: () => ({ count: 0 }),
}).on(placed, key, (view) => ({ count: view.count + 1 }))
const silent = defineProjection({ name: 'silent', initial: () => 0 }).on(placed, key, (view) => view + 1)
const catalogue = buildCatalogue([placeFirst, place, hostile, placed, counts, silent])
const nothing = buildCatalogue([])

const tables: Record<string, RouteTable> = { public: PUBLIC_TABLE, admin: ADMIN_TABLE }
const open = { version: '1.2.3', credentials: false, limited: false }
const documentOf = (table: RouteTable, from = catalogue, options = open): OpenApi =>
  JSON.parse(JSON.stringify(openApiDocument(listOperations(table, from), options))) as OpenApi

let redis: TestRedis
let api: PublicServer
beforeAll(async () => {
  redis = await startTestRedis()
  api = await startPublicServer(redis, catalogue)
})
afterAll(async () => {
  await api?.[Symbol.asyncDispose]()
  await redis?.[Symbol.asyncDispose]()
})

describe('the table of routes', () => {
  const told = ({ families }: RouteTable): string[] =>
    families.flatMap(({ routes }) => routes.map(({ method, path }) => `${method} ${path}`)).sort()
  const served = (routes: readonly { readonly method: string; readonly path: string }[]): string[] =>
    [...new Set(routes.map(({ method, path }) => `${method} ${path}`))].sort()

  test('holds every route of the public app, and no other', () => {
    expect(served(api.routes).length).toBeGreaterThan(10)
    expect(told(PUBLIC_TABLE)).toEqual(served(api.routes))
  })

  test('holds every route of the admin app, and no other', () => {
    // Its routes are there before anything is asked of them.
    const absent = undefined as never
    const { routes } = createAdminApp({
      ...{
        command: absent,
        schedules: absent,
        deadLetters: absent,
        keys: absent,
        catalogue,
        telemetry: new TelemetryHub(),
      },
      metrics: { watchListener: () => undefined } as never,
      ...{ health: () => [], started: () => true, draining: () => false },
    })
    expect(served(routes).length).toBeGreaterThan(10)
    expect(told(ADMIN_TABLE)).toEqual(served(routes))
  })

  test('asks of each route what its rule asks', () => {
    for (const { route, scope } of [PUBLIC_TABLE, ADMIN_TABLE].flatMap(({ families }) =>
      families.flatMap(({ routes }) => routes),
    )) {
      const rule = ACCESS[route]
      expect([route, scope ?? 'open']).toEqual([
        route,
        typeof rule === 'object' ? rule.verb : (rule ?? 'none'),
      ])
    }
  })

  test('calls routes by the names that they have in metrics', async () => {
    for (const { path, method, route } of PUBLIC_TABLE.families.flatMap(({ routes }) => routes)) {
      const asked = path.replace(/\/:\w+/g, '/none')
      const before = countsOf(api, route)
      await (await api.fetch(asked, { method })).body?.cancel()
      expect([route, countsOf(api, route)]).toEqual([route, before + 1])
    }
  })
})

function countsOf({ answers }: PublicServer, route: string): number {
  return [...answers.counts()]
    .filter((each) => each.route === route)
    .reduce((sum, { count }) => sum + count, 0)
}

describe.each(Object.keys(tables))('the document of the %s listener', (name) => {
  const table = tables[name] as RouteTable

  test.each([
    ['with definitions', catalogue, open],
    ['without any', nothing, open],
    ['with credentials', catalogue, { ...open, credentials: true }],
    ['with credentials and limits', catalogue, { ...open, credentials: true, limited: true }],
  ] as const)('is valid OpenAPI 3.1 and complete in itself, %s', async (_, from, options) => {
    const document = documentOf(table, from, options)
    expect(await documentMistakes(document)).toEqual([])
    const ids = new Contract(document).operations.map(({ operationId }) => operationId)
    expect(new Set(ids).size).toBe(ids.length)
  })

  test('uses every schema and every shared answer that it has', () => {
    const text = JSON.stringify(documentOf(table))
    const { schemas, responses } = documentOf(table).components
    const names = [...Object.keys(schemas).map((each) => `schemas/${each}`), ...Object.keys(responses)]
    expect(names.filter((each) => !text.includes(`${each}"`))).toEqual([])
  })

  test('tells when to ask again, of all that may go better later', () => {
    const { responses } = documentOf(table).components
    const later = Object.entries(responses).filter(([each]) => /^(425|503)\./.test(each))
    expect(later.length).toBeGreaterThan(0)
    for (const [, { headers }] of later) expect(headers).toHaveProperty('Retry-After')
  })

  test('tells who may, where credentials are asked for', () => {
    const { operations } = new Contract(documentOf(table, catalogue, { ...open, credentials: true }))
    const closed = operations.filter(({ security }) => (security as unknown[]).length > 0)
    expect(closed.map(({ operationId }) => operationId)).not.toContain('health.live')
    const scope = name === 'admin' ? 'admin' : 'commands:write'
    expect(JSON.stringify(closed)).toContain(`{"bearer":["${scope}"]}`)
  })
})

describe('commands and views', () => {
  const document = documentOf(PUBLIC_TABLE)
  const contract = new Contract(document)

  test('each command has its own path, with its payload as producers send it', () => {
    const body = document.paths['/v1/commands/order.place']?.['post']?.requestBody
    expect(Object.keys(body?.content ?? {})).toEqual(['application/json', 'application/vnd.msgpack'])
    const schema = body?.content['application/json']?.schema ?? {}
    expect(contract.mistakes(schema, { items: [{ sku: 'a', quantity: 1 }] })).toEqual([])
    expect(contract.mistakes(schema, { items: [] })).not.toEqual([])
    expect(contract.mistakes(schema, { sku: 'a' })).not.toEqual([])
  })

  test('the newest version is what is posted, and the older one is named', () => {
    expect(JSON.stringify(document)).toContain('command.order.place.v2')
    expect(JSON.stringify(document)).not.toContain('command.order.place.v1')
    expect(document.paths['/v1/commands/order.place']?.['post']?.['description']).toContain(
      'Version 1 is known',
    )
  })

  test('an item of a bulk body is told by its type', () => {
    const body = document.paths['/v1/commands']?.['post']?.requestBody
    const schema = body?.content['application/json']?.schema ?? {}
    const payload = { items: [{ sku: 'a', quantity: 1 }] }
    const good = [
      { type: 'order.place', payload, delayMs: 5, idempotencyKey: 'k' },
      { type: 'order.note', payload: { text: 'a' } },
    ]
    expect(contract.mistakes(schema, good)).toEqual([])
    expect(contract.mistakes(schema, [{ type: 'order.place', payload: { text: 'a' } }])).not.toEqual([])
    expect(contract.mistakes(schema, [{ type: 'order.none', payload }])).not.toEqual([])
    expect(contract.mistakes(schema, [{ type: 'order.place', payload, delay: 5 }])).not.toEqual([])
    expect(document.components.schemas['AnyCommand']?.['discriminator']).toEqual({
      propertyName: 'type',
      mapping: {
        'order.note': '#/components/schemas/item.order.note.v1',
        'order.place': '#/components/schemas/item.order.place.v2',
      },
    })
  })

  test('each projection has its own paths, with its view as it declares it, or open', () => {
    const viewOf = (path: string): string =>
      JSON.stringify(document.paths[path]?.['get']?.responses['200'] ?? 'none')
    expect(viewOf('/v1/views/counts/{key}')).toContain('view.counts.v3')
    expect(viewOf('/v1/views/counts')).toContain('view.counts.v3')
    const { schemas } = document.components
    expect(schemas['view.counts.v3']).toMatchObject({ properties: { count: { type: 'number' } } })
    expect(schemas['view.silent.v1']).toEqual({})
    expect(document.paths['/v1/views/silent/{key}']?.['get']?.['description']).toContain('Not described')
  })
})

describe('over HTTP', () => {
  test.each(['/openapi.json', '/docs'])('%s may be kept, and is asked for again', async (path) => {
    const first = await api.fetch(path)
    const etag = String(first.headers.get('etag'))
    expect([first.status, first.headers.get('cache-control')]).toEqual([200, 'no-cache'])
    const body = await first.text()
    const again = await api.fetch(path, { headers: { 'if-none-match': etag } })
    expect([again.status, again.headers.get('etag'), await again.text()]).toEqual([304, etag, ''])
    expect((await api.fetch(path, { headers: { 'if-none-match': '"other"' } })).status).toBe(200)
    const head = await api.fetch(path, { method: 'HEAD' })
    expect([head.status, head.headers.get('etag'), await head.text()]).toEqual([200, etag, ''])
    expect(await (await api.fetch(path)).text()).toBe(body)
    expect((await api.fetch(path, { method: 'POST' })).status).toBe(405)
  })

  test('the document is JSON of this application', async () => {
    const response = await api.fetch('/openapi.json')
    expect(response.headers.get('content-type')).toBe('application/json')
    const { paths } = (await response.json()) as OpenApi
    expect(Object.keys(paths)).toEqual(Object.keys(documentOf(PUBLIC_TABLE).paths))
  })
})

describe('a listener that asks for credentials', () => {
  const serve = (identify: Guard['identify']): Promise<PublicServer> =>
    startPublicServer(redis, catalogue, { guard: { identify, streamOfType: () => undefined } })

  test.each(['/openapi.json', '/docs'])('tells nothing by %s to who has none', async (path) => {
    await using guarded = await serve(() => {
      throw new MillraceError('identity.missing', 'No credential.')
    })
    const response = await guarded.fetch(path)
    expect(response.status).toBe(401)
    expect(response.headers.get('www-authenticate')).toContain('Bearer')
    expect(await response.text()).not.toContain('order.place')
  })

  test('tells in its document which scope each operation needs, 401 and 403', async () => {
    await using guarded = await serve(() => ANYBODY)
    const document = (await (await guarded.fetch('/openapi.json')).json()) as OpenApi
    expect(document).toEqual(documentOf(PUBLIC_TABLE, catalogue, { ...open, version, credentials: true }))
    const { security, responses } = document.paths['/v1/commands/order.place']?.['post'] ?? {}
    expect(security).toEqual([{ bearer: ['commands:write'] }])
    expect(Object.keys(responses ?? {})).toEqual(expect.arrayContaining(['401', '403', '503']))
    expect(Object.keys(document.paths['/livez']?.['get']?.responses ?? {})).not.toContain('401')
    expect(document.components.responses['401.unauthenticated']?.['headers']).toHaveProperty(
      'WWW-Authenticate',
    )
  })
})

test('a listener with rate limits tells of 429 and what is left, but for what is open', async () => {
  await using limited = await startPublicServer(redis, catalogue, {
    rateLimits: 'reference-test: 2 in 3600s',
  })
  const document = (await (await limited.fetch('/openapi.json')).json()) as OpenApi
  expect(document).toEqual(documentOf(PUBLIC_TABLE, catalogue, { ...open, version, limited: true }))
  const contract = new Contract(document)
  const path = '/v1/views/counts?limit=5'
  for (const status of [200, 429]) {
    const response = await limited.fetch(path)
    expect(response.status).toBe(status)
    expect(response.headers.has('ratelimit')).toBe(true)
    expect(await contract.complaints('GET', path, response)).toEqual([])
  }
  expect(Object.keys(document.paths['/livez']?.['get']?.responses ?? {})).not.toContain('429')
})

describe('the page', () => {
  test('loads nothing, runs nothing, and its one style is the one that is allowed', async () => {
    const response = await api.fetch('/docs')
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8')
    const text = await response.text()
    const policy = response.headers.get('content-security-policy') ?? ''
    const styles = [...text.matchAll(/<style>([\s\S]*?)<\/style>/g)].map(([, style]) => style ?? '')
    expect(styles.length).toBe(1)
    const hash = new Bun.CryptoHasher('sha256').update(styles[0] ?? '').digest('base64')
    expect(policy).toContain(`style-src 'sha256-${hash}'`)
    expect(policy).toContain("default-src 'none'")
    expect(text).not.toMatch(/<(script|img|iframe|object|form|base)\b/i)
    expect(text).not.toMatch(/\s(style|on\w+)=/i)
    expect([...text.matchAll(/(?:href|src)="([^"#/][^"]*)"/g)].map(([, url]) => url)).toEqual(['data:,'])
    expect([...text.matchAll(/(?:href|src)="(\/\/[^"]*)"/g)]).toEqual([])
  })

  test('every link inside leads to a place that is there once', async () => {
    const text = await docsPage(listOperations(PUBLIC_TABLE, catalogue), open)
    const ids = [...text.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id)
    const links = new Set([...text.matchAll(/ href="#([^"]+)"/g)].map(([, id]) => id))
    expect(new Set(ids).size).toBe(ids.length)
    expect(links.size).toBeGreaterThan(20)
    expect([...links].filter((link) => !ids.includes(link))).toEqual([])
  })

  test('shows each operation with an example for the shell, and what definitions say as text', async () => {
    const { operations } = listOperations(PUBLIC_TABLE, catalogue)
    const text = await docsPage({ ...listOperations(PUBLIC_TABLE, catalogue) }, open)
    expect(operations.filter(({ operationId }) => !text.includes(`id="op-${operationId}"`))).toEqual([])
    const curl = `curl -X POST "$URL/v1/commands/order.place" -H 'Content-Type: application/json' -d '{"items":[{"sku":"text","quantity":1}]}'`
    expect(text).toContain(Bun.escapeHTML(curl).replaceAll('&#x27;', '&#39;'))
    expect(text).not.toContain('<script')
    // What all commands share is told once.
    expect(text.split('<code>Idempotency-Key</code>').length - 1).toBe(2)
    expect(text).toContain('&lt;script&gt;alert(1)&lt;/script&gt;')
  })

  test('has an example of bounded size, whatever refers to whatever', () => {
    const members = Object.fromEntries(Array.from({ length: 30 }, (_, n) => [`m${n}`, { $ref: 'Self' }]))
    const self = { type: 'object', properties: members, required: Object.keys(members) }
    expect(JSON.stringify(exampleOf({ $ref: 'Self' }, { Self: self })).length).toBeLessThan(20_000)
  })

  test('tells the credential that is asked for', async () => {
    const text = await docsPage(listOperations(PUBLIC_TABLE, catalogue), { ...open, credentials: true })
    expect(text).toContain('Needs scope <code>commands:write</code>')
    expect(text).toContain('Authorization: Bearer $KEY')
  })
})
