/**
 * A producer: whoever hands commands in from code. One face, whatever carries the commands (Redis from this process, HTTP from
 * elsewhere), so nothing here belongs to a platform.
 */
import type { CommandDefinition } from './command.ts'
import type { DeadReason } from './dead-reason.ts'
import type { Durability } from './durability.ts'
import type { MillraceError } from './errors.ts'
import type { PayloadInput } from './schema.ts'
import type { Tenant } from './tenant.ts'

export interface SendingOptions {
  /**
   * Your name for this command, 1-255 printable ASCII characters: a repetition within the window stores nothing and gets the
   * first one's id. Default none: sent twice is stored twice.
   */
  readonly idempotencyKey?: string | undefined
  /** Deliver no sooner than this many milliseconds from now, by Redis's clock; a whole number, at most 366 days. */
  readonly delayMs?: number | undefined
  /** Deliver no sooner than at this time, by Redis's clock: RFC 3339 or a Date, at most 366 days from now. Not with `delayMs`. */
  readonly deliverAt?: Date | string | undefined
  /**
   * Never start it later than this many milliseconds from now, by Redis's clock, 1 to 366 days: then it is a dead letter,
   * `expired`. With `delayMs` it must be longer.
   */
  readonly expiresInMs?: number | undefined
  /** The same as a time. With `deliverAt` it must be later. Not with `expiresInMs`. */
  readonly expiresAt?: Date | string | undefined
  /** Of the span that sends it (https://www.w3.org/TR/trace-context/). */
  readonly traceparent?: string | undefined
  /**
   * Whose command it is. Default none. Only code that writes to Redis itself may say it; over HTTP the credential does.
   */
  readonly tenant?: Tenant | undefined
}

/** Whose command an id is that of. Default none. */
export interface Belonging {
  readonly tenant?: Tenant | undefined
}

/** One command of many. */
export interface Sending<Command extends CommandDefinition = CommandDefinition> extends SendingOptions {
  readonly command: Command
  /** As the command's schema takes it. */
  readonly payload: PayloadInput<Command['payload']>
}

export interface AcceptedCommand {
  /** For `status`, `cancel` and the HTTP API. */
  readonly id: string
  readonly type: string
  readonly status: 'accepted' | 'scheduled'
  readonly durability: Durability
  /** True when the idempotency key was known: the id is the first one's. */
  readonly deduplicated: boolean
}

/** One fate per command, in order. */
export type SubmitOutcome =
  | { readonly accepted: AcceptedCommand }
  | { readonly accepted: undefined; readonly error: MillraceError }

/** Where a command stands. `lost` tells that Redis no longer has what it had acknowledged: an alarm was raised. */
export type CommandStanding =
  | 'scheduled'
  | 'accepted'
  | 'processing'
  | 'retrying'
  | 'done'
  | 'dead'
  | 'cancelled'
  | 'lost'

export interface CommandSituation {
  readonly id: string
  readonly stream: string
  readonly status: CommandStanding
  /** Runs that counted, the present one included; undefined where nothing was recorded. */
  readonly attempt: number | undefined
  /** What its handler answered, for `done`. */
  readonly result: unknown
  /** Why the last run failed, for `retrying` and `dead`. */
  readonly error: string | undefined
  /** Why it is dead, for `dead`. */
  readonly reason: DeadReason | undefined
  /** For `scheduled` and `retrying`: when it is due, ms since 1970 by Redis's clock. */
  readonly dueAtMs: number | undefined
  readonly deadLetterId: string | undefined
}

export interface Producer extends AsyncDisposable {
  /**
   * Hands one command in; resolves when it is stored as durably as declared. What is sent in one turn of the event loop travels
   * together, so send many at once rather than one after another.
   *
   * Nothing is sent a second time by itself. After `redis.unavailable`, `admission.…`, `quota.exceeded` and `idempotency.full` nothing was
   * stored.
   * After `redis.unknown` (perhaps stored) and `durability.unconfirmed` (stored, perhaps on too few replicas) a retry is safe
   * with the same idempotency key, and only with one.
   *
   * @throws MillraceError `command.unknown-type`, `command.invalid`, `command.too-large`, `idempotency.conflict`,
   *   `idempotency.full`, `quota.exceeded`, `admission.draining`, `admission.overloaded`, `redis.unavailable`, `redis.unknown`,
   *   `durability.unconfirmed`, `config.unknown-option`
   */
  send<Command extends CommandDefinition>(
    command: Command,
    payload: PayloadInput<Command['payload']>,
    options?: SendingOptions,
  ): Promise<AcceptedCommand>
  /**
   * Hands many commands in, each with its own fate; the errors are those of `send`. With `atomic` all are stored or none: then
   * they must go to one partition, and be 1000 at most.
   *
   * @throws MillraceError `admission.draining`, `admission.overloaded`, `redis.unavailable`: none of them was looked at
   */
  sendMany<const Commands extends readonly CommandDefinition[]>(
    sendings: { readonly [Index in keyof Commands]: Sending<Commands[Index]> },
    options?: { readonly atomic?: boolean },
  ): Promise<SubmitOutcome[]>
  /** @throws MillraceError `command.malformed`, `not-found`, `expired`, `redis.unavailable`, `redis.unknown` */
  status(id: string, belonging?: Belonging): Promise<CommandSituation>
  /**
   * Resolves when the command will not run; one that was cancelled before is fine.
   *
   * @throws MillraceError `cancel.too-late` when it has started, and what `status` throws
   */
  cancel(id: string, belonging?: Belonging): Promise<void>
  /** Takes nothing more in, and waits until what is under way has its fate. Stopping twice is fine. */
  stop(): Promise<void>
}
