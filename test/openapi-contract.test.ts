/** What a running process answers, on both of its listeners, is what its own OpenAPI documents tell. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { z } from 'zod'
import {
  defineCommand,
  defineEvent,
  defineHandler,
  defineProjection,
  defineSchedule,
  defineStream,
  done,
  type Millrace,
  reject,
  startMillrace,
} from '../src/index.ts'
import { Contract, type OpenApi } from './support/openapi-contract.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const orders = defineStream({ name: 'orders' })
const keyed = defineStream({ name: 'keyed', ordering: 'key' })
const shape = z.object({ orderId: z.string(), weight: z.number().max(10) })
const Ship = defineCommand({ type: 'order.ship', stream: orders, payload: shape, key: (p) => p.orderId })
const Keep = defineCommand({ type: 'order.keep', stream: keyed, payload: shape, key: (p) => p.orderId })
const shipped = defineEvent({ type: 'order.shipped', payload: shape })
const weights = defineProjection({
  name: 'weights',
  stream: orders,
  view: z.object({ total: z.number() }),
  initial: () => ({ total: 0 }),
}).on(
  shipped,
  (event) => event.payload.orderId,
  (view, event) => ({ total: view.total + event.payload.weight }),
)
const nightly = defineSchedule({
  ...{ name: 'nightly', command: Ship, payload: { orderId: 'night', weight: 1 }, cron: '0 3 1 1 *' },
})
const often = defineSchedule({
  ...{ name: 'often', command: Ship, payload: { orderId: 'often', weight: 1 }, every: 3_600_000 },
})

let redis: TestRedis
let process: Millrace
let contracts: Record<'public' | 'admin', Contract>

beforeAll(async () => {
  redis = await startTestRedis(['--appendfsync', 'everysec'])
  const definitions = [
    ...[orders, keyed, Ship, Keep, shipped, weights, nightly, often],
    defineHandler(Keep, () => done()),
    defineHandler(Ship, (command) => {
      if (command.payload.orderId.startsWith('dead')) return reject('No address')
      command.emit(shipped, command.payload)
      return done({ carrier: 'snail' })
    }),
  ]
  process = await startMillrace({ redisUrl: redis.url, definitions, port: 0, adminPort: 0 })
  const load = async (url = ''): Promise<Contract> =>
    new Contract((await (await fetch(`${url}/openapi.json`)).json()) as OpenApi)
  contracts = { public: await load(process.urls.public), admin: await load(process.urls.admin) }
})
afterAll(async () => {
  await process?.stop()
  await redis?.[Symbol.asyncDispose]()
})

type Body = Record<string, unknown>

interface Call {
  readonly method?: string
  readonly headers?: Record<string, string>
  readonly body?: unknown
  /** Only the headers of a GET that never ends. */
  readonly head?: boolean
}

/** One request whose answer must be told of, with this status. Answers its body. */
async function ask(
  listener: 'public' | 'admin',
  path: string,
  status: number,
  { method = 'GET', headers = {}, body, head = false }: Call = {},
): Promise<{ body: Body; header: (name: string) => string }> {
  const init =
    body === undefined
      ? { method: head ? 'HEAD' : method, headers }
      : {
          method,
          headers: { 'content-type': 'application/json', ...headers },
          body: typeof body === 'string' ? body : JSON.stringify(body),
        }
  const response = await fetch(`${process.urls[listener]}${path}`, init)
  const copy = response.clone()
  expect([path, await contracts[listener].complaints(method, path, response)]).toEqual([path, []])
  expect([path, copy.status]).toEqual([path, status])
  const text = await copy.text()
  return {
    body: text.startsWith('{') ? (JSON.parse(text) as Body) : {},
    header: (name) => copy.headers.get(name) ?? '',
  }
}

const post = (body: unknown, headers: Record<string, string> = {}): Call => ({
  method: 'POST',
  body,
  headers,
})
const send = async (orderId: string, query = ''): Promise<string> =>
  String(
    (await ask('public', `/v1/commands/order.ship${query}`, 202, post({ orderId, weight: 2 }))).body['id'],
  )
