/**
 * A projection: events of one stream folded into views, each view under a key.
 *
 * Views are kept per partition. A view whose key is also the partition key of the commands that feed it lives in one
 * partition and is read there. A view fed from several partitions declares `merge`, and is merged on read.
 * `version` is part of the stored key: a changed fold starts a view of its own beside the old one.
 */

import type { StandardSchemaV1 } from '@standard-schema/spec'
import { MillraceError } from './errors.ts'
import type { EventDefinition, EventPayload, RecordedEvent } from './event.ts'
import { checkJsonSchema, type JsonSchema } from './json-schema.ts'
import { checkKnownOptions, checkPlainName, checkWhole } from './names.ts'
import { isPayloadSchema } from './schema.ts'
import { DEFAULT_STREAM, type StreamDefinition } from './stream.ts'

export interface ProjectionOptions<View> {
  readonly name: string
  /** The stream whose events are folded, or its name. Default `main`. */
  readonly stream?: string | StreamDefinition
  /** Version of the fold, 1-65535. Default 1. Raise it when the fold changes. */
  readonly version?: number
  /** The view before its first event. Called once per new view. */
  readonly initial: (key: string) => View
  /** Joins the parts of one view that came from several partitions. Must be associative and commutative. */
  readonly merge?: (a: View, b: View) => View
  /** The partition key behind a view's key, where they differ (`SEA-PDX` → `SEA`). Not together with `merge`. */
  readonly partitionKey?: (viewKey: string) => string
  /** Any Standard Schema of a view, for /openapi.json. Views are not validated. Default: nothing is said of them. */
  readonly view?: StandardSchemaV1<unknown, View>
  /** The same, when the library of `view` can't say it or should say something else. */
  readonly jsonSchema?: JsonSchema
  /** What a fold that throws does: `stop` this projection's partition (default), or `skip-and-record` the event. */
  readonly onError?: 'stop' | 'skip-and-record'
}

/** Keys of the views that an event touches; none skips the event. */
export type ViewKeys = string | readonly string[] | undefined

export interface Fold<View = unknown> {
  readonly event: EventDefinition
  keys(event: RecordedEvent): ViewKeys
  /** The next view, or null to delete it. May change the given view in place. */
  fold(view: View, event: RecordedEvent): View | null
}

export interface ProjectionDefinition<View = unknown> {
  readonly kind: 'projection'
  readonly name: string
  readonly stream: string
  readonly version: number
  readonly onError: 'stop' | 'skip-and-record'
  readonly folds: ReadonlyMap<string, Fold<View>>
  readonly view?: StandardSchemaV1
  readonly jsonSchema?: JsonSchema
  initial(key: string): View
  merge?(a: View, b: View): View
  partitionKey?(viewKey: string): string
  /** A new definition that also folds `event` into the views named by `keys`. */
  on<Event extends EventDefinition>(
    event: Event,
    keys: (event: RecordedEvent<EventPayload<Event>>) => ViewKeys,
    fold: (view: View, event: RecordedEvent<EventPayload<Event>>) => View | null,
  ): ProjectionDefinition<View>
}

/**
 * Declares a projection; chain `.on(event, keys, fold)` for each event it folds.
 *
 * @throws MillraceError `definition.invalid`, `config.unknown-option`
 */
export function defineProjection<View>(options: ProjectionOptions<View>): ProjectionDefinition<View> {
  const described = ['view', 'jsonSchema']
  const known = ['name', 'stream', 'version', 'initial', 'merge', 'partitionKey', 'onError', ...described]
  checkKnownOptions('defineProjection', options, known)
  checkPlainName('Projection', options.name)
  const what = `projection "${options.name}"`
  if (typeof options.initial !== 'function') {
    throw new MillraceError(
      'definition.invalid',
      `"initial" of ${what} must be a function that makes an empty view.`,
    )
  }
  if (options.merge !== undefined && options.partitionKey !== undefined) {
    throw new MillraceError(
      'definition.invalid',
      `${what} declares both "merge" and "partitionKey"; keep one.`,
    )
  }
  if (options.view !== undefined && !isPayloadSchema(options.view)) {
    throw new MillraceError(
      'definition.invalid',
      `"view" of ${what} must be a Standard Schema (zod 4, valibot 1, arktype 2, …).`,
    )
  }
  if (options.jsonSchema !== undefined) checkJsonSchema(what, options.jsonSchema)
  const onError = options.onError ?? 'stop'
  if (onError !== 'stop' && onError !== 'skip-and-record') {
    throw new MillraceError('definition.invalid', `"onError" of ${what} must be "stop" or "skip-and-record".`)
  }
  const stream = typeof options.stream === 'object' ? options.stream.name : (options.stream ?? DEFAULT_STREAM)
  checkPlainName('Stream', stream)
  checkWhole(`"version" of ${what}`, options.version ?? 1, 1, 65_535)
  return build({ ...options, stream, onError, version: options.version ?? 1 }, new Map())
}

interface Resolved<View> extends ProjectionOptions<View> {
  readonly stream: string
  readonly version: number
  readonly onError: 'stop' | 'skip-and-record'
}

function build<View>(
  options: Resolved<View>,
  folds: ReadonlyMap<string, Fold<View>>,
): ProjectionDefinition<View> {
  return Object.freeze({
    kind: 'projection',
    name: options.name,
    stream: options.stream,
    version: options.version,
    onError: options.onError,
    folds,
    initial: options.initial,
    ...(options.view === undefined ? {} : { view: options.view }),
    ...(options.jsonSchema === undefined ? {} : { jsonSchema: options.jsonSchema }),
    ...(options.merge === undefined ? {} : { merge: options.merge }),
    ...(options.partitionKey === undefined ? {} : { partitionKey: options.partitionKey }),
    on: (event, keys, fold) => {
      if (folds.has(event.type)) {
        throw new MillraceError(
          'definition.duplicate',
          `Projection "${options.name}" folds "${event.type}" twice.`,
        )
      }
      const erased: Fold<View> = {
        event,
        keys: keys as Fold<View>['keys'],
        fold: fold as Fold<View>['fold'],
      }
      return build(options, new Map(folds).set(event.type, erased))
    },
  } satisfies ProjectionDefinition<View>)
}
