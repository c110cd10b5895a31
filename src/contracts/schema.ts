/**
 * Payload schemas: any library that speaks Standard Schema (zod, valibot, arktype, …; https://standardschema.dev).
 *
 * Validation libraries put the offending input into their issues; only message and path are copied here, so that a
 * payload never leaks into a log or an answer by way of an error.
 */
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { MillraceError, type PayloadIssue } from './errors.ts'

export type PayloadSchema = StandardSchemaV1
export type PayloadInput<Schema extends PayloadSchema> = StandardSchemaV1.InferInput<Schema>
export type PayloadOutput<Schema extends PayloadSchema> = StandardSchemaV1.InferOutput<Schema>

const ISSUES_MAX = 20
/** Keys are chosen by the sender and may be as long as a payload. */
const POINTER_CHARS_MAX = 400

/** True when the value carries a Standard Schema of version 1. */
export function isPayloadSchema(value: unknown): value is PayloadSchema {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return false
  const standard = (value as { readonly '~standard'?: { readonly version?: unknown } })['~standard']
  return standard !== undefined && standard.version === 1
}

/**
 * Validates at once where the schema is synchronous; a promise only where it is not.
 *
 * @throws MillraceError `command.invalid` with issues as JSON pointers
 */
export function validatePayload<Schema extends PayloadSchema>(
  what: string,
  schema: Schema,
  input: unknown,
): PayloadOutput<Schema> | Promise<PayloadOutput<Schema>> {
  const result = schema['~standard'].validate(input)
  if (result instanceof Promise) return result.then((settled) => unwrap(what, settled))
  return unwrap(what, result)
}

/**
 * Validates with a schema that must be synchronous (events and follow-up commands are built inside handlers).
 *
 * @throws MillraceError `command.invalid`, or `definition.invalid` when the schema is asynchronous
 */
export function validatePayloadNow<Schema extends PayloadSchema>(
  what: string,
  schema: Schema,
  input: unknown,
): PayloadOutput<Schema> {
  const result = schema['~standard'].validate(input)
  if (result instanceof Promise) {
    throw new MillraceError(
      'definition.invalid',
      `The schema of ${what} is asynchronous; use a synchronous one.`,
    )
  }
  return unwrap(what, result)
}

function unwrap<Output>(what: string, result: StandardSchemaV1.Result<Output>): Output {
  if (result.issues === undefined) return result.value
  const issues = result.issues.slice(0, ISSUES_MAX).map(toIssue)
  const first = issues[0]
  const detail = first === undefined ? '' : `: ${first.pointer} ${first.detail}`
  throw new MillraceError('command.invalid', `The payload of ${what} is invalid${detail}`, { issues })
}

function toIssue(issue: StandardSchemaV1.Issue): PayloadIssue {
  const path = issue.path ?? []
  const pointer = path.map((part) => {
    const key = typeof part === 'object' && part !== null ? part.key : part
    return `/${String(key).replace(/~/g, '~0').replace(/\//g, '~1')}`
  })
  return { pointer: `#${pointer.join('').slice(0, POINTER_CHARS_MAX)}`, detail: issue.message.slice(0, 300) }
}
