/**
 * One run of one command: what the handler sees of it, and the effects it collects.
 *
 * Effects belong to a run. When a batch is split, or a version race is lost, the command runs again as a new
 * `CommandRun`; a handler that still holds the old one can add to it without harm: a run that is over takes nothing more.
 */
import type { CloudEventContext } from '../contracts/cloud-event.ts'
import type { CommandDefinition } from '../contracts/command.ts'
import { MillraceError } from '../contracts/errors.ts'
import type { EventDefinition } from '../contracts/event.ts'
import type { HandledCommand, SendOptions, TraceContext } from '../contracts/handler.ts'
import { type PayloadInput, validatePayloadNow } from '../contracts/schema.ts'
import { NO_TENANT, type Tenant } from '../contracts/tenant.ts'
import { partitionOf } from '../policies/partition.ts'
import type { CommandIds } from '../redis/command-id.ts'
import {
  EMPTY_TRAIL,
  type Entry,
  packEntry,
  type Trail,
  unpackPayloadOf,
  unpackTrace,
} from '../redis/entry-codec.ts'
import { unpackPayload } from '../redis/payload-codec.ts'
import type { AggregateAppend, EntryRef, FollowUp } from '../redis/settlements.ts'
import type { Clock } from './clock.ts'

/** Events and follow-ups of one command; more is a sign of a command that should be many. */
const EFFECTS_COUNT_MAX = 500
const DELAY_MAX_MS = 366 * 86_400_000
const NONE: readonly never[] = Object.freeze([])

/** What all runs of one partition share. */
export interface RunScope {
  readonly stream: string
  readonly partition: number
  readonly ids: CommandIds
  readonly clock: Clock
  /** Of the partition's lease, in a stream that is ordered by key. */
  readonly epoch: number | undefined
  /** Redis's clock as this process knows it; for deadlines. */
  readonly serverNowMs: () => number
  /** Partitions of a stream; undefined for a stream nobody declared. */
  partitionsOf(stream: string): number | undefined
}

export class CommandRun implements HandledCommand {
  readonly scope: RunScope
  readonly ref: EntryRef
  readonly entry: Entry
  append: AggregateAppend | undefined
  /** Version races this command has lost in a row. */
  conflicts = 0
  #events: Buffer[] | undefined
  #followUps: FollowUp[] | undefined
  #payload: { readonly value: unknown } | undefined
  #onLate: (() => void) | undefined

  constructor(scope: RunScope, ref: EntryRef, entry: Entry) {
    this.scope = scope
    this.ref = ref
    this.entry = entry
  }

  /** The same command once more, without effects. */
  again(): CommandRun {
    const next = new CommandRun(this.scope, this.ref, this.entry)
    next.conflicts = this.conflicts
    return next
  }

  /** Ends the run: what its handler still adds is dropped, and told to `onLate`. */
  seal(onLate: () => void): void {
    this.#onLate = onLate
  }

  get events(): readonly Buffer[] {
    return this.#events ?? NONE
  }

  get followUps(): readonly FollowUp[] {
    return this.#followUps ?? NONE
  }

  /**
   * True when its token is a counter, not its place in the command stream: it was delayed or fired. Nothing in the command
   * stream of an unordered partition was, and not asking there saves the making of a text for each command.
   */
  get hasCountedToken(): boolean {
    const { source, token, isNamed } = this.ref
    const mayBe = source === 'ready' || (this.scope.epoch !== undefined && isNamed !== false)
    return mayBe && token.startsWith('x')
  }

  get id(): string {
    const { ids, stream, partition } = this.scope
    return ids.format(stream, partition, this.ref.token, this.entry.tenant)
  }

  get idempotencyKey(): string {
    return this.id
  }

  get type(): string {
    return this.entry.type
  }

  /** How telemetry names it. */
  get called(): {
    readonly stream: string
    readonly type: string
    readonly id: string
    readonly tenant?: Tenant
  } {
    const { tenant, type, id } = this
    return { stream: this.scope.stream, type, id, ...(tenant === NO_TENANT ? {} : { tenant }) }
  }

  get version(): number {
    return this.entry.version
  }

  get key(): string {
    return this.entry.key
  }

  get tenant(): Tenant {
    return this.entry.tenant
  }

  /** Decoded on first use and kept for this run only: a handler may change it. */
  get payload(): unknown {
    this.#payload ??= { value: unpackPayloadOf(this.entry) }
    return this.#payload.value
  }

  get trail(): Trail {
    return this.entry.trail ?? EMPTY_TRAIL
  }

  get attempt(): number {
    return this.trail.attempts + 1
  }

  get acceptedAtMs(): number {
    return this.entry.atMs
  }

  get tickMs(): number | undefined {
    return this.entry.tickMs
  }

