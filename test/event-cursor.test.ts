/** Cursors of event tails: what goes in comes out, and nothing else is taken for one. */
import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { errorCode } from '../src/contracts/errors.ts'
import { EventCursors, type LogPosition } from '../src/tails/event-cursor.ts'

const whole = fc.oneof(fc.nat(3), fc.nat(300), fc.nat(), fc.maxSafeNat())
const time = fc.oneof(
  fc.constant(0),
  fc.integer({ min: 1_700_000_000_000, max: 1_900_000_000_000 }),
  fc.nat(),
)
const position: fc.Arbitrary<LogPosition> = fc
  .record({ ms: time, seq: whole, seen: fc.oneof(fc.constant(0), fc.nat(5000)) })
  .map(({ ms, seq, seen }) => ({ id: `${ms}-${seq}`, seen }))

function refusal(read: () => unknown): string | undefined {
  try {
    read()
    return undefined
  } catch (error) {
    return errorCode(error) ?? String(error)
  }
}

test('what was written is read', () => {
  fc.assert(
    fc.property(fc.array(position, { minLength: 1, maxLength: 256 }), (positions) => {
      const cursors = new EventCursors('orders', positions.length)
      const text = cursors.encode(positions)
      expect(text).toMatch(/^[\w-]+$/)
      expect(cursors.decode(text)).toEqual(positions)
    }),
  )
})

test('a cursor of another stream, of another number of partitions, or with a letter changed is none', () => {
  const two = new EventCursors('orders', 2)
  fc.assert(
    fc.property(fc.tuple(position, position), fc.nat(), fc.nat(63), (positions, at, letter) => {
      const text = two.encode(positions)
      for (const other of [
        new EventCursors('order', 2),
        new EventCursors('orders', 1),
        new EventCursors('orders', 3),
      ]) {
        expect(refusal(() => other.decode(text))).toBe('cursor.invalid')
      }
      const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
      // The last letter may hold bits that mean nothing.
      const place = at % (text.length - 1)
      const changed = text.slice(0, place) + letters.charAt(letter) + text.slice(place + 1)
      if (changed !== text) expect(refusal(() => two.decode(changed))).toBe('cursor.invalid')
      expect(refusal(() => two.decode(text.slice(0, -2)))).toBe('cursor.invalid')
    }),
  )
})

test('no text makes it fail otherwise', () => {
  const cursors = new EventCursors('orders', 2)
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.base64String(), fc.string({ unit: 'binary' })), (text) => {
      expect(refusal(() => cursors.decode(text))).toBe('cursor.invalid')
    }),
  )
  expect(refusal(() => cursors.decode('A'.repeat(100_000)))).toBe('cursor.invalid')
})

test('it is short: 256 busy partitions fit into a header', () => {
  const nowMs = 1_795_000_000_000
  const one = new EventCursors('orders', 1).encode([{ id: `${nowMs}-3`, seen: 0 }])
  expect(one.length).toBeLessThanOrEqual(18)
  const many = Array.from({ length: 256 }, (_, n) => ({ id: `${nowMs - n * 86_400_000}-${n % 5}`, seen: 0 }))
  expect(new EventCursors('orders', 256).encode(many).length).toBeLessThan(3000)
})
