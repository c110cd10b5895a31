/** The public HTTP surface when all goes well: sending, bulk, keys, delays, status, cancelling, views, health, stopping. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { pack } from 'msgpackr'
import { z } from 'zod'
import { defineCommand } from '../src/contracts/command.ts'
import { defineEvent } from '../src/contracts/event.ts'
import { defineProjection } from '../src/contracts/projection.ts'
import { defineStream } from '../src/contracts/stream.ts'
import { HttpServer } from '../src/http/server.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { partitionOf } from '../src/policies/partition.ts'
import { decodeEntry, unpackPayloadOf, unpackTrace } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { packPayload } from '../src/redis/payload-codec.ts'
import { commitViews } from '../src/redis/view-store.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { type PublicServer, startPublicServer } from './support/public-server.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { SILENT_TELEMETRY } from './support/telemetry.ts'
import { until } from './support/until.ts'

const stream = defineStream({ name: 'orders', partitions: 4 })
const place = defineCommand({
  type: 'order.place',
  stream,
  payload: z.object({
    orderId: z.string(),
    qty: z.number().int().positive().default(1),
    at: z.date().optional(),
  }),
  key: (payload) => payload.orderId,
})
const placed = defineEvent({ type: 'order.placed', payload: z.object({ orderId: z.string() }) })
const counts = defineProjection<{ count: number }>({
  name: 'counts',
  stream,
  initial: () => ({ count: 0 }),
}).on(
  placed,
  (event) => event.payload.orderId,
  (view) => ({ count: view.count + 1 }),
)
const catalogue = buildCatalogue([stream, place, placed, counts])

let redis: TestRedis
let api: PublicServer

beforeAll(async () => {
  redis = await startTestRedis()
  api = await startPublicServer(redis, catalogue)
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
  await redis[Symbol.asyncDispose]()
})

interface Accepted {
  readonly id: string
  readonly type: string
  readonly status: string
  readonly durability: string
  readonly deduplicated: boolean
}

interface Bulk {
  readonly accepted: number
  readonly rejected: number
  readonly durability: string
  readonly results: {
    index: number
    id?: string
    status?: string
    deduplicated?: boolean
    problem?: { type: string }
  }[]
}

const send = async (path: string, body: unknown, headers: Record<string, string> = {}): Promise<Accepted> =>
  (await (await api.post(path, body, headers)).json()) as Accepted

const sendBulk = async (path: string, body: unknown, headers: Record<string, string> = {}): Promise<Bulk> =>
  (await (await api.post(path, body, headers)).json()) as Bulk

async function storedCount(): Promise<number> {
  let total = 0
  for (let partition = 0; partition < 4; partition++) {
    total += await api.ingest.use('XLEN', (client) =>
      client.xlen(partitionKeys('orders', partition).commands),
    )
  }
  return total
}

/** The entry that an id of an appended command stands for. */
async function entryOf(id: string) {
  const { stream, partition, token } = api.ids.parse(id)
  const at = token.slice(1)
  const rows = await api.ingest.use('XRANGE', (client) =>
    client.xrangeBuffer(partitionKeys(stream, partition).commands, at, at),
  )
  return decodeEntry(rows[0]?.[1][1] ?? Buffer.alloc(0))
}

