/** Who may use which route of the public listener, and what those who may not learn; against a real listener and a real Redis. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { defineCommand } from '../src/contracts/command.ts'
import { MillraceError } from '../src/contracts/errors.ts'
import { defineEvent } from '../src/contracts/event.ts'
import { ANYBODY, VERBS } from '../src/contracts/principal.ts'
import { defineProjection } from '../src/contracts/projection.ts'
import { defineStream } from '../src/contracts/stream.ts'
import { ACCESS, Access, principalOf } from '../src/http/access.ts'
import { Answers } from '../src/http/answers.ts'
import type { Guard } from '../src/http/guard.ts'
import { makeCredential } from '../src/identity/credential.ts'
import { Gatekeeper } from '../src/identity/gatekeeper.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { Scopes } from '../src/policies/scopes.ts'
import type { TenantSource } from '../src/policies/tenant-choice.ts'
import { type PublicServer, startPublicServer } from './support/public-server.ts'
import { rawRequest } from './support/raw-request.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { SILENT_TELEMETRY } from './support/telemetry.ts'

const payload = z.object({ id: z.string() })
const orders = defineStream({ name: 'orders' })
const billing = defineStream({ name: 'billing' })
const place = defineCommand({ type: 'order.place', stream: orders, payload })
const charge = defineCommand({ type: 'invoice.charge', stream: billing, payload })
const placed = defineEvent({ type: 'order.placed', payload })
const initial = () => ({ count: 0 })
const totals = defineProjection({ name: 'totals', stream: orders, initial }).on(
  placed,
  ({ payload: { id } }) => id,
  (view) => view,
)
const secrets = defineProjection({ name: 'secrets', stream: orders, initial }).on(
  placed,
  ({ payload: { id } }) => id,
  (view) => view,
)
const catalogue = buildCatalogue([orders, billing, place, charge, placed, totals, secrets])

/** A token is a tenant and scopes, such as `acme/views:read+admin`, in base64: what proves it is not what is tested here. */
const tokenOf = (text: string): string => Buffer.from(text).toString('base64url')
const told = {
  verify: (token: string) => {
    const [tenant = '', scopes = ''] = Buffer.from(token, 'base64url').toString().split('/')
    if (scopes === '') throw new MillraceError('identity.invalid', 'The token is not valid.')
    return makeCredential('c', tenant, new Scopes(scopes.split('+')))
  },
}

function guardOf(tenantSources: readonly TenantSource[] = ['credential'], tenantDomain?: string): Guard {
  const gatekeeper = new Gatekeeper({
    credentials: { keys: told, tokens: told },
    tenantSources,
    tenantDomain,
  })
  return {
    identify: (headers) => gatekeeper.identify(headers),
    streamOfType: (type) => catalogue.commands.get(type)?.stream,
  }
}

let redis: TestRedis
let api: PublicServer

beforeAll(async () => {
  redis = await startTestRedis()
  api = await startPublicServer(redis, catalogue, { guard: guardOf() })
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
  await redis[Symbol.asyncDispose]()
})

const bearer = (scopes: string) => ({ authorization: `Bearer ${tokenOf(`/${scopes}`)}` })
const json = { 'content-type': 'application/json' }

interface Example {
  readonly method?: string
  readonly path: string
  readonly body?: string
  /** What the scope has to name; another name for the same route stands in `elsewhere`. */
  readonly name: string
  readonly elsewhere: Pick<Example, 'path' | 'body'>
}

/** One request for each public route that asks for a scope. */
const EXAMPLES: Readonly<Record<string, Example>> = {
  'command.send': {
    ...{ method: 'POST', path: '/v1/commands/order.place', body: '{"id":"1"}', name: 'orders' },
    elsewhere: { path: '/v1/commands/invoice.charge', body: '{"id":"1"}' },
  },
  'command.send-bulk': {
    ...{
      method: 'POST',
      path: '/v1/commands',
      body: '[{"type":"order.place","payload":{"id":"1"}}]',
      name: 'orders',
    },
    elsewhere: { path: '/v1/commands', body: '[{"type":"invoice.charge","payload":{"id":"1"}}]' },
  },
  'command.status': {
    ...{ path: '/v1/commands/orders.0.e1712000000000-0.AAAAAAAAAAA', name: 'orders' },
    elsewhere: { path: '/v1/commands/billing.0.e1712000000000-0.AAAAAAAAAAA' },
  },
  'command.cancel': {
    ...{ method: 'DELETE', path: '/v1/commands/orders.0.e1712000000000-0.AAAAAAAAAAA', name: 'orders' },
    elsewhere: { path: '/v1/commands/billing.0.e1712000000000-0.AAAAAAAAAAA' },
  },
  'view.read': { path: '/v1/views/totals/a', name: 'totals', elsewhere: { path: '/v1/views/secrets/a' } },
  'view.page': { path: '/v1/views/totals', name: 'totals', elsewhere: { path: '/v1/views/secrets' } },
  'event.tail': { path: '/v1/events/orders', name: 'orders', elsewhere: { path: '/v1/events/billing' } },
}

