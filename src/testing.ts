/**
 * Public test kit: handlers, aggregates and projections run on plain values, without Redis; time that a test moves; telemetry
 * that a test waits for.
 *
 *   const run = await runHandler(onPlaceOrder, [{ sku: 'tea', quantity: 2 }])
 *   expect(run.outcomes).toEqual([done()])
 *   expect(foldEvents(stock, run.events).get('tea')).toEqual({ sold: 2 })
 *
 * Effects follow the runtime's rule: only a command that ends `done` leaves events and follow-up commands behind.
 */
import type { AggregateHandlerDefinition, Decision, NewEvent } from './contracts/aggregate.ts'
import type { CommandDefinition } from './contracts/command.ts'
import { MillraceError } from './contracts/errors.ts'
import type { RecordedEvent } from './contracts/event.ts'
import type { HandlerContext, HandlerDefinition } from './contracts/handler.ts'
import { type Logger, SILENT_LOGGER } from './contracts/logger.ts'
import { done, type Outcome } from './contracts/outcome.ts'
import type { ProjectionDefinition } from './contracts/projection.ts'
import { validatePayload, validatePayloadNow } from './contracts/schema.ts'
import type { Telemetry, TelemetryEvents, TelemetryName } from './contracts/telemetry.ts'
import { NO_TENANT, type Tenant } from './contracts/tenant.ts'
import { CommandIds } from './redis/command-id.ts'
import { decodeEntry, EMPTY_TRAIL, encodeEntry, unpackPayloadOf } from './redis/entry-codec.ts'
import { packPayload } from './redis/payload-codec.ts'
import { type Clock, SYSTEM_CLOCK, type Timer } from './runtime/clock.ts'
import { CommandRun, type RunScope } from './runtime/command-run.ts'

export type { Clock, Timer } from './runtime/clock.ts'

// ── running handlers ──

export interface RunOptions {
  /** Which run of the commands this is. Default 1. */
  readonly attempt?: number
  /** Wall time of acceptance and emission, ms since 1970. Default 0. */
  readonly nowMs?: number
  /** The tick, for handlers of scheduled commands. */
  readonly tickMs?: number
  /** Whose commands they are. Default none. */
  readonly tenant?: Tenant
  readonly signal?: AbortSignal
  readonly logger?: Logger
}

/** A follow-up command that a handler sent. */
export interface SentCommand {
  readonly type: string
  readonly version: number
  readonly key: string
  readonly payload: unknown
  readonly delayMs: number | undefined
}

export interface HandlerRun {
  /** One per payload, in order. */
  readonly outcomes: readonly Outcome[]
  /** Events of the commands that ended `done`, in order; ready for `foldEvents`. */
  readonly events: readonly RecordedEvent[]
  /** Follow-up commands of those. */
  readonly sends: readonly SentCommand[]
}

/**
 * Runs a handler on payloads, validated by the command's schema, in batches of at most `batchCountMax`.
 * What the handler throws is thrown; the runtime would count an attempt and retry.
 *
 * @throws MillraceError `command.invalid` for a payload that the schema refuses, `handler.failed` for a wrong number of outcomes
 */
export async function runHandler(
  handler: HandlerDefinition,
  payloads: readonly unknown[],
  options: RunOptions = {},
): Promise<HandlerRun> {
  const commands: CommandRun[] = []
  for (const payload of payloads)
    commands.push(await commandRun(handler.command, payload, commands.length, options))
  const outcomes: Outcome[] = []
  for (let at = 0; at < commands.length; at += handler.options.batchCountMax) {
    const batch = commands.slice(at, at + handler.options.batchCountMax)
    const answered = await handler.run(batch, contextOf(handler.command, options))
    if (answered.length !== batch.length) {
      throw new MillraceError(
        'handler.failed',
        `The handler of "${handler.command.type}" answered ${answered.length} outcomes for ${batch.length} commands; answer one for each, in order.`,
      )
    }
    outcomes.push(...answered)
  }
  const kept = commands.filter((_, index) => outcomes[index]?.outcome === 'done')
  return {
    outcomes,
    events: kept.flatMap(eventsOf),
    sends: kept.flatMap(sendsOf),
  }
}

export interface AggregateRun<State = unknown> extends HandlerRun {
  /** After all events. */
  readonly state: State
}

/**
 * Lets an aggregate decide on payloads one after another, starting from the events `given`.
 *
 * @throws MillraceError `command.invalid`
 */
