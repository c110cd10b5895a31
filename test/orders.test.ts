/** The rules of an order, command by command, without Redis: which step may follow which, and what follows from it. */
import { describe, expect, test } from 'bun:test'
import { validatePayloadNow } from '../src/contracts/schema.ts'
import type {
  AggregateHandlerDefinition,
  CommandDefinition,
  HandledCommand,
  NewEvent,
  Outcome,
} from '../src/index.ts'
import {
  closeHandler,
  expireUnpaidHandler,
  minute,
  noteHandler,
  payByMs,
} from '../workers/orders/deadlines.ts'
import {
  addItemHandler,
  cancelHandler,
  confirmPaymentHandler,
  expireHandler,
  order,
  placeHandler,
  shipHandler,
} from '../workers/orders/order.ts'
import { askCardNetwork, chargeHandler } from '../workers/orders/payments.ts'

const NOW_MS = Date.UTC(2026, 0, 31, 12, 0, 30)
const ITEM = { sku: 'tea', quantity: 2, unitCents: 350 }

interface Sent {
  readonly type: string
  readonly payload: Record<string, unknown>
}

function commandWith(payload: unknown, sent: Sent[], attempt = 1): HandledCommand {
  return {
    ...{ id: 'c', type: 't', version: 1, key: 'k', tenant: '', payload, attempt, idempotencyKey: 'c' },
    ...{
      acceptedAtMs: NOW_MS,
      tickMs: undefined,
      expiresAtMs: undefined,
      trace: undefined,
      cloudEvent: undefined,
    },
    emit: () => undefined,
    send: (command: CommandDefinition, input: unknown) => {
      const value = validatePayloadNow(command.type, command.payload, input)
      sent.push({ type: command.type, payload: value as Record<string, unknown> })
    },
  }
}

/** One aggregate in memory: decides, evolves, and remembers what it sent. */
class Stage {
  readonly sent: Sent[] = []
  readonly events: string[] = []
  #state: unknown

  constructor(initial: unknown) {
    this.#state = initial
  }

