/** CloudEvents 1.0 over HTTP: binary and structured as the SDK of the project writes them, batches by hand, and every mistake. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { CloudEvent, HTTP } from 'cloudevents'
import fc from 'fast-check'
import { pack } from 'msgpackr'
import { z } from 'zod'
import type { HandledCommand } from '../src/contracts/handler.ts'
import { DeadLetters } from '../src/dead-letters/dead-letters.ts'
import { decodeEventHeader } from '../src/http/cloud-event.ts'
import { defineCommand, defineHandler, defineStream, done, reject } from '../src/index.ts'
import { partitionOf } from '../src/policies/partition.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { type PublicServer, startPublicServer } from './support/public-server.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { SILENT_TELEMETRY } from './support/telemetry.ts'
import { until } from './support/until.ts'

const stream = defineStream({ name: 'orders', partitions: 8 })
const payload = z.object({ orderId: z.string(), fails: z.boolean().optional() })
/** Without a key function: the subject is the key. */
const placed = defineCommand({ type: 'com.shop.order.placed', stream, payload })
const keyed = defineCommand({ type: 'order.keyed', stream, payload, key: ({ orderId }) => orderId })
const bare = defineCommand({ type: 'order.bare', stream, payload: z.undefined() })

const TRACE = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
const OTHER_TRACE = '00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-00'

/** What handlers saw, by command id. */
const seen = new Map<string, Pick<HandledCommand, 'type' | 'key' | 'payload' | 'trace' | 'cloudEvent'>>()
const see = ({ id, type, key, payload, trace, cloudEvent }: HandledCommand) => {
  seen.set(id, { type, key, payload, trace, cloudEvent })
  return (payload as { fails?: boolean } | undefined)?.fails === true ? reject('as asked') : done()
}

let redis: TestRedis
let fleet: TestFleet
let api: PublicServer
let stopWorker: () => Promise<void>

beforeAll(async () => {
  redis = await startTestRedis()
  const handlers = [placed, keyed, bare].map((command) =>
    defineHandler(command, (each) => see(each as HandledCommand)),
  )
  fleet = await testFleet(redis, [stream, placed, keyed, bare, ...handlers])
  const worker = await fleet.worker()
  stopWorker = () => worker.stop()
  api = await startPublicServer(redis, fleet.catalogue)
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
  await stopWorker()
  await redis[Symbol.asyncDispose]()
})

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: {
    readonly id: string
    readonly type: string
    readonly detail?: string
    readonly accepted: number
    readonly rejected: number
    readonly results: {
      index: number
      id?: string
      deduplicated?: boolean
      problem?: { status: number; detail: string }
    }[]
  }
}

async function post(
  body: string | Uint8Array | undefined,
  headers: Record<string, string>,
  query = '',
): Promise<Answer> {
  const response = await api.fetch(`/v1/commands${query}`, {
    method: 'POST',
    headers,
    ...(body === undefined ? {} : { body }),
  })
  return {
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Answer['body'],
  }
}

type Written = ReturnType<typeof HTTP.binary>
const postWritten = ({ body, headers }: Written): Promise<Answer> =>
  post(body as string, headers as Record<string, string>)

async function handled(id: string) {
  await until('the handler to see it', () => seen.has(id))
  return seen.get(id)
}

const structured = (event: object, headers: Record<string, string> = {}): Promise<Answer> =>
  post(JSON.stringify(event), { 'content-type': 'application/cloudevents+json', ...headers })

const batch = (events: unknown, query = ''): Promise<Answer> =>
  post(JSON.stringify(events), { 'content-type': 'application/cloudevents-batch+json; charset=UTF-8' }, query)

let count = 0
const plain = (fields: object = {}): Record<string, unknown> => {
  count += 1
  const data = { orderId: `o-${count}` }
  return { specversion: '1.0', id: `e-${count}`, source: '/shop', type: 'order.keyed', data, ...fields }
}

