/**
 * A handler: what runs when commands of one type arrive, one at a time or in batches, and under which limits.
 */
import type { CloudEventContext } from './cloud-event.ts'
import type { CommandDefinition } from './command.ts'
import { MillraceError } from './errors.ts'
import type { EventDefinition } from './event.ts'
import type { Logger } from './logger.ts'
import { checkKnownOptions, checkWhole } from './names.ts'
import type { Outcome } from './outcome.ts'
import type { PayloadInput, PayloadOutput } from './schema.ts'
import type { Tenant } from './tenant.ts'

/** W3C trace context of the producer (https://www.w3.org/TR/trace-context/). */
export interface TraceContext {
  readonly traceparent: string
  /** Only of a command that came as a CloudEvent with one. */
  readonly tracestate?: string
}

export interface SendOptions {
  /** Deliver no sooner than this many milliseconds from settlement, by Redis's clock. */
  readonly delayMs?: number
  /** Never start it later than this many milliseconds from the call, by Redis's clock: then it is a dead letter, `expired`. */
  readonly expiresInMs?: number
}

/** One command in a handler's hands. Its effects are kept apart from its batch neighbours'. */
export interface HandledCommand<Payload = unknown> {
  readonly id: string
  readonly type: string
  readonly version: number
  readonly key: string
  /** Whose command it is; '' none. What it sends and emits is the same tenant's. */
  readonly tenant: Tenant
  readonly payload: Payload
  /** 1 on the first run. A run that a neighbour broke is not counted. */
  readonly attempt: number
  /** The same on every run of this command: hand it to outside systems. */
  readonly idempotencyKey: string
  /** When the API accepted it (its wall clock, ms since 1970); for a tick, when it fired, by Redis's clock. */
  readonly acceptedAtMs: number
  /** The tick that fired it, for commands of a schedule (ms since 1970). */
  readonly tickMs: number | undefined
  /** Its deadline by Redis's clock, ms since 1970: it is not started later. */
  readonly expiresAtMs: number | undefined
  readonly trace: TraceContext | undefined
  /** What it came as, when it came as a CloudEvent. */
  readonly cloudEvent: CloudEventContext | undefined
  /** Adds an event; it is committed with the acknowledgement, or not at all. */
  emit<Event extends EventDefinition>(event: Event, payload: PayloadInput<Event['payload']>): void
  /** Adds a follow-up command, committed with the acknowledgement and delivered exactly once. */
  send<Command extends CommandDefinition>(
    command: Command,
    payload: PayloadInput<Command['payload']>,
    options?: SendOptions,
  ): void
}

export interface HandlerContext {
  /** Aborted at the time limit, or when the process drains and time is up. */
  readonly signal: AbortSignal
  readonly logger: Logger
  readonly stream: string
  readonly partition: number
  /**
   * In a stream that is ordered by key: the epoch of the partition's lease, which only grows. Hand it to outside systems as
   * a fencing token, so that they can refuse a worker that was paused and has lost the partition since.
   */
  readonly epoch: number | undefined
}

export interface HandlerOptions {
  /** Most commands in one batch, 1-1000. Default 100. */
  readonly batchCountMax?: number
  /** Most payload bytes in one batch. Default 1 MiB. */
  readonly batchBytesMax?: number
  /** How long a batch may wait to fill, 0-1000 ms. Default 0: what has arrived goes. */
  readonly lingerMs?: number
  /** Batches of this handler at once in one process, 1-1000. Default 4. */
  readonly concurrencyMax?: number
  /** Longest run of one batch. Default 30 000 ms. */
  readonly timeLimitMs?: number
  /** Runs before a command becomes a dead letter, 1-100. Default 5. */
  readonly attemptsMax?: number
  /** First backoff step. Default 500 ms. */
  readonly backoffBaseMs?: number
  /** Longest backoff. Default 5 min. */
  readonly backoffMaxMs?: number
}

const HANDLER_DEFAULTS: Required<HandlerOptions> = {
  batchCountMax: 100,
  batchBytesMax: 1024 ** 2,
  lingerMs: 0,
  concurrencyMax: 4,
  timeLimitMs: 30_000,
  attemptsMax: 5,
  backoffBaseMs: 500,
  backoffMaxMs: 300_000,
}

