/** Every mistake a client can make has one answer: status, problem type and the headers that go with it. */
import { afterAll, beforeAll, describe, expect, spyOn, test } from 'bun:test'
import { connect } from 'node:net'
import { pack } from 'msgpackr'
import { z } from 'zod'
import { defineCommand } from '../src/contracts/command.ts'
import { MillraceError } from '../src/contracts/errors.ts'
import { defineEvent } from '../src/contracts/event.ts'
import { defineProjection } from '../src/contracts/projection.ts'
import { defineStream } from '../src/contracts/stream.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { loseNextReply } from './support/lost-reply.ts'
import { type PublicServer, startPublicServer } from './support/public-server.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const stream = defineStream({ name: 'orders', partitions: 4 })
const place = defineCommand({
  type: 'order.place',
  stream,
  payload: z.object({
    orderId: z.string(),
    items: z.array(z.object({ qty: z.number().positive() })).optional(),
  }),
  key: (payload) => payload.orderId,
})
const anything = defineCommand({ type: 'anything', payload: z.unknown() })
const placed = defineEvent({ type: 'order.placed', payload: z.object({ orderId: z.string() }) })
const projection = defineProjection<{ count: number }>({
  name: 'counts',
  stream,
  initial: () => ({ count: 0 }),
}).on(
  placed,
  (event) => event.payload.orderId,
  (view) => ({ count: view.count + 1 }),
)
const catalogue = buildCatalogue([stream, place, anything, placed, projection])

let redis: TestRedis
let api: PublicServer

beforeAll(async () => {
  redis = await startTestRedis()
  api = await startPublicServer(redis, catalogue, {
    app: { bodyBytesMax: 64 * 1024, bulkBytesMax: 256 * 1024, bulkItemsMax: 100, viewWaitMs: 150 },
  })
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
  await redis[Symbol.asyncDispose]()
})

interface ProblemBody {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly instance: string
  readonly requestId: string
  readonly errors?: { pointer: string; detail: string }[]
}

