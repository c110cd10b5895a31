/**
 * The operations of a listener: its table of routes, with each command and each projection of the application told by its own
 * name and schema. Everything that is shown to people or programs is made of these.
 */
import type { CommandDefinition } from '../../contracts/command.ts'
import type { JsonSchema } from '../../contracts/json-schema.ts'
import type { ProjectionDefinition } from '../../contracts/projection.ts'
import type { Catalogue } from '../../policies/catalogue.ts'
import { DELAY_MS, DELIVER_AT, EXPIRES_AT, EXPIRES_IN_MS } from './command-entries.ts'
import { type DeclaredSchema, payloadSchema, viewSchema } from './declared-schemas.ts'
import { PROBLEM_SCHEMA, REFUSED_ITEM_SCHEMA } from './problem-answers.ts'
import { type Contents, object, type RouteEntry, TEXT } from './route-entry.ts'
import type { RouteTable } from './route-tables.ts'

/** A route with the names of the application in it; `path` is written with braces, references lead into the document. */
export interface Operation extends Omit<RouteEntry, 'each'> {
  readonly operationId: string
  readonly family: string
  /** The path before a name of the application stood in it. */
  readonly template: string
  /** The command or projection that it is told for, and what there is to say of it. */
  readonly subject?: string
  readonly notes: readonly string[]
}

export interface Operations {
  readonly table: RouteTable
  readonly operations: readonly Operation[]
  /** By name, for `#/components/schemas/`. */
  readonly schemas: Readonly<Record<string, JsonSchema>>
}

type Catalogued = Pick<Catalogue, 'commands' | 'commandVersions' | 'projections'>

const NO_BODY_YET: JsonSchema = object({ type: TEXT, payload: {} })

export function listOperations(table: RouteTable, catalogue: Catalogued): Operations {
  const schemas: Record<string, JsonSchema> = { Problem: PROBLEM_SCHEMA, RefusedItem: REFUSED_ITEM_SCHEMA }
  for (const family of table.families) Object.assign(schemas, family.schemas)
  for (const [name, schema] of Object.entries(schemas)) schemas[name] = placed(schema, {})
  const subjects: Subjects = { command: [], projection: [] }
  const each = (kind: 'command' | 'projection'): boolean =>
    table.families.some(({ routes }) => routes.some((route) => route.each === kind))
  if (each('command')) subjects.command.push(...commandSubjects(catalogue, schemas))
  if (each('projection')) subjects.projection.push(...projectionSubjects(catalogue, schemas))
  const operations = table.families.flatMap(({ name: family, routes }) =>
    routes.flatMap((entry) => expand(entry, subjects).map((operation) => ({ ...operation, family }))),
  )
  return { table, operations, schemas }
}

/** Something that the application declares, and what stands for it. */
interface Subject {
  readonly name: string
  readonly refs: Readonly<Record<string, string>>
  readonly notes: readonly string[]
}

type Subjects = Record<'command' | 'projection', Subject[]>

function byName<Value>(all: ReadonlyMap<string, Value>): [string, Value][] {
  return [...all].sort(([a], [b]) => (a < b ? -1 : 1))
}

/** What producers post is the newest version. Fills `schemas` with payloads, items and the choice between them. */
function commandSubjects(catalogue: Catalogued, schemas: Record<string, JsonSchema>): Subject[] {
  const items: [string, string][] = []
  const subjects = byName(catalogue.commands).map(([type, command]): Subject => {
    const name = `command.${type}.v${command.version}`
    const item = `item.${type}.v${command.version}`
    const { components, note } = payloadSchema(name, command)
    Object.assign(schemas, components, { [item]: itemSchema(type, name) })
    items.push([type, componentRef(item)])
    return { name: type, refs: { payload: name }, notes: notesOf(note, versionNote(command, catalogue)) }
  })
  schemas['AnyCommand'] =
    items.length === 0
      ? NO_BODY_YET
      : {
          oneOf: items.map(([, target]) => ({ $ref: target })),
          discriminator: { propertyName: 'type', mapping: Object.fromEntries(items) },
        }
  return subjects
}

