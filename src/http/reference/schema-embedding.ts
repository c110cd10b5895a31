/**
 * A JSON Schema moves into the components of a document: it gets a name there, so does each of its definitions, and its
 * references follow. What would mean something else inside of another document is left out (`$schema`) or refused (`$id`,
 * anchors, references to other documents).
 */
import type { JsonSchema } from '../../contracts/json-schema.ts'

const COMPONENTS = '#/components/schemas/'
const DEFINITIONS = '#/$defs/'
const DEPTH_MAX = 64

/** Keywords that give a schema a place of its own in the world, which it does not have inside of another document. */
const PLACES = ['$id', '$anchor', '$dynamicAnchor', '$dynamicRef', '$recursiveRef']

/** Their members are schemas by name, and the names mean nothing. */
const MAPS = ['properties', 'patternProperties', '$defs', 'definitions', 'dependentSchemas']

/** What they hold is data, in which `$ref` is a member as any other. */
const DATA = ['const', 'default', 'enum', 'example', 'examples']

/** Names of components have few characters (OpenAPI 3.1, Components Object). */
const NOT_IN_NAMES = /[^A-Za-z0-9._-]/g

/**
 * Schemas by name: this one, and one for each of its `$defs`.
 *
 * @throws Error when it is no JSON, too deep, or refers to what is not in it
 */
export function embedSchema(name: string, schema: unknown): Record<string, JsonSchema> {
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) throw new Error('no schema')
  const { $defs, $id: _, ...root } = schema as JsonSchema & { readonly $defs?: object }
  const definitions = Object.entries($defs ?? {})
  const names = namesOf(
    name,
    definitions.map(([key]) => key),
  )
  const follow: Follow = (pointer) => targetOf(pointer, name, names)
  const components: Record<string, JsonSchema> = { [name]: copySchema(root, follow, 0) as JsonSchema }
  for (const [key, definition] of definitions) {
    components[names.get(key) ?? ''] = copySchema(definition, follow, 0) as JsonSchema
  }
  return components
}

type Follow = (pointer: string) => string

/** No two definitions share a name, whatever characters theirs have lost. */
function namesOf(name: string, keys: readonly string[]): ReadonlyMap<string, string> {
  const names = new Map<string, string>()
  const taken = new Set<string>()
  for (const key of keys) {
    const plain = `${name}.Def.${key.replace(NOT_IN_NAMES, '_')}`
    let unique = plain
    for (let number = 2; taken.has(unique); number += 1) unique = `${plain}_${number}`
    taken.add(unique)
    names.set(key, unique)
  }
  return names
}

function targetOf(pointer: string, name: string, names: ReadonlyMap<string, string>): string {
  if (pointer === '#') return COMPONENTS + name
  if (!pointer.startsWith('#/')) throw new Error('a reference to another document, or to an anchor')
  if (!pointer.startsWith(DEFINITIONS)) return `${COMPONENTS}${name}${pointer.slice(1)}`
  const [key = '', ...rest] = pointer.slice(DEFINITIONS.length).split('/')
  const target = names.get(unescapePointer(key))
  if (target === undefined) throw new Error('a reference to no definition')
  return [COMPONENTS + target, ...rest].join('/')
}

/** RFC 6901, sections 3 and 6. */
function unescapePointer(part: string): string {
  return decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~')
}

function copySchema(value: unknown, follow: Follow, depth: number): unknown {
  if (Array.isArray(value)) return value.map((item) => copySchema(item, follow, depth + 1))
  if (typeof value !== 'object' || value === null) return copyData(value, depth)
  return copyMembers(value, depth, (member, key) => {
    if (key === '$schema') return undefined
    if (PLACES.includes(key)) throw new Error(`${key} means something else inside of another document`)
    if (key === '$ref') return follow(String(member))
    if (DATA.includes(key)) return copyData(member, depth + 1)
    if (MAPS.includes(key) && typeof member === 'object' && member !== null) {
      return copyMembers(member, depth + 1, (schema) => copySchema(schema, follow, depth + 2))
    }
    return copySchema(member, follow, depth + 1)
  })
}

/** As JSON would have it, so that what can't be told shows here and not when the document is written. */
function copyData(value: unknown, depth: number): unknown {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value
  if (typeof value === 'number' && Number.isFinite(value)) return value
  if (Array.isArray(value)) return value.map((item) => copyData(item, depth + 1))
  if (typeof value !== 'object') throw new Error('no JSON')
  return copyMembers(value, depth, (member) => copyData(member, depth + 1))
}

function copyMembers(
  value: object,
  depth: number,
  copy: (member: unknown, key: string) => unknown,
): Record<string, unknown> {
  if (depth > DEPTH_MAX) throw new Error('nested too deeply')
  const members = Object.entries(value).flatMap(([key, member]): [string, unknown][] => {
    const copied = member === undefined ? undefined : copy(member, key)
    return copied === undefined ? [] : [[key, copied]]
  })
  return Object.fromEntries(members)
}