describe('one command', () => {
  test('202 with an id, a Location and what it survives', async () => {
    const response = await api.post('/v1/commands/order.place', { orderId: 'a' })
    expect(response.status).toBe(202)
    expect(response.headers.get('content-type')).toBe('application/json')
    const body = (await response.json()) as Accepted
    expect(body).toEqual({
      id: expect.stringMatching(/^orders\.\d\.e\d+-\d+\.[\w-]{11}$/),
      type: 'order.place',
      status: 'accepted',
      durability: 'everysec',
      deduplicated: false,
    })
    expect(response.headers.get('location')).toBe(`/v1/commands/${body.id}`)
    expect(response.headers.get('idempotent-replayed')).toBeNull()
    expect(unpackPayloadOf(await entryOf(body.id))).toEqual({ orderId: 'a', qty: 1 })
  })

  test('the configured durability is told', async () => {
    await using strict = await startPublicServer(redis, catalogue, { bus: { durability: 'fsync' } })
    const body = (await (await strict.post('/v1/commands/order.place', { orderId: 'a' })).json()) as Accepted
    expect(body.durability).toBe('fsync')
  })

  test.each([['application/vnd.msgpack'], ['application/msgpack'], ['application/x-msgpack']])(
    'as %s, times included',
    async (type) => {
      const at = new Date(1_700_000_000_123)
      const { id } = await send('/v1/commands/order.place', pack({ orderId: 'm', at }), {
        'content-type': type,
      })
      expect(unpackPayloadOf(await entryOf(id))).toEqual({ orderId: 'm', qty: 1, at })
    },
  )

  test('a MessagePack integer of 64 bits is a number where that is exact', async () => {
    const body = Buffer.concat([
      Buffer.from([0x82, 0xa7]),
      Buffer.from('orderId'),
      Buffer.from([0xa1, 0x69, 0xa3]),
      Buffer.from('qty'),
      Buffer.from([0xcf, 0, 0, 0, 0, 0, 0, 0, 9]),
    ])
    const { id } = await send('/v1/commands/order.place', body, { 'content-type': 'application/vnd.msgpack' })
    expect(unpackPayloadOf(await entryOf(id))).toEqual({ orderId: 'i', qty: 9 })
  })

  test('content type in other letters and with UTF-8 named', async () => {
    for (const type of [
      'Application/JSON',
      'application/json; charset=UTF-8',
      'application/json;charset="utf-8"',
    ]) {
      expect(
        (await api.post('/v1/commands/order.place', { orderId: 'a' }, { 'content-type': type })).status,
      ).toBe(202)
    }
  })

  test('the trace context travels in the entry', async () => {
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    const { id } = await send('/v1/commands/order.place', { orderId: 't' }, { traceparent })
    expect(unpackTrace((await entryOf(id)).trace ?? Buffer.alloc(0))).toBe(traceparent)
    const other = await send('/v1/commands/order.place', { orderId: 't' }, { traceparent: 'nonsense' })
    expect((await entryOf(other.id)).trace).toBeUndefined()
  })

  test('the same command goes to the same partition in every process', async () => {
    const { id } = await send('/v1/commands/order.place', { orderId: 'route-me' })
    expect(api.ids.parse(id).partition).toBe(partitionOf('route-me', 4))
  })
})

describe('idempotency keys', () => {
  test('a retry gets the same 202 and id, marked as replayed', async () => {
    const headers = { 'idempotency-key': '"key-1"' }
    const first = await send('/v1/commands/order.place', { orderId: 'k' }, headers)
    const before = await storedCount()
    const response = await api.post('/v1/commands/order.place', { orderId: 'k' }, headers)
    expect(response.status).toBe(202)
    expect(response.headers.get('idempotent-replayed')).toBe('true')
    expect(response.headers.get('location')).toBe(`/v1/commands/${first.id}`)
    expect(await response.json()).toEqual({ ...first, deduplicated: true })
    expect(await storedCount()).toBe(before)
  })

  test('quoted and bare are the same key', async () => {
    const quoted = await send('/v1/commands/order.place', { orderId: 'k' }, { 'idempotency-key': '"key-2"' })
    const bare = await send('/v1/commands/order.place', { orderId: 'k' }, { 'idempotency-key': 'key-2' })
    expect(bare).toEqual({ ...quoted, deduplicated: true })
    const escaped = await send(
      '/v1/commands/order.place',
      { orderId: 'k' },
      { 'idempotency-key': '"a \\"b\\" c"' },
    )
    expect(escaped.deduplicated).toBe(false)
    const longest = await send(
      '/v1/commands/order.place',
      { orderId: 'k' },
      { 'idempotency-key': 'x'.repeat(255) },
    )
    expect(longest.deduplicated).toBe(false)
  })

  test('50 posts at once with one key are one entry', async () => {
    const before = await storedCount()
    const headers = { 'idempotency-key': 'race' }
    const bodies = await Promise.all(
      Array.from({ length: 50 }, () => send('/v1/commands/order.place', { orderId: 'race' }, headers)),
    )
    expect(new Set(bodies.map(({ id }) => id)).size).toBe(1)
    expect(bodies.filter(({ deduplicated }) => !deduplicated)).toHaveLength(1)
    expect((await storedCount()) - before).toBe(1)
  })

  test('the body counts as sent: other spacing, other content type, another command', async () => {
    const headers = { 'idempotency-key': 'as-sent' }
    await send('/v1/commands/order.place', '{"orderId":"s"}', headers)
    const spaced = await api.post('/v1/commands/order.place', '{ "orderId": "s" }', headers)
    expect(spaced.status).toBe(422)
    const packed = await api.post('/v1/commands/order.place', pack({ orderId: 's' }), {
      ...headers,
      'content-type': 'application/vnd.msgpack',
    })
    expect(packed.status).toBe(422)
  })
})

