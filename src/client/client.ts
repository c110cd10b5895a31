/**
 * The face of a client: commands in, their results and the views out. One face, whether HTTP carries it (`createClient`) or the
 * process stands next to Redis (`inProcessClient`), so what is written for one runs with the other.
 */
import type { CommandDefinition } from '../contracts/command.ts'
import type { AcceptedCommand, CommandSituation, SendingOptions } from '../contracts/producer.ts'
import type { PayloadInput } from '../contracts/schema.ts'
import type { ClientError } from './client-error.ts'

/** Payloads by command type. This one is for a client that was told no definitions: any type, any payload. */
export interface AnyCommands {
  readonly [type: string]: unknown
}

type CommandIn<Definitions> = Definitions extends CommandDefinition
  ? Definitions
  : Definitions extends readonly (infer Member)[]
    ? Extract<Member, CommandDefinition>
    : Extract<Definitions[keyof Definitions], CommandDefinition>

/** Payloads by command type, from a module of definitions (`typeof import('./orders.ts')`), a list of them, or a union. */
export type CommandsOf<Definitions> = unknown extends Definitions
  ? AnyCommands
  : {
      readonly [Command in CommandIn<Definitions> as Command['type']]: PayloadInput<Command['payload']>
    }

export interface CallOptions {
  /** Ends the call: it rejects with `aborted`. What was sent by then stays sent. */
  readonly signal?: AbortSignal | undefined
}

export interface WaitingOptions extends CallOptions {
  /** How long to wait at most, all tries together. Default: the client's `deadlineMs`. */
  readonly timeoutMs?: number | undefined
}

export interface ClientSendOptions extends Omit<SendingOptions, 'idempotencyKey'>, CallOptions {
  /**
   * Your name for this command, 1-255 printable ASCII characters: sent twice it is stored once. Default: one is drawn.
   * `false`: none, and then a result that stays unknown is not tried again.
   */
  readonly idempotencyKey?: string | false | undefined
  /** Waits so long for the end of the command, from the call on, as `result` does. Default: not at all. */
  readonly waitMs?: number | undefined
}

/** One command of many. */
export type ClientSending<Commands = AnyCommands> = {
  [Type in keyof Commands & string]: ClientSendingOf<Type, Commands[Type]>
}[keyof Commands & string]

interface ClientSendingOf<Type, Payload> extends Omit<ClientSendOptions, 'waitMs' | 'signal'> {
  readonly command: Type
  readonly payload: Payload
}

export interface ClientAccepted extends Omit<AcceptedCommand, 'durability'> {
  /** Undefined where the server told the end of the command instead. */
  readonly durability: AcceptedCommand['durability'] | undefined
}

export interface SendAnswer extends ClientAccepted {
  /** How the command ended: there when `waitMs` was asked for, and then its status is `done`. */
  readonly ended: CommandSituation | undefined
}

/** One fate per command, in order. */
export type SendOutcome =
  | { readonly accepted: ClientAccepted }
  | { readonly accepted: undefined; readonly error: ClientError }

export interface ViewReadOptions extends WaitingOptions {
  /** Id of a command whose effects the view must hold: your own writes can be read. */
  readonly after?: string | undefined
  /** An `etag` that you have: a view that is still the same is not sent again. */
  readonly ifNoneMatch?: string | undefined
}

export interface ClientView<View = unknown> {
  /** Undefined: there is no such view; or it is `unchanged`. */
  readonly value: View | undefined
  /** True when it is still as `ifNoneMatch` says. */
  readonly unchanged: boolean
  /** For `ifNoneMatch`, quotes included; undefined where there is no view. */
  readonly etag: string | undefined
  /** What has been folded into it, as `<partition>:<entry id>`, comma separated. */
  readonly position: string | undefined
  /** What became of the command in `after`; one that is not `done` has no effects. */
  readonly afterStatus: string | undefined
}

export interface ViewPageOptions extends CallOptions {
  /** Views in a page, 1-500. Default 50. */
  readonly limit?: number | undefined
  /** Where to go on: `next` of a page. Default: at the beginning. */
  readonly cursor?: string | undefined
  /** Only keys that start with this. */
  readonly prefix?: string | undefined
  /** Order of keys. Default `forward`. */
  readonly direction?: 'forward' | 'backward' | undefined
}

export interface ClientViewPage<View = unknown> {
  readonly views: readonly { readonly key: string; readonly value: View; readonly etag: string }[]
  /** Cursor of the page behind; undefined on the last one. */
  readonly next: string | undefined
}

export interface Client<Commands = AnyCommands> extends AsyncDisposable {
  /**
   * Hands one command in; resolves when it is stored as durably as the answer says, or with `waitMs` when it is done. What is sent
   * in one turn of the event loop travels together, so send many at once rather than one after another.
   *
   * Every unknown result is tried again, under one key. When the tries are over, `outcome-unknown` has the key.
   *
   * @throws ClientError `invalid-option`, `queue-full`, `closed`, `aborted`, `invalid`, `not-found`, `unauthorized`, `forbidden`,
   *   `refused`, `overloaded`, `rate-limited`, `outcome-unknown`; with `waitMs` what `result` throws
   */
  send<Type extends keyof Commands & string>(
    command: Type,
    payload: Commands[Type],
    options?: ClientSendOptions,
  ): Promise<SendAnswer>
  send<Command extends CommandDefinition>(
    command: Command,
    payload: PayloadInput<Command['payload']>,
    options?: ClientSendOptions,
  ): Promise<SendAnswer>
  /**
   * Hands many commands in, each with its own fate; the errors are those of `send`. A list may be longer than the queue: then the
   * rest waits for room.
   */
  sendMany(sendings: readonly ClientSending<Commands>[], options?: CallOptions): Promise<SendOutcome[]>
  /** @throws ClientError `not-found`, `unauthorized`, `forbidden`, `network`, `timeout`, `fault`, `overloaded`, `rate-limited` */
  status(id: string, options?: CallOptions): Promise<CommandSituation>
  /**
   * Waits until the command is done.
   *
   * @throws ClientError `command-dead`, `command-cancelled`, `timeout`, and what `status` throws
   */
  result(id: string, options?: WaitingOptions): Promise<CommandSituation>
  /**
   * Resolves when the command will not run; one that was cancelled before is fine.
   *
   * @throws ClientError `refused` when it has started, and what `status` throws
   */
  cancel(id: string, options?: CallOptions): Promise<void>
  /**
   * One view; with `after` not before the effects of that command are in it.
   *
   * @throws ClientError `not-found` for a projection that does not exist, `invalid`, `timeout`, and what `status` throws
   */
  view<View = unknown>(projection: string, key: string, options?: ViewReadOptions): Promise<ClientView<View>>
  /** Views in the order of their keys, page by page; nothing is asked for ahead. Errors are those of `view`. */
  views<View = unknown>(
    projection: string,
    options?: ViewPageOptions,
  ): AsyncIterableIterator<ClientViewPage<View>>
  /** Takes nothing more in, ends every wait with `closed`, and waits until what was sent has its fate. Twice is fine. */
  close(): Promise<void>
}