export interface HandlerDefinition {
  readonly kind: 'handler'
  readonly command: CommandDefinition
  readonly options: Required<HandlerOptions>
  /** One outcome per command, in order. */
  run(batch: readonly HandledCommand[], context: HandlerContext): Promise<readonly Outcome[]>
}

type Handle<Payload> = (
  command: HandledCommand<Payload>,
  context: HandlerContext,
) => Outcome | Promise<Outcome>
type HandleBatch<Payload> = (
  batch: readonly HandledCommand<Payload>[],
  context: HandlerContext,
) => readonly Outcome[] | Promise<readonly Outcome[]>

export type SingleHandlerOptions = Omit<HandlerOptions, 'batchCountMax' | 'batchBytesMax' | 'lingerMs'>

/** Commands of one single-command handler that run at once in a process, unless `concurrencyMax` says otherwise. */
const SINGLE_CONCURRENCY_DEFAULT = 64

/**
 * Declares a handler that sees one command at a time, up to `concurrencyMax` (default 64) of them at once.
 * A throw is an attempt of that command alone. Settlements are still batched.
 *
 * @throws MillraceError `definition.invalid`, `config.unknown-option`
 */
export function defineHandler<Command extends CommandDefinition>(
  command: Command,
  handle: Handle<PayloadOutput<Command['payload']>>,
  options: SingleHandlerOptions = {},
): HandlerDefinition {
  const handleOne = handle as Handle<unknown>
  const known = Object.keys(HANDLER_DEFAULTS).filter((name) => !/^(batch|linger)/.test(name))
  checkKnownOptions(`Handler of "${command?.type}"`, options, known)
  const single = { concurrencyMax: SINGLE_CONCURRENCY_DEFAULT, ...options, batchCountMax: 1 }
  return makeHandler(command, single, async (batch, context) => {
    const outcomes: Outcome[] = []
    for (const item of batch) outcomes.push(await handleOne(item, context))
    return outcomes
  })
}

/**
 * Declares a handler that sees a whole batch and answers one outcome per command, in order.
 *
 * @throws MillraceError `definition.invalid`, `config.unknown-option`
 */
export function defineBatchHandler<Command extends CommandDefinition>(
  command: Command,
  handle: HandleBatch<PayloadOutput<Command['payload']>>,
  options: HandlerOptions = {},
): HandlerDefinition {
  const handleAll = handle as HandleBatch<unknown>
  return makeHandler(command, options, async (batch, context) => handleAll(batch, context))
}

function makeHandler(
  command: CommandDefinition,
  options: HandlerOptions,
  run: HandlerDefinition['run'],
): HandlerDefinition {
  if (command?.kind !== 'command') {
    throw new MillraceError(
      'definition.invalid',
      'A handler needs a command made by defineCommand as first argument.',
    )
  }
  const what = `Handler of "${command.type}"`
  checkKnownOptions(what, options, Object.keys(HANDLER_DEFAULTS))
  const resolved = { ...HANDLER_DEFAULTS, ...options }
  checkWhole(`${what}: batchCountMax`, resolved.batchCountMax, 1, 1000)
  checkWhole(`${what}: batchBytesMax`, resolved.batchBytesMax, 1024, 64 * 1024 ** 2)
  checkWhole(`${what}: lingerMs`, resolved.lingerMs, 0, 1000)
  checkWhole(`${what}: concurrencyMax`, resolved.concurrencyMax, 1, 1000)
  checkWhole(`${what}: timeLimitMs`, resolved.timeLimitMs, 10, 3_600_000)
  checkWhole(`${what}: attemptsMax`, resolved.attemptsMax, 1, 100)
  checkWhole(`${what}: backoffBaseMs`, resolved.backoffBaseMs, 1, 3_600_000)
  checkWhole(`${what}: backoffMaxMs`, resolved.backoffMaxMs, resolved.backoffBaseMs, 7 * 86_400_000)
  return Object.freeze({ kind: 'handler', command, options: Object.freeze(resolved), run })
}
