/**
 * A producer that was written from /openapi.json alone: openapi-typescript made its types, openapi-fetch sends. It type-checks, and so
 * do the mistakes below: each line after `@ts-expect-error` is one that the types must refuse.
 */
import createClient from 'openapi-fetch'
import type { components, paths } from './dist/millrace.d.ts'

const [url] = Bun.argv.slice(2)
if (url === undefined) throw new Error('Give the address of a public listener.')
const client = createClient<paths>({ baseUrl: url })

function must<Value>(what: string, value: Value | undefined): Value {
  if (value === undefined) throw new Error(`${what} has no answer`)
  return value
}

const order: components['schemas']['command.order.place.v1'] = {
  orderId: 'o1',
  customerId: 'c1',
  items: [{ sku: 'apple', quantity: 2, unitCents: 50 }],
}
const sent = await client.POST('/v1/commands/order.place', {
  body: order,
  params: { header: { 'Idempotency-Key': 'order-o1' } },
})
const accepted = must('a command', sent.data)
if (!('durability' in accepted)) throw new Error('nobody asked to wait')
const isAccepted: 'accepted' | 'scheduled' = accepted.status
console.log(`sent ${accepted.type}: ${isAccepted}, ${accepted.durability}`)

const again = await client.POST('/v1/commands/order.place', {
  body: order,
  params: { header: { 'Idempotency-Key': 'order-o1' } },
})
if (again.data?.id !== accepted.id || again.response.headers.get('idempotent-replayed') !== 'true')
  throw new Error('a retry got another id')

const many = await client.POST('/v1/commands', {
  body: [
    { type: 'order.ship', payload: { orderId: 'o1' } },
    { type: 'order.add-item', payload: { orderId: 'o1', item: { sku: 'pear', quantity: 1, unitCents: 70 } } },
  ],
})
const bulk = must('a bulk body', many.data)
if (!('rejected' in bulk) || bulk.accepted !== 2) throw new Error('a bulk body was not taken')

const wrong = await client.POST('/v1/commands/order.place', { body: { ...order, items: [] } })
if (wrong.error?.type !== '/problems/invalid-command')
  throw new Error('a wrong payload was not refused as told')
console.log(`refused: ${wrong.error.errors?.[0]?.pointer}`)

const view = await client.GET('/v1/views/orders/{key}', {
  params: { path: { key: 'o1' }, header: { 'Millrace-After': accepted.id } },
})
const state: 'open' | 'shipped' | 'cancelled' | 'expired' = must('the view', view.data).status
console.log(`view: ${state}`)

const status = must(
  'the status',
  (await client.GET('/v1/commands/{id}', { params: { path: { id: accepted.id } } })).data,
)
if (status.status !== 'done') throw new Error(`the command is ${status.status}`)
console.log(`status: ${status.status}`)

/** Never called: here only the types speak. */
export async function mistakes(): Promise<void> {
  // @ts-expect-error there is no such command
  await client.POST('/v1/commands/order.plaice', { body: order })
  // @ts-expect-error a member of the payload is missing
  await client.POST('/v1/commands/order.place', { body: { orderId: 'o1' } })
  // @ts-expect-error the payload belongs to another type
  await client.POST('/v1/commands', { body: [{ type: 'order.ship', payload: { minute: 1 } }] })
  // @ts-expect-error a view needs its key
  await client.GET('/v1/views/orders/{key}', { params: {} })
  // @ts-expect-error an accepted command has no such member
  console.log(accepted.entryId)
}
