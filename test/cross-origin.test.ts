/** Pages of other origins: who may use the API, with which headers, and that nothing of it is there unless it was asked for. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { parseOrigins } from '../src/config/origins.ts'
import { defineCommand, defineEvent, defineProjection } from '../src/index.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { type PublicServer, startPublicServer } from './support/public-server.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'

const APP = 'https://app.example'
const note = defineCommand({ type: 'note.write', payload: z.object({ text: z.string() }) })
const written = defineEvent({ type: 'note.written', payload: z.object({ text: z.string() }) })
const notes = defineProjection({ name: 'notes', initial: () => ({}) }).on(
  written,
  () => 'k',
  (view) => view,
)
const catalogue = buildCatalogue([note, written, notes])

let redis: TestRedis
let off: PublicServer
let named: PublicServer
let open: PublicServer

beforeAll(async () => {
  redis = await startTestRedis()
  off = await startPublicServer(redis, catalogue)
  named = await startPublicServer(redis, catalogue, { app: { corsOrigins: [APP, 'http://localhost:5173'] } })
  open = await startPublicServer(redis, catalogue, { app: { corsOrigins: ['*'] } })
})
afterAll(async () => {
  for (const each of [off, named, open]) await each[Symbol.asyncDispose]()
  await redis[Symbol.asyncDispose]()
})

const corsHeaders = ({ headers }: Response): Record<string, string> =>
  Object.fromEntries([...headers].filter(([name]) => name === 'vary' || name.startsWith('access-control-')))

const preflight = (server: PublicServer, origin: string, asked?: string, path = '/v1/commands/note.write') =>
  server.fetch(path, {
    method: 'OPTIONS',
    headers: {
      ...{ origin, 'access-control-request-method': 'POST' },
      ...(asked === undefined ? {} : { 'access-control-request-headers': asked }),
    },
  })

describe('a preflight', () => {
  test('allows what clients send, by name, and attributes of CloudEvents, and nothing else', async () => {
    const sent =
      'Content-Type, idempotency-key, Authorization, Prefer, Millrace-After, If-None-Match, Last-Event-ID, traceparent, tracestate, X-Request-Id, ce-id, ce-comexample'
    const response = await preflight(named, APP, `${sent}, X-Evil, ce-, ce-no-hyphen, cookie`)
    expect(response.status).toBe(204)
    expect(await response.text()).toBe('')
    expect(corsHeaders(response)).toEqual({
      'access-control-allow-origin': APP,
      'access-control-allow-methods': 'GET, HEAD, POST, DELETE',
      'access-control-allow-headers': sent.toLowerCase(),
      'access-control-max-age': '600',
      vary: 'Origin, Access-Control-Request-Headers',
    })
  })

  test('of another origin allows nothing', async () => {
    for (const origin of ['https://evil.example', `${APP}.evil.example`, 'https://APP.example', 'null']) {
      expect(corsHeaders(await preflight(named, origin, 'content-type'))).toEqual({
        vary: 'Origin, Access-Control-Request-Headers',
      })
    }
  })

  test('is answered on paths that are not there too, and while nothing is taken', async () => {
    expect((await preflight(named, APP, 'content-type', '/v1/nothing')).status).toBe(204)
    const drained = await startPublicServer(redis, catalogue, { app: { corsOrigins: [APP] } })
    drained.bus.drain()
    expect((await preflight(drained, APP, 'content-type')).headers.get('access-control-allow-origin')).toBe(
      APP,
    )
    await drained[Symbol.asyncDispose]()
  })

  test('with all origins names the star, and still every header', async () => {
    const response = await preflight(open, 'https://anywhere.example', 'authorization, ce-id')
    expect(response.headers.get('access-control-allow-origin')).toBe('*')
    expect(response.headers.get('access-control-allow-headers')).toBe('authorization, ce-id')
  })

  test('OPTIONS that is none tells what the path takes', async () => {
    const response = await named.fetch('/v1/commands/note.write', {
      method: 'OPTIONS',
      headers: { origin: APP },
    })
    expect(response.headers.get('allow')).toBe('DELETE, GET, HEAD, POST')
    expect(response.headers.get('access-control-allow-origin')).toBe(APP)
  })
})

describe('an answer', () => {
  test.each([
    ['a command', '/v1/commands/note.write', { method: 'POST', body: '{"text":"a"}' }, 202],
    [
      'a problem of a route that is found directly',
      '/v1/commands/note.write',
      { method: 'POST', body: '{' },
      400,
    ],
    ['a problem at once', '/v1/commands/no.such', { method: 'POST', body: '{}' }, 404],
    ['a path that is not there', '/nothing', {}, 404],
    ['a view that is not there', '/v1/views/notes/x', {}, 404],
    ['health', '/livez', {}, 200],
  ])('may be read by the named origins: %s', async (_, path, init, status) => {
    const headers = { origin: APP, 'content-type': 'application/json' }
    const response = await named.fetch(path, { ...init, headers })
    expect(response.status).toBe(status)
    expect(response.headers.get('access-control-allow-origin')).toBe(APP)
    expect(response.headers.get('vary')).toContain('Origin')
    expect(response.headers.get('access-control-allow-credentials')).toBeNull()
    const exposed = (response.headers.get('access-control-expose-headers') ?? '').split(', ')
    for (const name of [
      ...['Location', 'Retry-After', 'ETag', 'Idempotent-Replayed', 'Preference-Applied', 'RateLimit'],
      ...['RateLimit-Policy', 'X-Request-Id', 'Link'],
    ])
      expect(exposed).toContain(name)
  })

  test('not by others, and a cache learns that it matters', async () => {
    for (const headers of [{}, { origin: 'https://evil.example' }]) {
      const response = await named.fetch('/livez', { headers })
      expect([response.status, corsHeaders(response)]).toEqual([200, { vary: 'Origin' }])
    }
    const all = await open.fetch('/livez', { headers: { origin: 'https://anywhere.example' } })
    expect(all.headers.get('access-control-allow-origin')).toBe('*')
    expect(all.headers.get('vary')).toBeNull()
  })

  test('unless it was asked for, there is nothing of it', async () => {
    expect(corsHeaders(await off.fetch('/livez', { headers: { origin: APP } }))).toEqual({})
    const asked = await preflight(off, APP, 'content-type')
    expect([corsHeaders(asked), asked.headers.get('allow')]).toEqual([{}, 'DELETE, GET, HEAD, POST'])
  })
})

describe('MILLRACE_CORS_ORIGINS', () => {
  test.each([
    ['', []],
    ['*', ['*']],
    [`${APP}, http://localhost:5173,${APP}`, [APP, 'http://localhost:5173']],
    ['http://[::1]:3000', ['http://[::1]:3000']],
    ['capacitor://localhost', ['capacitor://localhost']],
  ])('%s', (text, origins) => {
    expect(parseOrigins(text, 'X')).toEqual(origins)
  })

  test.each([
    ['https://app.example/', 'did you mean "https://app.example"?'],
    ['https://app.example/path', 'did you mean "https://app.example"?'],
    ['https://APP.example', 'did you mean "https://app.example"?'],
    ['https://app.example:443', 'did you mean "https://app.example"?'],
    ['https://user:secret@app.example', 'did you mean "https://app.example"?'],
    ['app.example', 'write it as a browser does'],
    ['null', 'any page without an origin'],
    ['https://*.example', 'stands for all origins'],
    [`*, ${APP}`, 'beside others'],
    ['javascript:alert(1)', 'no origin'],
  ])('%s is refused with advice', (text, advice) => {
    expect(() => parseOrigins(text, 'X')).toThrow(advice)
  })
})
