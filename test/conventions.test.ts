/** What every route keeps to: HEAD, OPTIONS, content negotiation that refuses nobody, request ids. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { z } from 'zod'
import { openApp } from '../src/http/app-frame.ts'
import { DirectRoutes } from '../src/http/direct-routes.ts'
import { HttpServer } from '../src/http/server.ts'
import { defineCommand, defineEvent, defineProjection } from '../src/index.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { type PublicServer, startPublicServer } from './support/public-server.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { SILENT_TELEMETRY } from './support/telemetry.ts'
import { until } from './support/until.ts'

const payload = z.object({ text: z.string() })
const note = defineCommand({ type: 'note.write', payload })
const written = defineEvent({ type: 'note.written', payload })
const notes = defineProjection({ name: 'notes', initial: () => ({}) }).on(
  written,
  () => 'k',
  (view) => view,
)

let redis: TestRedis
let api: PublicServer
let id: string

beforeAll(async () => {
  redis = await startTestRedis()
  api = await startPublicServer(redis, buildCatalogue([note, written, notes]))
  id = ((await (await api.post('/v1/commands/note.write', { text: 'a' })).json()) as { id: string }).id
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
  await redis[Symbol.asyncDispose]()
})

test('HEAD has the headers of a GET, its length too, and no body', async () => {
  const paths = ['/livez', '/readyz?verbose', `/v1/commands/${id}`, '/v1/views/notes', '/problems/not-found']
  const missing = ['/v1/views/notes/nobody', '/v1/views/nope/x', '/nothing', '/v1/commands/zzz']
  for (const path of [...paths, ...missing]) {
    const get = await api.fetch(path)
    const head = await api.fetch(path, { method: 'HEAD' })
    expect([path, head.status, await head.text()]).toEqual([path, get.status, ''])
    const kept = ({ headers }: Response) =>
      ['content-type', 'etag', 'cache-control', 'millrace-position'].map((name) => headers.get(name))
    expect(kept(head)).toEqual(kept(get))
    const { length } = await get.arrayBuffer().then((bytes) => new Uint8Array(bytes))
    // Detail of health and request ids differ in what they say, not in how long they are.
    if (!path.includes('verbose'))
      expect([path, head.headers.get('content-length')]).toEqual([path, String(length)])
  }
  const etag = (await api.fetch(`/v1/commands/${id}`)).headers.get('etag') ?? ''
  const same = await api.fetch(`/v1/commands/${id}`, { method: 'HEAD', headers: { 'if-none-match': etag } })
  expect(same.status).toBe(304)
  expect((await api.fetch('/v1/commands', { method: 'HEAD' })).status).toBe(405)
})

test('HEAD of a stream ends the stream', async () => {
  const { app, answers } = openApp(SILENT_TELEMETRY)
  let ended = false
  const stream = () =>
    new ReadableStream({
      cancel: () => {
        ended = true
      },
    })
  app.get(
    '/live',
    answers.on('live', () => new Response(stream(), { headers: { 'content-type': 'text/event-stream' } })),
  )
  const parts = { name: 'live', app: new DirectRoutes(app), host: '127.0.0.1', port: 0 }
  await using server = new HttpServer({ ...parts, clock: SYSTEM_CLOCK, telemetry: SILENT_TELEMETRY })
  await server.start()
  const head = await fetch(`${server.url}/live`, { method: 'HEAD' })
  expect([head.status, head.headers.get('content-type')]).toEqual([200, 'text/event-stream'])
  await until('the stream to end', () => ended)
})

test('HEAD may wait as a GET does, longer than a connection may be silent', async () => {
  await using short = await startPublicServer(redis, buildCatalogue([note, written, notes]), {
    idleTimeoutS: 1,
  })
  const head = await short.fetch(`/v1/commands/${id}`, { method: 'HEAD', headers: { prefer: 'wait=5' } })
  expect([head.status, head.headers.get('preference-applied')]).toEqual([200, 'wait=5'])
})

test.each([
  [
    '/v1/commands',
    'POST',
    'application/json, application/x-ndjson, application/jsonl, application/vnd.msgpack, application/cloudevents+json, application/cloudevents-batch+json',
  ],
  ['/v1/commands/note.write', 'DELETE, GET, HEAD, POST', 'application/json, application/vnd.msgpack'],
  ['/v1/views/notes/x', 'GET, HEAD', null],
  ['/livez', 'GET, HEAD', null],
])('OPTIONS of %s tells methods and types', async (path, allow, types) => {
  const response = await api.fetch(path, { method: 'OPTIONS' })
  const told = ['allow', 'accept-post'].map((name) => response.headers.get(name))
  expect([response.status, ...told]).toEqual([204, allow, types])
})

test('nobody is refused for what they accept: JSON it is', async () => {
  for (const accept of ['text/html', 'application/xml;q=1, */*;q=0', 'nonsense']) {
    const response = await api.fetch('/v1/views/notes', { headers: { accept } })
    expect([response.status, response.headers.get('content-type')]).toEqual([200, 'application/json'])
  }
})

test('a misspelt parameter is told, also where there are none', async () => {
  const path = `/v1/commands/${id}?wait=5`
  for (const method of ['GET', 'DELETE']) expect((await api.fetch(path, { method })).status).toBe(400)
})

test('a request id comes back in problems, and only there; one that is none is replaced', async () => {
  const ask = async (path: string, given: string) =>
    (await api.fetch(path, { headers: { 'x-request-id': given } })).headers.get('x-request-id')
  expect(await ask('/nothing', 'mine-1')).toBe('mine-1')
  expect(await ask('/nothing', 'two words')).toMatch(/^[0-9a-f-]{36}$/)
  expect(await ask('/livez', 'mine-1')).toBeNull()
})