export async function runAggregateHandler<State = unknown>(
  handler: AggregateHandlerDefinition,
  given: readonly NewEvent[],
  payloads: readonly unknown[],
  options: RunOptions = {},
): Promise<AggregateRun<State>> {
  const { aggregate, command } = handler
  const evolve = (state: unknown, type: string, payload: unknown): unknown =>
    aggregate.evolvers.get(type)?.evolve(state, payload) ?? state
  let state = given.reduce(
    (before, { event, payload }) => evolve(before, event.type, payload),
    aggregate.initial(),
  )
  const outcomes: Outcome[] = []
  const events: RecordedEvent[] = []
  const sends: SentCommand[] = []
  for (const payload of payloads) {
    const handled = await commandRun(command, payload, outcomes.length, options)
    const outcome = applyDecision(handler.decide(state, handled), handled)
    outcomes.push(outcome)
    if (outcome.outcome !== 'done') continue
    const added = eventsOf(handled)
    state = added.reduce((before, event) => evolve(before, event.type, event.payload), state)
    events.push(...added)
    sends.push(...sendsOf(handled))
  }
  return { outcomes, events, sends, state: state as State }
}

function applyDecision(decision: Decision, handled: CommandRun): Outcome {
  if ('outcome' in decision) return decision
  for (const { event, payload } of decision) handled.emit(event, payload)
  return done()
}

function contextOf(command: CommandDefinition, options: RunOptions): HandlerContext {
  return {
    signal: options.signal ?? new AbortController().signal,
    logger: options.logger ?? SILENT_LOGGER,
    stream: command.stream,
    partition: 0,
    epoch: undefined,
  }
}

/** What a test's commands share: one partition, ids that say they are no real ones. */
function scopeOf(command: CommandDefinition, options: RunOptions): RunScope {
  const nowMs = options.nowMs ?? 0
  return {
    stream: command.stream,
    partition: 0,
    epoch: undefined,
    ids: new CommandIds(Buffer.from('millrace/testing')),
    clock: { ...SYSTEM_CLOCK, nowMs: () => nowMs },
    serverNowMs: () => nowMs,
    partitionsOf: () => 1,
  }
}

/** The payload as a worker gets it: validated, and through the bytes of an entry. */
async function commandRun(
  command: CommandDefinition,
  input: unknown,
  index: number,
  options: RunOptions,
): Promise<CommandRun> {
  const payload = await validatePayload(`command "${command.type}"`, command.payload, input)
  const attempts = (options.attempt ?? 1) - 1
  const blob = encodeEntry(
    {
      type: command.type,
      version: command.version,
      atMs: options.nowMs ?? 0,
      key: command.key?.(payload) ?? '',
      tenant: options.tenant ?? NO_TENANT,
      trace: undefined,
      tickMs: options.tickMs,
      trail: attempts === 0 ? undefined : { ...EMPTY_TRAIL, attempts },
    },
    packPayload(payload),
  )
  const id = `${index + 1}-0`
  return new CommandRun(
    scopeOf(command, options),
    { source: 'commands', entryId: id, token: `e${id}`, level: 0 },
    decodeEntry(blob),
  )
}

function eventsOf(run: CommandRun): RecordedEvent[] {
  return run.events.map((blob, index) => {
    const entry = decodeEntry(blob)
    const { type, version, key, tenant, atMs } = entry
    const position = `${run.ref.entryId}/${index}`
    return { type, version, key, tenant, atMs, position, commandId: run.id, payload: unpackPayloadOf(entry) }
  })
}

function sendsOf(run: CommandRun): SentCommand[] {
  return run.followUps.map(({ blob, delayMs }) => {
    const entry = decodeEntry(blob)
    const { type, version, key } = entry
    return {
      type,
      version,
      key,
      payload: unpackPayloadOf(entry),
      delayMs: delayMs < 0 ? undefined : delayMs,
    }
  })
}

// ── folding views ──

/**
 * Folds events into the views of a projection; views that a fold deleted are absent. Events come from a run, or from
 * `newEvent(definition, payload)`. Each tenant has views of its own: `tenant` says whose are meant, by default those of none.
 */