/** Checks what every problem has, and answers its body. */
async function expectProblem(response: Response, status: number, name: string): Promise<ProblemBody> {
  const body = (await response.json()) as ProblemBody
  expect({ status: response.status, type: body.type.replace(/^.*[/#]/, '') }).toEqual({ status, type: name })
  expect(response.headers.get('content-type')).toBe('application/problem+json')
  expect(body.status).toBe(status)
  expect(body.title.length).toBeGreaterThan(3)
  expect(body.detail.length).toBeGreaterThan(3)
  expect(body.instance).toBe(new URL(response.url).pathname)
  expect(response.headers.get('x-request-id')).toBe(body.requestId)
  if (status === 503 || status === 425) expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0)
  return body
}

async function storedCount(): Promise<number> {
  let total = 0
  for (let partition = 0; partition < 4; partition++) {
    total += await api.ingest.use('XLEN', (client) =>
      client.xlen(partitionKeys('orders', partition).commands),
    )
  }
  return total + (await api.ingest.use('XLEN', (client) => client.xlen(partitionKeys('main', 0).commands)))
}

const nested = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth)
const order = { orderId: 'o-1' }

describe('400 malformed-request', () => {
  test('a body of JSON that is not UTF-8, rather than other characters than were sent', async () => {
    const bytes = (text: string) => Buffer.from(text.replace('?', '\xf0\x9f\x98'), 'latin1')
    const single = bytes(JSON.stringify({ ...order, orderId: 'o-?' }))
    await expectProblem(await api.post('/v1/commands/order.place', single), 400, 'malformed-request')
    const item = JSON.stringify({ type: 'order.place', payload: order })
    const cut = item.replace(order.orderId, 'o-?')
    await expectProblem(await api.post('/v1/commands', bytes(`[${cut}]`)), 400, 'malformed-request')
    const lines = bytes([item, cut, item].join('\n'))
    const bulk = await api.post('/v1/commands', lines, { 'content-type': 'application/x-ndjson' })
    expect(await bulk.json()).toMatchObject({
      accepted: 2,
      results: [
        { index: 0 },
        { problem: { status: 400, type: '/problems/malformed-request' } },
        { index: 2 },
      ],
    })
  })

  test('a body that is not JSON', async () => {
    await expectProblem(await api.post('/v1/commands/order.place', '{"orderId":'), 400, 'malformed-request')
    await expectProblem(await api.post('/v1/commands', '[{]'), 400, 'malformed-request')
    await expectProblem(await api.post('/v1/commands/order.place', ''), 400, 'malformed-request')
  })

  test.each([
    ['cut short', pack(order).subarray(0, 5)],
    ['with bytes after it', Buffer.concat([pack(order), Buffer.from([1])])],
    ['with a byte that means nothing', Buffer.from([0xc1])],
    ['an array that claims four billion items', Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff])],
    ['a map that claims four billion pairs', Buffer.from([0xdf, 0xff, 0xff, 0xff, 0xff])],
    ['a text that claims four gigabytes', Buffer.from([0xdb, 0xff, 0xff, 0xff, 0xff])],
    ['bytes that claim four gigabytes', Buffer.from([0xc6, 0xff, 0xff, 0xff, 0xff])],
    ['empty', Buffer.alloc(0)],
  ])('MessagePack %s', async (_, body) => {
    const before = process.memoryUsage().rss
    const headers = { 'content-type': 'application/vnd.msgpack' }
    await expectProblem(await api.post('/v1/commands/order.place', body, headers), 400, 'malformed-request')
    await expectProblem(await api.post('/v1/commands', body, headers), 400, 'malformed-request')
    expect(process.memoryUsage().rss - before).toBeLessThan(50 * 1024 ** 2)
  })

  test.each([['"open'], ['""'], ['two words'], ['x'.repeat(256)], ['a"b'], ['back\\slash']])(
    'an Idempotency-Key like %s',
    async (key) => {
      const response = await api.post('/v1/commands/order.place', order, { 'idempotency-key': key })
      await expectProblem(response, 400, 'malformed-request')
    },
  )

  test('a query parameter that is misspelt, wrong or given twice', async () => {
    const hint = await expectProblem(
      await api.post('/v1/commands/order.place?delaysMs=5', order),
      400,
      'malformed-request',
    )
    expect(hint.detail).toContain('Did you mean "delayMs"?')
    for (const query of [
      'delayMs=soon',
      'delayMs=-1',
      'deliverAt=tomorrow',
      'delayMs=1&delayMs=2',
      'delayMs=1&deliverAt=2030-01-01T00:00:00Z',
    ]) {
      await expectProblem(
        await api.post(`/v1/commands/order.place?${query}`, order),
        400,
        'malformed-request',
      )
    }
    await expectProblem(await api.post('/v1/commands?atomic=maybe', [order]), 400, 'malformed-request')
  })

  test('an id that is none, in the path and in Millrace-After', async () => {
    await expectProblem(await api.fetch('/v1/commands/whatever'), 400, 'malformed-request')
    await expectProblem(
      await api.fetch('/v1/commands/whatever', { method: 'DELETE' }),
      400,
      'malformed-request',
    )
    const after = (id: string) => api.fetch('/v1/views/counts/a', { headers: { 'millrace-after': id } })
    await expectProblem(await after('whatever'), 400, 'malformed-request')
    await expectProblem(await after('orders.0.e1-1.AAAAAAAAAAA'), 400, 'malformed-request')
  })

  test('a cursor that is none, a limit out of bounds', async () => {
    await expectProblem(await api.fetch('/v1/views/counts?cursor=abc'), 400, 'malformed-request')
    await expectProblem(await api.fetch('/v1/views/counts?limit=0'), 400, 'malformed-request')
    await expectProblem(await api.fetch('/v1/views/counts?limit=501'), 400, 'malformed-request')
    await expectProblem(await api.fetch('/v1/views/counts?direction=up'), 400, 'malformed-request')
  })

  test('waiting for a command that the projection never sees', async () => {
    const { id } = (await (await api.post('/v1/commands/anything', 1)).json()) as { id: string }
    const response = await api.fetch('/v1/views/counts/a', { headers: { 'millrace-after': id } })
    await expectProblem(response, 400, 'projection-not-over-stream')
  })
})