describe('bulk', () => {
  const good = { type: 'order.place', payload: { orderId: 'b' } }

  test.each([
    ['a JSON array', 'application/json', (items: unknown[]) => JSON.stringify(items)],
    [
      'NDJSON',
      'application/x-ndjson',
      (items: unknown[]) => items.map((item) => JSON.stringify(item)).join('\n'),
    ],
    [
      'JSON lines with a final newline',
      'application/jsonl',
      (items: unknown[]) => items.map((item) => `${JSON.stringify(item)}\n`).join(''),
    ],
    [
      'NDJSON with CRLF and blank lines',
      'application/x-ndjson',
      (items: unknown[]) => items.map((item) => `${JSON.stringify(item)}\r\n\r\n`).join(''),
    ],
    ['a MessagePack array', 'application/vnd.msgpack', (items: unknown[]) => pack(items)],
  ])('%s: each item has its own fate, in order', async (_, type, encode) => {
    const items = [
      good,
      { type: 'nothing', payload: 1 },
      { type: 'order.place', payload: { orderId: 7 } },
      good,
    ]
    const before = await storedCount()
    const response = await api.post('/v1/commands', encode(items), { 'content-type': type })
    expect(response.status).toBe(202)
    const body = (await response.json()) as Bulk
    expect(body).toMatchObject({ accepted: 2, rejected: 2, durability: 'everysec' })
    expect(body.results.map(({ index, id, problem }) => [index, id !== undefined, problem?.type])).toEqual([
      [0, true, undefined],
      [1, false, '/problems/unknown-command-type'],
      [2, false, '/problems/invalid-command'],
      [3, true, undefined],
    ])
    expect((await storedCount()) - before).toBe(2)
  })

  test('a bad line is told by its index and never takes the rest with it', async () => {
    const line = JSON.stringify(good)
    const before = await storedCount()
    const body = await sendBulk(
      '/v1/commands',
      [
        line,
        '{"type":',
        line,
        `${line}${line}`,
        'null',
        '"text"',
        '[]',
        line,
        '{"type":"order.place","payload":{"__proto__":1}}',
        line,
      ].join('\n'),
      { 'content-type': 'application/x-ndjson' },
    )
    const refused = body.results.flatMap(({ index, problem }) =>
      problem === undefined ? [] : [[index, problem.type]],
    )
    expect(refused).toEqual([
      [1, '/problems/malformed-request'],
      [3, '/problems/malformed-request'],
      [4, '/problems/invalid-command'],
      [5, '/problems/invalid-command'],
      [6, '/problems/invalid-command'],
      [8, '/problems/invalid-command'],
    ])
    expect(body).toMatchObject({ accepted: 4, rejected: 6 })
    expect((await storedCount()) - before).toBe(4)
  })

  test('an item that nests too deeply or has a forbidden key costs only itself, as MessagePack too', async () => {
    const item = (payload: Buffer): Buffer =>
      Buffer.concat([Buffer.from([0x82]), pack('type'), pack('order.place'), pack('payload'), payload])
    const deep = Buffer.concat([Buffer.alloc(40, 0x91), Buffer.from([0])])
    const proto = Buffer.concat([Buffer.from([0x81]), pack('__proto__'), pack(1)])
    const body = Buffer.concat([
      Buffer.from([0x93]),
      item(deep),
      item(proto),
      item(pack({ orderId: 'fine' })),
    ])
    const answer = await sendBulk('/v1/commands', body, { 'content-type': 'application/vnd.msgpack' })
    expect(answer.results.map(({ id }) => id !== undefined)).toEqual([false, false, true])
  })

  test('a field with a typing mistake is refused with a hint', async () => {
    const body = await sendBulk('/v1/commands', [good, { ...good, delaysMs: 5 }, { ...good, delayMs: '5' }])
    expect(body.results[1]?.problem).toMatchObject({
      detail: expect.stringContaining('Did you mean "delayMs"?'),
    })
    expect(body.accepted).toBe(1)
  })

  test("an item's own key, or the request's key with the index", async () => {
    const headers = { 'idempotency-key': 'bulk' }
    const items = [good, { ...good, idempotencyKey: 'own' }, good]
    const first = await sendBulk('/v1/commands', items, headers)
    const before = await storedCount()
    const response = await api.post('/v1/commands', items, headers)
    expect(response.headers.get('idempotent-replayed')).toBe('true')
    const second = (await response.json()) as Bulk
    expect(second.results.map(({ id }) => id)).toEqual(first.results.map(({ id }) => id))
    expect(second.results.every(({ deduplicated }) => deduplicated === true)).toBe(true)
    expect(await storedCount()).toBe(before)
    const own = await sendBulk('/v1/commands', [{ ...good, idempotencyKey: 'bulk/2' }])
    expect(own.results[0]?.id).toBe(first.results[2]?.id)
    const changed = await sendBulk(
      '/v1/commands',
      [good, { ...good, idempotencyKey: 'own' }, { ...good, payload: { orderId: 'other' } }],
      headers,
    )
    expect(changed.results[2]?.problem?.type).toBe('/problems/idempotency-key-reused')
    expect(changed.accepted).toBe(2)
  })

  test('all or none: one partition or 422', async () => {
    const before = await storedCount()
    const several = ['a', 'b', 'c', 'd', 'e'].map((orderId) => ({
      type: 'order.place',
      payload: { orderId },
    }))
    const refused = await api.post('/v1/commands?atomic=true', several)
    expect(refused.status).toBe(422)
    const bad = await api.post('/v1/commands?atomic=true', [good, { type: 'order.place', payload: {} }])
    expect(bad.status).toBe(422)
    const unread = await api.post('/v1/commands?atomic=true', `${JSON.stringify(good)}\n{bad`, {
      'content-type': 'application/x-ndjson',
    })
    expect(unread.status).toBe(422)
    expect(((await unread.json()) as Bulk).results).toHaveLength(2)
    expect(await storedCount()).toBe(before)
    const taken = await api.post('/v1/commands?atomic=true', [good, good, good])
    expect(taken.status).toBe(202)
    expect((await storedCount()) - before).toBe(3)
  })

  test('500 lines in one body keep their order in the stream', async () => {
    const lines = Array.from({ length: 500 }, (_, i) =>
      JSON.stringify({ ...good, payload: { orderId: 'row', qty: i + 1 } }),
    )
    const body = await sendBulk('/v1/commands', lines.join('\n'), { 'content-type': 'application/x-ndjson' })
    expect(body.accepted).toBe(500)
    const keys = partitionKeys('orders', partitionOf('row', 4))
    const rows = await api.ingest.use('XREVRANGE', (client) =>
      client.xrevrangeBuffer(keys.commands, '+', '-', 'COUNT', 500),
    )
    const quantities = rows.map(([, fields]) => {
      const payload = unpackPayloadOf(decodeEntry(fields[1] ?? Buffer.alloc(0)))
      return (payload as { qty: number }).qty
    })
    expect(quantities.reverse()).toEqual(Array.from({ length: 500 }, (_, i) => i + 1))
  })
})

