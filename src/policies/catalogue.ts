/**
 * Everything that is defined, checked as a whole: names are unique, every handler has its command, every projection folds
 * events that exist. Mistakes surface here, at start, with a sentence that says what to do.
 */
import type { AggregateDefinition, AggregateHandlerDefinition } from '../contracts/aggregate.ts'
import type { CommandDefinition } from '../contracts/command.ts'
import { MillraceError } from '../contracts/errors.ts'
import type { EventDefinition } from '../contracts/event.ts'
import type { HandlerDefinition } from '../contracts/handler.ts'
import { nearest } from '../contracts/names.ts'
import type { ProjectionDefinition } from '../contracts/projection.ts'
import type { ScheduleDefinition } from '../contracts/schedule.ts'
import type { SingletonDefinition } from '../contracts/singleton.ts'
import { defineStream, type StreamDefinition } from '../contracts/stream.ts'
import { checkTimetable } from './timetable.ts'

export type Definition =
  | StreamDefinition
  | CommandDefinition
  | EventDefinition
  | HandlerDefinition
  | AggregateDefinition
  | AggregateHandlerDefinition
  | ProjectionDefinition
  | ScheduleDefinition
  | SingletonDefinition

export interface Catalogue {
  /** Every stream that a command, projection or declaration names. */
  readonly streams: ReadonlyMap<string, StreamDefinition>
  /** By type: the newest version, which is what producers post. */
  readonly commands: ReadonlyMap<string, CommandDefinition>
  /** By `type@version`. */
  readonly commandVersions: ReadonlyMap<string, CommandDefinition>
  readonly events: ReadonlyMap<string, EventDefinition>
  /** By `type@version` of the command. */
  readonly handlers: ReadonlyMap<string, HandlerDefinition | AggregateHandlerDefinition>
  readonly aggregates: ReadonlyMap<string, AggregateDefinition>
  readonly projections: ReadonlyMap<string, ProjectionDefinition>
  readonly schedules: ReadonlyMap<string, ScheduleDefinition>
  readonly singletons: ReadonlyMap<string, SingletonDefinition>
}

const KINDS = [
  'stream',
  'command',
  'event',
  'handler',
  'aggregate',
  'aggregate-handler',
  'projection',
  'schedule',
  'singleton',
]

/** True for what a `define…` function made. */
export function isDefinition(value: unknown): value is Definition {
  return (
    typeof value === 'object' &&
    value !== null &&
    Object.isFrozen(value) &&
    'kind' in value &&
    typeof value.kind === 'string' &&
    KINDS.includes(value.kind)
  )
}

/** How a command version is looked up: `order.place@1`. */
export function versionKey(command: { readonly type: string; readonly version: number }): string {
  return `${command.type}@${command.version}`
}

/**
 * Joins definitions; the same object may come twice (re-exports), two objects with one name may not.
 *
 * @throws MillraceError `definition.duplicate`, `definition.unknown`, `definition.invalid`
 */
export function buildCatalogue(definitions: Iterable<Definition>): Catalogue {
  const draft = new CatalogueDraft()
  for (const definition of new Set(definitions)) {
    if (!isDefinition(definition)) throw foreign(definition)
    draft.add(definition)
  }
  return draft.finish()
}

/** Only untyped code gets here. */
function foreign(value: unknown): MillraceError {
  const what = value === null ? 'null' : typeof value
  return new MillraceError(
    'definition.invalid',
    `One of the definitions is none (${what}): give what defineCommand, defineHandler, defineProjection, … return.`,
  )
}

class CatalogueDraft {
  readonly streams = new Map<string, StreamDefinition>()
  readonly commands = new Map<string, CommandDefinition>()
  readonly commandVersions = new Map<string, CommandDefinition>()
  readonly events = new Map<string, EventDefinition>()
  readonly handlers = new Map<string, HandlerDefinition | AggregateHandlerDefinition>()
  readonly aggregates = new Map<string, AggregateDefinition>()
  readonly projections = new Map<string, ProjectionDefinition>()
  readonly schedules = new Map<string, ScheduleDefinition>()
  readonly singletons = new Map<string, SingletonDefinition>()

