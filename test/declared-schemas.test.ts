/** What definitions say as JSON Schema: whatever library and whatever types, the document holds something valid. */
import { describe, expect, test } from 'bun:test'
import { type } from 'arktype'
import * as v from 'valibot'
import { z } from 'zod'
import { type CommandDefinition, defineCommand } from '../src/contracts/command.ts'
import { errorCode } from '../src/contracts/errors.ts'
import type { JsonSchema } from '../src/contracts/json-schema.ts'
import { defineProjection } from '../src/contracts/projection.ts'
import type { PayloadSchema } from '../src/contracts/schema.ts'
import { payloadSchema, viewSchema } from '../src/http/reference/declared-schemas.ts'
import { openApiDocument } from '../src/http/reference/openapi-document.ts'
import { listOperations } from '../src/http/reference/operations.ts'
import { PUBLIC_TABLE } from '../src/http/reference/route-tables.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { Contract, documentMistakes, type OpenApi } from './support/openapi-contract.ts'

const command = (payload: PayloadSchema, jsonSchema?: JsonSchema): CommandDefinition =>
  defineCommand({ type: 'a.b-c_1', payload, ...(jsonSchema === undefined ? {} : { jsonSchema }) })
const NAME = 'command.a.b-c_1.v1'

/** The document with this one command, known to be valid. */
async function contractOf(definition: CommandDefinition): Promise<Contract> {
  const all = listOperations(PUBLIC_TABLE, buildCatalogue([definition]))
  const document = JSON.parse(
    JSON.stringify(openApiDocument(all, { version: '1', credentials: false, limited: false })),
  ) as OpenApi
  expect(await documentMistakes(document)).toEqual([])
  return new Contract(document)
}

const ref = { $ref: `#/components/schemas/${NAME}` }

describe.each([
  ['zod', z.object({ name: z.string(), size: z.number().optional() })],
  ['arktype', type({ name: 'string', 'size?': 'number' })],
] as [string, PayloadSchema][])('%s', (_, payload) => {
  test('is told through Standard JSON Schema', async () => {
    const contract = await contractOf(command(payload))
    expect(payloadSchema(NAME, command(payload)).note).toBeUndefined()
    expect(contract.mistakes(ref, { name: 'a' })).toEqual([])
    expect(contract.mistakes(ref, { name: 1 })).not.toEqual([])
    expect(JSON.stringify(contract.document)).not.toContain('$schema')
  })
})

test('a library without JSON Schema leaves the payload open and says so; the definition may say it', async () => {
  const payload = v.object({ name: v.string() })
  expect(payloadSchema(NAME, command(payload)).components).toEqual({ [NAME]: {} })
  expect(payloadSchema(NAME, command(payload)).note).toContain('`jsonSchema`')
  const contract = await contractOf(command(payload, { type: 'object', required: ['name'] }))
  expect(contract.mistakes(ref, {})).not.toEqual([])
  const description = contract.operations[0]?.['description']
  expect(description).not.toContain('Not described')
})

test('what JSON Schema can not say is left open, and only that', async () => {
  const schema = z.object({
    at: z.date(),
    big: z.bigint(),
    when: z.string().transform((text) => new Date(text)),
    name: z.string(),
  })
  const contract = await contractOf(command(schema))
  expect(payloadSchema(NAME, command(schema)).note).toContain('left open')
  const good = { at: 'any', big: 'any', when: '2030-01-01', name: 'a' }
  expect(contract.mistakes(ref, good)).toEqual([])
  expect(contract.mistakes(ref, { ...good, name: 1 })).not.toEqual([])
  expect(contract.mistakes(ref, { ...good, when: 1 })).not.toEqual([])
})

test('a schema that can not be told at all does not keep the document from being made', async () => {
  const broken = {
    '~standard': {
      ...{ version: 1, vendor: 'ours', validate: (value: unknown) => ({ value }) },
      jsonSchema: {
        input: () => {
          throw new Error('secret')
        },
        output: () => ({}),
      },
    },
  } as unknown as PayloadSchema
  const { note, components } = payloadSchema(NAME, command(broken))
  expect([components, note]).toEqual([{ [NAME]: {} }, expect.stringContaining("can't be told")])
  expect(note).not.toContain('secret')
  await contractOf(command(broken))
})

