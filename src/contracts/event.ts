/**
 * An event: a typed fact that a handler emits, committed with the command's acknowledgement, folded by projections.
 */
import { MillraceError } from './errors.ts'
import { checkKnownOptions, checkTypeName, checkWhole } from './names.ts'
import { isPayloadSchema, type PayloadOutput, type PayloadSchema } from './schema.ts'
import type { Tenant } from './tenant.ts'

export interface EventOptions<Type extends string, Schema extends PayloadSchema> {
  /** Unique in the fleet, such as `order.placed`. */
  readonly type: Type
  /** Version of the payload's shape, 1-65535. Default 1. */
  readonly version?: number
  /** A synchronous Standard Schema: events are validated where they are emitted. */
  readonly payload: Schema
}

export interface EventDefinition<Type extends string = string, Schema extends PayloadSchema = PayloadSchema> {
  readonly kind: 'event'
  readonly type: Type
  readonly version: number
  readonly payload: Schema
}

/** An event as a fold sees it. */
export interface RecordedEvent<Payload = unknown> {
  readonly type: string
  readonly version: number
  readonly payload: Payload
  /** Partition key of the command that caused it. */
  readonly key: string
  /** Of the command that caused it; '' none. Its views are the same tenant's. */
  readonly tenant: Tenant
  /** Id of the command that caused it. */
  readonly commandId: string
  /** Wall-clock time of the worker that emitted it, milliseconds since 1970. */
  readonly atMs: number
  /** Where it stands in its partition's log: `<entry id>/<index>`. */
  readonly position: string
}

/**
 * Declares an event.
 *
 * @throws MillraceError `definition.invalid`, `config.unknown-option`
 */
export function defineEvent<const Type extends string, Schema extends PayloadSchema>(
  options: EventOptions<Type, Schema>,
): EventDefinition<Type, Schema> {
  checkKnownOptions('defineEvent', options, ['type', 'version', 'payload'])
  checkTypeName('Event', options.type)
  if (!isPayloadSchema(options.payload)) {
    throw new MillraceError(
      'definition.invalid',
      `"payload" of event "${options.type}" must be a Standard Schema (zod 4, valibot 1, arktype 2, …).`,
    )
  }
  return Object.freeze({
    kind: 'event',
    type: options.type,
    version: checkWhole(`"version" of event "${options.type}"`, options.version ?? 1, 1, 65_535),
    payload: options.payload,
  })
}

/** The payload type of an event definition. */
export type EventPayload<Event extends EventDefinition> = PayloadOutput<Event['payload']>