async function ask(example: Pick<Example, 'method' | 'path' | 'body'>, headers: Record<string, string> = {}) {
  const { method = 'GET', path, body } = example
  return await api.fetch(path, {
    method,
    headers: { ...json, ...headers },
    ...(body === undefined ? {} : { body }),
  })
}

describe('every route has a rule, and keeps it', () => {
  const scoped = Object.entries(ACCESS).flatMap(([route, rule]) =>
    typeof rule === 'object' ? [{ route, ...rule }] : [],
  )

  test('an app with a guard is not built when one of its routes has no rule', () => {
    const answers = new Answers(SILENT_TELEMETRY, new Access(() => undefined))
    expect(() => answers.on('new.route', () => new Response())).toThrow(/"new.route" has no rule/)
    expect(() => answers.direct('toString', () => new Response())).toThrow(/has no rule/)
    // Both apps were built with guards: the public one above, the admin one in identity-keys.test.ts.
  })

  test('there is an example for each rule that asks for a scope, and for no other', () => {
    expect(scoped.map(({ route }) => route)).toEqual(Object.keys(EXAMPLES))
    expect(Object.values(ACCESS).filter((rule) => rule === 'open').length).toBe(4)
  })

  for (const { route, verb } of scoped) {
    const example = EXAMPLES[route]
    if (example === undefined) continue
    for (const path of [example.path, `${example.path}?`]) {
      test(`${route} ${path}: only ${verb}, and only for what it names`, async () => {
        const asked = { ...example, path }
        const nobody = await ask(asked)
        expect([nobody.status, nobody.headers.get('www-authenticate')]).toEqual([
          401,
          'Bearer realm="millrace"',
        ])
        for (const right of [verb, `${verb}:*`, `${verb}:${example.name}`]) {
          const { status } = await ask(asked, bearer(right))
          expect([right, status === 401 || status === 403]).toEqual([right, false])
        }
        for (const wrong of VERBS.filter((each) => each !== verb)) {
          const response = await ask(asked, bearer(wrong))
          expect([wrong, response.status]).toEqual([wrong, 403])
          expect(response.headers.get('www-authenticate')).toBe(
            'Bearer realm="millrace", error="insufficient_scope"',
          )
        }
        const elsewhere = await ask({ ...example, ...example.elsewhere }, bearer(`${verb}:${example.name}`))
        if (route !== 'command.send-bulk') return expect(elsewhere.status).toBe(403)
        expect(elsewhere.status).toBe(422)
        expect(await elsewhere.json()).toMatchObject({
          results: [{ problem: { status: 403, type: '/problems/forbidden' } }],
        })
      })
    }
  }

  test('health and the pages about problems are open, also with a credential that is none', async () => {
    for (const path of ['/livez', '/readyz?verbose', '/startupz', '/problems/forbidden']) {
      for (const headers of [{}, { authorization: 'Bearer nonsense' }, { authorization: 'Basic eDp5' }]) {
        expect((await api.fetch(path, { headers })).status).toBe(200)
      }
    }
  })

  test('admin opens nothing here', async () => {
    for (const example of Object.values(EXAMPLES))
      expect((await ask(example, bearer('admin'))).status).toBe(403)
  })
})