test('a schema that refers to itself, and to shared parts, keeps its references', async () => {
  interface Tree {
    readonly name: string
    readonly under: readonly Tree[]
  }
  const tree: z.ZodType<Tree> = z.object({
    name: z.string(),
    get under() {
      return z.array(tree)
    },
  })
  const itself = await contractOf(command(tree))
  expect(itself.mistakes(ref, { name: 'a', under: [{ name: 'b', under: [] }] })).toEqual([])
  expect(itself.mistakes(ref, { name: 'a', under: [{ name: 'b', under: [1] }] })).not.toEqual([])

  const money = z.object({ cents: z.int() }).meta({ id: 'Money / amount' })
  const shared = await contractOf(command(z.object({ net: money, gross: money, tree })))
  const good = { net: { cents: 1 }, gross: { cents: 2 }, tree: { name: 'a', under: [] } }
  expect(shared.mistakes(ref, good)).toEqual([])
  expect(shared.mistakes(ref, { ...good, gross: { cents: 'x' } })).not.toEqual([])
  const names = Object.keys(shared.document.components.schemas)
  expect(names.filter((name) => !/^[\w.-]+$/.test(name))).toEqual([])
  expect(names).toContain(`${NAME}.Def.Money___amount`)
})

test('definitions whose names become one stay two', () => {
  const schema: JsonSchema = {
    $defs: { 'a/b': { type: 'string' }, 'a b': { type: 'number' } },
    prefixItems: [{ $ref: '#/$defs/a~1b' }, { $ref: '#/$defs/a%20b' }, { $ref: '#/properties/x~1y/items' }],
    properties: { 'x/y': { items: {} } },
  }
  const { components } = payloadSchema('n', command(z.any(), schema))
  expect(components).toEqual({
    n: {
      prefixItems: [
        { $ref: '#/components/schemas/n.Def.a_b' },
        { $ref: '#/components/schemas/n.Def.a_b_2' },
        { $ref: '#/components/schemas/n/properties/x~1y/items' },
      ],
      properties: { 'x/y': { items: {} } },
    },
    'n.Def.a_b': { type: 'string' },
    'n.Def.a_b_2': { type: 'number' },
  })
})

test('members that are called like keywords are members', () => {
  const part = { $ref: '#/$defs/part' }
  const properties = Object.fromEntries(
    ['$ref', '$id', '$schema', 'default', 'enum', 'properties', '__proto__'].map((name) => [name, part]),
  )
  const data = { $ref: '#/$defs/part' }
  const schema = { $schema: 'x', properties, default: data, const: data, $defs: { part: { type: 'string' } } }
  const { components, note } = payloadSchema('n', command(z.any(), schema))
  const moved = { $ref: '#/components/schemas/n.Def.part' }
  expect(note).toBeUndefined()
  const copied = components['n']?.['properties'] as object
  expect(Object.entries(copied)).toEqual(Object.keys(properties).map((name) => [name, moved]))
  expect([components['n']?.['default'], components['n']?.['const']]).toEqual([data, data])
  expect(components['n']).not.toHaveProperty('$schema')
})

const circle: Record<string, unknown> = {}
circle['items'] = circle
test.each([
  ['another document', { $ref: 'https://example.org/x.json' }],
  ['an anchor', { $ref: '#here' }],
  ['no definition', { $ref: '#/$defs/none' }],
  ['a place of its own', { items: { $id: 'https://example.org/y' } }],
  ['a dynamic reference', { items: { $dynamicRef: '#x' } }],
  ['a circle of objects', circle],
  ['a function', { default: () => 1 }],
  ['a bigint', { default: 1n }],
  ['no number', { minimum: Number.NaN }],
])('a given schema with %s is left out, with a note', (_, schema) => {
  const { components, note } = payloadSchema('n', command(z.any(), schema as JsonSchema))
  expect([components, note]).toEqual([{ n: {} }, expect.stringContaining('Not described')])
})

test('views are told as they are read: what a schema makes of its input', () => {
  const base = { name: 'p', initial: () => ({ n: 0 }) }
  const view = z.object({ n: z.number().default(1) })
  const told = viewSchema('w', defineProjection({ ...base, view })).components['w']
  expect(told).toMatchObject({ required: ['n'] })
  const input = payloadSchema('n', command(view)).components['n']
  expect(input).not.toHaveProperty('required')
  expect(viewSchema('w', defineProjection({ ...base, jsonSchema: { type: 'object' } })).components).toEqual({
    w: { type: 'object' },
  })
})

test('what is no schema is a mistake of the definition', () => {
  const mistakes = [
    () => command(z.any(), [] as never),
    () => defineProjection({ name: 'p', initial: () => 0, jsonSchema: 'string' as never }),
    () => defineProjection({ name: 'p', initial: () => 0, view: {} as never }),
  ]
  for (const mistake of mistakes) {
    try {
      mistake()
      expect.unreachable()
    } catch (error) {
      expect(errorCode(error)).toBe('definition.invalid')
    }
  }
})