describe('later', () => {
  test('delayMs and deliverAt schedule a command instead of appending it', async () => {
    const before = await storedCount()
    const delayed = await send('/v1/commands/order.place?delayMs=60000', { orderId: 'l' })
    const at = new Date(SYSTEM_CLOCK.nowMs() + 90_000).toISOString()
    const dated = await send(`/v1/commands/order.place?deliverAt=${encodeURIComponent(at)}`, { orderId: 'l' })
    const bulk = await sendBulk('/v1/commands', [
      { type: 'order.place', payload: { orderId: 'l' }, delayMs: 60_000 },
      { type: 'order.place', payload: { orderId: 'l' }, deliverAt: at },
    ])
    expect([delayed.status, dated.status]).toEqual(['scheduled', 'scheduled'])
    expect(bulk.results.map(({ status }) => status)).toEqual(['scheduled', 'scheduled'])
    expect(await storedCount()).toBe(before)
    const status = await api.fetch(`/v1/commands/${dated.id}`)
    expect(await status.json()).toMatchObject({ status: 'scheduled', dueAt: at })
    expect(Number(status.headers.get('retry-after'))).toBe(60)
  })
})

describe('status and cancelling', () => {
  test('accepted, with an ETag that changes with the state', async () => {
    const { id } = await send('/v1/commands/order.place', { orderId: 's' })
    const response = await api.fetch(`/v1/commands/${id}`)
    expect(response.status).toBe(200)
    expect(await response.json()).toEqual({ id, stream: 'orders', status: 'accepted' })
    expect(response.headers.get('retry-after')).toBe('1')
    const etag = response.headers.get('etag') ?? ''
    const same = await api.fetch(`/v1/commands/${id}`, { headers: { 'if-none-match': etag } })
    expect([same.status, await same.text()]).toEqual([304, ''])
    const cancelled = await api.fetch(`/v1/commands/${id}`, { method: 'DELETE' })
    expect([cancelled.status, await cancelled.json()]).toEqual([202, { id, status: 'cancelled' }])
    const after = await api.fetch(`/v1/commands/${id}`, { headers: { 'if-none-match': etag } })
    expect(after.status).toBe(200)
    expect(await after.json()).toMatchObject({ status: 'cancelled' })
    expect(after.headers.get('retry-after')).toBeNull()
    expect((await api.fetch(`/v1/commands/${id}`, { method: 'DELETE' })).status).toBe(202)
  })

  test('what the side record tells: done with a result, dead with a problem, retrying with its due time', async () => {
    const { id } = await send('/v1/commands/order.place', { orderId: 'r' })
    const { partition, token } = api.ids.parse(id)
    const { records } = partitionKeys('orders', partition)
    const put = (letter: string, record: object) =>
      api.ingest.use('HSET', (client) =>
        client.hset(records, token, Buffer.concat([Buffer.from(letter), packPayload(record)])),
      )
    const read = async () => (await (await api.fetch(`/v1/commands/${id}`)).json()) as Record<string, unknown>
    await put('D', { result: { total: 12n, raw: Buffer.from('hi') } })
    expect(await read()).toMatchObject({ status: 'done', result: { raw: 'aGk=' } })
    await put('X17-0:', { attempts: 5, error: 'Error: no stock', atMs: 1 })
    expect(await read()).toMatchObject({
      status: 'dead',
      attempt: 5,
      deadLetterId: '17-0',
      problem: { type: '/problems/command-failed', detail: 'Error: no stock' },
    })
    await put('T1700000000000:', { attempts: 2, error: 'Error: busy' })
    expect(await read()).toMatchObject({ status: 'retrying', attempt: 2, dueAt: '2023-11-14T22:13:20.000Z' })
  })
})

