/** Dead letters over the admin listener of a whole process, from end to end: what an operator's requests do and answer. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { z } from 'zod'
import {
  defineCommand,
  defineHandler,
  defineStream,
  done,
  type Millrace,
  reject,
  startMillrace,
} from '../src/index.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const stream = defineStream({ name: 'orders', partitions: 2 })
const Ship = defineCommand({
  type: 'order.ship',
  stream,
  payload: z.object({ orderId: z.string(), weight: z.number().max(10) }),
  key: (p) => p.orderId,
})
let fails = true
const shipped: unknown[] = []
const handler = defineHandler(Ship, ({ payload }) => {
  if (fails) return reject(`No address for "${payload.orderId}"`)
  shipped.push(payload)
  return done()
})

let redis: TestRedis
let process: Millrace
beforeAll(async () => {
  redis = await startTestRedis(['--appendfsync', 'everysec'])
  process = await startMillrace({
    ...{ redisUrl: redis.url, definitions: [stream, Ship, handler], port: 0, adminPort: 0 },
  })
})
afterAll(async () => {
  await process?.stop()
  await redis[Symbol.asyncDispose]()
})

type Body = Record<string, unknown>
interface Reply {
  readonly status: number
  readonly body: Body
  readonly headers: Headers
}

async function call(method: string, path: string, body?: unknown, type = 'application/json'): Promise<Reply> {
  const response = await fetch(`${process.urls.admin}${path}`, {
    method,
    ...(body === undefined
      ? {}
      : {
          body: typeof body === 'string' ? body : JSON.stringify(body),
          headers: { 'content-type': type },
        }),
  })
  const text = await response.text()
  return {
    status: response.status,
    body: text === '' ? {} : (JSON.parse(text) as Body),
    headers: response.headers,
  }
}

async function status(id: string): Promise<Body> {
  return (await (await fetch(`${process.urls.public}/v1/commands/${id}`)).json()) as Body
}

/** Sends commands that die; answers their ids. */
async function dead(...orderIds: string[]): Promise<string[]> {
  fails = true
  const ids: string[] = []
  for (const orderId of orderIds) {
    const response = await fetch(`${process.urls.public}/v1/commands/order.ship`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ orderId, weight: 1 }),
    })
    ids.push(((await response.json()) as { id: string }).id)
  }
  for (const id of ids) await until('the command to die', async () => (await status(id))['status'] === 'dead')
  return ids
}

async function operation(path: string | null): Promise<Body> {
  let body: Body = {}
  await until('the operation to end', async () => {
    body = (await call('GET', path ?? '')).body
    return body['state'] !== 'running'
  })
  return body
}

describe('one dead letter', () => {
  test('is shown with payload and failures, redriven after the fix, and done', async () => {
    const [id = ''] = await dead('o-1')
    const { status: code, body } = await call('GET', `/v1/dead-letters/${id}`)
    expect(code).toBe(200)
    expect(body).toMatchObject({
      ...{ id, stream: 'orders', type: 'order.ship', key: 'o-1', attempts: 1, redrives: 0 },
      payload: { orderId: 'o-1', weight: 1 },
      failures: [{ attempt: 1, error: 'No address for "o-1"' }],
    })
    expect(Date.parse(String(body['deadSince']))).toBeLessThanOrEqual(Date.now())
    fails = false
    const redriven = await call('POST', `/v1/dead-letters/${id}/redrive`)
    expect(redriven).toMatchObject({ status: 202, body: { id, status: 'accepted', redrives: 1 } })
    await until('the command to be done', async () => (await status(id))['status'] === 'done')
    const again = await call('POST', `/v1/dead-letters/${id}/redrive`)
    expect(again).toMatchObject({ status: 409, body: { type: '/problems/dead-letter-conflict' } })
    expect(again.headers.get('content-type')).toBe('application/problem+json')
    expect((await call('GET', `/v1/dead-letters/${id}`)).status).toBe(404)
  })

  test('takes an edited payload, and refuses a bad one with its places', async () => {
    const [id = ''] = await dead('o-2')
    const path = `/v1/dead-letters/${id}/redrive`
    const bad = await call('POST', path, { payload: { orderId: 'o-2', weight: 11 } })
    expect(bad).toMatchObject({ status: 422, body: { errors: [{ pointer: '#/weight' }] } })
    expect((await call('POST', path, '{"payload":{"__proto__":1}}')).status).toBe(422)
    expect((await call('POST', path, { paylod: {} })).body['detail']).toContain('Did you mean "payload"?')
    expect((await call('POST', path, '{')).status).toBe(400)
    expect((await call('POST', path, '[]')).status).toBe(400)
    expect(await call('POST', path, 'x', 'text/plain')).toMatchObject({ status: 415 })
    fails = false
    expect((await call('POST', path, { payload: { orderId: 'o-2', weight: 9 } })).status).toBe(202)
    await until('the command to be done', async () => (await status(id))['status'] === 'done')
    expect(shipped).toContainEqual({ orderId: 'o-2', weight: 9 })
  })

  test('is discarded with 204, and the status of its command stays dead', async () => {
    const [id = ''] = await dead('o-3')
    expect((await call('DELETE', `/v1/dead-letters/${id}`)).status).toBe(204)
    expect((await call('DELETE', `/v1/dead-letters/${id}`)).status).toBe(409)
    const body = await status(id)
    expect(body).toMatchObject({ status: 'dead', problem: { detail: 'No address for "o-3"' } })
    expect(body).not.toHaveProperty('deadLetterId')
  })

  test('that is none is 404, an id that is none is 400', async () => {
    expect((await call('GET', '/v1/dead-letters/orders.0.e1-1.AAAAAAAAAAA')).status).toBe(404)
    expect((await call('GET', '/v1/dead-letters/nonsense')).status).toBe(400)
    // Told before the body is looked at.
    const none = await call('POST', '/v1/dead-letters/orders.0.e1-1.AAAAAAAAAAA/redrive', 'nonsense')
    expect(none.status).toBe(404)
    expect((await call('PUT', '/v1/dead-letters/nonsense')).headers.get('allow')).toBe('DELETE, GET, HEAD')
  })
})

