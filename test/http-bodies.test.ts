/** Bodies from strangers, generated: what is read is what was sent, what can't be read is refused, and nothing else is thrown. */
import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { pack } from 'msgpackr'
import { isRefusal } from '../src/commands/readable-submissions.ts'
import { errorCode } from '../src/contracts/errors.ts'
import { parseBulk } from '../src/http/bulk-body.ts'
import { matchesEtag } from '../src/http/etag.ts'
import { parseIdempotencyKey } from '../src/http/idempotency-key.ts'
import { decodeMsgpack } from '../src/http/msgpack-body.ts'

const BOUNDS = { itemsMax: 1000, key: undefined, trace: undefined }
const refusals = [undefined, 'command.malformed', 'command.invalid', 'command.too-large']

/** As JSON has it: no negative zero; and without the keys that are refused. */
const payload = fc
  .jsonValue({ maxDepth: 6 })
  .map((value): unknown => JSON.parse(JSON.stringify(value)))
  .filter((value) => !/__proto__|constructor|prototype/.test(JSON.stringify(value)))

test('MessagePack of any JSON value is decoded to that value', () => {
  fc.assert(
    fc.property(payload, (value) => {
      expect(decodeMsgpack(Buffer.from(pack(value)))).toEqual(value as never)
    }),
    { numRuns: 500 },
  )
})

test('any bytes as MessagePack are decoded or refused, and cost no more than they are', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const body = Buffer.from(bytes)
      const code = thrownBy(() => decodeMsgpack(body))
      expect(refusals).toContain(code)
      const bulkCode = thrownBy(() => parseBulk('msgpack', body, BOUNDS))
      expect(refusals).toContain(bulkCode)
    }),
    { numRuns: 5000 },
  )
})

test('a MessagePack value that is cut anywhere is refused', () => {
  fc.assert(
    fc.property(payload, fc.nat(), (value, at) => {
      const whole = Buffer.from(pack(value))
      const cut = whole.subarray(0, at % whole.length)
      expect(thrownBy(() => decodeMsgpack(cut))).toBe('command.malformed')
    }),
    { numRuns: 500 },
  )
})

test('good lines survive bad ones: as many items as lines, each at its index', () => {
  const line = fc.oneof(
    {
      weight: 3,
      arbitrary: payload.map((value) => ({
        good: true,
        text: JSON.stringify({ type: 't', payload: value }),
      })),
    },
    {
      weight: 1,
      arbitrary: fc
        .constantFrom('{', '}', '{"type":', 'nul', '{"a":1}{"b":2}', '"', ',')
        .map((text) => ({ good: false, text })),
    },
  )
  fc.assert(
    fc.property(
      fc.array(line, { minLength: 1, maxLength: 30 }),
      fc.constantFrom('\n', '\r\n', '\n\n'),
      (lines, end) => {
        const items = parseBulk('ndjson', Buffer.from(lines.map(({ text }) => text).join(end)), BOUNDS)
        expect(items.map((item) => !isRefusal(item))).toEqual(lines.map(({ good }) => good))
      },
    ),
    { numRuns: 500 },
  )
})

test('a quoted idempotency key is read back as it was meant', () => {
  const printable = fc.string({
    unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)),
    minLength: 1,
    maxLength: 255,
  })
  fc.assert(
    fc.property(printable, (key) => {
      expect(parseIdempotencyKey(`"${key.replace(/[\\"]/g, '\\$&')}"`)).toBe(key)
    }),
  )
})

test('If-None-Match finds its tag among others, and only there', () => {
  const tag = fc.stringMatching(/^[!#-~]{1,12}$/).map((text) => `"${text}"`)
  fc.assert(
    fc.property(fc.uniqueArray(tag, { minLength: 1, maxLength: 5 }), fc.boolean(), (tags, weak) => {
      const [mine = '', ...others] = tags
      const list = [...others, weak ? `W/${mine}` : mine].join(', ')
      expect(matchesEtag(list, mine)).toBe(true)
      expect(matchesEtag(others.join(', '), mine)).toBe(false)
    }),
  )
})

function thrownBy(work: () => unknown): string | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    return errorCode(error) ?? String(error)
  }
}
