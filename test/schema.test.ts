/** Payloads by any Standard Schema: zod, valibot, arktype behave alike, and never leak what they refused. */
import { describe, expect, test } from 'bun:test'
import { type } from 'arktype'
import * as v from 'valibot'
import { z } from 'zod'
import { validatePayload, validatePayloadNow } from '../src/contracts/schema.ts'
import { defineCommand, errorCode, MillraceError, type PayloadSchema } from '../src/index.ts'

const schemas: Record<string, PayloadSchema> = {
  zod: z.object({ customer: z.object({ name: z.string() }), quantity: z.number() }),
  valibot: v.object({ customer: v.object({ name: v.string() }), quantity: v.number() }),
  arktype: type({ customer: { name: 'string' }, quantity: 'number' }),
}

describe.each(Object.keys(schemas))('%s', (name) => {
  const payload = schemas[name] as PayloadSchema
  const command = defineCommand({ type: `schema.${name}`, payload })

  test('takes a valid payload', async () => {
    const valid = { customer: { name: 'Ada' }, quantity: 2 }
    expect(await validatePayload('it', command.payload, valid)).toEqual(valid)
  })

  test('refuses an invalid one with a pointer, and without the secret that stood beside it', async () => {
    let refused: unknown
    try {
      await validatePayload('it', command.payload, {
        customer: { name: 5, card: '4111-secret' },
        quantity: 2,
      })
    } catch (error) {
      refused = error
    }
    expect(errorCode(refused)).toBe('command.invalid')
    const { issues, message } = refused as MillraceError
    expect(issues.map((issue) => issue.pointer)).toContain('#/customer/name')
    expect(JSON.stringify(issues) + message).not.toContain('4111-secret')
  })
})

test('transforms and defaults of a schema are what the handler sees', () => {
  const schema = z.object({
    at: z.iso.datetime().transform((text) => text.slice(0, 4)),
    size: z.number().default(3),
  })
  expect(validatePayloadNow('it', schema, { at: '2026-01-02T03:04:05Z' })).toEqual({ at: '2026', size: 3 })
})

test('an asynchronous schema is fine for a posted command and refused where a handler would have to wait', async () => {
  const schema = z.object({ n: z.number().refine(async (n) => n > 0) })
  expect(await validatePayload('it', schema, { n: 1 })).toEqual({ n: 1 })
  expect(() => validatePayloadNow('it', schema, { n: 1 })).toThrow('asynchronous')
})

test('a payload that is no schema is a mistake of the definition', () => {
  const define = () => defineCommand({ type: 'no.schema', payload: { name: 'string' } as never })
  expect(define).toThrow(MillraceError)
  expect(define).toThrow('Standard Schema')
})