  get expiresAtMs(): number | undefined {
    return this.entry.expiresAtMs
  }

  get trace(): TraceContext | undefined {
    const { trace } = this.entry
    if (trace === undefined) return undefined
    const tracestate = this.cloudEvent?.extensions['tracestate']
    return { traceparent: unpackTrace(trace), ...(typeof tracestate === 'string' ? { tracestate } : {}) }
  }

  get cloudEvent(): CloudEventContext | undefined {
    const { origin } = this.entry
    return origin === undefined ? undefined : (unpackPayload(origin) as CloudEventContext)
  }

  emit<Event extends EventDefinition>(event: Event, payload: PayloadInput<Event['payload']>): void {
    if (this.#isOver()) return
    this.#checkRoom()
    this.#events ??= []
    this.#events.push(this.encodeEvent(event, payload))
  }

  /** The blob of an event caused by this command. */
  encodeEvent(event: EventDefinition, payload: unknown): Buffer {
    const value = validatePayloadNow(`event "${event.type}"`, event.payload, payload)
    return packEntry(
      {
        type: event.type,
        version: event.version,
        atMs: this.scope.clock.nowMs(),
        key: this.entry.key,
        tenant: this.entry.tenant,
        trace: undefined,
        tickMs: undefined,
        trail: undefined,
      },
      value,
    ).blob
  }

  send<Command extends CommandDefinition>(
    command: Command,
    payload: PayloadInput<Command['payload']>,
    options: SendOptions = {},
  ): void {
    if (this.#isOver()) return
    this.#checkRoom()
    const partitions = this.scope.partitionsOf(command.stream)
    if (partitions === undefined) {
      throw new MillraceError(
        'definition.unknown',
        `"${this.type}" sends "${command.type}", which is not registered: export it from a module in workers/.`,
      )
    }
    const value = validatePayloadNow(`command "${command.type}"`, command.payload, payload)
    const key = command.key?.(value)
    const delayMs = checkDelay(options.delayMs)
    const expiresInMs = checkExpiry(options.expiresInMs, delayMs)
    const envelope = {
      type: command.type,
      version: command.version,
      atMs: this.scope.clock.nowMs(),
      key: key ?? '',
      tenant: this.entry.tenant,
      trace: this.entry.trace,
      tickMs: undefined,
      expiresAtMs: expiresInMs === undefined ? undefined : Math.floor(this.scope.serverNowMs() + expiresInMs),
      trail: undefined,
    }
    const { blob, headerBytes } = packEntry(envelope, value)
    const partition = partitionOf(key ?? blob.subarray(headerBytes), partitions, this.entry.tenant)
    const here = command.stream === this.scope.stream && partition === this.scope.partition
    this.#followUps ??= []
    this.#followUps.push({ target: here ? '' : `${command.stream}.${partition}`, delayMs, blob })
  }

  /** Appends events to an aggregate if it is still what was expected; they are emitted as well. None guards the outcome. */
  appendToAggregate(append: AggregateAppend): void {
    if (this.#isOver()) return
    this.append = append
    this.#events ??= []
    this.#events.push(...append.events)
    if (this.events.length > EFFECTS_COUNT_MAX) this.#checkRoom()
  }

  #isOver(): boolean {
    this.#onLate?.()
    return this.#onLate !== undefined
  }

  #checkRoom(): void {
    if (this.events.length + this.followUps.length < EFFECTS_COUNT_MAX) return
    throw new MillraceError(
      'handler.failed',
      `One "${this.type}" may cause at most ${EFFECTS_COUNT_MAX} events and follow-ups; send several commands instead.`,
    )
  }
}

function checkDelay(delayMs: number | undefined): number {
  if (delayMs === undefined) return -1
  if (Number.isInteger(delayMs) && delayMs >= 0 && delayMs <= DELAY_MAX_MS) return delayMs
  throw new MillraceError(
    'handler.failed',
    `delayMs must be a whole number from 0 to ${DELAY_MAX_MS}, not ${delayMs}.`,
  )
}

function checkExpiry(expiresInMs: number | undefined, delayMs: number): number | undefined {
  if (expiresInMs === undefined) return undefined
  if (!Number.isInteger(expiresInMs) || expiresInMs < 1 || expiresInMs > DELAY_MAX_MS) {
    throw new MillraceError(
      'handler.failed',
      `expiresInMs must be a whole number from 1 to ${DELAY_MAX_MS}, not ${expiresInMs}.`,
    )
  }
  if (expiresInMs > delayMs) return expiresInMs
  throw new MillraceError(
    'handler.failed',
    `expiresInMs ${expiresInMs} must be more than delayMs ${delayMs}, or it expires before it is delivered.`,
  )
}
