/**
 * The command bus takes commands in: it validates, encodes, routes to a partition and appends, at most once per
 * idempotency key, and tells what became of each.
 *
 *   submit ──▶ admit ──▶ validate, pack ──▶ lane of the partition ──▶ one script per event-loop turn ──▶ id
 *
 * What is stored is the validated payload. Everything that waits here is bounded in number and bytes; at the bound, and
 * when the stream or Redis is too full, a command is refused before it costs anything.
 */
import type { CommandDefinition } from '../contracts/command.ts'
import { MillraceError } from '../contracts/errors.ts'
import type { HealthReport, HealthSource } from '../contracts/health.ts'
import { checkKnownOptions } from '../contracts/names.ts'
import type { AcceptedCommand, SubmitOutcome } from '../contracts/producer.ts'
import type { Telemetry, TelemetryEvents } from '../contracts/telemetry.ts'
import { NO_TENANT, type Tenant } from '../contracts/tenant.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { AppendResult } from '../redis/command-log.ts'
import type { RedisLink } from '../redis/connection.ts'
import type { ReplicaQuorum } from '../redis/replica-quorum.ts'
import type { Clock } from '../runtime/clock.ts'
import { Service } from '../runtime/service.ts'
import { AdmissionGate, checkDoor } from './admission-gate.ts'
import type { AppendSink } from './append-lane.ts'
import { HELD_BACK, refusalOfAppend } from './append-refusals.ts'
import { GroupSink, SingleSink, type SinkOwner } from './append-sinks.ts'
import { type CommandReport, CommandStatusReader } from './command-status.ts'
import { Intake, type Prepared, type Route, toRefusal } from './intake.ts'
import { ReplicaWatch } from './replica-watch.ts'
import { buildRoutes } from './route-table.ts'
import {
  COMMAND_BUS_DEFAULTS,
  type CommandBusOptions,
  type Submission,
  type SubmitOptions,
} from './submission.ts'

export interface CommandBusParts {
  /** Of role `ingest`. */
  readonly link: RedisLink
  /** With durability `replicated`: what is accepted and cancelled goes through it. */
  readonly quorum?: ReplicaQuorum | undefined
  readonly catalogue: Catalogue
  readonly ids: CommandIds
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly options?: Partial<CommandBusOptions>
}

/** Without an answer to a sample for this long, the process is not ready. */
const SILENT_MAX_MS = 3000

const NO_OPTIONS: SubmitOptions = {}
const SEVERAL_PARTITIONS =
  'All or none works inside one partition only, and these commands go to several: give them one key, or send them without "atomic".'

export class CommandBus extends Service implements HealthSource {
  readonly options: CommandBusOptions
  readonly #parts: CommandBusParts
  readonly #intake: Intake
  readonly #gate: AdmissionGate
  readonly #statuses: CommandStatusReader
  readonly #replicas: ReplicaWatch | undefined
  readonly #owner: SinkOwner
  #waitingCount = 0
  #waitingBytes = 0
  #draining = false
  #onEmpty: (() => void) | undefined
  #stopListening: (() => void) | undefined