describe('as the SDK writes it', () => {
  const event = new CloudEvent({
    type: 'com.shop.order.placed',
    source: 'https://shop.example/orders',
    id: 'a b "c" \\ d',
    subject: 'Order 7',
    time: '2024-02-29T12:00:00.123Z',
    dataschema: 'https://shop.example/schema',
    traceparent: TRACE,
    tracestate: 'vendor=1,other=2',
    attempts: 3,
    urgent: true,
    data: { orderId: 'o-1' },
  })

  test.each([
    ['binary', HTTP.binary, { attempts: '3', urgent: 'true' }],
    ['structured', HTTP.structured, { attempts: 3, urgent: true }],
  ])('%s: type, key, id, time, trace and data arrive', async (mode, write, extensions) => {
    // A source of its own, or the second would be a repetition of the first.
    const source = `https://shop.example/${mode}`
    const answer = await postWritten(write(event.cloneWith({ source })))
    expect([answer.status, answer.body.type]).toEqual([202, 'com.shop.order.placed'])
    expect(answer.headers.get('location')).toBe(`/v1/commands/${answer.body.id}`)
    const found = await handled(answer.body.id)
    expect(found).toMatchObject({
      type: 'com.shop.order.placed',
      key: 'Order 7',
      payload: { orderId: 'o-1' },
      trace: { traceparent: TRACE, tracestate: 'vendor=1,other=2' },
      cloudEvent: {
        id: 'a b "c" \\ d',
        source,
        subject: 'Order 7',
        time: '2024-02-29T12:00:00.123Z',
        dataschema: 'https://shop.example/schema',
        extensions: { traceparent: TRACE, tracestate: 'vendor=1,other=2', ...extensions },
      },
    })
    const { partition } = api.ids.parse(answer.body.id)
    expect(partition).toBe(partitionOf('Order 7', 8))
  })

  test('binary and structured are the same event: sent twice it is one command', async () => {
    const both = event.cloneWith({ id: 'twice' })
    const first = await postWritten(HTTP.binary(both))
    const second = await postWritten(HTTP.structured(both))
    expect(second.body.id).toBe(first.body.id)
    expect([first, second].map(({ headers }) => headers.get('idempotent-replayed'))).toEqual([null, 'true'])
    const [again] = (await batch([JSON.parse(HTTP.structured(both).body as string)])).body.results
    expect(again).toEqual({ index: 0, id: first.body.id, deduplicated: true })
  })

  test('MessagePack, as bytes of the body and in base64', async () => {
    const data = new Uint8Array(pack({ orderId: 'bytes' }))
    const packed = event.cloneWith({ datacontenttype: 'application/vnd.msgpack', data, id: 'packed' })
    const inBase64 = await postWritten(HTTP.structured(packed))
    expect((await handled(inBase64.body.id))?.payload).toEqual({ orderId: 'bytes' })
    const { headers } = HTTP.binary(packed.cloneWith({ id: 'packed-2' }))
    const asBody = await post(data, headers as Record<string, string>)
    expect((await handled(asBody.body.id))?.payload).toEqual({ orderId: 'bytes' })
  })

  test('what the SDK leaves as it is must be percent-encoded in headers, and comes back in full', async () => {
    const attributes = { id: 'a "%" € 😀 \\ é', source: '/ö?x=%20y', subject: 'Bestellung 7 – ö' }
    const text = { specversion: '1.0', type: 'com.shop.order.placed', ...attributes, comtext: 'ü' }
    const headers = Object.entries(text).map(([name, value]) => [`ce-${name}`, encodeURIComponent(value)])
    const type = { 'content-type': 'application/json' }
    const binary = await post('{"orderId":"u"}', { ...type, ...Object.fromEntries(headers) })
    const found = await handled(binary.body.id)
    expect(found).toMatchObject({
      key: attributes.subject,
      cloudEvent: { ...attributes, extensions: { comtext: 'ü' } },
    })
    expect((await structured({ ...text, data: { orderId: 'u' } })).body.id).toBe(binary.body.id)
  })

  test('Prefer is for events too', async () => {
    const { headers, body } = HTTP.binary(event.cloneWith({ id: 'waited-for' }))
    const answer = await post(body as string, { ...(headers as Record<string, string>), prefer: 'wait=10' })
    expect([answer.status, answer.body]).toEqual([200, expect.objectContaining({ status: 'done' })])
  })
})