  run(handler: AggregateHandlerDefinition, payload: unknown): Outcome['outcome'] | string[] {
    const input = validatePayloadNow(handler.command.type, handler.command.payload, payload)
    const decision = handler.decide(this.#state, commandWith(input, this.sent))
    if (!Array.isArray(decision)) return (decision as Outcome).outcome
    const events = decision as readonly NewEvent[]
    for (const { event, payload: fact } of events) {
      const value = validatePayloadNow(event.type, event.payload, fact)
      this.#state = handler.aggregate.evolvers.get(event.type)?.evolve(this.#state, value) ?? this.#state
    }
    const types = events.map(({ event }) => event.type)
    this.events.push(...types)
    return types
  }
}

const stage = () => new Stage(order.initial())
const PLACE = { orderId: 'o1', customerId: 'ada', items: [ITEM] }
const PAID = { orderId: 'o1', chargeId: 'o1/1', amountCents: 700 }

function placed(): Stage {
  const open = stage()
  open.run(placeHandler, PLACE)
  return open
}

function paid(): Stage {
  const open = placed()
  open.run(confirmPaymentHandler, PAID)
  return open
}

describe('an order', () => {
  test('that is placed asks for its money and notes its deadline', () => {
    const open = stage()
    expect(open.run(placeHandler, PLACE)).toEqual(['order.placed'])
    const deadlineMs = Date.UTC(2026, 0, 31, 12, 16)
    expect(open.sent).toEqual([
      {
        type: 'payment.charge',
        payload: { orderId: 'o1', chargeId: 'o1/1', amountCents: 700, method: 'card' },
      },
      { type: 'deadline.note', payload: { orderId: 'o1', deadlineMs } },
    ])
  })

  test('is placed once', () => {
    expect(placed().run(placeHandler, PLACE)).toBe('reject')
  })

  test('that is not there yet is waited for', () => {
    for (const handler of [shipHandler, cancelHandler])
      expect(stage().run(handler, { orderId: 'o1' })).toBe('retry')
    expect(stage().run(addItemHandler, { orderId: 'o1', item: ITEM })).toBe('retry')
    expect(stage().run(confirmPaymentHandler, PAID)).toBe('retry')
  })

  test('is shipped when all is paid, and not before', () => {
    expect(placed().run(shipHandler, { orderId: 'o1' })).toBe('reject')
    const open = paid()
    open.run(addItemHandler, { orderId: 'o1', item: ITEM })
    expect(open.run(shipHandler, { orderId: 'o1' })).toBe('reject')
    open.run(confirmPaymentHandler, { ...PAID, chargeId: 'o1/2' })
    expect(open.run(shipHandler, { orderId: 'o1' })).toEqual(['order.shipped'])
  })

  test('that is shipped takes no more items, no cancelling and no second shipping', () => {
    const shipped = paid()
    shipped.run(shipHandler, { orderId: 'o1' })
    expect(shipped.run(addItemHandler, { orderId: 'o1', item: ITEM })).toBe('reject')
    for (const handler of [shipHandler, cancelHandler])
      expect(shipped.run(handler, { orderId: 'o1' })).toBe('reject')
  })

  test('that is cancelled gives its money back, also what comes later', () => {
    const open = paid()
    open.run(addItemHandler, { orderId: 'o1', item: ITEM })
    expect(open.run(cancelHandler, { orderId: 'o1' })).toEqual(['order.cancelled', 'order.refunded'])
    const late = { ...PAID, chargeId: 'o1/2' }
    expect(open.run(confirmPaymentHandler, late)).toEqual(['order.paid', 'order.refunded'])
  })

  test('counts a charge once, however often it is confirmed', () => {
    expect(paid().run(confirmPaymentHandler, PAID)).toBe('done')
  })

  test('expires at its deadline when it is unpaid, and only then', () => {
    const deadlineMs = payByMs(NOW_MS)
    expect(paid().run(expireHandler, { orderId: 'o1', deadlineMs })).toBe('done')
    expect(placed().run(expireHandler, { orderId: 'o1', deadlineMs: deadlineMs - 60_000 })).toBe('done')
    const open = placed()
    expect(open.run(expireHandler, { orderId: 'o1', deadlineMs })).toEqual(['order.expired'])
    expect(open.run(expireHandler, { orderId: 'o1', deadlineMs })).toBe('done')
    expect(open.run(cancelHandler, { orderId: 'o1' })).toBe('reject')
  })
})

describe('a minute of deadlines', () => {
  const deadlineMs = payByMs(NOW_MS)

  test('asks each of its orders to expire, a bounded number at once', () => {
    const open = new Stage(minute.initial())
    for (let i = 0; i < 450; i++) open.run(noteHandler, { orderId: `o${i}`, deadlineMs })
    const asked = () =>
      open.sent.filter(({ type }) => type === 'order.expire').map(({ payload }) => payload['orderId'])
    for (const sum of [200, 400, 450]) {
      open.run(closeHandler, { deadlineMs, part: 0 })
      expect(asked().length).toBe(sum)
      expect(open.sent.filter(({ type }) => type === 'deadline.close').length).toBe(Math.min(2, sum / 200))
    }
    expect(new Set(asked()).size).toBe(450)
    expect(open.run(closeHandler, { deadlineMs, part: 0 })).toBe('done')
  })

  test('is closed in all its parts by the tick of its time, and not by a command without a tick', async () => {
    const sent: Sent[] = []
    const context = {} as Parameters<typeof expireUnpaidHandler.run>[1]
    const byHand = commandWith({}, sent)
    await expireUnpaidHandler.run([byHand], context)
    expect(sent).toEqual([])
    await expireUnpaidHandler.run([{ ...byHand, tickMs: deadlineMs }], context)
    const parts = Array.from({ length: 16 }, (_, part) => ({ deadlineMs, part }))
    expect(sent).toEqual(parts.map((payload) => ({ type: 'deadline.close', payload })))
  })

  test('that is closed sends a late note on at once', () => {
    const open = new Stage(minute.initial())
    open.run(closeHandler, { deadlineMs, part: 0 })
    expect(open.run(noteHandler, { orderId: 'late', deadlineMs })).toBe('done')
    expect(open.sent).toEqual([{ type: 'order.expire', payload: { orderId: 'late', deadlineMs } }])
  })
})

describe('the card network', () => {
  const ids = Array.from({ length: 2000 }, (_, i) => `order-${i}`)

  test('fails by the order id alone: some are declined, some answer late, most are charged', () => {
    const first = ids.map((id) => askCardNetwork(id, 1))
    expect(first).toEqual(ids.map((id) => askCardNetwork(id, 1)))
    const share = (answer: string) => first.filter((each) => each === answer).length / ids.length
    expect(share('declined')).toBeWithin(0.005, 0.05)
    expect(share('no answer')).toBeWithin(0.05, 0.16)
  })

  test('answers within the attempts that a charge has', () => {
    const { attemptsMax } = chargeHandler.options
    const open = ids.filter((id) => askCardNetwork(id, attemptsMax) === 'no answer')
    expect(open).toEqual([])
  })

  test('is not asked for an invoice', async () => {
    const declined = ids.find((id) => askCardNetwork(id, 1) === 'declined') ?? ''
    const sent: Sent[] = []
    const charge = { orderId: declined, chargeId: `${declined}/1`, amountCents: 100 }
    const context = {} as Parameters<typeof chargeHandler.run>[1]
    const outcomes = await chargeHandler.run(
      [commandWith({ ...charge, method: 'card' }, sent), commandWith({ ...charge, method: 'invoice' }, sent)],
      context,
    )
    expect(outcomes.map(({ outcome }) => outcome)).toEqual(['reject', 'done'])
    expect(sent).toEqual([{ type: 'order.confirm-payment', payload: charge }])
  })
})
