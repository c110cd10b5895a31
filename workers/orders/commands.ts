/**
 * What can be asked of an order, and what then becomes true of it.
 *
 * Everything carries the order's id as its key, so one order lives in one partition; only the deadlines (see
 * `deadlines.ts`) are kept by the minute instead. Money is whole cents.
 */
import { defineCommand, defineEvent, defineStream } from 'millrace'
import { z } from 'zod'

export const orders = defineStream({ name: 'orders', partitions: 2 })

const id = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/)
const cents = z.int().min(0).max(1_000_000_000)
const timeMs = z.int().min(0)

const item = z.object({ sku: id, quantity: z.int().min(1).max(1000), unitCents: cents.max(1_000_000) })
const one = z.object({ orderId: id })

const keyed = { stream: orders, key: ({ orderId }: { readonly orderId: string }) => orderId }

export const placeOrder = defineCommand({
  type: 'order.place',
  payload: z.object({ orderId: id, customerId: id, items: z.array(item).min(1).max(100) }),
  ...keyed,
})
export const addItem = defineCommand({
  type: 'order.add-item',
  payload: z.object({ orderId: id, item }),
  ...keyed,
})
export const shipOrder = defineCommand({ type: 'order.ship', payload: one, ...keyed })
export const cancelOrder = defineCommand({ type: 'order.cancel', payload: one, ...keyed })

/** Sent by `order.place` and `order.add-item`, handled in `payments.ts`. `invoice` never fails. */
export const chargePayment = defineCommand({
  type: 'payment.charge',
  payload: z.object({
    orderId: id,
    chargeId: z.string().max(100),
    amountCents: cents,
    method: z.enum(['card', 'invoice']).default('card'),
  }),
  ...keyed,
})
/** Sent by `payment.charge` when the money is there. */
export const confirmPayment = defineCommand({
  type: 'order.confirm-payment',
  payload: z.object({ orderId: id, chargeId: z.string().max(100), amountCents: cents }),
  ...keyed,
})
/** Sent when a deadline passes; an order that is paid by then ignores it. */
export const expireOrder = defineCommand({
  type: 'order.expire',
  payload: z.object({ orderId: id, deadlineMs: timeMs }),
  ...keyed,
})

/** Events name the customer too, so that a view of customers needs no look-up. */
const owned = one.extend({ customerId: id })

export const orderPlaced = defineEvent({
  type: 'order.placed',
  payload: owned.extend({ items: z.array(item), amountCents: cents, payByMs: timeMs }),
})
export const itemAdded = defineEvent({
  type: 'order.item-added',
  payload: owned.extend({ item, amountCents: cents, payByMs: timeMs }),
})
export const orderPaid = defineEvent({
  type: 'order.paid',
  payload: owned.extend({ chargeId: z.string(), amountCents: cents }),
})
/** Money that came for an order, or stayed with one, that is no longer wanted. */
export const paymentRefunded = defineEvent({
  type: 'order.refunded',
  payload: owned.extend({ chargeId: z.string(), amountCents: cents }),
})
export const orderShipped = defineEvent({ type: 'order.shipped', payload: owned })
export const orderCancelled = defineEvent({ type: 'order.cancelled', payload: owned })
export const orderExpired = defineEvent({ type: 'order.expired', payload: owned })