describe('one event', () => {
  test("a command with a key function keeps its own key; the subject is the handler's to see", async () => {
    const { body } = await structured(plain({ subject: 'another', data: { orderId: 'own' } }))
    expect(await handled(body.id)).toMatchObject({ key: 'own', cloudEvent: { subject: 'another' } })
  })

  test('without data, in both modes', async () => {
    const { data: _, ...event } = plain({ type: 'order.bare' })
    expect((await handled((await structured(event)).body.id))?.payload).toBeUndefined()
    const headers = { 'ce-id': 'bare', 'ce-source': '/s', 'ce-specversion': '1.0', 'ce-type': 'order.bare' }
    expect((await handled((await post(undefined, headers)).body.id))?.payload).toBeUndefined()
  })

  test('null is not there; JSON in base64 and under other names of JSON is JSON', async () => {
    const nulls = plain({ subject: null, time: null, data_base64: null, comexample: null })
    expect(await handled((await structured(nulls)).body.id)).toMatchObject({ cloudEvent: { extensions: {} } })
    const base64 = Buffer.from('{"orderId":"b"}').toString('base64')
    const { data: _, ...bytes } = plain({ data_base64: base64, datacontenttype: 'application/shop+json' })
    expect((await handled((await structured(bytes)).body.id))?.payload).toEqual({ orderId: 'b' })
  })

  test("the event's own trace goes before the request's", async () => {
    const own = await structured(plain({ traceparent: TRACE }), { traceparent: OTHER_TRACE })
    expect((await handled(own.body.id))?.trace).toEqual({ traceparent: TRACE })
    const none = await structured(plain(), { traceparent: OTHER_TRACE })
    expect((await handled(none.body.id))?.trace).toEqual({ traceparent: OTHER_TRACE })
  })

  test('other data under the same source and id is 422', async () => {
    const event = plain()
    await structured(event)
    const other = await structured({ ...event, data: { orderId: 'other' } })
    expect([other.status, other.body.type]).toEqual([422, '/problems/idempotency-key-reused'])
  })

  test('source and id can not be shifted into each other', async () => {
    const one = await structured(plain({ source: '/a', id: 'b/c', data: { orderId: 'x' } }))
    const two = await structured(plain({ source: '/a/b', id: 'c', data: { orderId: 'x' } }))
    expect(two.body.id).not.toBe(one.body.id)
    const long = plain({ id: 'x'.repeat(3000), source: `/${'y'.repeat(3000)}` })
    const ids = [(await structured(long)).body.id, (await structured(long)).body.id]
    expect(ids[0]).toBe(ids[1] as string)
  })

  test('a delay in the query is taken', async () => {
    const { body } = await post(
      JSON.stringify(plain()),
      { 'content-type': 'application/cloudevents+json' },
      '?delayMs=1',
    )
    expect(await handled(body.id)).toMatchObject({ type: 'order.keyed' })
  })

  test('a dead letter tells what it came as, keeps it when it is redriven, and lists with its true header', async () => {
    const { body } = await structured(plain({ subject: 'dead', data: { orderId: 'd', fails: true } }))
    const { stream, partition } = api.ids.parse(body.id)
    await until('the dead letter', async () => (await fleet.deadLetters(stream, partition)).length > 0)
    const [letter] = await fleet.deadLetters(stream, partition)
    expect(letter?.entry.origin?.length).toBeGreaterThan(20)
    const letters = new DeadLetters({
      command: fleet.link,
      catalogue: fleet.catalogue,
      ids: fleet.ids,
      clock: SYSTEM_CLOCK,
      telemetry: SILENT_TELEMETRY,
    })
    await letters.start()
    expect(await letters.inspect(body.id)).toMatchObject({
      cloudEvent: { subject: 'dead' },
      payload: { orderId: 'd' },
    })
    const page = await letters.page({})
    expect(page.data.find(({ id }) => id === body.id)).toMatchObject({
      ...{ type: 'order.keyed', key: 'd' },
      payloadBytes: JSON.stringify({ orderId: 'd', fails: true }).length,
    })
    seen.delete(body.id)
    await letters.redrive(body.id)
    expect(await handled(body.id)).toMatchObject({
      payload: { orderId: 'd', fails: true },
      cloudEvent: { subject: 'dead' },
    })
    await letters.stop()
  })
})

