/** Who waits for appends: one command with a promise of its own, or all commands of one request with one promise. */
import type { MillraceError } from '../contracts/errors.ts'
import type { AppendResult } from '../redis/command-log.ts'
import type { AppendSink } from './append-lane.ts'
import { type Prepared, toRefusal } from './intake.ts'
import type { AcceptedCommand, SubmitOutcome } from './submission.ts'

/** What commands that are under way take of the process's bounds. */
export interface Room {
  leave(bytes: number): void
}

export class SingleSink implements AppendSink {
  readonly #room: Room
  readonly #bytes: number
  readonly #resolve: (result: AppendResult) => void
  readonly #reject: (error: MillraceError) => void

  constructor(
    room: Room,
    bytes: number,
    resolve: (result: AppendResult) => void,
    reject: (error: MillraceError) => void,
  ) {
    this.#room = room
    this.#bytes = bytes
    this.#resolve = resolve
    this.#reject = reject
  }

  settle(_index: number, result: AppendResult): void {
    this.#room.leave(this.#bytes)
    this.#resolve(result)
  }

  fail(_index: number, error: MillraceError): void {
    this.#room.leave(this.#bytes)
    this.#reject(error)
  }
}

/** Turns what Redis did into an answer, or throws why there is none. */
export type Accept = (item: Prepared, result: AppendResult) => AcceptedCommand

export class GroupSink implements AppendSink {
  readonly #room: Room
  readonly #prepared: readonly (Prepared | undefined)[]
  readonly #outcomes: SubmitOutcome[]
  readonly #accept: Accept
  readonly #all: PromiseWithResolvers<void> = Promise.withResolvers()
  #open = 0

  /** Fills `outcomes` at the indexes of `prepared`. */
  constructor(
    room: Room,
    prepared: readonly (Prepared | undefined)[],
    outcomes: SubmitOutcome[],
    accept: Accept,
  ) {
    this.#room = room
    this.#prepared = prepared
    this.#outcomes = outcomes
    this.#accept = accept
  }

  /** Announces one more command whose fate will come. */
  expect(): void {
    this.#open += 1
  }

  async settled(): Promise<void> {
    if (this.#open > 0) await this.#all.promise
  }

  settle(index: number, result: AppendResult): void {
    const item = this.#prepared[index]
    if (item === undefined) return
    try {
      this.#outcomes[index] = { accepted: this.#accept(item, result) }
    } catch (error) {
      this.#outcomes[index] = { accepted: undefined, error: toRefusal(error, item.route.command) }
    }
    this.#close(item)
  }

  fail(index: number, error: MillraceError): void {
    const item = this.#prepared[index]
    if (item === undefined) return
    this.#outcomes[index] = { accepted: undefined, error }
    this.#close(item)
  }

  #close(item: Prepared): void {
    this.#room.leave(item.blob.length)
    this.#open -= 1
    if (this.#open === 0) this.#all.resolve()
  }
}
