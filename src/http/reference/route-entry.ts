/**
 * What is told of a route: one entry for each route of a listener, in the table of its family. The OpenAPI document, the
 * documentation page and docs/http.md are made of these tables and of nothing else; a test holds that every route of an app
 * has its entry, and every entry its route.
 *
 * In schemas, `$ref` is a plain name: of a schema of some family, or one of the names in `DECLARED`, which stand for what the
 * application declares.
 */
import type { JsonSchema } from '../../contracts/json-schema.ts'
import type { Verb } from '../../contracts/principal.ts'
import type { ProblemName } from '../problem.ts'
import type { AnswerHeader } from './answer-headers.ts'

/** What a credential must be allowed, where credentials are asked for; `known`: any valid one will do. */
export type Scope = Verb | 'known'

export interface Parameter {
  readonly in: 'path' | 'query' | 'header'
  readonly name: string
  readonly description: string
  readonly schema: JsonSchema
  /** Always true in a path. */
  readonly required: boolean
}

/** Schemas by content type. */
export type Contents = Readonly<Record<string, JsonSchema>>

export interface RequestBody {
  readonly required: boolean
  readonly description?: string
  readonly contents: Contents
}

export interface AnswerEntry {
  readonly status: number
  readonly description: string
  readonly headers?: readonly AnswerHeader[]
  readonly contents?: Contents
}

export interface RouteEntry {
  /** Its name in metrics and telemetry; the operationId. */
  readonly route: string
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** As the app knows it, such as `/v1/commands/:id`. */
  readonly path: string
  readonly summary: string
  readonly description?: string
  /** Told once for each command type or projection, whose name stands for the path's first name. */
  readonly each?: 'command' | 'projection'
  readonly parameters?: readonly Parameter[]
  readonly body?: RequestBody
  readonly answers: readonly AnswerEntry[]
  readonly problems: readonly ProblemName[]
  /** Of problems with this status, beside those that all of them have. */
  readonly problemHeaders?: Readonly<Record<number, readonly AnswerHeader[]>>
  /** Undefined: open to everybody. */
  readonly scope: Scope | undefined
}

/** Routes that belong together. */
export interface RouteFamily {
  readonly name: string
  readonly description: string
  readonly routes: readonly RouteEntry[]
  /** By name, in capitals: `CommandStatus`. */
  readonly schemas?: Readonly<Record<string, JsonSchema>>
}

/** Names that stand for schemas of the application. */
export const DECLARED: Readonly<Record<'payload' | 'view' | 'item', JsonSchema>> = {
  /** What a command takes. */
  payload: { $ref: 'payload' },
  /** What a projection keeps under a key. */
  view: { $ref: 'view' },
  /** One item of a bulk body: any command, by its type. */
  item: { $ref: 'item' },
}

export const JSON_TYPE = 'application/json'
export const MSGPACK_TYPE = 'application/vnd.msgpack'

export const TEXT: JsonSchema = { type: 'string' }
export const TIME: JsonSchema = { type: 'string', format: 'date-time' }
export const COUNT: JsonSchema = { type: 'integer', minimum: 0 }
export const YES_OR_NO: JsonSchema = { type: 'boolean' }

export function ref(name: string): JsonSchema {
  return { $ref: name }
}

export function list(items: JsonSchema): JsonSchema {
  return { type: 'array', items }
}

export function oneOf(...values: readonly string[]): JsonSchema {
  return { type: 'string', enum: values }
}

/** All members are there, but for the ones named `optional`. */
export function object(
  properties: Readonly<Record<string, JsonSchema>>,
  optional: readonly string[] = [],
): JsonSchema {
  const required = Object.keys(properties).filter((name) => !optional.includes(name))
  return { type: 'object', properties, ...(required.length > 0 ? { required } : {}) }
}

export function told(schema: JsonSchema, description: string): JsonSchema {
  return { ...schema, description }
}

export function inPath(name: string, description: string, schema: JsonSchema = TEXT): Parameter {
  return { in: 'path', name, description, schema, required: true }
}

export function inQuery(name: string, description: string, schema: JsonSchema = TEXT): Parameter {
  return { in: 'query', name, description, schema, required: false }
}

export function inHeader(name: string, description: string, schema: JsonSchema = TEXT): Parameter {
  return { in: 'header', name, description, schema, required: false }
}

export function json(schema: JsonSchema): Contents {
  return { [JSON_TYPE]: schema }
}