describe('404', () => {
  test('an unknown command type, told before the body is looked at', async () => {
    const problem = await expectProblem(
      await api.post('/v1/commands/order.plac', '{{{'),
      404,
      'unknown-command-type',
    )
    expect(problem.detail).toContain('Did you mean "order.place"?')
    await expectProblem(
      await api.post('/v1/commands/nothing', 'x', { 'content-type': 'text/plain' }),
      404,
      'unknown-command-type',
    )
    await expectProblem(await api.post('/v1/commands/toString', {}), 404, 'unknown-command-type')
  })

  test('an invented command id', async () => {
    await expectProblem(
      await api.fetch('/v1/commands/orders.0.e1712000000000-0.AAAAAAAAAAA'),
      404,
      'not-found',
    )
    const cancel = await api.fetch('/v1/commands/orders.0.x7.AAAAAAAAAAA', { method: 'DELETE' })
    await expectProblem(cancel, 404, 'not-found')
  })

  test('a projection, a view, a path', async () => {
    await expectProblem(await api.fetch('/v1/views/nothing/a'), 404, 'unknown-projection')
    await expectProblem(await api.fetch('/v1/views/nothing'), 404, 'unknown-projection')
    const view = await api.fetch('/v1/views/counts/missing')
    expect(view.headers.get('millrace-position')).toMatch(/^\d:/)
    await expectProblem(view, 404, 'not-found')
    await expectProblem(await api.fetch('/nothing/here'), 404, 'not-found')
    await expectProblem(await api.fetch('/v1/views/counts/%E0%A4%A'), 404, 'not-found')
  })
})

describe('405 method-not-allowed', () => {
  test.each([
    ['PUT', '/v1/commands/order.place', 'DELETE, GET, HEAD, POST'],
    ['GET', '/v1/commands', 'POST'],
    ['POST', '/v1/views/counts/a', 'GET, HEAD'],
    ['DELETE', '/livez', 'GET, HEAD'],
  ])('%s %s', async (method, path, allow) => {
    const response = await api.fetch(path, { method })
    expect(response.headers.get('allow')).toBe(allow)
    await expectProblem(response, 405, 'method-not-allowed')
  })

  test('OPTIONS is no mistake', async () => {
    const response = await api.fetch('/v1/commands', { method: 'OPTIONS' })
    expect([response.status, response.headers.get('allow')]).toEqual([204, 'POST'])
  })
})

describe('409', () => {
  test('too late to cancel', async () => {
    const { id } = (await (await api.post('/v1/commands/anything', '"x"')).json()) as { id: string }
    const { commands } = partitionKeys('main', 0)
    await api.ingest.use('XGROUP', (client) => client.xgroup('CREATE', commands, 'workers', '0'))
    await api.ingest.use('XREADGROUP', (client) =>
      client.xreadgroup('GROUP', 'workers', 'me', 'COUNT', 1000, 'STREAMS', commands, '>'),
    )
    await expectProblem(await api.fetch(`/v1/commands/${id}`, { method: 'DELETE' }), 409, 'cancel-too-late')
  })
})

