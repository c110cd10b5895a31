/**
 * Orders that are not paid in time expire, by the minute.
 *
 * A tick of a schedule is one command in one partition, and a handler sees no other order than its own: it can't search
 * for the unpaid. So the unpaid are written down beforehand. Each charge notes its order in the minute in which it falls
 * due, an aggregate of its own (`2026-01-31T17:05Z`); the tick of that minute closes it, and a minute that closes asks
 * each of its orders to expire. An order that was paid meanwhile, or has a later deadline, ignores that.
 *
 *   order.place ──▶ deadline.note ──▶ minute 17:05 ◀── deadline.close ◀── orders.expire-unpaid ◀── schedule, 17:05
 *                                           └──▶ order.expire, one for each order
 *
 * No order slips through: a note that arrives after its minute was closed asks at once, and ticks missed while nothing
 * ran are caught up one by one (up to `catchUpCountMax`, 7 days). A minute is as bounded as what is sold in a minute;
 * it is kept in 16 parts, so that the notes of a busy one do not all race for the same version.
 */
import {
  defineAggregate,
  defineAggregateHandler,
  defineCommand,
  defineEvent,
  defineHandler,
  defineSchedule,
  done,
  newEvent,
} from 'millrace'
import { z } from 'zod'
import { expireOrder, orders } from './commands.ts'

const MINUTE_MS = 60_000
const PAYMENT_LIMIT_MS = 15 * MINUTE_MS
const PARTS = 16
const ASKED_AT_ONCE_MAX = 200

/** The full minute at which an order of that moment falls due. */
export function payByMs(acceptedAtMs: number): number {
  return Math.ceil((acceptedAtMs + PAYMENT_LIMIT_MS) / MINUTE_MS) * MINUTE_MS
}

/** `2026-01-31T17:05Z/3` */
function minutePart(deadlineMs: number, part: number): string {
  return `${new Date(deadlineMs).toISOString().slice(0, 16)}Z/${part}`
}

const deadlineMs = z.int().min(0)

export const noteDeadline = defineCommand({
  type: 'deadline.note',
  stream: orders,
  payload: z.object({ orderId: z.string(), deadlineMs }),
  key: (note) => minutePart(note.deadlineMs, Bun.hash.xxHash32(note.orderId) % PARTS),
})
export const closeDeadline = defineCommand({
  type: 'deadline.close',
  stream: orders,
  payload: z.object({
    deadlineMs,
    part: z
      .int()
      .min(0)
      .max(PARTS - 1),
  }),
  key: (close) => minutePart(close.deadlineMs, close.part),
})
export const expireUnpaid = defineCommand({
  type: 'orders.expire-unpaid',
  stream: orders,
  payload: z.object({}),
})

export const deadlineNoted = defineEvent({
  type: 'deadline.noted',
  payload: z.object({ orderId: z.string() }),
})
/** The first time it closes the minute; each time the first `asked` orders of the list were asked to expire. */
export const deadlineClosed = defineEvent({
  type: 'deadline.closed',
  payload: z.object({ asked: z.int().min(0) }),
})

interface Minute {
  readonly closed: boolean
  readonly orderIds: readonly string[]
}

export const minute = defineAggregate<Minute>({
  name: 'deadline-minute',
  stream: orders,
  initial: () => ({ closed: false, orderIds: [] }),
})
  .on(deadlineNoted, (state, { orderId }) => ({ ...state, orderIds: state.orderIds.concat(orderId) }))
  .on(deadlineClosed, (state, { asked }) => ({ closed: true, orderIds: state.orderIds.slice(asked) }))

export const noteHandler = defineAggregateHandler(minute, noteDeadline, (state, command) => {
  if (!state.closed) return [newEvent(deadlineNoted, { orderId: command.payload.orderId })]
  command.send(expireOrder, command.payload)
  return done()
})

/** A command may cause so much and no more, so a long list is worked off by one command after the other. */
export const closeHandler = defineAggregateHandler(minute, closeDeadline, (state, command) => {
  const { orderIds, closed } = state
  if (closed && orderIds.length === 0) return done()
  const next = orderIds.slice(0, ASKED_AT_ONCE_MAX)
  for (const orderId of new Set(next)) {
    command.send(expireOrder, { orderId, deadlineMs: command.payload.deadlineMs })
  }
  if (orderIds.length > next.length) command.send(closeDeadline, command.payload)
  return [newEvent(deadlineClosed, { asked: next.length })]
})

/** Posted by hand, without a tick, it closes nothing: which minute would be meant? */
export const expireUnpaidHandler = defineHandler(expireUnpaid, (command) => {
  if (command.tickMs === undefined) return done()
  for (let part = 0; part < PARTS; part++) command.send(closeDeadline, { deadlineMs: command.tickMs, part })
  return done()
})

export const expireUnpaidEveryMinute = defineSchedule({
  name: 'orders-expire-unpaid',
  command: expireUnpaid,
  payload: {},
  cron: '* * * * *',
  catchUp: 'all',
  catchUpCountMax: 7 * 24 * 60,
})
