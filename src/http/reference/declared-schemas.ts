/**
 * What the application's own schemas say as JSON Schema: through the Standard JSON Schema interface of their library
 * (https://standardschema.dev/json-schema), or as the definition gives it. Nothing here knows a library but by its name, and
 * nothing here fails: what can't be told is left open, with a note that says so.
 */
import type { StandardJSONSchemaV1 } from '@standard-schema/spec'
import type { CommandDefinition } from '../../contracts/command.ts'
import type { JsonSchema } from '../../contracts/json-schema.ts'
import type { ProjectionDefinition } from '../../contracts/projection.ts'
import { embedSchema } from './schema-embedding.ts'

export interface DeclaredSchema {
  /** For the components of a document: the schema under its name, and what it refers to. */
  readonly components: Readonly<Record<string, JsonSchema>>
  /** What is left open, and how to change that. */
  readonly note: string | undefined
}

type Direction = 'input' | 'output'

/** What a library does with types that JSON Schema lacks (dates, bigint, transforms) unless it is told to leave them open. */
const LENIENT: Readonly<Record<string, Record<string, unknown>>> = {
  zod: { unrepresentable: 'any' },
  valibot: { errorMode: 'ignore' },
}

const TARGET = 'draft-2020-12'
const SAY_IT = 'give its definition a `jsonSchema`'

/** What a producer sends. */
export function payloadSchema(name: string, { payload, jsonSchema }: CommandDefinition): DeclaredSchema {
  return declare(name, jsonSchema ?? payload, 'input')
}

/** What a reader gets. */
export function viewSchema(name: string, { view, jsonSchema }: ProjectionDefinition): DeclaredSchema {
  const given = jsonSchema ?? view
  if (given !== undefined) return declare(name, given, 'output')
  return open(name, 'Not described: the projection declares no `view`.')
}

function declare(name: string, given: unknown, direction: Direction): DeclaredSchema {
  try {
    const converter = converterOf(given)
    if (converter === undefined) {
      if (isStandardSchema(given)) {
        return open(name, `Not described: its schema library does not tell JSON Schema; ${SAY_IT}.`)
      }
      return { components: embedSchema(name, given), note: undefined }
    }
    return convert(name, given, converter, direction)
  } catch {
    return open(name, `Not described: its schema can't be told as JSON Schema; ${SAY_IT}.`)
  }
}

function convert(
  name: string,
  given: unknown,
  converter: StandardJSONSchemaV1.Converter,
  direction: Direction,
): DeclaredSchema {
  try {
    return {
      components: embedSchema(name, converter[direction]({ target: TARGET })),
      note: undefined,
    }
  } catch (error) {
    const libraryOptions = LENIENT[vendorOf(given)]
    if (libraryOptions === undefined) throw error
    return {
      components: embedSchema(name, converter[direction]({ target: TARGET, libraryOptions })),
      note: `Some parts have no JSON Schema and are left open; ${SAY_IT} to say more.`,
    }
  }
}

function open(name: string, note: string): DeclaredSchema {
  return { components: { [name]: {} }, note }
}

interface Standard {
  readonly vendor?: unknown
  readonly jsonSchema?: Partial<StandardJSONSchemaV1.Converter>
}

function standardOf(given: unknown): Standard | undefined {
  return (given as { readonly '~standard'?: Standard })['~standard']
}

function isStandardSchema(given: unknown): boolean {
  return standardOf(given) !== undefined
}

function vendorOf(given: unknown): string {
  return String(standardOf(given)?.vendor)
}

function converterOf(given: unknown): StandardJSONSchemaV1.Converter | undefined {
  const { input, output } = standardOf(given)?.jsonSchema ?? {}
  return typeof input === 'function' && typeof output === 'function' ? { input, output } : undefined
}