describe('413 body-too-large', () => {
  test('a declared length is refused before the body comes', async () => {
    await expectProblem(await api.post('/v1/commands/anything', 'x'.repeat(65 * 1024)), 413, 'body-too-large')
    await expectProblem(await api.post('/v1/commands', 'x'.repeat(257 * 1024)), 413, 'body-too-large')
    await expectProblem(await api.post('/v1/commands', Buffer.alloc(40 * 1024 ** 2)), 413, 'body-too-large')
  })

  test('a body without length is cut at the bound', async () => {
    let sent = 0
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        sent += 1
        if (sent > 2000) controller.close()
        else controller.enqueue(new Uint8Array(16 * 1024).fill(32))
      },
    })
    const headers = { 'content-type': 'application/json' }
    const response = await api.fetch('/v1/commands/anything', { method: 'POST', headers, body })
    await expectProblem(response, 413, 'body-too-large')
  })

  test('a body without length inside the bound is taken', async () => {
    const body = new ReadableStream<string>({
      start(controller) {
        controller.enqueue('{"orderId":')
        controller.enqueue('"chunked"}')
        controller.close()
      },
    })
    const headers = { 'content-type': 'application/json' }
    const response = await api.fetch('/v1/commands/order.place', { method: 'POST', headers, body })
    expect(response.status).toBe(202)
  })

  test('too many commands in one body', async () => {
    const items = Array.from({ length: 101 }, () => ({ type: 'anything', payload: 1 }))
    await expectProblem(await api.post('/v1/commands', items), 413, 'body-too-large')
    const lines = items.map((item) => JSON.stringify(item)).join('\n')
    const ndjson = { 'content-type': 'application/x-ndjson' }
    await expectProblem(await api.post('/v1/commands', lines, ndjson), 413, 'body-too-large')
    await expectProblem(await api.post('/v1/commands', `${lines}\n{`, ndjson), 413, 'body-too-large')
    const packed = { 'content-type': 'application/vnd.msgpack' }
    await expectProblem(await api.post('/v1/commands', pack(items), packed), 413, 'body-too-large')
  })
})

describe('415 unsupported-media-type', () => {
  test.each([
    ['text/plain'],
    ['application/x-www-form-urlencoded'],
    ['application/json; charset=latin1'],
    [''],
  ])('content type %p', async (type) => {
    const response = await api.post('/v1/commands/order.place', order, { 'content-type': type })
    expect(response.headers.get('accept-post')).toBe('application/json, application/vnd.msgpack')
    await expectProblem(response, 415, 'unsupported-media-type')
    const bulk = await api.post('/v1/commands', [], { 'content-type': type })
    expect(bulk.headers.get('accept-post')).toContain('application/x-ndjson')
    await expectProblem(bulk, 415, 'unsupported-media-type')
  })

  test('lines where one command is expected', async () => {
    const response = await api.post('/v1/commands/order.place', '{}', {
      'content-type': 'application/x-ndjson',
    })
    await expectProblem(response, 415, 'unsupported-media-type')
  })

  test('a compressed body', async () => {
    const body = Bun.gzipSync(JSON.stringify(order))
    const response = await api.post('/v1/commands/order.place', body, { 'content-encoding': 'gzip' })
    await expectProblem(response, 415, 'unsupported-media-type')
  })
})