export function foldEvents<View>(
  projection: ProjectionDefinition<View>,
  events: readonly (RecordedEvent | NewEvent)[],
  { tenant = NO_TENANT }: { readonly tenant?: Tenant } = {},
): ReadonlyMap<string, View> {
  const views = new Map<string, View>()
  for (const [index, given] of events.entries()) {
    const event = 'event' in given ? recordNew(given, index, tenant) : given
    if (event.tenant !== tenant) continue
    const fold = projection.folds.get(event.type)
    if (fold === undefined) continue
    const keys = fold.keys(event) ?? []
    for (const key of typeof keys === 'string' ? [keys] : keys) {
      const view = fold.fold(views.get(key) ?? projection.initial(key), event)
      if (view === null) views.delete(key)
      else views.set(key, view)
    }
  }
  return views
}

function recordNew({ event, payload }: NewEvent, index: number, tenant: Tenant): RecordedEvent {
  const valid = validatePayloadNow(`event "${event.type}"`, event.payload, payload)
  const { type, version } = event
  return {
    type,
    version,
    payload: valid,
    key: '',
    tenant,
    commandId: '',
    atMs: 0,
    position: `${index + 1}-0/0`,
  }
}

// ── time ──

interface Waiting {
  readonly dueMs: number
  readonly call: () => void
}

/** A clock that stands still until a test moves it. Wall and monotonic time move together. */
export class FakeClock implements Clock {
  #nowMs: number
  readonly #waiting = new Set<Waiting>()
  readonly #random: () => number

  constructor(options: { readonly nowMs?: number; readonly random?: () => number } = {}) {
    this.#nowMs = options.nowMs ?? 0
    this.#random = options.random ?? (() => 0.5)
  }

  nowMs(): number {
    return Math.floor(this.#nowMs)
  }

  monotonicMs(): number {
    return this.#nowMs
  }

  random(): number {
    return this.#random()
  }

  after(ms: number, call: () => void): Timer {
    const waiting = { dueMs: this.#nowMs + Math.max(0, ms), call }
    this.#waiting.add(waiting)
    return { cancel: () => this.#waiting.delete(waiting) }
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (signal?.aborted === true) return resolve()
      const finish = (): void => {
        timer.cancel()
        signal?.removeEventListener('abort', finish)
        resolve()
      }
      const timer = this.after(ms, finish)
      signal?.addEventListener('abort', finish, { once: true })
    })
  }

  /** Lets what was begun come to its waits, then moves time on by `ms`; what falls due is called in order, and may wait for more. */
  async advance(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms
    await settled()
    for (let next = this.#next(endMs); next !== undefined; next = this.#next(endMs)) {
      this.#waiting.delete(next)
      this.#nowMs = Math.max(this.#nowMs, next.dueMs)
      next.call()
      await settled()
    }
    this.#nowMs = endMs
    await settled()
  }

  #next(endMs: number): Waiting | undefined {
    let first: Waiting | undefined
    for (const waiting of this.#waiting) {
      if (waiting.dueMs <= endMs && (first === undefined || waiting.dueMs < first.dueMs)) first = waiting
    }
    return first
  }
}

/** Lets promises that were resolved run on. */
function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

// ── telemetry ──

/** Keeps telemetry, and lets a test wait for it. Pass `telemetry.listener` to `startMillrace({ onTelemetry })`. */
export class RecordedTelemetry implements Telemetry {
  readonly #events: { readonly name: TelemetryName; readonly payload: object }[] = []
  readonly #checks = new Set<() => void>()

  readonly listener = <Name extends TelemetryName>(name: Name, payload: TelemetryEvents[Name]): void => {
    this.#events.push({ name, payload })
    for (const check of [...this.#checks]) check()
  }

  emit<Name extends TelemetryName>(name: Name, payload: TelemetryEvents[Name]): void {
    this.listener(name, payload)
  }

  /** Everything of one name so far, oldest first. */
  of<Name extends TelemetryName>(name: Name): TelemetryEvents[Name][] {
    return this.#events
      .filter((event) => event.name === name)
      .map(({ payload }) => payload as TelemetryEvents[Name])
  }

  /**
   * Resolves as soon as `enough` holds for what was recorded under this name. Default: anything.
   *
   * @throws Error after `limitMs`, default 10 s
   */
  async until<Name extends TelemetryName>(
    name: Name,
    enough: (recorded: TelemetryEvents[Name][]) => boolean = (recorded) => recorded.length > 0,
    limitMs = 10_000,
  ): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const check = (): void => {
      if (enough(this.of(name))) resolve()
    }
    const timer = SYSTEM_CLOCK.after(limitMs, () =>
      reject(new Error(`No ${name} as expected within ${limitMs} ms.`)),
    )
    this.#checks.add(check)
    check()
    try {
      await promise
    } finally {
      timer.cancel()
      this.#checks.delete(check)
    }
  }
}
