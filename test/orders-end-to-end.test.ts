/**
 * Orders through the whole of Millrace in one process: posted over HTTP, paid with retries and dead letters, shipped,
 * cancelled, expired, and read back as views whose sums agree.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { join } from 'node:path'
import { type Millrace, startMillrace } from '../src/index.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { payByMs } from '../workers/orders/deadlines.ts'
import { askCardNetwork } from '../workers/orders/payments.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

setDefaultTimeout(60_000)

const ORDERS = 300
const CUSTOMERS = 20
const PRICE_CENTS = 1250
const PARTS = 16

type View = { [field: string]: unknown }

let redis: TestRedis
let millrace: Millrace
beforeAll(async () => {
  redis = await startTestRedis()
  millrace = await startMillrace({
    role: 'all',
    redisUrl: redis.url,
    allowUnsafe: ['lazy-fsync'],
    workersFolder: join(import.meta.dir, '../workers/orders'),
    port: 0,
    adminPort: 0,
  })
})
afterAll(async () => {
  await millrace?.stop()
  await redis?.[Symbol.asyncDispose]()
})

const ids = Array.from({ length: ORDERS }, (_, i) => `order-${i}`)
const customerOf = (index: number) => `customer-${index % CUSTOMERS}`
const declined = ids.filter((id) => askCardNetwork(id, 1) === 'declined')
const charged = ids.filter((id) => !declined.includes(id))

async function post(commands: readonly { type: string; payload: unknown }[]): Promise<string[]> {
  const response = await fetch(`${millrace.urls.public}/v1/commands`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-ndjson' },
    body: commands.map((command) => JSON.stringify(command)).join('\n'),
  })
  expect(response.status).toBe(202)
  const { results } = (await response.json()) as { results: { id: string }[] }
  return results.map(({ id }) => id)
}

async function view(projection: string, key: string): Promise<View | undefined> {
  const response = await fetch(`${millrace.urls.public}/v1/views/${projection}/${encodeURIComponent(key)}`)
  if (response.status === 404) return undefined
  expect(response.status).toBe(200)
  return (await response.json()) as View
}

async function all(projection: string): Promise<Map<string, View>> {
  const found = new Map<string, View>()
  let cursor: string | null = null
  do {
    const query: string = cursor === null ? '' : `&cursor=${encodeURIComponent(cursor)}`
    const response = await fetch(`${millrace.urls.public}/v1/views/${projection}?limit=500${query}`)
    expect(response.status).toBe(200)
    const { data, page } = (await response.json()) as {
      data: { key: string; value: View }[]
      page: { next: string | null }
    }
    for (const { key, value } of data) found.set(key, value)
    cursor = page.next
  } while (cursor !== null)
  return found
}

async function countOrders(test: (order: View) => boolean): Promise<number> {
  return [...(await all('orders')).values()].filter(test).length
}

async function deadCount(): Promise<number> {
  const { client } = await redis.open()
  const counts = await Promise.all(
    [0, 1].map((partition) => client.xlen(partitionKeys('orders', partition).dead)),
  )
  return counts.reduce((sum, each) => sum + each, 0)
}

test('the sample holds what it is about', () => {
  expect(declined.length).toBeGreaterThan(0)
  expect(ids.some((id) => askCardNetwork(id, 1) === 'no answer')).toBe(true)
})

test('placed orders are paid, some after retries; declined ones become dead letters', async () => {
  const items = [{ sku: 'tea', quantity: 1, unitCents: PRICE_CENTS }]
  await post(
    ids.map((orderId, index) => ({
      type: 'order.place',
      payload: { orderId, customerId: customerOf(index), items },
    })),
  )
  await until('every charge to be answered', async () => {
    const paid = await countOrders((order) => order['paidCents'] === PRICE_CENTS)
    return paid === charged.length && (await deadCount()) === declined.length
  })
  expect(await countOrders((order) => order['status'] === 'open')).toBe(ORDERS)
  for (const orderId of declined) expect(await view('orders', orderId)).toMatchObject({ paidCents: 0 })
})

test('a bad transition is a dead letter, and the order stays as it was', async () => {
  const before = await deadCount()
  const [orderId = ''] = charged
  const [commandId = ''] = await post([
    {
      type: 'order.place',
      payload: { orderId, customerId: 'thief', items: [{ sku: 'x', quantity: 1, unitCents: 1 }] },
    },
  ])
  await until('the rejection', async () => (await deadCount()) === before + 1)
  const status = (await (await fetch(`${millrace.urls.public}/v1/commands/${commandId}`)).json()) as View
  expect(status).toMatchObject({ status: 'dead' })
  expect(await view('orders', orderId)).toMatchObject({ customerId: 'customer-0', totalCents: PRICE_CENTS })
})

test('shipping, cancelling and expiring end an order, each once', async () => {
  const [shipped, cancelled] = [charged.slice(0, 100), charged.slice(100, 150)]
  await post([
    ...shipped.map((orderId) => ({ type: 'order.ship', payload: { orderId } })),
    ...cancelled.map((orderId) => ({ type: 'order.cancel', payload: { orderId } })),
  ])
  // The schedule would close the minute of the deadline when it has come; here it is closed by hand.
  const due = new Set([...(await all('orders')).values()].map((order) => Number(order['payByMs'])))
  expect([...due].every((deadlineMs) => deadlineMs <= payByMs(Date.now()))).toBe(true)
  const parts = Array.from({ length: PARTS }, (_, part) => part)
  await post(
    [...due].flatMap((deadlineMs) =>
      parts.map((part) => ({ type: 'deadline.close', payload: { deadlineMs, part } })),
    ),
  )
  await until('the ends', async () => {
    const counts = await Promise.all(
      ['shipped', 'cancelled', 'expired'].map((status) => countOrders((order) => order['status'] === status)),
    )
    return Bun.deepEquals(counts, [shipped.length, cancelled.length, declined.length])
  })
  const orders = await all('orders')
  for (const orderId of declined) expect(orders.get(orderId)).toMatchObject({ status: 'expired' })
  expect(await countOrders((order) => order['status'] === 'open')).toBe(ORDERS - 150 - declined.length)
})

test('the sums of customers and of days agree with the orders', async () => {
  const paidCents = (charged.length - 50) * PRICE_CENTS
  const customers = await all('customer-orders')
  expect(customers.size).toBe(CUSTOMERS)
  const sum = (field: string, views: Iterable<View>) =>
    [...views].reduce((total, each) => total + Number(each[field]), 0)
  await until(
    'the refunds',
    async () => sum('paidCents', (await all('customer-orders')).values()) === paidCents,
  )
  expect(sum('orders', customers.values())).toBe(ORDERS)
  const days = [...(await all('revenue-by-day')).values()]
  expect(sum('receivedCents', days)).toBe(charged.length * PRICE_CENTS)
  expect(sum('refundedCents', days)).toBe(50 * PRICE_CENTS)
  const one = await view('customer-orders', 'customer-3')
  const recent = one?.['recent'] as { orderId: string; status: string }[]
  expect(recent.map(({ orderId }) => orderId).toSorted()).toEqual(
    ids.filter((_, index) => index % CUSTOMERS === 3).toSorted(),
  )
  const orders = await all('orders')
  for (const { orderId, status } of recent) expect(orders.get(orderId)?.['status']).toBe(status)
})