describe('422', () => {
  test('a payload that the schema refuses, with pointers and without the payload', async () => {
    const secret = 'hunter2-do-not-leak'
    const payload = { orderId: 'x', items: [{ qty: secret }] }
    const problem = await expectProblem(
      await api.post('/v1/commands/order.place', payload),
      422,
      'invalid-command',
    )
    expect(problem.errors?.[0]?.pointer).toBe('#/items/0/qty')
    expect(JSON.stringify(problem)).not.toContain(secret)
  })

  test('nested too deeply, as JSON and as MessagePack', async () => {
    expect((await api.post('/v1/commands/anything', nested(32))).status).toBe(202)
    await expectProblem(await api.post('/v1/commands/anything', nested(33)), 422, 'invalid-command')
    await expectProblem(await api.post('/v1/commands/anything', nested(30_000)), 422, 'invalid-command')
    const headers = { 'content-type': 'application/vnd.msgpack' }
    const deep = Buffer.concat([Buffer.alloc(33, 0x91), Buffer.from([0])])
    expect((await api.post('/v1/commands/anything', deep.subarray(1), headers)).status).toBe(202)
    await expectProblem(await api.post('/v1/commands/anything', deep, headers), 422, 'invalid-command')
    const abyss = Buffer.concat([Buffer.alloc(60_000, 0x91), Buffer.from([0])])
    await expectProblem(await api.post('/v1/commands/anything', abyss, headers), 422, 'invalid-command')
  })

  test.each([['__proto__'], ['constructor'], ['prototype']])('the key %s anywhere', async (key) => {
    for (const text of [`{"${key}":1}`, `{"a":[{"b":{"${key}":{}}}]}`]) {
      const problem = await expectProblem(
        await api.post('/v1/commands/anything', text),
        422,
        'invalid-command',
      )
      expect(problem.errors?.[0]?.pointer).toEndWith(`/${key}`)
    }
    const escaped = `{"\\u00${key.charCodeAt(0).toString(16)}${key.slice(1)}":1}`
    await expectProblem(await api.post('/v1/commands/anything', escaped), 422, 'invalid-command')
    const name = Buffer.from(key)
    const packed = Buffer.concat([Buffer.from([0x91, 0x81, 0xa0 + name.length]), name, Buffer.from([1])])
    const response = await api.post('/v1/commands/anything', packed, {
      'content-type': 'application/vnd.msgpack',
    })
    await expectProblem(response, 422, 'invalid-command')
  })

  test.each([
    ['an extension type', Buffer.from([0xd4, 0x78, 0x01])],
    ['a set of msgpackr', Buffer.from([0xd6, 0x73, 0, 0, 0, 1, 0x91, 1])],
    ['a record of msgpackr', Buffer.from([0xd4, 0x72, 0x40, 0x91, 0xa1, 0x61, 1])],
    ['a key that is a number', Buffer.from([0x81, 0x01, 0x01])],
    ['a key that is an array', Buffer.from([0x81, 0x91, 0x01, 0x01])],
  ])('MessagePack with %s', async (_, body) => {
    const response = await api.post('/v1/commands/anything', body, {
      'content-type': 'application/vnd.msgpack',
    })
    const { status } = response
    expect([400, 422]).toContain(status)
    await expectProblem(response, status, status === 400 ? 'malformed-request' : 'invalid-command')
  })

  test('an idempotency key used for another body', async () => {
    const headers = { 'idempotency-key': '"used"' }
    expect((await api.post('/v1/commands/order.place', order, headers)).status).toBe(202)
    const before = await storedCount()
    for (const orderId of ['a', 'b', 'c', 'd', 'e']) {
      const response = await api.post('/v1/commands/order.place', { orderId }, headers)
      await expectProblem(response, 422, 'idempotency-key-reused')
    }
    const other = await api.post('/v1/commands/anything', order, headers)
    await expectProblem(other, 422, 'idempotency-key-reused')
    expect(await storedCount()).toBe(before)
  })

  test('a bulk body that is no list, empty, or all wrong', async () => {
    await expectProblem(await api.post('/v1/commands', order), 422, 'invalid-command')
    await expectProblem(await api.post('/v1/commands', []), 422, 'invalid-command')
    const body = await expectProblem(
      await api.post('/v1/commands', [{ type: 'nothing' }, 7, { type: 'order.place', payload: {} }]),
      422,
      'nothing-accepted',
    )
    expect(body).toMatchObject({ accepted: 0, rejected: 3 })
  })

  test('what was refused was not stored', async () => {
    const before = await storedCount()
    await api.post('/v1/commands/order.place', { orderId: 7 })
    await api.post('/v1/commands/order.place?delayMs=99999999999999', order)
    await api.post('/v1/commands', [{ type: 'order.place', payload: { orderId: 7 } }])
    expect(await storedCount()).toBe(before)
  })
})

describe('425 view-not-there-yet', () => {
  test('the wait for a view runs out', async () => {
    const { id } = (await (await api.post('/v1/commands/order.place', order)).json()) as { id: string }
    const response = await api.fetch(`/v1/views/counts/${order.orderId}`, {
      headers: { 'millrace-after': id },
    })
    await expectProblem(response, 425, 'view-not-there-yet')
  })
})

