/**
 * What carries a client's calls: HTTP, or the process itself. A carrier answers one try of a read, and throws a ClientError that
 * says whether another may go better; sending, which needs more care, is its own business from the first try to the last.
 */
import type { CommandSituation } from '../contracts/producer.ts'
import type {
  ClientAccepted,
  ClientSendOptions,
  ClientView,
  ClientViewPage,
  ViewPageOptions,
} from './client.ts'
import type { ClientProblem } from './client-error.ts'

/** The limits of a call. */
export interface Call {
  /** On the monotonic clock. */
  readonly deadlineMs: number
  readonly signal: AbortSignal | undefined
}

/** A command on its way. */
export interface Parcel {
  readonly type: string
  readonly payload: unknown
  readonly options: Omit<ClientSendOptions, 'signal' | 'waitMs' | 'idempotencyKey'>
  /** Undefined: the caller wants none. */
  readonly idempotencyKey: string | undefined
  /** Until when the answer may wait for the end of the command, on the monotonic clock; undefined: not at all. */
  readonly waitUntilMs: number | undefined
}

export interface Situation extends CommandSituation {
  /** Why it is dead, lost or in retry, as the server tells it. */
  readonly problem: ClientProblem | undefined
}

export interface Carried {
  readonly accepted: ClientAccepted
  /** There when the command has ended within the wait. */
  readonly ended: Situation | undefined
}

/** One look at a command. */
export interface Look {
  /** Undefined: nothing changed since the look that gave the tag. */
  readonly situation: Situation | undefined
  readonly etag: string | undefined
  /** Until the next look makes sense, where the server said so. */
  readonly retryAfterMs: number | undefined
}

export interface LookOptions {
  /** Of an earlier look. */
  readonly etag: string | undefined
  /** The answer may wait so long for the end of the command; 0: not at all. */
  readonly waitMs: number
}

/** A command that is ready to go. */
export interface Departure {
  /** Resolves when it is worth looking again for room; undefined: there is room. */
  room(): Promise<void> | undefined
  /** Rejects when the tries are over; then `outcome-unknown` tells that it may be stored. */
  send(signal: AbortSignal | undefined): Promise<Carried>
}

export interface Carrier {
  /** @throws ClientError `invalid` for a payload that can not be carried */
  prepare(parcel: Parcel): Departure
  look(id: string, options: LookOptions, call: Call): Promise<Look>
  cancel(id: string, call: Call): Promise<void>
  view(
    projection: string,
    key: string,
    options: { readonly after: string | undefined; readonly ifNoneMatch: string | undefined },
    call: Call,
  ): Promise<ClientView>
  page(projection: string, options: Omit<ViewPageOptions, 'signal'>, call: Call): Promise<ClientViewPage>
  /** Between two looks of a wait, when the server does not say: the first pause, and the longest. */
  readonly lookPauseMs: readonly [number, number]
  /** Waits until everything that was sent has its fate. */
  close(): Promise<void>
}