describe('views', () => {
  const key = 'seen'
  const keys = partitionKeys('orders', partitionOf(key, 4))
  const commit = (expected: string, checkpoint: string, value: unknown) =>
    commitViews(api.ingest, keys, {
      ...{ reader: 'counts@1', expected, checkpoint },
      changes: {
        written: [{ key, blob: packPayload(value), isNew: expected === '0-0' }],
        deleted: [],
        skipped: [],
      },
    })

  test('200 with ETag and position, then 304, in every form that If-None-Match has', async () => {
    await api.ingest.use('HSET', (client) => client.hset(keys.readers, 'counts@1', '0-0'))
    expect(await commit('0-0', '5-0', { count: 1 })).toBe(true)
    const response = await api.fetch(`/v1/views/counts/${key}`)
    expect(await response.json()).toEqual({ count: 1 })
    expect(response.headers.get('millrace-position')).toBe(`${keys.partition}:5-0`)
    const etag = response.headers.get('etag') ?? ''
    expect(etag).toMatch(/^"[^"]+"$/)
    for (const condition of [etag, `W/${etag}`, `"other", ${etag}`, `"x",W/${etag} , "y"`, '*']) {
      const same = await api.fetch(`/v1/views/counts/${key}`, { headers: { 'if-none-match': condition } })
      expect([condition, same.status, await same.text(), same.headers.get('etag')]).toEqual([
        condition,
        304,
        '',
        condition.includes('W/') ? `W/${etag}` : etag,
      ])
    }
    for (const condition of ['"other"', etag.slice(0, -1), 'W/"*"']) {
      const fresh = await api.fetch(`/v1/views/counts/${key}`, { headers: { 'if-none-match': condition } })
      expect(fresh.status).toBe(200)
    }
    expect(await commit('5-0', '6-0', { count: 2 })).toBe(true)
    await until('the change to be seen', async () => {
      const changed = await api.fetch(`/v1/views/counts/${key}`, { headers: { 'if-none-match': etag } })
      return changed.status === 200 && Bun.deepEquals(await changed.json(), { count: 2 })
    })
  })

  test('Millrace-After of a cancelled command answers at once and says so', async () => {
    const { id } = await send('/v1/commands/order.place', { orderId: key })
    await api.fetch(`/v1/commands/${id}`, { method: 'DELETE' })
    const response = await api.fetch(`/v1/views/counts/${key}`, { headers: { 'millrace-after': id } })
    expect([response.status, response.headers.get('millrace-after-status')]).toEqual([200, 'cancelled'])
  })

  test('a wait that is longer than the idle time-out of the server is not cut off', async () => {
    await using patient = await startPublicServer(redis, catalogue, {
      idleTimeoutS: 1,
      // Bun looks for silent connections every four seconds.
      app: { viewWaitMs: 5000 },
    })
    const sent = await patient.post('/v1/commands/order.place', { orderId: key })
    const { id } = (await sent.json()) as Accepted
    const response = await patient.fetch(`/v1/views/counts/${key}`, { headers: { 'millrace-after': id } })
    expect(response.status).toBe(425)
  })

  test('pages with cursors and links', async () => {
    const all = ['p1', 'p2', 'p3']
    for (const each of all) {
      const place = partitionKeys('orders', partitionOf(each, 4))
      const at = (await api.ingest.use('HGET', (client) => client.hget(place.readers, 'counts@1'))) ?? '0-0'
      if (at === '0-0') await api.ingest.use('HSET', (client) => client.hset(place.readers, 'counts@1', at))
      await commitViews(api.ingest, place, {
        ...{ reader: 'counts@1', expected: at, checkpoint: `${Number(at.split('-')[0]) + 1}-0` },
        changes: {
          written: [{ key: each, blob: packPayload({ count: 1 }), isNew: true }],
          deleted: [],
          skipped: [],
        },
      })
    }
    interface Page {
      readonly data: { key: string; value: unknown }[]
      readonly page: { next: string | null; prev: string | null }
    }
    const first = await api.fetch('/v1/views/counts?limit=2&prefix=p')
    const page = (await first.json()) as Page
    expect(page.data.map((view) => view.key)).toEqual(['p1', 'p2'])
    expect(page.page.prev).toBeNull()
    const link = /<([^>]+)>; rel="next"/.exec(first.headers.get('link') ?? '')?.[1] ?? ''
    const second = await api.fetch(link)
    const rest = (await second.json()) as Page
    expect(rest.data.map((view) => view.key)).toEqual(['p3'])
    expect(rest.page.next).toBeNull()
    expect(second.headers.get('link')).toContain('rel="prev"')
    expect((await api.fetch(`/v1/views/counts?limit=2&prefix=q&cursor=${page.page.next}`)).status).toBe(400)
  })
})

