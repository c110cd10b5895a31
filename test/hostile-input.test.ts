/** What strangers send to do harm: each attack that once went through, or would if what holds it were taken away. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { errorCode } from '../src/contracts/errors.ts'
import { nearest } from '../src/contracts/names.ts'
import { validatePayloadNow } from '../src/contracts/schema.ts'
import { parseBulk, parseJson } from '../src/http/bulk-body.ts'
import { checkJsonShape } from '../src/http/json-shape.ts'
import { decodeMsgpack, sliceMsgpackArray } from '../src/http/msgpack-body.ts'
import type { ViewSource } from '../src/http/view-routes.ts'
import { defineCommand } from '../src/index.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { makeProject } from './support/project.ts'
import { type PublicServer, startPublicServer } from './support/public-server.ts'
import { RawConnection, rawExchange } from './support/raw-http.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const place = defineCommand({ type: 'order.place', stream: 'orders', payload: z.object({ n: z.number() }) })
const catalogue = buildCatalogue([place])
const JSON_BODY = 'Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{"n":1}'
const MIB = 1024 ** 2

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

async function storedCount(): Promise<number> {
  const { commands } = partitionKeys('orders', 0)
  return await api.ingest.use('a count', (client) => client.xlen(commands))
}

describe('where a request goes', () => {
  for (const host of ['', 'a b', 'x@y:99999', 'a/..', 'a?b', 'a#b', 'a\\b']) {
    test(`a Host header ${JSON.stringify(host)} moves no path`, async () => {
      const stored = await storedCount()
      const path = '/guarded-prefix/v1/commands/order.place'
      const answer = await rawExchange(
        api.server.port,
        `POST ${path} HTTP/1.1\r\nHost: ${host}\r\n${JSON_BODY}`,
      )
      expect([400, 404]).toContain(answer?.status ?? 0)
      expect(await storedCount()).toBe(stored)
    })
  }

  test('a Host header that is no host is told so, with a problem', async () => {
    const answer = await rawExchange(api.server.port, 'GET /livez HTTP/1.1\r\nHost: a b\r\n\r\n')
    expect(answer?.status).toBe(400)
    expect(JSON.parse(answer?.body ?? '')).toMatchObject({ type: '/problems/malformed-request', status: 400 })
  })

  test('a host that no URL has breaks nothing that takes URLs apart', async () => {
    for (const host of ['a:b', '[::1', 'a%', 'me@a', 'me:pw@a']) {
      for (const line of [
        'GET /livez?verbose',
        'HEAD /livez',
        'GET /v1/views/x?limit=1',
        'GET /v1/events/orders',
      ]) {
        const answer = await rawExchange(api.server.port, `${line} HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
        expect([host, line, answer?.status]).toEqual([host, line, 400])
      }
    }
  })

  test('HTTP/1.0 without a Host header is answered, bodies too', async () => {
    expect((await rawExchange(api.server.port, 'GET /livez?verbose HTTP/1.0\r\n\r\n'))?.status).toBe(200)
    const answer = await rawExchange(
      api.server.port,
      `POST /v1/commands/order.place HTTP/1.0\r\n${JSON_BODY}`,
    )
    expect(answer?.status).toBe(202)
  })

  test('CONNECT reaches nothing', async () => {
    const answer = await rawExchange(
      api.server.port,
      'CONNECT inside.example:443 HTTP/1.1\r\nHost: a\r\n\r\n',
    )
    expect(answer?.status).toBe(400)
  })
})

describe('request smuggling', () => {
  const inner = 'GET /livez HTTP/1.1\r\nHost: a\r\n\r\n'
  const attacks: Record<string, string> = {
    'both lengths': `Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${inner}`,
    'an unknown transfer coding': `Transfer-Encoding: xchunked\r\nContent-Length: 3\r\n\r\nabc${inner}`,
    'two transfer codings': `Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n${inner}`,
    'a space before the colon': `Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n${inner}`,
    'a folded header': `Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n${inner}`,
    'two lengths': `Content-Length: 0\r\nContent-Length: ${inner.length}\r\n\r\n${inner}`,
    'a length with a sign': `Content-Length: +0\r\n\r\n${inner}`,
    'a bare line feed': `X: a\nContent-Length: 3\r\n\r\nabc${inner}`,
    'a chunk size that is none': `Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n${inner}`,
  }
  for (const [name, rest] of Object.entries(attacks)) {
    test(`${name}: refused, and nothing behind it is read as a request`, async () => {
      using connection = new RawConnection(api.server.port)
      connection.send(
        `POST /v1/commands/order.place HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n${rest}`,
      )
      expect((await connection.answer())?.status).toBe(400)
      expect(await connection.answer()).toBeUndefined()
    })
  }
})

describe('bodies that cost more than they weigh', () => {
  const codeOf = (work: () => unknown): string | undefined => {
    try {
      work()
      return 'accepted'
    } catch (error) {
      return errorCode(error)
    }
  }
  const bombs: Record<string, string> = {
    'open brackets': '['.repeat(8 * MIB),
    'nested arrays': '['.repeat(MIB) + ']'.repeat(MIB),
    'flat objects': `[${'{},'.repeat(2 * MIB)}1]`,
    numbers: `[${'1,'.repeat(4 * MIB)}1]`,
    'brackets after much text': `["${'x'.repeat(4 * MIB)}",${'[],'.repeat(MIB)}1]`,
    'brackets hidden at a stride': `[${`${'[[],'.repeat(30)}1${']'.repeat(30)},`.repeat(30_000)}1]`,
  }
  for (const [name, text] of Object.entries(bombs)) {
    test(`${name}: refused before they are parsed, in JSON and in lines`, () => {
      expect(codeOf(() => parseJson(text))).toBe('command.too-large')
      const bounds = { itemsMax: 10_000, key: undefined, trace: undefined }
      expect(codeOf(() => parseBulk('ndjson', Buffer.from(text), bounds))).toBe('command.too-large')
    })
  }

  test('as many commands as a bulk body holds are not too many values, nor are brackets in texts', () => {
    const line = {
      type: 'order.place',
      payload: { id: 'x'.repeat(500), items: [{ sku: 'a', qty: 1, tags: ['b'] }] },
    }
    const text = JSON.stringify(Array.from({ length: 10_000 }, () => line))
    expect(text.length).toBeGreaterThan(5 * MIB)
    expect(codeOf(() => checkJsonShape(text))).toBe('accepted')
    expect(codeOf(() => checkJsonShape(`["${'[{,\\"'.repeat(MIB)}"]`))).toBe('accepted')
  })

  test('MessagePack: as many values are refused while they are counted', () => {
    const array = (count: number): Buffer => {
      const head = Buffer.from([0xdd, 0, 0, 0, 0])
      head.writeUInt32BE(count, 1)
      return head
    }
    const flat = Buffer.concat([Buffer.from([0x91]), array(8 * MIB), Buffer.alloc(8 * MIB, 0x90)])
    const deep = Buffer.concat([Buffer.alloc(8 * MIB, 0x91), Buffer.from([0xc0])])
    expect(codeOf(() => sliceMsgpackArray(flat, 10_000))).toBe('command.too-large')
    expect(codeOf(() => sliceMsgpackArray(deep, 10_000))).toBe('command.too-large')
    expect(codeOf(() => sliceMsgpackArray(array(2 ** 32 - 1), 10_000))).toBe('command.malformed')
    expect(codeOf(() => decodeMsgpack(array(2 ** 32 - 1)))).toBe('command.malformed')
    expect(codeOf(() => decodeMsgpack(Buffer.from([0xdf, 255, 255, 255, 255, 0xa1])))).toBe(
      'command.malformed',
    )
  })

  test('MessagePack: texts are UTF-8, so that no key is read as another', () => {
    const text = (bytes: number[]): number[] => [0xa0 + bytes.length, ...bytes]
    const overlong = [0xc1, 0xa3, ...Buffer.from('onstructor')]
    expect(codeOf(() => decodeMsgpack(Buffer.from([0x81, ...text(overlong), 1])))).toBe('command.invalid')
    expect(codeOf(() => decodeMsgpack(Buffer.from(text([0xed, 0xa0, 0x80]))))).toBe('command.invalid')
    expect(codeOf(() => decodeMsgpack(Buffer.from([0xd9, 40, ...Array<number>(40).fill(0xff)])))).toBe(
      'command.invalid',
    )
    expect(decodeMsgpack(Buffer.from(text([...Buffer.from('größer')])))).toBe('größer')
  })

  test('a name as long as a body is compared with none', () => {
    const names = Array.from({ length: 1000 }, (_, i) => `command.number-${i}`)
    const startMs = performance.now()
    for (let i = 0; i < 20; i++) expect(nearest(`x${'y'.repeat(MIB)}`, names)).toBeUndefined()
    // Less than a millisecond; with whole tables, many minutes.
    expect(performance.now() - startMs).toBeLessThan(10_000)
    expect(nearest('order.plcae', ['order.place', 'order.cancel'])).toBe('order.place')
  })
})

describe('what answers repeat', () => {
  test('a body that does not parse is not quoted', async () => {
    const answer = await api.post('/v1/commands/order.place', '{"n": hunter2secret}')
    expect(answer.status).toBe(400)
    const text = await answer.text()
    expect(text).toContain('Unexpected identifier')
    expect(text).not.toContain('hunter2')
  })

  test('keys of a payload are cut, paths too', async () => {
    const nested = z.record(z.string(), z.record(z.string(), z.number()))
    const key = 'k'.repeat(100_000)
    let told = ''
    try {
      validatePayloadNow('a test', nested, { [key]: { [key]: 'x' } })
    } catch (error) {
      told = JSON.stringify(error)
    }
    expect(told).toContain('/kkk')
    expect(told.length).toBeLessThan(1500)
    const answer = await api.fetch(`/${'p'.repeat(8000)}`)
    expect(((await answer.json()) as { instance: string }).instance.length).toBe(300)
  })
})

test('a token in a path is not repeated, not even one that is cut off', async () => {
  const token = `eyJ${'a'.repeat(30)}.${'b'.repeat(30)}.${'c'.repeat(30)}`
  for (const sent of [token, token.slice(0, 50), token.slice(0, 25)]) {
    expect(await (await api.fetch(`/v1/views/x/${sent}`)).text()).toContain('/v1/views/x/…')
  }
})

describe('slow and broken bodies', () => {
  const head = (more: string): string =>
    `POST /v1/commands HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n${more}\r\n\r\n[`

  test('who declares much and sends little takes little room', async () => {
    await using small = await startPublicServer(redis, catalogue, { app: { requestBytesMax: 9 * MIB } })
    const slow = [
      head(`Content-Length: ${8 * MIB}`),
      head('Transfer-Encoding: chunked').replace(/\[$/, '1\r\n[\r\n'),
    ]
    const open = Array.from({ length: 40 }, (_, i) =>
      new RawConnection(small.server.port).send(slow[i % 2] ?? ''),
    )
    try {
      await until('all of them to be read', () => small.bodies.open.requests === 40)
      expect(small.bodies.open.bytes).toBeLessThan(100)
      expect((await small.post('/v1/commands/order.place', { n: 1 })).status).toBe(202)
    } finally {
      for (const connection of open) connection[Symbol.dispose]()
    }
    await until('their places to be free', () => small.bodies.open.requests === 0)
    expect(small.bodies.open.bytes).toBe(0)
    expect(small.telemetry.of('request.aborted').length).toBe(40)
    expect(small.telemetry.of('request.failed')).toEqual([])
  })

  test('what really came in is bounded', async () => {
    await using small = await startPublicServer(redis, catalogue, { app: { requestBytesMax: MIB } })
    const answer = await small.post('/v1/commands', `[${' '.repeat(2 * MIB)}]`)
    expect(answer.status).toBe(503)
    expect(answer.headers.get('retry-after')).toBe('1')
    await until('its place to be free', () => small.bodies.open.requests === 0)
    expect(small.bodies.open.bytes).toBe(0)
  })

  test('a trickle is not patience: a body, a head or an answer that takes longer than the idle limit is cut', async () => {
    await using impatient = await startPublicServer(redis, catalogue, { idleTimeoutS: 1 })
    const stored = await storedCount()
    const startMs = performance.now()
    const lasted = async (text: string, more: string): Promise<number> => {
      using connection = new RawConnection(impatient.server.port).send(text)
      const trickle = setInterval(() => connection.send(more), 200)
      await connection.closed
      clearInterval(trickle)
      return performance.now() - startMs
    }
    const [declared, chunked, unfinished] = await Promise.all([
      lasted(head('Content-Length: 5000'), ' '),
      lasted(head('Transfer-Encoding: chunked').replace(/\[$/, '1\r\n[\r\n'), '1\r\n \r\n'),
      lasted('GET /livez HTTP/1.1\r\nHost: a\r\n', 'X-A: b\r\n'),
    ])
    expect(declared).toBeLessThan(8000)
    expect(chunked).toBeLessThan(8000)
    // Of Bun's own: about 12 s, whatever the idle limit.
    expect(unfinished).toBeLessThan(20_000)
    await until('their places to be free', () => impatient.bodies.open.requests === 0)
    expect(await storedCount()).toBe(stored)
  })
})

test('only so many requests wait for a view at once; others are read meanwhile, and places come back', async () => {
  const held = Promise.withResolvers<void>()
  const view = { value: { n: 1 }, etag: 'x', position: '0-0', afterState: undefined }
  const views: ViewSource = {
    address: () => ({ tenant: undefined as never }),
    held: () => undefined,
    read: async (_projection, _key, options) => {
      if (options?.after !== undefined) await held.promise
      return view
    },
    page: () => Promise.reject(new Error('not asked')),
  }
  await using small = await startPublicServer(redis, catalogue, { views, app: { viewWaitsMax: 3 } })
  const wait = (): Promise<Response> =>
    small.fetch('/v1/views/counts/a', { headers: { 'millrace-after': 'x' } })
  const first = Array.from({ length: 4 }, wait)
  const refused = await Promise.race(first)
  expect(refused.status).toBe(503)
  expect(refused.headers.get('retry-after')).toBe('1')
  expect((await small.fetch('/v1/views/counts/a')).status).toBe(200)
  held.resolve()
  const statuses = (await Promise.all(first)).map(({ status }) => status)
  expect(statuses.sort()).toEqual([200, 200, 200, 503])
  expect((await wait()).status).toBe(200)
})

test('a password of Redis stands in nothing that a start says, whatever goes wrong with it', async () => {
  const password = 'pass-word-of-redis'
  const urls = [
    `redis://user:${password}@127.0.0.1:1/0`,
    `redis://:${password}/x@127.0.0.1:1`,
    `redis+sentinel://:${password}@127.0.0.1:1/primary?sentinelPassword=${password}`,
    `rediss+sentinel://:${password}@@127.0.0.1:1`,
    `http://user:${password}@127.0.0.1:1`,
    `${password}@127.0.0.1`,
  ]
  for (const REDIS_URL of urls) {
    await using project = await makeProject()
    const running = project.start([], { REDIS_URL, MILLRACE_REDIS_WAIT_MS: '200' })
    expect(await running.ended()).not.toBe(0)
    expect(running.lines).toContain('millrace:')
    expect(running.lines).not.toContain(password)
  }
})
