/**
 * A command: a typed request to do something, with a version of its payload and the key that chooses its partition.
 */
import { MillraceError } from './errors.ts'
import { checkJsonSchema, type JsonSchema } from './json-schema.ts'
import { checkKnownOptions, checkPlainName, checkTypeName, checkWhole } from './names.ts'
import { isPayloadSchema, type PayloadOutput, type PayloadSchema } from './schema.ts'
import { DEFAULT_STREAM, type StreamDefinition } from './stream.ts'

export interface CommandOptions<Type extends string, Schema extends PayloadSchema> {
  /** Unique in the fleet, such as `order.place`. */
  readonly type: Type
  /** Version of the payload's shape, 1-65535. Default 1. A worker leaves versions it does not know to newer ones. */
  readonly version?: number
  readonly payload: Schema
  /** What /openapi.json says of the payload, when its library can't say it or should say something else. */
  readonly jsonSchema?: JsonSchema
  /** The stream, or its name. Default `main`. */
  readonly stream?: string | StreamDefinition
  /** Partition key, at most 255 bytes of UTF-8. Without one the partition follows from the payload's bytes. */
  readonly key?: (payload: PayloadOutput<Schema>) => string
}

export interface CommandDefinition<
  Type extends string = string,
  Schema extends PayloadSchema = PayloadSchema,
> {
  readonly kind: 'command'
  readonly type: Type
  readonly version: number
  readonly stream: string
  readonly payload: Schema
  readonly jsonSchema?: JsonSchema
  /** Absent when the command declares no key. Method syntax on purpose: definitions of any payload share a registry. */
  key?(payload: PayloadOutput<Schema>): string
}

/**
 * Declares a command.
 *
 * @throws MillraceError `definition.invalid`, `config.unknown-option`
 */
export function defineCommand<const Type extends string, Schema extends PayloadSchema>(
  options: CommandOptions<Type, Schema>,
): CommandDefinition<Type, Schema> {
  const known = ['type', 'version', 'payload', 'jsonSchema', 'stream', 'key']
  checkKnownOptions('defineCommand', options, known)
  checkTypeName('Command', options.type)
  const { jsonSchema } = options
  const stream = typeof options.stream === 'object' ? options.stream.name : (options.stream ?? DEFAULT_STREAM)
  if (!isPayloadSchema(options.payload)) {
    throw new MillraceError(
      'definition.invalid',
      `"payload" of command "${options.type}" must be a Standard Schema (zod 4, valibot 1, arktype 2, …).`,
    )
  }
  return Object.freeze({
    kind: 'command',
    type: options.type,
    version: checkWhole(`"version" of command "${options.type}"`, options.version ?? 1, 1, 65_535),
    stream: checkPlainName('Stream', stream),
    payload: options.payload,
    ...(jsonSchema === undefined
      ? {}
      : { jsonSchema: checkJsonSchema(`command "${options.type}"`, jsonSchema) }),
    ...(options.key === undefined ? {} : { key: options.key }),
  })
}