describe('a batch', () => {
  test('each event has its own fate; bad ones cost only themselves', async () => {
    const answer = await batch([
      plain(),
      plain({ specversion: '0.3' }),
      plain({ type: 'no.such' }),
      plain({ id: '' }),
      'none',
      plain({ data: '<a/>', datacontenttype: 'application/xml' }),
      plain({ data: { orderId: 7 } }),
      plain(),
    ])
    expect([answer.status, answer.body.accepted, answer.body.rejected]).toEqual([202, 2, 6])
    expect(answer.body.results.map(({ problem }) => problem?.status)).toEqual([
      undefined,
      400,
      404,
      422,
      422,
      422,
      422,
      undefined,
    ])
    for (const index of [0, 7]) await handled(answer.body.results[index]?.id ?? '')
  })

  test('an empty one is fine, anything but an array is not, and too many are too many', async () => {
    const empty = await batch([])
    expect([empty.status, empty.body.accepted, empty.body.results]).toEqual([202, 0, []])
    expect(empty.headers.get('idempotent-replayed')).toBeNull()
    expect((await batch(plain())).status).toBe(422)
    await using small = await startPublicServer(redis, fleet.catalogue, {
      app: { bulkItemsMax: 1, bodyBytesMax: 200 },
    })
    const many = await small.post('/v1/commands', [plain(), plain()], {
      'content-type': 'application/cloudevents-batch+json',
    })
    expect(many.status).toBe(413)
    const large = plain({ data: { orderId: 'x'.repeat(300) } })
    expect(
      (await small.post('/v1/commands', large, { 'content-type': 'application/cloudevents+json' })).status,
    ).toBe(413)
  })

  test('all or none, as in bulk', async () => {
    const answer = await batch(
      [plain({ data: { orderId: 'same' } }), plain({ data: { orderId: 7 } })],
      '?atomic=true',
    )
    expect(answer.status).toBe(422)
    const together = await batch(
      [plain({ data: { orderId: 'same' } }), plain({ data: { orderId: 'same' } })],
      '?atomic=true',
    )
    expect([together.status, together.body.accepted]).toEqual([202, 2])
  })
})

