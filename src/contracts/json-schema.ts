/**
 * JSON Schema (draft 2020-12, https://json-schema.org), as definitions may give it to describe what they take or answer. It
 * is told to others and validates nothing; that is the payload schema's.
 */
import { MillraceError } from './errors.ts'

export interface JsonSchema {
  readonly [keyword: string]: unknown
}

/** @throws MillraceError `definition.invalid` */
export function checkJsonSchema(what: string, value: unknown): JsonSchema {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonSchema
  throw new MillraceError(
    'definition.invalid',
    `"jsonSchema" of ${what} must be a JSON Schema, such as { type: 'object' }.`,
  )
}
