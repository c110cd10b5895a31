/**
 * Runs the commands of an aggregate: loads the states of a batch, lets `decide` answer for one command after the other, and
 * hands each decision over with the version that it was made on.
 *
 *   batch ─▶ load each aggregate once ─▶ decide ─▶ evolve ─▶ the next command of the batch sees the new state
 *                                           └─▶ append at that version + emit, one script with the acknowledgement
 *
 * Several commands of one aggregate in a batch chain their versions, so they settle together. When another process was
 * faster, Redis refuses the append and all that was built on it, rejections too, and the runtime runs these commands again
 * on the newer state. That is no attempt: nothing failed, somebody else was first.
 */
import type { AggregateHandlerDefinition, Decision, NewEvent } from '../contracts/aggregate.ts'
import { errorCode, MillraceError } from '../contracts/errors.ts'
import {
  defineBatchHandler,
  type HandledCommand,
  type HandlerContext,
  type HandlerDefinition,
} from '../contracts/handler.ts'
import { done, type Outcome, retry } from '../contracts/outcome.ts'
import type { RedisLink } from '../redis/connection.ts'
import { partitionKeys } from '../redis/keys.ts'
import type { Clock } from '../runtime/clock.ts'
import { CommandRun } from '../runtime/command-run.ts'
import { type AggregateState, evolve, rebuildAggregate } from './aggregate-state.ts'

export interface AggregateHandlerParts {
  /** Of role `command`. */
  readonly link: RedisLink
  readonly clock: Clock
}

const LOAD_AGAIN_MS = 100

/** What a batch knows of one aggregate: its state, stored or only decided so far, or why it can't be loaded. */
type Loaded = { readonly current: AggregateState; readonly isStored: boolean } | { readonly fault: unknown }

/** The same limits and retries as any handler; commands come in batches, so that states are loaded together. */
export function aggregateHandler(
  definition: AggregateHandlerDefinition,
  parts: AggregateHandlerParts,
): HandlerDefinition {
  return defineBatchHandler(
    definition.command,
    (batch, context) => new AggregateBatch(definition, parts, context).run(batch),
    definition.options,
  )
}

class AggregateBatch {
  readonly #definition: AggregateHandlerDefinition
  readonly #parts: AggregateHandlerParts
  readonly #context: HandlerContext
  readonly #loaded = new Map<string, Loaded>()

  constructor(definition: AggregateHandlerDefinition, parts: AggregateHandlerParts, context: HandlerContext) {
    this.#definition = definition
    this.#parts = parts
    this.#context = context
  }

  async run(batch: readonly HandledCommand[]): Promise<Outcome[]> {
    const keys = new Set(batch.map((command) => this.#keyOf(command)))
    await Promise.all(Array.from(keys, (key) => this.#load(key)))
    return batch.map((command) => this.#handle(asRun(command)))
  }

  /** While Redis is away this waits, up to the handler's time limit: an outage is no fault of the command. */
  async #load(key: string): Promise<void> {
    const { link, clock } = this.#parts
    const { signal } = this.#context
    for (;;) {
      try {
        const current = await rebuildAggregate(link, this.#definition.aggregate, key)
        this.#loaded.set(key, { current, isStored: true })
        return
      } catch (fault) {
        this.#loaded.set(key, { fault })
        if (signal.aborted || errorCode(fault)?.startsWith('redis.') !== true) return
      }
      await clock.sleep(LOAD_AGAIN_MS, signal)
    }
  }

  /** A throw is an attempt of this command alone: its neighbours in the batch are not touched. */
  #handle(run: CommandRun): Outcome {
    const key = this.#keyOf(run)
    const loaded = this.#loaded.get(key)
    if (loaded === undefined)
      return retry(new MillraceError('handler.failed', 'The aggregate is not loaded.'))
    if ('fault' in loaded) return retry(loaded.fault)
    try {
      return this.#decide(run, key, loaded.current, loaded.isStored)
    } catch (error) {
      return retry(error)
    }
  }

  #decide(
    run: CommandRun,
    key: string,
    { state, version, token }: AggregateState,
    isStored: boolean,
  ): Outcome {
    const { aggregate, decide } = this.#definition
    const decision = decide(state, run)
    const guard = { key, expectedVersion: version, expectedToken: token }
    if (!isEvents(decision) || decision.length === 0) {
      if (!isStored) run.appendToAggregate({ ...guard, events: [] })
      return isEvents(decision) ? done() : decision
    }
    const events = decision.map(({ event, payload }) => run.encodeEvent(event, payload))
    const next = events.reduce((before, blob) => evolve(aggregate, before, blob), state)
    run.appendToAggregate({ ...guard, events })
    const current = { state: next, version: version + events.length, token: run.ref.token }
    this.#loaded.set(key, { current, isStored: false })
    return done()
  }

  /** Of the stream that the aggregate's events lie in; each tenant has aggregates of its own. */
  #keyOf({ key, tenant }: Pick<HandledCommand, 'key' | 'tenant'>): string {
    const { stream, partition } = this.#context
    return partitionKeys(stream, partition).aggregate(this.#definition.aggregate.name, key, tenant)
  }
}

function isEvents(decision: Decision): decision is readonly NewEvent[] {
  return Array.isArray(decision)
}

function asRun(command: HandledCommand): CommandRun {
  if (command instanceof CommandRun) return command
  throw new MillraceError('handler.failed', 'The commands of an aggregate are run by the runtime only.')
}
