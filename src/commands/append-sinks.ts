/** Who waits for appends: one command with a promise of its own, or all commands of one request with one promise. */
import type { MillraceError } from '../contracts/errors.ts'
import type { AcceptedCommand, SubmitOutcome } from '../contracts/producer.ts'
import type { AppendResult } from '../redis/command-log.ts'
import type { AppendSink } from './append-lane.ts'
import { type Prepared, toRefusal } from './intake.ts'

/** What sinks need of the bus. */
export interface SinkOwner {
  /** A command that was under way has its fate. */
  leave(item: Prepared): void
  /** Turns what Redis did into an answer, or throws why there is none. */
  accept(item: Prepared, result: AppendResult): AcceptedCommand
}

export class SingleSink implements AppendSink {
  /** Settles with the command's fate. */
  readonly accepted: Promise<AcceptedCommand>
  readonly #owner: SinkOwner
  readonly #resolvers: PromiseWithResolvers<AcceptedCommand>

  constructor(owner: SinkOwner) {
    this.#owner = owner
    this.#resolvers = Promise.withResolvers()
    this.accepted = this.#resolvers.promise
  }

  settle(item: Prepared, result: AppendResult): void {
    this.#owner.leave(item)
    try {
      this.#resolvers.resolve(this.#owner.accept(item, result))
    } catch (error) {
      this.#resolvers.reject(error)
    }
  }

  fail(item: Prepared, error: MillraceError): void {
    this.#owner.leave(item)
    this.#resolvers.reject(error)
  }
}

export class GroupSink implements AppendSink {
  readonly #owner: SinkOwner
  readonly #outcomes: SubmitOutcome[]
  readonly #all: PromiseWithResolvers<void> = Promise.withResolvers()
  #open = 0

  /** Fills `outcomes` at the indexes of its commands. */
  constructor(owner: SinkOwner, outcomes: SubmitOutcome[]) {
    this.#owner = owner
    this.#outcomes = outcomes
  }

  /** Announces one more command whose fate will come. */
  expect(): void {
    this.#open += 1
  }

  async settled(): Promise<void> {
    if (this.#open > 0) await this.#all.promise
  }

  settle(item: Prepared, result: AppendResult): void {
    try {
      this.#outcomes[item.index] = { accepted: this.#owner.accept(item, result) }
    } catch (error) {
      this.#outcomes[item.index] = { accepted: undefined, error: toRefusal(error, item.route.command) }
    }
    this.#close(item)
  }

  fail(item: Prepared, error: MillraceError): void {
    this.#outcomes[item.index] = { accepted: undefined, error }
    this.#close(item)
  }

  #close(item: Prepared): void {
    this.#owner.leave(item)
    this.#open -= 1
    if (this.#open === 0) this.#all.resolve()
  }
}
