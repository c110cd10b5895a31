/** The bytes of an entry: whatever is stored comes back as it was, in JSON or in msgpack, and copies keep the payload's bytes. */
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import {
  decodeEntry,
  EMPTY_TRAIL,
  type Envelope,
  encodeCopy,
  encodeCopyHead,
  encodeEntry,
  packEntry,
  payloadOf,
  unpackPayloadOf,
} from '../src/redis/entry-codec.ts'
import { packPayload, unpackPayload } from '../src/redis/payload-codec.ts'

const ENVELOPE: Envelope = {
  type: 'order.place',
  version: 3,
  atMs: 1_764_000_000_123,
  key: 'käufer',
  trace: undefined,
  tickMs: undefined,
  trail: undefined,
}

function stored(payload: unknown, envelope: Envelope = ENVELOPE): unknown {
  return unpackPayloadOf(decodeEntry(packEntry(envelope, payload).blob))
}

describe('a payload', () => {
  test('of plain data comes back exactly, and is JSON', () => {
    const plain = fc.jsonValue({ depthSize: 'medium' }).filter((value) => !hasForeign(value))
    fc.assert(
      fc.property(plain, (value) => {
        const { blob, headerBytes } = packEntry(ENVELOPE, value)
        expect(blob.toString('utf8', headerBytes)).toBe(JSON.stringify(value))
        expect(unpackPayloadOf(decodeEntry(blob))).toEqual(value)
      }),
    )
  })

  test('that JSON would change comes back as msgpack gives it', () => {
    const some = new Date(1_764_000_000_123)
    const values = [some, { at: some }, [new Uint8Array([1, 2, 255])], { n: 12_345_678_901_234_567_890n }]
    for (const value of values) expect(stored(value)).toEqual(unpackPayload(packPayload(value)))
    for (const number of [Number.NaN, Number.POSITIVE_INFINITY])
      expect(stored({ number })).toEqual({ number })
    expect(stored({ a: undefined, b: 1 })).toEqual(unpackPayload(packPayload({ a: undefined, b: 1 })))
    class Money {
      readonly cents = 5
      toJSON(): string {
        return 'five'
      }
    }
    expect(stored(new Money())).toEqual(unpackPayload(packPayload(new Money())))
    const own = { toJSON: () => 'other' }
    expect(stored(own)).toEqual(unpackPayload(packPayload(own)))
  })

  test('keeps letters of every length, and halves of pairs', () => {
    for (const text of ['', 'ä', '水', '🦀', '\ud800', 'a\u0000b', '"\\'])
      expect(stored({ text })).toEqual({ text })
  })

  test('that is long is stored in the shorter way', () => {
    const numbers = Array.from({ length: 1000 }, (_, n) => n / 7 + 0.123)
    const short = Array.from({ length: 3000 }, () => 0.5)
    for (const [value, codec] of [
      [numbers, 1],
      [short, 2],
    ] as const) {
      const entry = decodeEntry(packEntry(ENVELOPE, value).blob)
      expect(entry.codec).toBe(codec)
      expect(unpackPayloadOf(entry)).toEqual([...value])
    }
  })

  test('may be deeper than is looked through', () => {
    let deep: unknown = 1
    for (let level = 0; level < 200; level++) deep = [deep]
    expect(stored(deep)).toEqual(deep)
  })
})

test('a copy in another envelope keeps the bytes of the payload, whatever they are in', () => {
  const trail = { ...EMPTY_TRAIL, attempts: 2 }
  for (const blob of [packEntry(ENVELOPE, { n: 1 }).blob, encodeEntry(ENVELOPE, packPayload({ n: 1 }))]) {
    const entry = decodeEntry(blob)
    const copy = encodeCopy(entry, { trail })
    const head = encodeCopyHead(entry, { trail })
    expect(Buffer.concat([head, payloadOf(entry)]).equals(copy)).toBe(true)
    const again = decodeEntry(copy)
    expect(again.trail?.attempts).toBe(2)
    expect(payloadOf(again).equals(payloadOf(entry))).toBe(true)
    expect(unpackPayloadOf(again)).toEqual({ n: 1 })
  }
})

test('a codec from the future is refused', () => {
  const { blob } = packEntry(ENVELOPE, { n: 1 })
  blob[1] = 3
  expect(() => decodeEntry(blob)).toThrow('is not readable by this version')
})

/** What JSON can't tell apart, or what msgpack does with it. */
function hasForeign(value: unknown): boolean {
  if (Object.is(value, -0)) return true
  if (typeof value !== 'object' || value === null) return false
  return Object.entries(value).some(([key, inner]) => key === '__proto__' || hasForeign(inner))
}

test('the origin stays with the entry and its copies, beside everything else that a header may hold', () => {
  const origin = packPayload({ id: 'e', source: '/s' })
  const envelope: Envelope = { ...ENVELOPE, origin, trail: EMPTY_TRAIL, tickMs: 7, expiresAtMs: 9 }
  const entry = decodeEntry(packEntry(envelope, { a: 1 }).blob)
  const copy = decodeEntry(
    encodeCopy(entry, { trail: { ...EMPTY_TRAIL, attempts: 2 }, expiresAtMs: undefined }),
  )
  for (const each of [entry, copy]) {
    expect(each.origin).toEqual(origin)
    expect(unpackPayloadOf(each)).toEqual({ a: 1 })
  }
  expect(copy.trail?.attempts).toBe(2)
  expect(decodeEntry(packEntry(ENVELOPE, 1).blob).origin).toBeUndefined()
})
