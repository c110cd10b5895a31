/**
 * The order itself: an aggregate that knows which step may follow which.
 *
 *          place            ship, when all is paid
 *   none ────────▶ open ────────────────────────▶ shipped
 *                   │ ├─ add-item, confirm-payment: stays open
 *                   │ ├─ cancel ──────────────────▶ cancelled
 *                   │ └─ expire, when something is unpaid ──▶ expired
 *
 * Whatever the drawing does not show is rejected and ends as a dead letter. Commands of one order may overtake each
 * other, so one that arrives before its `order.place` asks to be tried again instead.
 */
import {
  type Decision,
  defineAggregate,
  defineAggregateHandler,
  done,
  type HandledCommand,
  type NewEvent,
  newEvent,
  reject,
  retry,
} from 'millrace'
import {
  addItem,
  cancelOrder,
  chargePayment,
  confirmPayment,
  expireOrder,
  itemAdded,
  orderCancelled,
  orderExpired,
  orderPaid,
  orderPlaced,
  orderShipped,
  orders,
  paymentRefunded,
  placeOrder,
  shipOrder,
} from './commands.ts'
import { noteDeadline, payByMs } from './deadlines.ts'

interface Order {
  readonly status: 'none' | 'open' | 'shipped' | 'cancelled' | 'expired'
  readonly customerId: string
  /** Charges asked for so far; numbers the next one. */
  readonly charges: number
  readonly totalCents: number
  /** What was received and not given back. */
  readonly paidCents: number
  readonly payByMs: number
  /** Charges already answered, so that a confirmation counts once. */
  readonly settled: readonly string[]
}

const NO_ORDER: Order = {
  status: 'none',
  customerId: '',
  charges: 0,
  totalCents: 0,
  paidCents: 0,
  payByMs: 0,
  settled: [],
}

export const order = defineAggregate<Order>({ name: 'order', stream: orders, initial: () => NO_ORDER })
  .on(orderPlaced, (state, placed) => ({
    ...state,
    status: 'open',
    customerId: placed.customerId,
    charges: 1,
    totalCents: placed.amountCents,
    payByMs: placed.payByMs,
  }))
  .on(itemAdded, (state, added) => ({
    ...state,
    charges: state.charges + 1,
    totalCents: state.totalCents + added.amountCents,
    payByMs: added.payByMs,
  }))
  .on(orderPaid, (state, paid) => ({
    ...state,
    paidCents: state.paidCents + paid.amountCents,
    settled: [...state.settled, paid.chargeId],
  }))
  .on(paymentRefunded, (state, refunded) => ({
    ...state,
    paidCents: state.paidCents - refunded.amountCents,
    settled: [...state.settled, refunded.chargeId],
  }))
  .on(orderShipped, (state) => ({ ...state, status: 'shipped' }))
  .on(orderCancelled, (state) => ({ ...state, status: 'cancelled' }))
  .on(orderExpired, (state) => ({ ...state, status: 'expired' }))

const EARLY = new Error('The order is not placed yet.')

export const placeHandler = defineAggregateHandler(order, placeOrder, (state, command) => {
  if (state.status !== 'none') return reject('The order was placed before.')
  const { orderId, customerId, items } = command.payload
  const amountCents = items.reduce((sum, { quantity, unitCents }) => sum + quantity * unitCents, 0)
  const payBy = charge(command, orderId, 1, amountCents)
  return [newEvent(orderPlaced, { orderId, customerId, items, amountCents, payByMs: payBy })]
})

export const addItemHandler = defineAggregateHandler(order, addItem, (state, command) => {
  if (state.status === 'none') return retry(EARLY)
  if (state.status !== 'open') return reject(`An order that is ${state.status} takes no more items.`)
  const { orderId, item } = command.payload
  const amountCents = item.quantity * item.unitCents
  const payBy = charge(command, orderId, state.charges + 1, amountCents)
  return [newEvent(itemAdded, { orderId, customerId: state.customerId, item, amountCents, payByMs: payBy })]
})

/** Asks for the money and notes until when it must be there; answers that time. */
function charge(command: HandledCommand, orderId: string, number: number, amountCents: number): number {
  const deadlineMs = payByMs(command.acceptedAtMs)
  command.send(chargePayment, { orderId, chargeId: `${orderId}/${number}`, amountCents })
  command.send(noteDeadline, { orderId, deadlineMs })
  return deadlineMs
}

export const confirmPaymentHandler = defineAggregateHandler(
  order,
  confirmPayment,
  (state, command): Decision => {
    if (state.status === 'none') return retry(EARLY)
    const { orderId, chargeId, amountCents } = command.payload
    if (state.settled.includes(chargeId)) return done()
    const payment = { orderId, customerId: state.customerId, chargeId, amountCents }
    const paid = newEvent(orderPaid, payment)
    return state.status === 'open' ? [paid] : [paid, newEvent(paymentRefunded, payment)]
  },
)

export const shipHandler = defineAggregateHandler(order, shipOrder, (state, command) => {
  if (state.status === 'none') return retry(EARLY)
  if (state.status !== 'open') return reject(`An order that is ${state.status} is not shipped.`)
  if (state.paidCents < state.totalCents) {
    return reject(`${state.totalCents - state.paidCents} cents of the order are not paid.`)
  }
  return [newEvent(orderShipped, { orderId: command.payload.orderId, customerId: state.customerId })]
})

export const cancelHandler = defineAggregateHandler(order, cancelOrder, (state, command) => {
  if (state.status === 'none') return retry(EARLY)
  if (state.status !== 'open') return reject(`An order that is ${state.status} is not cancelled.`)
  const { orderId } = command.payload
  const event = newEvent(orderCancelled, { orderId, customerId: state.customerId })
  return [event, ...refundOf(state, orderId)]
})

export const expireHandler = defineAggregateHandler(order, expireOrder, (state, command) => {
  const { orderId, deadlineMs } = command.payload
  const unpaid = state.status === 'open' && state.paidCents < state.totalCents
  if (!unpaid || state.payByMs > deadlineMs) return done()
  const event = newEvent(orderExpired, { orderId, customerId: state.customerId })
  return [event, ...refundOf(state, orderId)]
})

function refundOf(state: Order, orderId: string): NewEvent[] {
  if (state.paidCents === 0) return []
  const { customerId, paidCents } = state
  return [
    newEvent(paymentRefunded, { orderId, customerId, chargeId: `${orderId}/refund`, amountCents: paidCents }),
  ]
}