describe('health and problems', () => {
  test('live, started and ready, with a sentence for each service on request', async () => {
    expect((await api.fetch('/livez')).status).toBe(200)
    expect((await api.fetch('/startupz')).status).toBe(200)
    const ready = await api.fetch('/readyz?verbose')
    expect(ready.status).toBe(200)
    expect(ready.headers.get('cache-control')).toBe('no-store')
    const { checks } = (await ready.json()) as { checks: { name: string; ready: boolean; detail: string }[] }
    expect(checks.map(({ name }) => name)).toContain('command-bus')
    expect(await (await api.fetch('/readyz')).json()).toEqual({ ok: true })
    expect((await api.fetch('/readyz', { method: 'HEAD' })).status).toBe(200)
  })

  test('the type of a problem leads to its page', async () => {
    const problem = (await (await api.fetch('/v1/commands/x')).json()) as { type: string }
    const page = await api.fetch(problem.type)
    expect([page.status, await page.json()]).toEqual([
      200,
      expect.objectContaining({ status: 400, meaning: expect.any(String) }),
    ])
    expect((await api.fetch('/problems/nothing')).status).toBe(404)
  })

  test("a client's request id comes back in its problem", async () => {
    const response = await api.fetch('/nothing', { headers: { 'x-request-id': 'mine-1' } })
    expect(await response.json()).toMatchObject({ requestId: 'mine-1' })
  })
})