function itemSchema(type: string, payload: string): JsonSchema {
  const rest = {
    idempotencyKey: { type: 'string', minLength: 1, maxLength: 255 },
    delayMs: DELAY_MS,
    deliverAt: DELIVER_AT,
    expiresInMs: EXPIRES_IN_MS,
    expiresAt: EXPIRES_AT,
  }
  const own = { type: { type: 'string', const: type }, payload: { $ref: componentRef(payload) } }
  return { ...object({ ...own, ...rest }, Object.keys(rest)), additionalProperties: false }
}

function versionNote(
  { type, version }: CommandDefinition,
  { commandVersions }: Catalogued,
): string | undefined {
  const older = [...commandVersions.values()]
    .filter((other) => other.type === type && other.version < version)
    .map((other) => other.version)
    .sort((a, b) => a - b)
  if (older.length === 0) return undefined
  return `This is version ${version}. Version ${older.join(', ')} is known for commands that are stored already.`
}

function projectionSubjects(catalogue: Catalogued, schemas: Record<string, JsonSchema>): Subject[] {
  return byName(catalogue.projections).map(([name, projection]): Subject => {
    const view = `view.${name}.v${projection.version}`
    const { components, note }: DeclaredSchema = viewSchema(view, projection)
    Object.assign(schemas, components)
    return { name, refs: { view }, notes: notesOf(note, streamNote(projection)) }
  })
}

function streamNote({ stream }: ProjectionDefinition): string {
  return `It folds events of stream \`${stream}\`.`
}

function notesOf(...notes: readonly (string | undefined)[]): string[] {
  return notes.filter((note) => note !== undefined)
}

function expand(entry: RouteEntry, subjects: Subjects): Omit<Operation, 'family'>[] {
  const template = bracedPath(entry.path)
  if (entry.each === undefined) {
    return [{ ...entry, ...shaped(entry, {}), operationId: entry.route, template, notes: [] }]
  }
  return subjects[entry.each].map(({ name, refs, notes }) => {
    const [first] = /\/:\w+/.exec(entry.path) ?? ['']
    const path = entry.path.replace(first, () => `/${name}`)
    const parameters = entry.parameters?.filter((each) => each.in !== 'path' || `/:${each.name}` !== first)
    return {
      ...entry,
      ...shaped({ ...entry, path }, refs),
      ...(parameters === undefined ? {} : { parameters }),
      ...{ operationId: `${entry.route}.${name}`, template, subject: name, notes },
    }
  })
}

function bracedPath(path: string): string {
  return path.replace(/\/:(\w+)/g, '/{$1}')
}

/** Path, body and answers as a document has them. */
function shaped(
  { path, body, answers }: RouteEntry,
  refs: Readonly<Record<string, string>>,
): Pick<Operation, 'path' | 'body' | 'answers'> {
  const contentsOf = (contents: Contents): Contents => placed(contents, refs) as Contents
  return {
    path: bracedPath(path),
    ...(body === undefined ? {} : { body: { ...body, contents: contentsOf(body.contents) } }),
    answers: answers.map(({ contents, ...answer }) => ({
      ...answer,
      ...(contents === undefined ? {} : { contents: contentsOf(contents) }),
    })),
  }
}

function componentRef(name: string): string {
  return `#/components/schemas/${name}`
}

/** The same with references that lead into the document. */
function placed(schema: JsonSchema, refs: Readonly<Record<string, string>>): JsonSchema {
  const place = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(place)
    if (typeof value !== 'object' || value === null) return value
    const members = Object.entries(value).map(([key, member]): [string, unknown] => {
      if (key !== '$ref' || typeof member !== 'string') return [key, place(member)]
      return [key, componentRef(refs[member] ?? (member === 'item' ? 'AnyCommand' : member))]
    })
    return Object.fromEntries(members)
  }
  return place(schema) as JsonSchema
}
