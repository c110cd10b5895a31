/**
 * Orders as people look them up: one order, the orders of a customer, and what each day brought in.
 *
 * An order lives in one partition. A customer's orders and a day's revenue come from all of them and are merged on read.
 */
import { defineProjection, type RecordedEvent } from 'millrace'
import { z } from 'zod'
import {
  itemAdded,
  orderCancelled,
  orderExpired,
  orderPaid,
  orderPlaced,
  orderShipped,
  orders,
  paymentRefunded,
} from './commands.ts'

interface Owned {
  readonly orderId: string
  readonly customerId: string
}

/** Told by /openapi.json, so that who reads orders knows what they hold. */
const orderShape = z.object({
  orderId: z.string(),
  customerId: z.string(),
  status: z.enum(['open', 'shipped', 'cancelled', 'expired']),
  items: z.array(z.object({ sku: z.string(), quantity: z.int(), unitCents: z.int() })),
  totalCents: z.int(),
  paidCents: z.int(),
  placedAtMs: z.int(),
  payByMs: z.int(),
  changedAtMs: z.int(),
})
type OrderView = z.infer<typeof orderShape>
type Status = OrderView['status']

const orderId = ({ payload }: RecordedEvent<Owned>): string => payload.orderId

/** Every event of an order stands behind the one that placed it, in the log of its partition. */
function changed(view: OrderView, event: RecordedEvent, change: Partial<OrderView>): OrderView {
  return Object.assign(view, change, { changedAtMs: event.atMs })
}

/** By order id. */
export const orderView = defineProjection<OrderView>({
  name: 'orders',
  stream: orders,
  view: orderShape,
  initial: (key) => ({
    orderId: key,
    customerId: '',
    status: 'open',
    items: [],
    totalCents: 0,
    paidCents: 0,
    placedAtMs: 0,
    payByMs: 0,
    changedAtMs: 0,
  }),
  partitionKey: (key) => key,
})
  .on(orderPlaced, orderId, (view, event) => {
    const { customerId, items, amountCents, payByMs } = event.payload
    const { atMs } = event
    return changed(view, event, { customerId, items, totalCents: amountCents, placedAtMs: atMs, payByMs })
  })
  .on(itemAdded, orderId, (view, event) => {
    const { item, amountCents, payByMs } = event.payload
    const totalCents = view.totalCents + amountCents
    return changed(view, event, { items: [...view.items, item], totalCents, payByMs })
  })
  .on(orderPaid, orderId, (view, event) =>
    changed(view, event, { paidCents: view.paidCents + event.payload.amountCents }),
  )
  .on(paymentRefunded, orderId, (view, event) =>
    changed(view, event, { paidCents: view.paidCents - event.payload.amountCents }),
  )
  .on(orderShipped, orderId, (view, event) => changed(view, event, { status: 'shipped' }))
  .on(orderCancelled, orderId, (view, event) => changed(view, event, { status: 'cancelled' }))
  .on(orderExpired, orderId, (view, event) => changed(view, event, { status: 'expired' }))

interface CustomerOrder {
  readonly orderId: string
  readonly placedAtMs: number
  status: Status
}

interface Customer {
  orders: number
  /** Received less given back. */
  paidCents: number
  /** Newest first, at most `RECENT_COUNT_MAX`. */
  recent: CustomerOrder[]
}

const RECENT_COUNT_MAX = 50

const customerId = ({ payload }: RecordedEvent<Owned>): string => payload.customerId

function newestFirst(list: readonly CustomerOrder[]): CustomerOrder[] {
  const byAge = (a: CustomerOrder, b: CustomerOrder): number =>
    b.placedAtMs - a.placedAtMs || (a.orderId < b.orderId ? -1 : 1)
  return list.toSorted(byAge).slice(0, RECENT_COUNT_MAX)
}

function became(status: Status): (view: Customer, event: RecordedEvent<Owned>) => Customer {
  return (view, { payload }) => {
    const known = view.recent.find((each) => each.orderId === payload.orderId)
    if (known !== undefined) known.status = status
    return view
  }
}

/** By customer id. */
export const customerOrders = defineProjection<Customer>({
  name: 'customer-orders',
  stream: orders,
  initial: () => ({ orders: 0, paidCents: 0, recent: [] }),
  merge: (a, b) => ({
    orders: a.orders + b.orders,
    paidCents: a.paidCents + b.paidCents,
    recent: newestFirst([...a.recent, ...b.recent]),
  }),
})
  .on(orderPlaced, customerId, (view, { payload, atMs }) => ({
    ...view,
    orders: view.orders + 1,
    recent: newestFirst([...view.recent, { orderId: payload.orderId, placedAtMs: atMs, status: 'open' }]),
  }))
  .on(orderPaid, customerId, (view, { payload }) => ({
    ...view,
    paidCents: view.paidCents + payload.amountCents,
  }))
  .on(paymentRefunded, customerId, (view, { payload }) => ({
    ...view,
    paidCents: view.paidCents - payload.amountCents,
  }))
  .on(orderShipped, customerId, became('shipped'))
  .on(orderCancelled, customerId, became('cancelled'))
  .on(orderExpired, customerId, became('expired'))

interface Revenue {
  payments: number
  receivedCents: number
  refundedCents: number
}

const dayOf = ({ atMs }: RecordedEvent): string => new Date(atMs).toISOString().slice(0, 10)

/** By day, UTC: `2026-01-31`. */
export const revenueByDay = defineProjection<Revenue>({
  name: 'revenue-by-day',
  stream: orders,
  initial: () => ({ payments: 0, receivedCents: 0, refundedCents: 0 }),
  merge: (a, b) => ({
    payments: a.payments + b.payments,
    receivedCents: a.receivedCents + b.receivedCents,
    refundedCents: a.refundedCents + b.refundedCents,
  }),
})
  .on(orderPaid, dayOf, (view, { payload }) => ({
    ...view,
    payments: view.payments + 1,
    receivedCents: view.receivedCents + payload.amountCents,
  }))
  .on(paymentRefunded, dayOf, (view, { payload }) => ({
    ...view,
    refundedCents: view.refundedCents + payload.amountCents,
  }))