  add(definition: Definition): void {
    switch (definition.kind) {
      case 'stream':
        put(this.streams, 'stream', definition.name, definition)
        return
      case 'command':
        this.#addCommand(definition)
        return
      case 'event':
        put(this.events, 'event', definition.type, definition)
        return
      case 'handler':
      case 'aggregate-handler':
        put(this.handlers, 'handler of command', versionKey(definition.command), definition)
        return
      case 'aggregate':
        put(this.aggregates, 'aggregate', definition.name, definition)
        return
      case 'projection':
        put(this.projections, 'projection', definition.name, definition)
        return
      case 'schedule':
        put(this.schedules, 'schedule', definition.name, definition)
        return
      case 'singleton':
        put(this.singletons, 'singleton', definition.name, definition)
        return
      default:
        definition satisfies never
    }
  }

  finish(): Catalogue {
    for (const handler of this.handlers.values()) this.#checkHandler(handler)
    for (const projection of this.projections.values()) this.#checkProjection(projection)
    for (const schedule of this.schedules.values()) {
      this.#checkCommand(`Schedule "${schedule.name}"`, schedule.command)
      checkTimetable(schedule.name, schedule.timetable)
    }
    const named = [
      ...this.commandVersions.values(),
      ...this.projections.values(),
      ...this.aggregates.values(),
    ]
    for (const { stream } of named) {
      if (!this.streams.has(stream)) this.streams.set(stream, defineStream({ name: stream }))
    }
    for (const command of this.commandVersions.values()) this.#checkKey(command)
    return this
  }

  #addCommand(command: CommandDefinition): void {
    put(this.commandVersions, 'command', versionKey(command), command)
    const newest = this.commands.get(command.type)
    if (newest !== undefined && newest.stream !== command.stream) {
      throw new MillraceError(
        'definition.invalid',
        `Versions of command "${command.type}" name two streams, "${newest.stream}" and "${command.stream}"; keep one.`,
      )
    }
    if (newest === undefined || newest.version < command.version) this.commands.set(command.type, command)
  }

  /** Without a key there is nothing to order by. */
  #checkKey(command: CommandDefinition): void {
    if (command.key !== undefined || this.streams.get(command.stream)?.ordering !== 'key') return
    throw new MillraceError(
      'definition.invalid',
      `Stream "${command.stream}" is ordered by key, and command "${command.type}" has none: give it \`key\`, or put it into another stream.`,
    )
  }

  #checkHandler(handler: HandlerDefinition | AggregateHandlerDefinition): void {
    this.#checkCommand('A handler', handler.command)
    if (handler.kind !== 'aggregate-handler') return
    const name = handler.aggregate.name
    if (this.aggregates.get(name) === handler.aggregate) return
    const hint = this.aggregates.has(name)
      ? 'handle it with the exported definition (after the last .on)'
      : 'export it from a module in workers/'
    throw new MillraceError(
      'definition.unknown',
      `The handler of "${handler.command.type}" uses aggregate "${name}", which is not the registered one: ${hint}.`,
    )
  }

  #checkCommand(what: string, command: CommandDefinition): void {
    if (this.commandVersions.get(versionKey(command)) === command) return
    throw new MillraceError(
      'definition.unknown',
      `${what} names command "${versionKey(command)}", which is not registered${this.#hint(command.type, this.commands.keys())}: export it from a module in workers/.`,
    )
  }

  #checkProjection(projection: ProjectionDefinition): void {
    if (projection.folds.size === 0) {
      throw new MillraceError(
        'definition.invalid',
        `Projection "${projection.name}" folds no event: chain .on(event, keys, fold), and export the result.`,
      )
    }
    for (const fold of projection.folds.values()) {
      if (this.events.get(fold.event.type) === fold.event) continue
      throw new MillraceError(
        'definition.unknown',
        `Projection "${projection.name}" folds event "${fold.event.type}", which is not registered${this.#hint(fold.event.type, this.events.keys())}: export it from a module in workers/.`,
      )
    }
  }

  #hint(name: string, known: Iterable<string>): string {
    const near = nearest(name, known)
    return near === undefined || near === name ? '' : ` (did you mean "${near}"?)`
  }
}

function put<Value>(map: Map<string, Value>, what: string, name: string, value: Value): void {
  if (map.has(name)) {
    throw new MillraceError(
      'definition.duplicate',
      `There are two definitions of ${what} "${name}"; rename or drop one.`,
    )
  }
  map.set(name, value)
}