describe('the listener', () => {
  test('stops only after who is being answered, and within its limit', async () => {
    const reached = Promise.withResolvers<void>()
    const answer = Promise.withResolvers<Response>()
    const app = {
      fetch: () => {
        reached.resolve()
        return answer.promise
      },
    }
    const parts = {
      name: 'listener',
      app,
      host: '127.0.0.1',
      port: 0,
      clock: SYSTEM_CLOCK,
      telemetry: SILENT_TELEMETRY,
    }
    const server = new HttpServer(parts)
    await server.start()
    const open = fetch(server.url)
    await reached.promise
    const stopped = server.stop()
    await Bun.sleep(20)
    answer.resolve(new Response('late, but there'))
    expect(await (await open).text()).toBe('late, but there')
    await stopped

    const stuck = new HttpServer({
      ...parts,
      app: { fetch: () => new Promise(() => undefined) },
      stopLimitMs: 100,
    })
    await stuck.start()
    const never = fetch(stuck.url).catch(() => 'cut')
    await Bun.sleep(20)
    await stuck.stop()
    expect(await never).toBe('cut')
  })

  test('a port that is taken is a sentence, not a stack', async () => {
    const { port } = new URL(api.url)
    const second = new HttpServer({
      ...{ name: 'second', app: { fetch: () => new Response() }, host: '127.0.0.1', port: Number(port) },
      ...{ clock: SYSTEM_CLOCK, telemetry: SILENT_TELEMETRY },
    })
    expect(second.start()).rejects.toMatchObject({
      code: 'config.invalid',
      message: expect.stringContaining('Choose another address or port'),
    })
  })
})
