/**
 * An aggregate: state that is rebuilt from its own events and guarded by a version.
 *
 * `decide` looks at the state and answers events or a rejection; the events are appended only if nobody else appended
 * in between. A lost race is not an attempt: the runtime loads the new state and decides again.
 */
import type { CommandDefinition } from './command.ts'
import { MillraceError } from './errors.ts'
import type { EventDefinition, EventPayload } from './event.ts'
import type { HandledCommand, SingleHandlerOptions } from './handler.ts'
import { checkKnownOptions, checkPlainName } from './names.ts'
import type { Outcome } from './outcome.ts'
import type { PayloadInput, PayloadOutput } from './schema.ts'
import { DEFAULT_STREAM, type StreamDefinition } from './stream.ts'

/** An event that `decide` wants appended. */
export interface NewEvent {
  readonly event: EventDefinition
  readonly payload: unknown
}

/** Pairs an event with its payload, for `decide`. */
export function newEvent<Event extends EventDefinition>(
  event: Event,
  payload: PayloadInput<Event['payload']>,
): NewEvent {
  return { event, payload }
}

/** Events to append (none is fine), or an outcome: `reject`, `retry`, or `done` without events. */
export type Decision = readonly NewEvent[] | Outcome

export interface AggregateOptions<State> {
  readonly name: string
  /** The stream, or its name. Its commands' keys are the aggregates' ids, in each tenant its own. Default `main`. */
  readonly stream?: string | StreamDefinition
  readonly initial: () => State
}

/** How one event changes the state. Method syntax on purpose: definitions of any state share a registry. */
export interface Evolver<State = unknown> {
  evolve(state: State, payload: unknown): State
}

export interface AggregateDefinition<State = unknown> {
  readonly kind: 'aggregate'
  readonly name: string
  readonly stream: string
  readonly evolvers: ReadonlyMap<string, Evolver<State>>
  initial(): State
  /** A new definition in which `event` changes the state. */
  on<Event extends EventDefinition>(
    event: Event,
    evolve: (state: State, payload: EventPayload<Event>) => State,
  ): AggregateDefinition<State>
}

/**
 * Declares an aggregate; chain `.on(event, evolve)` for each of its events.
 *
 * @throws MillraceError `definition.invalid`, `config.unknown-option`
 */
export function defineAggregate<State>(options: AggregateOptions<State>): AggregateDefinition<State> {
  checkKnownOptions('defineAggregate', options, ['name', 'stream', 'initial'])
  checkPlainName('Aggregate', options.name)
  const stream = typeof options.stream === 'object' ? options.stream.name : (options.stream ?? DEFAULT_STREAM)
  return build(options, checkPlainName('Stream', stream), new Map())
}

function build<State>(
  options: AggregateOptions<State>,
  stream: string,
  evolvers: AggregateDefinition<State>['evolvers'],
): AggregateDefinition<State> {
  return Object.freeze({
    kind: 'aggregate',
    name: options.name,
    stream,
    evolvers,
    initial: options.initial,
    on: (event, evolve) => {
      if (evolvers.has(event.type)) {
        throw new MillraceError(
          'definition.duplicate',
          `Aggregate "${options.name}" evolves "${event.type}" twice.`,
        )
      }
      return build(
        options,
        stream,
        new Map(evolvers).set(event.type, { evolve: evolve as Evolver<State>['evolve'] }),
      )
    },
  } satisfies AggregateDefinition<State>)
}

export interface AggregateHandlerDefinition {
  readonly kind: 'aggregate-handler'
  readonly aggregate: AggregateDefinition
  readonly command: CommandDefinition
  readonly options: SingleHandlerOptions
  decide(state: unknown, command: HandledCommand): Decision
}

/**
 * Declares what a command does to its aggregate; the aggregate's id is the command's key.
 *
 * @throws MillraceError `definition.invalid`
 */
export function defineAggregateHandler<State, Command extends CommandDefinition>(
  aggregate: AggregateDefinition<State>,
  command: Command,
  decide: (state: State, command: HandledCommand<PayloadOutput<Command['payload']>>) => Decision,
  options: SingleHandlerOptions = {},
): AggregateHandlerDefinition {
  if (command.key === undefined) {
    throw new MillraceError(
      'definition.invalid',
      `Command "${command.type}" needs a key: it is the aggregate's id.`,
    )
  }
  if (command.stream !== aggregate.stream) {
    throw new MillraceError(
      'definition.invalid',
      `Command "${command.type}" is on stream "${command.stream}", aggregate "${aggregate.name}" on "${aggregate.stream}"; use one stream.`,
    )
  }
  return Object.freeze({
    kind: 'aggregate-handler',
    aggregate: aggregate as AggregateDefinition,
    command,
    options,
    decide: decide as AggregateHandlerDefinition['decide'],
  })
}