describe('mistakes', () => {
  const base = {
    'content-type': 'application/json',
    'ce-id': '1',
    'ce-source': '/s',
    'ce-specversion': '1.0',
    'ce-type': 'order.keyed',
  }
  const body = '{"orderId":"o"}'

  test.each([
    ['another version of the specification', { 'ce-specversion': '0.3' }, 400, 'specversion'],
    ['percent-encoding that is none', { 'ce-subject': '100%' }, 400, 'percent'],
    ['percent-encoded bytes that are no UTF-8', { 'ce-subject': '%C0%A0' }, 400, 'percent'],
    ['letters that are not encoded', { 'ce-subject': 'h\xe9' }, 400, 'percent'],
    ['a name with a hyphen', { 'ce-my-extension': 'x' }, 400, 'lower-case'],
    ['ce-datacontenttype', { 'ce-datacontenttype': 'application/json' }, 400, 'Content-Type'],
    ['ce-data', { 'ce-data': 'x' }, 400, 'lower-case'],
    ['an empty id', { 'ce-id': '' }, 422, '"id"'],
    ['a control character', { 'ce-id': '%00' }, 422, '"id"'],
    ['a time that is none', { 'ce-time': 'yesterday' }, 422, 'RFC 3339'],
    ['attributes without end', { 'ce-a': 'x'.repeat(9000) }, 413, 'attributes'],
    ['a key of the prototype', { 'ce-constructor': 'x' }, 422, 'constructor'],
  ])('binary: %s', async (_, extra, status, told) => {
    const answer = await post(body, { ...base, ...extra })
    expect(answer.status).toBe(status)
    expect(answer.body.detail).toContain(told)
  })

  test('an unknown type is told before the body is looked at', async () => {
    expect((await post('{', { ...base, 'ce-type': 'order.keyd' })).status).toBe(404)
  })

  test.each([
    ['application/xml', base],
    ['application/cloudevents+avro', {}],
    ['application/cloudevents+json; charset=latin1', {}],
    ['text/plain', {}],
  ])('415 names the types: %s', async (type, headers) => {
    const answer = await post('<a/>', { ...headers, 'content-type': type })
    expect(answer.status).toBe(415)
    expect(answer.headers.get('accept-post')).toContain('application/cloudevents-batch+json')
  })

  test('three of the four headers make no event', async () => {
    const { 'ce-source': _, ...three } = base
    expect((await post(body, three)).body.detail).toContain('array of commands')
  })

  test.each([
    ['no object', 7, 422],
    ['no version', { id: 'x', source: '/s', type: 'order.keyed' }, 400],
    ['an id that is a number', plain({ id: 7 }), 422],
    ['data twice', plain({ data_base64: 'e30=' }), 422],
    ['base64 that is none', { ...plain({ data_base64: '!' }), data: undefined }, 422],
    ['a name in capitals', plain({ comExample: 'x' }), 422],
    ['an attribute that is an object', plain({ comexample: {} }), 422],
    ['an attribute that is a fraction', plain({ comexample: 1.5 }), 422],
    ['half of a pair', plain({ comexample: '\ud800' }), 422],
    ['data that nests too deeply', plain({ data: JSON.parse(`${'['.repeat(40)}${']'.repeat(40)}`) }), 422],
    [
      'a subject that is too long for a key',
      plain({ type: 'com.shop.order.placed', subject: 'x'.repeat(256) }),
      422,
    ],
  ])('structured: %s', async (_, event, status) => {
    expect((await structured(event as object)).status).toBe(status)
  })

  test('a key of the prototype in the data, or as an attribute', async () => {
    const text = JSON.stringify(plain())
    const headers = { 'content-type': 'application/cloudevents+json' }
    expect((await post(text.replace('{"orderId"', '{"__proto__":{},"orderId"'), headers)).status).toBe(422)
    expect((await post(text.replace('{', '{"__proto__":"x",'), headers)).status).toBe(422)
  })
})

test('a header comes back as it was, encoded as little or as much as one likes', () => {
  const text = fc.string({ unit: 'grapheme' }).filter((value) => value.isWellFormed())
  fc.assert(
    fc.property(text, (value) => {
      expect(decodeEventHeader('ce-x', encodeURIComponent(value))).toBe(value)
      const needed = [...value].map((each) =>
        /^[\x21\x23\x24\x26-\x7e]$/.test(each) ? each : encodeURIComponent(each),
      )
      expect(decodeEventHeader('ce-x', needed.join(''))).toBe(value)
    }),
  )
  expect(decodeEventHeader('ce-x', '"a \\"quoted\\" %20 text"')).toBe('a "quoted"   text')
  expect(decodeEventHeader('ce-x', '%e2%82%ac')).toBe('€')
})