describe('what those who may not learn', () => {
  test('without a credential everything is 401: what is there, what is not, and wrong methods', async () => {
    for (const path of [
      '/v1/commands/order.place',
      '/v1/commands/nosuch.type',
      '/v1/nothing',
      '/',
      '/v1/views/nosuch/a',
    ])
      for (const method of ['GET', 'POST', 'DELETE', 'OPTIONS', 'PUT'])
        expect([method, path, (await api.fetch(path, { method })).status]).toEqual([method, path, 401])
  })

  test('an unknown type is told to who may write all streams, and to nobody else', async () => {
    const body = '{"id":"1"}'
    const all = await ask(
      { method: 'POST', path: '/v1/commands/order.plcae', body },
      bearer('commands:write'),
    )
    expect(all.status).toBe(404)
    expect(await all.text()).toContain('order.place')
    const unknown = await ask(
      { method: 'POST', path: '/v1/commands/order.plcae', body },
      bearer('commands:write:billing'),
    )
    const known = await ask(
      { method: 'POST', path: '/v1/commands/order.place', body },
      bearer('commands:write:billing'),
    )
    const [a, b] = [
      (await unknown.json()) as Record<string, unknown>,
      (await known.json()) as Record<string, unknown>,
    ]
    expect([unknown.status, known.status, a['detail']]).toEqual([403, 403, b['detail']])
    expect(JSON.stringify(a)).not.toContain('order.place"')
    expect((await ask({ path: '/v1/views/nosuch/a' }, bearer('views:read'))).status).toBe(404)
    expect((await ask({ path: '/v1/views/nosuch/a' }, bearer('views:read:totals'))).status).toBe(403)
  })

  test('a bulk body in every form: the items that may go, go', async () => {
    const [good, bad] = [
      { type: 'order.place', payload: { id: '1' } },
      { type: 'invoice.charge', payload: { id: '1' } },
    ]
    const unknown = { type: 'nosuch', payload: {} }
    const bodies: Record<string, string> = {
      'application/json': JSON.stringify([good, bad, unknown]),
      'application/x-ndjson': [good, bad, unknown].map((each) => JSON.stringify(each)).join('\n'),
    }
    for (const [type, body] of Object.entries(bodies)) {
      const headers = { 'content-type': type, ...bearer('commands:write:orders') }
      const response = await api.fetch('/v1/commands', { method: 'POST', headers, body })
      expect(response.status).toBe(202)
      const { accepted, results } = (await response.json()) as { accepted: number; results: object[] }
      expect(accepted).toBe(1)
      const forbidden = { problem: { type: '/problems/forbidden' } }
      expect(results).toMatchObject([{ index: 0 }, { index: 1, ...forbidden }, { index: 2, ...forbidden }])
    }
    const headers = { ...json, ...bearer('commands:write:orders') }
    const atomic = await api.fetch('/v1/commands?atomic=true', {
      method: 'POST',
      headers,
      body: JSON.stringify([good, bad]),
    })
    expect(atomic.status).toBe(422)
  })

  test('a CloudEvent is judged by its type, in every mode', async () => {
    const context = { specversion: '1.0', id: '1', source: '/shop' }
    const body = (type: string) => JSON.stringify({ ...context, type, data: { id: '1' } })
    const send = (headers: Record<string, string>, text: string) =>
      api.fetch('/v1/commands', {
        method: 'POST',
        headers: { ...headers, ...bearer('commands:write:orders') },
        body: text,
      })
    for (const [type, status] of [
      ['order.place', 202],
      ['invoice.charge', 403],
      ['nosuch', 403],
    ] as const) {
      const structured = await send({ 'content-type': 'application/cloudevents+json' }, body(type))
      expect([type, structured.status]).toEqual([type, status])
      const attributes = { 'ce-specversion': '1.0', 'ce-id': '2', 'ce-source': '/shop', 'ce-type': type }
      const binary = await send({ ...json, ...attributes }, '{"id":"1"}')
      expect([type, binary.status]).toEqual([type, status])
    }
    const batch = await send(
      { 'content-type': 'application/cloudevents-batch+json' },
      `[${body('invoice.charge')},${body('order.place')}]`,
    )
    expect(await batch.json()).toMatchObject({ accepted: 1, rejected: 1 })
  })

  test('a path that only looks like an open one is not', async () => {
    for (const target of [
      '/livez/',
      '/livez/x',
      '//livez',
      '/problems/',
      '/problems/a/b',
      '/problems/..%2f..%2fv1',
      '/LIVEZ',
      '/livez%00',
      '/x/../livez/../v1/views/totals/a',
    ])
      expect([
        target,
        (await rawRequest(api.server.port, [`GET ${target} HTTP/1.1`, 'Host: a'])).status,
      ]).toEqual([target, 401])
    // What the server makes of a strange Host: whatever path it sees then, it does not serve a route that asks for somebody.
    for (const host of ['a/livez?', 'a/livez#', 'a?/livez', 'a/problems/x?', '', '/livez']) {
      for (const target of ['/v1/views/totals/a', '/v1/views/totals', '/x/v1/views/totals']) {
        const { status, text } = await rawRequest(api.server.port, [
          `GET ${target} HTTP/1.1`,
          `Host: ${host}`,
        ])
        expect([
          host,
          target,
          status === 401 ||
            status === 400 ||
            text.includes('{"ok":true}') ||
            text.includes('/problems/not-found'),
        ]).toEqual([host, target, true])
        expect(text).not.toContain('millrace-position')
      }
    }
  })

  test('a credential in two headers, or in another scheme, is none', async () => {
    const token = tokenOf('/views:read')
    const good = `Authorization: Bearer ${token}`
    const asked = (...lines: string[]) =>
      rawRequest(api.server.port, ['GET /v1/views/totals HTTP/1.1', 'Host: a', ...lines])
    expect((await asked(good)).status).toBe(200)
    expect((await asked(`authorization: bearer   ${token}`)).status).toBe(200)
    for (const lines of [
      [good, good],
      ['Authorization: Basic LS92aWV3czpyZWFk'],
      [`Authorization: ${token}`],
      ['Authorization: Bearer'],
      [`${good} x`],
      ['Authorization: '],
    ]) {
      const { status, text } = await asked(...lines)
      expect([lines, status]).toEqual([lines, 401])
      expect(text).toMatch(/www-authenticate: Bearer realm="millrace"/i)
    }
  })
})

