/**
 * Named events of the core (`noun.past-participle`). Logs, metrics and tests subscribe; the core never logs.
 *
 * Hot-path events are emitted once per batch, not per command. What tells of one command names its tenant, if it has one; no
 * metric has it as a label. Everything called an alarm tells of something a person
 * must see: loss, a stopped projection, a clock that went back.
 */
import type { DeadReason } from './dead-reason.ts'
import type { Tenant } from './tenant.ts'

export interface TelemetryEvents {
  'commands.accepted': { stream: string; partition: number; count: number; deduplicated: number }
  /** Stored, and perhaps on too few replicas: the producer was told so. */
  'commands.unconfirmed': { stream: string; partition: number; count: number }
  'commands.refused': {
    stream: string
    /** `quota`: its tenant has too much waiting. */
    reason: 'overloaded' | 'draining' | 'unavailable' | 'invalid' | 'quota'
    count: number
    tenant?: Tenant
  }
  /** Requests or commands over a rate limit, told at most once a second for each policy. */
  'rate-limit.refused': { policy: string; count: number }
  /** A client went away before its body or its answer was through. */
  'request.aborted': { route: string }
  /** A request ran into a fault of ours; its answer was 500. */
  'request.failed': { route: string; requestId: string; error: string }
  'entries.read': { stream: string; partition: number; count: number }
  'entries.reconciled': { stream: string; partition: number; count: number }
  'entries.claimed': { stream: string; partition: number; count: number; from: string; suspects: number }
  'entries.released': { stream: string; partition: number; count: number }
  'entries.redelivered': { stream: string; partition: number; count: number }
  'batch.handled': { stream: string; type: string; count: number; durationMs: number; failed: boolean }
  /** A run has passed its time limit and has not returned; `open` are all of its handler that have not. */
  'run.overdue': { stream: string; type: string; open: number }
  'run.returned-late': { stream: string; type: string; open: number }
  'batch.split': { stream: string; type: string; count: number; error: string }
  'batch.settled': {
    stream: string
    partition: number
    done: number
    retried: number
    dead: number
    stale: number
    conflicts: number
    events: number
    durationMs: number
  }
  /** Settlements of a worker that had lost the lease of its partition. */
  'settlements.refused': { stream: string; partition: number; count: number }
  /** The lease of an ordered partition: taken, given back, found to be somebody else's. */
  'partition.taken': { stream: string; partition: number; epoch: number; from: string }
  'partition.released': { stream: string; partition: number; epoch: number }
  'partition.lost': { stream: string; partition: number; epoch: number }
  /** An ordered partition holds as many commands as it may, and reads nothing until some can go; and the end of that. */
  'partition.filled': { stream: string; partition: number; count: number }
  'partition.freed': { stream: string; partition: number; count: number }
  'command.retried': {
    stream: string
    type: string
    id: string
    tenant?: Tenant
    attempt: number
    delayMs: number
    error: string
  }
  'command.dead-lettered': {
    stream: string
    type: string
    id: string
    tenant?: Tenant
    attempt: number
    reason: DeadReason
    error: string
  }
  'command.deferred': { stream: string; type: string; version: number; id: string; tenant?: Tenant }
  'commands.promoted': { stream: string; partition: number; count: number }
  'commands.relayed': { stream: string; partition: number; count: number }
  'consumer.pronounced-dead': { stream: string; partition: number; consumer: string; silentMs: number }
  'consumer.removed': { stream: string; partition: number; consumer: string }
  'stream.trimmed': {
    stream: string
    partition: number
    log: 'commands' | 'ready' | 'events' | 'dead'
    count: number
  }
  'schedule.fired': { schedule: string; tickMs: number; missed: number }
  /** Ticks left out because no scheduler ran in time, from the first to the last. */
  'schedule.missed': { schedule: string; count: number; firstMs: number; lastMs: number }
  'schedule.refused': { schedule: string; tickMs: number; reason: string }
  'lease.acquired': { lease: string; epoch: number; waitedMs: number }
  /** `taken`: another process has it; `silent`: Redis could not be asked in time; `gone`: Redis has lost it. */
  'lease.lost': { lease: string; epoch: number; reason: 'taken' | 'silent' | 'gone' }
  /** `freed` is false when Redis did not hear of it: others wait for the holder's silence then. */
  'lease.released': { lease: string; epoch: number; freed: boolean }
  'dead-letters.redriven': { stream: string; partition: number; count: number }
  'dead-letters.purged': { stream: string; partition: number; count: number }
  'projection.committed': {
    projection: string
    partition: number
    events: number
    views: number
    durationMs: number
  }
  'projection.conflicted': { projection: string; partition: number }
  'projection.stopped': { projection: string; partition: number; position: string; error: string }
  'projection.event-skipped': { projection: string; partition: number; position: string; error: string }
  'view.read': { projection: string; cached: boolean }
  /** An API key, by its public id; `tenant` is a name, '' or '*'. */
  'key.created': { key: string; label: string; tenant: string }
  'key.rotated': { key: string; label: string; tenant: string }
  'key.revoked': { key: string; label: string; tenant: string; secret: 'old' | 'all' }
  /** Keys of a token issuer, as they were fetched; `keys` can be used. */
  'issuer-keys.fetched': { keys: number }
  /** An event tail was opened; it ended because its reader left, takes nothing, the process drains, or by a fault of ours. */
  'tail.opened': { stream: string }
  'tail.closed': { stream: string; end: 'client' | 'slow' | 'draining' | 'failed' }
  /** Events handed to one reader. */
  'tail.sent': { stream: string; count: number }
  /** A reader was told that events are missing, or that it was too slow. */
  'tail.gap-told': { stream: string; reason: 'trimmed' | 'lost' | 'slow' }
  /** How hard Redis's memory presses on the workers; `none` when it is over. */
  'memory.pressed': { level: 'none' | 'drain' | 'stop'; usedBytes: number; limitBytes: number }
  'connection.lost': { role: string; error: string }
  'connection.restored': { role: string }
  'service.failed': { service: string; error: string }
  'service.started': { service: string }
  'service.stopped': { service: string }
  /** Something a person must see. */
  'alarm.raised': { alarm: string; stream: string | undefined; detail: string }
}

export type TelemetryName = keyof TelemetryEvents

/** What a subscriber may be handed. Never blocks, never throws into the emitter. */
export type TelemetryListener = <Name extends TelemetryName>(
  name: Name,
  payload: TelemetryEvents[Name],
) => void

export interface Telemetry {
  emit<Name extends TelemetryName>(name: Name, payload: TelemetryEvents[Name]): void
}
