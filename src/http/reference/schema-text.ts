/** A JSON Schema in words: its type, its bounds, and an example of what it takes. */
import type { JsonSchema } from '../../contracts/json-schema.ts'

export type SchemasByName = Readonly<Record<string, JsonSchema>>

const COMPONENTS = '#/components/schemas/'

/** The name behind a reference; undefined for a schema that is none, and for a place inside of another schema. */
export function referredName(schema: JsonSchema): string | undefined {
  const target = schema['$ref']
  if (typeof target !== 'string') return undefined
  const name = target.startsWith(COMPONENTS) ? target.slice(COMPONENTS.length) : target
  return name.includes('/') ? undefined : name
}

/** A text that may be a question ends as it is. */
export function sentence(text: string): string {
  return /[.?!]$/.test(text) ? text : `${text}.`
}

export function asSchema(value: unknown): JsonSchema | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as JsonSchema)
    : undefined
}

export function schemasIn(value: unknown): JsonSchema[] {
  return Array.isArray(value) ? value.map(asSchema).filter((schema) => schema !== undefined) : []
}

/** Members of an object, in order. */
export function membersOf(schema: JsonSchema): { name: string; schema: JsonSchema; isRequired: boolean }[] {
  const required: unknown[] = Array.isArray(schema['required']) ? schema['required'] : []
  return Object.entries(asSchema(schema['properties']) ?? {}).map(([name, member]) => ({
    name,
    schema: asSchema(member) ?? {},
    isRequired: required.includes(name),
  }))
}

const VALUES_MAX = 12

/** Such as `string (date-time)`, `array of Problem`, `"a" | "b"`. */
export function typeText(schema: JsonSchema): string {
  const name = referredName(schema)
  if (name !== undefined) return name
  if ('const' in schema) return JSON.stringify(schema['const'])
  const { enum: values } = schema
  if (Array.isArray(values) && values.length > VALUES_MAX) return `one of ${values.length} values`
  if (Array.isArray(values)) return values.map((value) => JSON.stringify(value)).join(' | ')
  for (const [keyword, word] of [
    ['oneOf', 'one of'],
    ['anyOf', 'any of'],
    ['allOf', 'all of'],
  ] as const) {
    const choices = schemasIn(schema[keyword])
    if (choices.length > 0) return `${word} ${choices.map(typeText).join(', ')}`
  }
  const { type, format } = schema
  if (type === 'array') return `array of ${typeText(asSchema(schema['items']) ?? {})}`
  const text = Array.isArray(type) ? type.join(' or ') : typeof type === 'string' ? type : 'anything'
  return typeof format === 'string' ? `${text} (${format})` : text
}

const BOUNDS: readonly (readonly [string, (value: string) => string])[] = [
  ['minimum', (value) => `≥ ${value}`],
  ['exclusiveMinimum', (value) => `> ${value}`],
  ['maximum', (value) => `≤ ${value}`],
  ['exclusiveMaximum', (value) => `< ${value}`],
  ['multipleOf', (value) => `a multiple of ${value}`],
  ['minLength', (value) => `≥ ${value} characters`],
  ['maxLength', (value) => `≤ ${value} characters`],
  ['pattern', (value) => `matches ${value}`],
  ['minItems', (value) => `≥ ${value} items`],
  ['maxItems', (value) => `≤ ${value} items`],
]

export function boundsText(schema: JsonSchema): string {
  const bounds = BOUNDS.flatMap(([keyword, word]) => {
    const value = schema[keyword]
    const isPlain = (typeof value === 'number' && Number.isFinite(value)) || typeof value === 'string'
    // What a library says of every whole number says nothing.
    return isPlain && Math.abs(Number(value)) !== Number.MAX_SAFE_INTEGER ? [word(String(value))] : []
  })
  const given = schema['default']
  return [...bounds, ...(given === undefined ? [] : [`default ${JSON.stringify(given)}`])].join(', ')
}

const DEPTH_MAX = 6
const PARTS_MAX = 500

/** A value of the right shape; what matches a pattern has to be found by whoever reads it. Never large, whatever the schema. */
export function exampleOf(schema: JsonSchema, schemas: SchemasByName): unknown {
  let parts = 0
  const build = (part: JsonSchema, depth: number): unknown => {
    parts += 1
    const given = givenExample(part)
    if (given !== undefined) return given
    if (depth > DEPTH_MAX || parts > PARTS_MAX) return null
    const deeper = (next: JsonSchema): unknown => build(next, depth + 1)
    const name = referredName(part)
    if (name !== undefined) return deeper(schemas[name] ?? {})
    const [choice] = ['oneOf', 'anyOf'].flatMap((keyword) => schemasIn(part[keyword]))
    if (choice !== undefined) return deeper(choice)
    const joined = schemasIn(part['allOf'])
    return joined.length > 0 ? Object.assign({}, ...joined.map(deeper)) : exampleByType(part, deeper)
  }
  return build(schema, 0)
}

function givenExample(schema: JsonSchema): unknown {
  const [first]: unknown[] = [schema['examples'], schema['enum']].find(Array.isArray) ?? []
  return first ?? schema['default'] ?? schema['const']
}

function exampleByType(schema: JsonSchema, deeper: (schema: JsonSchema) => unknown): unknown {
  const type: unknown = Array.isArray(schema['type']) ? schema['type'][0] : schema['type']
  switch (type) {
    case 'string':
      return schema['format'] === 'date-time' ? '2030-01-31T08:00:00Z' : 'text'
    case 'integer':
    case 'number':
      return exampleNumber(schema)
    case 'boolean':
      return true
    case 'array':
      return [deeper(asSchema(schema['items']) ?? {})]
    case 'object': {
      const members = membersOf(schema).filter(({ isRequired }) => isRequired)
      return Object.fromEntries(members.map((member) => [member.name, deeper(member.schema)]))
    }
    default:
      return type === 'null' ? null : {}
  }
}

function exampleNumber(schema: JsonSchema): number {
  const from = Number(schema['minimum'] ?? schema['exclusiveMinimum'] ?? 0)
  const to = Number(schema['maximum'] ?? schema['exclusiveMaximum'] ?? Number.MAX_SAFE_INTEGER)
  return Math.min(Math.max(from, 1), to)
}