describe('tenants', () => {
  const domain = 'api.example.com'
  const view = async (server: PublicServer, token: string, lines: readonly string[]): Promise<number> => {
    const head = ['GET /v1/views/totals HTTP/1.1', `Authorization: Bearer ${token}`, ...lines]
    return (await rawRequest(server.server.port, head)).status
  }

  test('from credential, header and host, over the wire', async () => {
    await using server = await startPublicServer(redis, catalogue, {
      guard: guardOf(['credential', 'header', 'subdomain'], domain),
    })
    const asked = (token: string, ...lines: string[]) => view(server, tokenOf(`${token}/views:read`), lines)
    expect(await asked('acme', 'Host: acme.api.example.com')).toBe(200)
    expect(await asked('acme', 'Host: AcMe.API.example.com.:8080')).toBe(200)
    expect(await asked('acme', 'Host: localhost')).toBe(200)
    expect(await asked('acme', 'Host: other.api.example.com')).toBe(403)
    expect(await asked('acme', 'Host: localhost', 'Millrace-Tenant: other')).toBe(403)
    expect(await asked('acme', 'Host: acme.api.example.com', 'Millrace-Tenant: other')).toBe(403)
    expect(await asked('acme', 'Host: acme.api.example.com', 'Host: other.api.example.com')).toBe(400)
    expect(await asked('acme', 'Host: acme.api.example.com', 'Host: acme.api.example.com')).toBe(400)
    expect(await asked('acme', 'Host: localhost', 'Millrace-Tenant: acme', 'Millrace-Tenant: other')).toBe(
      400,
    )
    expect(await asked('acme', 'Host: localhost', 'X-Forwarded-Host: other.api.example.com')).toBe(200)
    expect(await asked('', 'Host: acme.api.example.com')).toBe(403)
    expect(await asked('*', 'Host: acme.api.example.com')).toBe(200)
    expect(await asked('*', 'Host: a.b.api.example.com')).toBe(400)
  })

  test('what is not configured says nothing', async () => {
    const asked = (...lines: string[]) => view(api, tokenOf('acme/views:read'), lines)
    expect(await asked('Host: other.api.example.com', 'Millrace-Tenant: other')).toBe(200)
    expect(await asked('Host: a', 'Millrace-Tenant: }x{')).toBe(200)
  })

  test('the principal that routes see is the one of the chosen tenant', () => {
    const gatekeeper = new Gatekeeper({
      credentials: { keys: told, tokens: told },
      tenantSources: ['header'],
      tenantDomain: undefined,
    })
    const identify = (token: string, tenant: string) =>
      gatekeeper.identify(
        new Headers({ authorization: `Bearer ${tokenOf(token)}`, 'millrace-tenant': tenant }),
      )
    expect(identify('*/views:read', 'acme')).toMatchObject({ credential: 'c', tenant: 'acme' })
    expect(identify('acme/views:read', 'acme')).toMatchObject({ tenant: 'acme' })
    const open = new Gatekeeper({
      credentials: undefined,
      tenantSources: ['header'],
      tenantDomain: undefined,
    })
    expect(open.identify(new Headers({ 'millrace-tenant': 'acme' }))).toMatchObject({
      credential: '',
      tenant: 'acme',
    })
    expect(open.identify(new Headers())).toBe(ANYBODY)
  })
})

test('a route of Hono and a route that is found directly see the same principal; without a guard it is anybody', async () => {
  const seen: unknown[] = []
  const see = (principal: unknown) => {
    seen.push(principal)
    return new Response()
  }
  const answers = new Answers(SILENT_TELEMETRY)
  const { Hono } = await import('hono')
  const { DirectRoutes } = await import('../src/http/direct-routes.ts')
  const app = new Hono<import('../src/http/http-env.ts').HttpEnv>()
  const direct = new DirectRoutes(app)
  direct.add(
    'GET',
    '/direct',
    answers.direct('a', ({ principal }) => see(principal)),
  )
  app.get(
    '/hono',
    answers.on('b', (c) => see(principalOf(c))),
  )
  const me = { ...ANYBODY, credential: 'me' }
  for (const principal of [undefined, me]) {
    for (const path of ['/direct', '/direct?', '/hono'])
      await direct.fetch(new Request(`http://host${path}`), {}, principal)
  }
  expect(seen).toEqual([ANYBODY, ANYBODY, ANYBODY, me, me, me])
})