  constructor(parts: CommandBusParts) {
    super('command-bus')
    checkKnownOptions('The command bus', parts.options ?? {}, Object.keys(COMMAND_BUS_DEFAULTS))
    this.options = { ...COMMAND_BUS_DEFAULTS, ...parts.options }
    this.#parts = parts
    const { link, quorum, catalogue, clock, telemetry, ids } = parts
    const { depthMax, memoryRatioMax, sampleMs } = this.options
    if ((quorum === undefined) === (this.options.durability === 'replicated')) {
      throw new MillraceError('config.invalid', 'Durability replicated and a quorum go together.')
    }
    this.#replicas =
      quorum && new ReplicaWatch({ ...{ link, clock, telemetry, sampleMs }, rule: quorum.rule })
    this.#gate = new AdmissionGate({
      ...{ link, ids, clock, telemetry, sampleMs, streams: catalogue.streams },
      limits: { depthMax, memoryRatioMax },
    })
    this.#intake = new Intake(
      buildRoutes(parts, this.options, this.#gate),
      clock,
      this.#gate.serverNowMs,
      this.options,
    )
    this.#statuses = new CommandStatusReader({ link, quorum, ids, clock, telemetry })
    this.#owner = {
      leave: (item) => this.#leave(item),
      accept: (item, result) => this.#accept(item, result),
    }
  }

  /** Commands and bytes that wait for Redis, for metrics. */
  get waiting(): { readonly count: number; readonly bytes: number } {
    return { count: this.#waitingCount, bytes: this.#waitingBytes }
  }

  /** Replicas that follow and that are needed; undefined for the other tiers. */
  get replicas(): ReplicaWatch['replicas'] | undefined {
    return this.#replicas?.replicas
  }

  health(): HealthReport {
    if (this.#isDraining()) return { ready: false, detail: 'draining' }
    if (!this.#parts.link.ready) return { ready: false, detail: 'Redis is not connected' }
    const { silentMs } = this.#gate
    if (silentMs > SILENT_MAX_MS) return { ready: false, detail: 'Redis does not answer' }
    const replicas = this.#replicas?.health()
    if (replicas?.ready === false) return replicas
    return { ready: true, detail: `Redis answered ${Math.round(silentMs)} ms ago` }
  }

  /** @throws MillraceError `command.unknown-type` */
  definition(type: string): CommandDefinition {
    return this.#intake.route(type).command
  }

  /**
   * Throws when a command of this type would be refused now whatever its payload; call it before reading a body.
   *
   * @throws MillraceError `command.unknown-type`, `admission.draining`, `admission.overloaded`, `redis.unavailable`
   */
  admit(type: string): void {
    this.#admitRoute(this.#intake.route(type))
  }

  /**
   * Throws when every command would be refused now.
   *
   * @throws MillraceError `admission.draining`, `admission.overloaded`, `redis.unavailable`
   */
  admitAny(): void {
    this.#admitProcess(1, '*')
  }

  /**
   * Takes one command in; resolves when Redis has it.
   *
   * @throws MillraceError `command.unknown-type`, `command.invalid`, `command.too-large`, `idempotency.conflict`,
   *   `idempotency.full`, `quota.exceeded` (too much of its tenant waits), `admission.draining`, `admission.overloaded`, `redis.unavailable` (nothing stored),
   *   `redis.unknown` (perhaps stored: a retry with the same idempotency key is safe) or `durability.unconfirmed` (stored, and
   *   perhaps on too few replicas: the same)
   */
  submit(type: string, payload: unknown, options: SubmitOptions = NO_OPTIONS): Promise<AcceptedCommand> {
    try {
      const route = this.#intake.route(type)
      this.#admitRoute(route)
      return this.#submitTo(route, payload, options)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Takes many commands in, each with its own fate; `atomic` stores all or none of them, in one partition. A `tenant` given here
   * (none is one too) is that of all, whatever they say themselves.
   *
   * @throws MillraceError `admission.draining`, `admission.overloaded`, `redis.unavailable`: none of them was looked at
   */
  async submitMany(
    submissions: readonly Submission[],
    { atomic = false, tenant }: { readonly atomic?: boolean; readonly tenant?: Tenant | undefined } = {},
  ): Promise<SubmitOutcome[]> {
    this.#admitProcess(submissions.length, '*')
    const outcomes = new Array<SubmitOutcome>(submissions.length)
    const sink = new GroupSink(this.#owner, outcomes)
    const prepared = await this.#prepareAll(submissions, outcomes, sink, tenant)
    if (atomic) this.#enqueueAtomic(prepared, outcomes, sink)
    else {
      for (const item of prepared) {
        if (item === undefined) continue
        sink.expect()
        this.#enqueue(item)
      }
    }
    await sink.settled()
    return outcomes
  }

  /** @throws MillraceError `command.malformed`, `not-found`, `expired`, `redis.unavailable`, `redis.unknown` */
  status(id: string, tenant: Tenant = NO_TENANT): Promise<CommandReport> {
    return this.#statuses.status(id, tenant)
  }

  /**
   * Cancels a command that has not started; one that was cancelled before is fine.
   *
   * @throws MillraceError `cancel.too-late`, and what `status` throws
   */
  cancel(id: string, tenant: Tenant = NO_TENANT): Promise<CommandReport> {
    return this.#statuses.cancel(id, tenant)
  }

  /** From now on commands are refused; what was taken in is still appended. */
  drain(): void {
    this.#draining = true
  }

  protected override async onStart(): Promise<void> {
    await this.#gate.sample()
    await this.#replicas?.sample()
    await this.#gate.start()
    await this.#replicas?.start()
    // After an outage they would wait for their next round, and the door with them.
    this.#stopListening = this.#parts.link.onReady(() => {
      this.#gate.wake()
      this.#replicas?.wake()
    })
  }

  /** Takes nothing more in and waits for what is under way: each command has its fate within the connection's limit. */
  protected override async onStop(): Promise<void> {
    if (this.#waitingCount > 0) {
      await new Promise<void>((resolve) => {
        this.#onEmpty = resolve
      })
    }
    this.#stopListening?.()
    await this.#replicas?.stop()
    await this.#gate.stop()
  }

  /** Where a submission is refused, its outcome is written and the item stays undefined. */
  async #prepareAll(
    submissions: readonly Submission[],
    outcomes: SubmitOutcome[],
    sink: AppendSink,
    tenant: Tenant | undefined,
  ): Promise<(Prepared | undefined)[]> {
    const prepared = new Array<Prepared | undefined>(submissions.length)
    const later: [number, Promise<Prepared>][] = []
    let invalid = 0
    const refuse = (index: number, error: unknown): void => {
      invalid += 1
      const type = submissions[index]?.type ?? ''
      outcomes[index] = { accepted: undefined, error: toRefusal(error, { type }) }
    }
    for (let index = 0; index < submissions.length; index++) {
      try {
        const checked = this.#prepare(ownedBy(tenant, submissions[index] as Submission), sink, index)
        if (checked instanceof Promise) later.push([index, checked])
        else prepared[index] = checked
      } catch (error) {
        refuse(index, error)
      }
    }
    const settled = await Promise.allSettled(later.map(([, checked]) => checked))
    for (const [at, result] of settled.entries()) {
      const index = later[at]?.[0] ?? 0
      if (result.status === 'fulfilled') prepared[index] = result.value
      else refuse(index, result.reason)
    }
    if (invalid > 0) this.#refused('*', 'invalid', invalid)
    return prepared
  }

  /** One promise for a command, the sink's own: with one for each function on the way a producer spent 1.4 times the processor time. */
  #submitTo(route: Route, payload: unknown, options: SubmitOptions): Promise<AcceptedCommand> {
    const sink = new SingleSink(this.#owner)
    try {
      const checked = this.#intake.prepare(route, payload, options, sink, 0)
      if (checked instanceof Promise) return this.#submitLater(route, checked, sink)
      this.#enqueue(checked)
    } catch (error) {
      throw this.#refusal(route, error)
    }
    return sink.accepted
  }

  async #submitLater(route: Route, checked: Promise<Prepared>, sink: SingleSink): Promise<AcceptedCommand> {
    try {
      this.#enqueue(await checked)
    } catch (error) {
      throw this.#refusal(route, error)
    }
    return await sink.accepted
  }

  #refusal(route: Route, error: unknown): MillraceError {
    this.#refused(route.stream, 'invalid', 1)
    return toRefusal(error, route.command)
  }

  #prepare(submission: Submission, sink: AppendSink, index: number): Prepared | Promise<Prepared> {
    const route = this.#intake.route(submission.type)
    checkDoor(route.door)
    return this.#intake.prepare(route, submission.payload, submission, sink, index)
  }

  #admitRoute(route: Route): void {
    this.#admitProcess(1, route.stream)
    if (route.door.verdict.open) return
    this.#refused(route.stream, 'overloaded', 1)
    checkDoor(route.door)
  }

  #admitProcess(count: number, stream: string): void {
    if (this.#isDraining()) {
      this.#refused(stream, 'draining', count)
      throw new MillraceError(
        'admission.draining',
        'This process is shutting down; send the command to another one.',
        {
          retryAfterS: 1,
        },
      )
    }
    const { waitingCountMax, waitingBytesMax } = this.options
    if (this.#waitingCount + count > waitingCountMax || this.#waitingBytes >= waitingBytesMax) {
      this.#refused(stream, 'overloaded', count)
      throw new MillraceError('admission.overloaded', 'Too many commands wait in this process.', {
        retryAfterS: 1,
      })
    }
    if (this.#isConnected()) {
      this.#checkReplicas(stream, count)
      return
    }
    this.#refused(stream, 'unavailable', count)
    throw new MillraceError('redis.unavailable', 'Redis is not reachable; nothing was stored.', {
      retryAfterS: 1,
    })
  }

  #isConnected(): boolean {
    const { link, quorum } = this.#parts
    return link.ready && (quorum === undefined || quorum.ready)
  }

  #checkReplicas(stream: string, count: number): void {
    try {
      this.#replicas?.check()
    } catch (error) {
      this.#refused(stream, 'unavailable', count)
      throw error
    }
  }

  #isDraining(): boolean {
    return this.#draining || this.stopSignal.aborted
  }

  #refused(
    stream: string,
    reason: TelemetryEvents['commands.refused']['reason'],
    count: number,
    tenant: Tenant = NO_TENANT,
  ): void {
    const whose = tenant === NO_TENANT ? {} : { tenant }
    this.#parts.telemetry.emit('commands.refused', { stream, reason, count, ...whose })
  }

  #enter(item: Prepared): void {
    this.#waitingCount += 1
    this.#waitingBytes += item.entry.to - item.entry.from
  }

  #leave(item: Prepared): void {
    this.#waitingCount -= 1
    this.#waitingBytes -= item.entry.to - item.entry.from
    if (this.#waitingCount === 0) this.#onEmpty?.()
  }

  #enqueue(item: Prepared): void {
    this.#enter(item)
    item.lane.add(item)
  }

  #enqueueAtomic(
    prepared: readonly (Prepared | undefined)[],
    outcomes: SubmitOutcome[],
    sink: GroupSink,
  ): void {
    const items = prepared.filter((item) => item !== undefined)
    const refusal = items.length < prepared.length ? HELD_BACK : this.#atomicRefusal(items)
    if (refusal !== undefined) {
      const error = new MillraceError('command.invalid', refusal)
      for (let i = 0; i < prepared.length; i++) outcomes[i] ??= { accepted: undefined, error }
      return
    }
    for (const item of items) {
      sink.expect()
      this.#enter(item)
    }
    items[0]?.lane.addAtomic(items)
  }

  #atomicRefusal(items: readonly Prepared[]): string | undefined {
    const { atomicCountMax } = this.options
    if (items.length > atomicCountMax) return `All or none takes at most ${atomicCountMax} commands.`
    return items.every(({ lane }) => lane === items[0]?.lane) ? undefined : SEVERAL_PARTITIONS
  }

  #idOf({ lane, tenant, route, partition }: Prepared, token: string): string {
    return tenant === NO_TENANT
      ? lane.toId(token)
      : this.#parts.ids.format(route.stream, partition, token, tenant)
  }

  #accept(item: Prepared, result: AppendResult): AcceptedCommand {
    const { kind } = result
    if (kind !== 'stored' && kind !== 'known') {
      if (kind === 'quota') this.#refused(item.route.stream, kind, 1, item.tenant)
      throw refusalOfAppend(kind)
    }
    return {
      id: this.#idOf(item, result.token),
      type: item.route.command.type,
      status: result.token.startsWith('x') ? 'scheduled' : 'accepted',
      durability: this.options.durability,
      deduplicated: kind === 'known',
    }
  }
}

function ownedBy(tenant: Tenant | undefined, submission: Submission): Submission {
  const isSo = tenant === undefined || tenant === (submission.tenant ?? NO_TENANT)
  return isSo ? submission : { ...submission, tenant }
}