describe('many dead letters', () => {
  test('are paged with Link, counted by kind of error, and filtered', async () => {
    await dead('p-1', 'p-2', 'p-3')
    const first = await call('GET', '/v1/dead-letters?stream=orders&error=%22p-&limit=2')
    expect(first.status).toBe(200)
    expect(first.body['data']).toHaveLength(2)
    expect(first.body['groups']).toMatchObject({ data: [{ count: 3 }], complete: true })
    const link = /<([^>]+)>; rel="next"/.exec(first.headers.get('link') ?? '')?.[1] ?? ''
    const second = await call('GET', link)
    expect(second.body['data']).toHaveLength(1)
    expect(second.body['page']).toEqual({ next: null, prev: null })
    expect(second.headers.has('link')).toBe(false)
    const { cursor } = Object.fromEntries(new URL(link, 'http://x').searchParams)
    const none = await call('GET', '/v1/dead-letters?from=2100-01-01T00:00:00Z')
    expect(none.body).toMatchObject({ data: [], groups: { data: [], scanned: 0 } })
    const wrong: [string, number][] = [
      [`cursor=${cursor}`, 400],
      ['cursor=x', 400],
      ['limit=501', 400],
      ['from=yesterday', 400],
      ['steam=orders', 400],
      ['type=', 400],
      ['stream=order', 404],
    ]
    for (const [query, expected] of wrong) {
      const { status: code, headers } = await call('GET', `/v1/dead-letters?${query}`)
      expect([query, code]).toEqual([query, expected])
      expect(headers.get('content-type')).toBe('application/problem+json')
    }
  })

  test('are counted dry, redriven and purged by filter, each as an operation to follow', async () => {
    const [first = '', ...others] = await dead('q-1', 'q-2', 'q-3')
    const filter = { stream: 'orders', type: 'order.ship', error: '"q-' }
    const dry = await call('POST', '/v1/dead-letters:redrive', { filter, dryRun: true })
    expect(dry).toMatchObject({ status: 202, body: { kind: 'redrive', dryRun: true } })
    const dryPath = dry.headers.get('location')
    expect(dryPath).toBe(`/v1/operations/${dry.body['id']}`)
    expect(await operation(dryPath)).toMatchObject({ state: 'finished', matched: 3, done: 0 })
    const one = { filter: { ...filter, error: '"q-1"' } }
    const purge = await call('POST', '/v1/dead-letters:purge', one)
    expect(await operation(purge.headers.get('location'))).toMatchObject({ kind: 'purge', done: 1 })
    fails = false
    const redrive = await call('POST', '/v1/dead-letters:redrive', { filter, ratePerSecond: 1000 })
    const ended = await operation(redrive.headers.get('location'))
    expect(ended).toMatchObject({ state: 'finished', matched: 2, done: 2, failed: 0 })
    expect(Date.parse(String(ended['endedAt']))).toBeGreaterThan(0)
    for (const id of others)
      await until('the command to be done', async () => (await status(id))['status'] === 'done')
    expect((await status(first))['status']).toBe('dead')
  })

  test('are left alone by a request that is not clear', async () => {
    const [id = ''] = await dead('r-1')
    const wrong: [unknown, number][] = [
      [undefined, 400],
      [{}, 400],
      [{ filter: 'all' }, 400],
      [{ filter: { steam: 'orders' } }, 400],
      [{ filter: { type: 7 } }, 400],
      [{ filter: { from: 'x' } }, 400],
      [{ filter: {}, dryRun: 'yes' }, 400],
      [{ filter: {}, ratePerSecond: 0 }, 400],
      [{ filter: {}, ratePerSecond: '5' }, 400],
      [{ filter: {}, dry: true }, 400],
      [{ filter: { stream: 'order' } }, 404],
    ]
    for (const [body, expected] of wrong) {
      const { status: code, headers } = await call('POST', '/v1/dead-letters:purge', body)
      expect([body, code]).toEqual([body, expected])
      expect(headers.get('content-type')).toBe('application/problem+json')
    }
    expect((await call('GET', `/v1/dead-letters/${id}`)).status).toBe(200)
    expect((await call('GET', '/v1/operations/op_none')).status).toBe(404)
    expect((await call('GET', '/v1/dead-letters:purge')).headers.get('allow')).toBe('POST')
  })
})