describe('503', () => {
  test('too much waits', async () => {
    await using full = await startPublicServer(redis, catalogue, { bus: { depthMax: 1, sampleMs: 10 } })
    await until('the door to close', async () => {
      const response = await full.post('/v1/commands/order.place', order)
      if (response.status === 202) return false
      await expectProblem(response, 503, 'temporary-reduced-capacity')
      return true
    })
    const bulk = await full.post('/v1/commands', [{ type: 'order.place', payload: order }])
    await expectProblem(bulk, 503, 'temporary-reduced-capacity')
  })

  test('Redis uses too much of its memory', async () => {
    await using full = await startPublicServer(redis, catalogue, {
      bus: { memoryRatioMax: 0.0000001, sampleMs: 10 },
    })
    const response = await full.post('/v1/commands/order.place', order)
    await expectProblem(response, 503, 'temporary-reduced-capacity')
  })

  test('too many requests or bytes at once', async () => {
    await using small = await startPublicServer(redis, catalogue, { app: { requestBytesMax: 10 } })
    const response = await small.post('/v1/commands/order.place', order)
    await expectProblem(response, 503, 'temporary-reduced-capacity')
  })

  test('no more keys can be remembered', async () => {
    await using small = await startPublicServer(redis, catalogue, {
      bus: { idempotencyRecordsMax: 0, idempotencyWindowMs: 3_600_000 * 5 },
    })
    const response = await small.post('/v1/commands/order.place', order, {
      'idempotency-key': 'one-too-many',
    })
    await expectProblem(response, 503, 'idempotency-keys-full')
  })

  test('draining', async () => {
    await using leaving = await startPublicServer(redis, catalogue)
    leaving.bus.drain()
    const response = await leaving.post('/v1/commands/order.place', order)
    await expectProblem(response, 503, 'temporary-reduced-capacity')
    const ready = await leaving.fetch('/readyz')
    expect(ready.status).toBe(503)
    expect((await leaving.fetch('/livez')).status).toBe(200)
  })

  test('a lost reply is unknown; a retry with the same key finds what was stored', async () => {
    const before = await storedCount()
    const send = () => api.post('/v1/commands/order.place', order, { 'idempotency-key': 'lost-reply' })
    loseNextReply(api.ingest)
    await expectProblem(await send(), 503, 'outcome-unknown')
    await api.ingest.whenReady(5000)
    expect((await storedCount()) - before).toBe(1)
    const again = await send()
    expect(again.status).toBe(202)
    expect(again.headers.get('idempotent-replayed')).toBe('true')
    expect((await storedCount()) - before).toBe(1)
  })

  test('a read whose reply was lost is asked again; nothing of it can be stored', async () => {
    const { id } = (await (await api.post('/v1/commands/order.place', order)).json()) as { id: string }
    const lost = new MillraceError('redis.unknown', 'The answer was lost on purpose.')
    const status = spyOn(api.bus, 'status').mockRejectedValueOnce(lost)
    const answer = await api.fetch(`/v1/commands/${id}`)
    status.mockRestore()
    expect(answer.headers.get('retry-after')).toBe('1')
    await expectProblem(answer, 503, 'temporary-reduced-capacity')
  })

  test('Redis is away', async () => {
    await using own = await startTestRedis()
    await using alone = await startPublicServer(own, catalogue)
    const { id } = (await (await alone.post('/v1/commands/order.place', order)).json()) as { id: string }
    await own.kill()
    await until('the loss to be seen', () => !alone.ingest.ready)
    const response = await alone.post('/v1/commands/order.place', order)
    await expectProblem(response, 503, 'temporary-reduced-capacity')
    const bulk = await alone.post('/v1/commands', [{ type: 'order.place', payload: order }])
    await expectProblem(bulk, 503, 'temporary-reduced-capacity')
    const status = await alone.fetch(`/v1/commands/${id}`)
    const told = await expectProblem(status, 503, 'temporary-reduced-capacity')
    expect(told.detail).toBe("Redis can't serve script status now: it is not reachable")
    expect((await alone.fetch('/v1/views/counts/a')).status).toBe(503)
    expect((await alone.fetch('/livez')).status).toBe(200)
    expect((await alone.fetch('/readyz')).status).toBe(503)
  })
})

describe('clients that go away', () => {
  test('in the middle of a body are counted, not printed, and hold no place', async () => {
    const { port } = new URL(api.url)
    const seen = api.telemetry.of('request.aborted').length
    const socket = connect(Number(port), '127.0.0.1')
    socket.write(
      'POST /v1/commands/order.place HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"orderId":',
    )
    await Bun.sleep(50)
    socket.destroy()
    await api.telemetry.until('request.aborted', (events) => events.length > seen)
    expect((await api.post('/v1/commands/order.place', order)).status).toBe(202)
    expect(api.telemetry.of('request.failed')).toEqual([])
  })
})