const ended = async (id: string, status: string): Promise<void> =>
  until(`${id} to be ${status}`, async () => {
    const { body } = await ask('public', `/v1/commands/${id}`, 200)
    return body['status'] === status
  })

/** Operations with none of their good answers seen. */
function missed({ operations, seen }: Contract): string[] {
  return operations.flatMap(({ operationId, responses }) => {
    const good = Object.keys(responses).filter((status) => status.startsWith('2'))
    return good.some((status) => seen.has(`${operationId} ${status}`)) ? [] : [operationId]
  })
}

describe('the public listener', () => {
  test('answers to commands are as told', async () => {
    const path = '/v1/commands/order.ship'
    const first = post({ orderId: 'a', weight: 2 }, { 'idempotency-key': '"k"' })
    const { header } = await ask('public', path, 202, first)
    expect((await ask('public', path, 202, first)).header('idempotent-replayed')).toBe('true')
    await ask('public', header('location'), 200)
    await ask('public', path, 422, post({ orderId: 'b', weight: 2 }, { 'idempotency-key': '"k"' }))
    await ask('public', path, 422, post({ orderId: 'a', weight: 99 }))
    await ask('public', path, 400, post('{'))
    await ask('public', `${path}?delay=1`, 400, post({ orderId: 'a', weight: 2 }))
    await ask('public', path, 413, post(`"${'x'.repeat(300_000)}"`))
    await ask('public', path, 415, post('orderId=a', { 'content-type': 'text/plain' }))
    await ask('public', '/v1/commands/order.keep', 202, post({ orderId: 'a', weight: 2 }))
  })

  test('answers to bulk bodies are as told', async () => {
    const good = { type: 'order.ship', payload: { orderId: 'c', weight: 1 }, delayMs: 1, idempotencyKey: 'i' }
    const bad = { type: 'order.sheep', payload: {} }
    const wrong = { type: 'order.ship', payload: { orderId: 'c', weight: 'much' } }
    await ask('public', '/v1/commands', 202, post([good, bad, wrong, good]))
    const lines = [good, bad].map((line) => JSON.stringify(line)).join('\n')
    await ask('public', '/v1/commands', 202, post(lines, { 'content-type': 'application/x-ndjson' }))
    await ask('public', '/v1/commands', 422, post([bad, wrong]))
    await ask('public', '/v1/commands', 422, post({}))
    await ask('public', '/v1/commands', 400, post('[', {}))
    await ask('public', '/v1/commands', 415, post('', { 'content-type': 'text/csv' }))
  })

  test('answers by preference are as told', async () => {
    const path = '/v1/commands/order.ship'
    const wait = { prefer: 'wait=20' }
    const waited = await ask('public', path, 200, post({ orderId: 'p', weight: 1 }, wait))
    expect([waited.body['status'], waited.header('preference-applied')]).toEqual(['done', 'wait=20'])
    await ask('public', path, 202, post({ orderId: 'q', weight: 1 }, { prefer: 'return=minimal' }))
    const good = { type: 'order.ship', payload: { orderId: 'q', weight: 1 } }
    await ask('public', '/v1/commands', 202, post([good], { prefer: 'return=minimal' }))
    await ask('public', `/v1/commands/${waited.body['id']}`, 200, { headers: wait })
  })

  test('answers to CloudEvents are as told', async () => {
    const event = {
      specversion: '1.0',
      type: 'order.ship',
      source: '/shop',
      data: { orderId: 'v', weight: 1 },
    }
    const typed = (kind: string) => ({ 'content-type': `application/cloudevents${kind}+json` })
    await ask(
      'public',
      '/v1/commands',
      202,
      post(
        [
          { ...event, id: '1' },
          { ...event, id: '2' },
        ],
        typed('-batch'),
      ),
    )
    await ask('public', '/v1/commands', 202, post({ ...event, id: '1' }, typed('')))
    await ask('public', '/v1/commands', 200, post({ ...event, id: '3' }, { ...typed(''), prefer: 'wait=20' }))
    await ask(
      'public',
      '/v1/commands',
      422,
      post({ ...event, id: '1', data: { orderId: 'w', weight: 1 } }, typed('')),
    )
    await ask('public', '/v1/commands', 404, post({ ...event, id: '4', type: 'order.sheep' }, typed('')))
    const attributes = {
      'ce-id': '5',
      'ce-source': '/shop',
      'ce-specversion': '1.0',
      'ce-type': 'order.ship',
    }
    const dead = await ask('public', '/v1/commands', 202, post({ orderId: 'dead-ce', weight: 1 }, attributes))
    await ended(String(dead.body['id']), 'dead')
    await ask('admin', `/v1/dead-letters/${dead.body['id']}`, 200)
  })

  test('status and cancelling are as told', async () => {
    const id = await send('d')
    await ended(id, 'done')
    const { header } = await ask('public', `/v1/commands/${id}`, 200)
    const known = { headers: { 'if-none-match': header('etag') } }
    await ask('public', `/v1/commands/${id}`, 304, known)
    await ask('public', `/v1/commands/${id}`, 409, { method: 'DELETE' })
    const later = await send('e', '?delayMs=100000')
    await ask('public', `/v1/commands/${later}`, 200)
    await ask('public', `/v1/commands/${later}`, 202, { method: 'DELETE' })
    await ask('public', `/v1/commands/${later}`, 200)
    await ended(await send('dead-1'), 'dead')
    await ask('public', '/v1/commands/nonsense', 400)
    await ask('public', `/v1/commands/${id.slice(0, -1)}${id.endsWith('A') ? 'B' : 'A'}`, 404)
  })

  test('a tail of events is as told, by its head', async () => {
    await ask('public', '/v1/events/orders', 200, { head: true })
    await ask('public', '/v1/events/none', 404)
    await ask('public', '/v1/events/orders?from=middle', 400)
  })

  test('views are as told', async () => {
    const id = await send('f')
    const { header, body } = await ask('public', '/v1/views/weights/f', 200, {
      headers: { 'millrace-after': id },
    })
    expect(body).toEqual({ total: 2 })
    const known = { headers: { 'if-none-match': header('etag') } }
    await ask('public', '/v1/views/weights/f', 304, known)
    await ask('public', '/v1/views/weights/nobody', 404)
    await ask('public', '/v1/views/weights/f', 400, { headers: { 'millrace-after': 'x' } })
    await ask('public', '/v1/views/weights?limit=1', 200)
    await ask('public', '/v1/views/weights?limit=0', 400)
  })

  test('health, problems and the reference are as told, and nothing that is told was left out', async () => {
    for (const path of ['/livez', '/startupz', '/readyz?verbose']) await ask('public', path, 200)
    await ask('public', '/livez?verbos', 400)
    await ask('public', '/problems/not-found', 200)
    await ask('public', '/problems/none', 404)
    const { header } = await ask('public', '/docs', 200)
    await ask('public', '/docs', 304, { headers: { 'if-none-match': header('etag') } })
    await ask('public', '/openapi.json', 200)
    expect(missed(contracts.public)).toEqual([])
  })
})

describe('the admin listener', () => {
  test('streams and metrics are as told', async () => {
    await ask('admin', '/v1/streams', 200)
    await ask('admin', '/v1/streams/orders', 200)
    await until('the ordered partition to be leased', async () => {
      const { body } = await ask('admin', '/v1/streams/keyed', 200)
      return JSON.stringify(body).includes('"lease"')
    })
    await ask('admin', '/v1/streams/none', 404)
    await ask('admin', '/v1/streams?x=1', 400)
    await ask('admin', '/metrics', 200)
    await ask('admin', '/metrics', 200, { headers: { accept: 'application/openmetrics-text' } })
  })

  test('autoscaling and keys are as told', async () => {
    await ask('admin', '/v1/autoscale?stream=orders&min=1', 200)
    await ask('admin', '/v1/autoscale?stream=keyed', 200)
    await ask('admin', '/v1/autoscale', 400)
    await ask('admin', '/v1/autoscale?stream=none', 404)
    const made = await ask('admin', '/v1/keys', 201, post({ scopes: ['admin'], label: 'test' }))
    const path = `/v1/keys/${made.body['id']}`
    await ask('admin', path, 200)
    await ask('admin', '/v1/keys', 200)
    await ask('admin', `${path}/rotate`, 201, { method: 'POST' })
    await ask('admin', `${path}/rotate`, 409, { method: 'POST' })
    await ask('admin', `${path}/rotate`, 403, { method: 'POST', headers: { origin: 'https://x.example' } })
    await ask('admin', `${path}?secret=old`, 204, { method: 'DELETE' })
    await ask('admin', path, 204, { method: 'DELETE' })
    await ask('admin', path, 404)
    await ask('admin', '/v1/keys', 422, post({ scopes: ['nothing'] }))
    await ask('admin', '/v1/keys', 400, post({ scope: [] }))
    await ask('admin', '/v1/keys', 415, post('x', { 'content-type': 'text/plain' }))
  })

  test('schedules are as told', async () => {
    await ask('admin', '/v1/schedules/nightly/run', 202, { method: 'POST' })
    await ask('admin', '/v1/schedules', 200)
    await ask('admin', '/v1/schedules/often', 200)
    await ask('admin', '/v1/schedules/nightly/pause', 200, { method: 'POST' })
    await ask('admin', '/v1/schedules/nightly', 200)
    await ask('admin', '/v1/schedules/nightly/resume', 200, { method: 'POST' })
    await ask('admin', '/v1/schedules/none', 404)
    await ask('admin', '/v1/schedules/none/run', 404, { method: 'POST' })
  })

  test('dead letters are as told', async () => {
    const ids = await Promise.all(['dead-a', 'dead-b', 'dead-c'].map((orderId) => send(orderId)))
    for (const id of ids) await ended(id, 'dead')
    const [first = '', second = ''] = ids
    await ask('admin', '/v1/dead-letters?limit=1', 200)
    await ask('admin', '/v1/dead-letters?reason=none', 400)
    await ask('admin', `/v1/dead-letters/${first}`, 200)
    await ask('admin', `/v1/dead-letters/${first}`, 204, { method: 'DELETE' })
    await ask('admin', `/v1/dead-letters/${first}`, 404)
    const redrive = `/v1/dead-letters/${second}/redrive`
    await ask('admin', redrive, 422, post({ payload: { orderId: 'g', weight: 'much' } }))
    await ask('admin', redrive, 415, post('x', { 'content-type': 'text/plain' }))
    await ask('admin', redrive, 202, post({ payload: { orderId: 'g', weight: 1 } }))
    await ask('admin', redrive, 409, { method: 'POST' })
    const plan = { filter: { stream: 'orders' }, dryRun: true }
    await ask('admin', '/v1/dead-letters:redrive', 202, post(plan))
    const { header } = await ask('admin', '/v1/dead-letters:purge', 202, post(plan))
    await ask('admin', header('location'), 200)
    await until('the operation to end', async () => {
      const { body } = await ask('admin', header('location'), 200)
      return body['state'] === 'finished'
    })
    await ask('admin', '/v1/operations/none', 404)
    await ask('admin', '/v1/dead-letters:purge', 400, post({}))
  })

  test('nothing that is told was left out', async () => {
    for (const path of ['/livez', '/startupz', '/readyz?verbose', '/docs']) await ask('admin', path, 200)
    await ask('admin', '/openapi.json', 200)
    await ask('admin', '/problems/not-found', 200)
    expect(missed(contracts.admin)).toEqual([])
  })
})
