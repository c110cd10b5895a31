/** What each telemetry event counts as. Events that are not here are only for logs. */
import type { TelemetryEvents, TelemetryName } from '../contracts/telemetry.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import type { CountedSeries, CounterFamily, HistogramFamily } from './metric-families.ts'

/** Where counters and histograms come from. */
export interface MetricMaker {
  counter(name: string, help: string, labelNames: readonly string[]): CounterFamily
  histogram(name: string, help: string, labelNames: readonly string[]): HistogramFamily
}

interface KnownNames {
  readonly stream: (name: string) => string
  readonly type: (name: string) => string
  readonly projection: (name: string) => string
  readonly schedule: (name: string) => string
}

function knownNames({ streams, commands, projections, schedules }: Catalogue): KnownNames {
  const among = (known: ReadonlyMap<string, unknown>) => (name: string) => (known.has(name) ? name : 'other')
  return {
    stream: among(streams),
    type: among(commands),
    projection: among(projections),
    schedule: among(schedules),
  }
}

export type MetricRules = { readonly [Name in TelemetryName]?: (payload: TelemetryEvents[Name]) => void }

/** Labels that the catalogue does not declare become `other`. */
export function metricRules(catalogue: Catalogue, metrics: MetricMaker): MetricRules {
  const known = knownNames(catalogue)
  return {
    ...commandRules(known, metrics),
    ...leaseRules(known, metrics),
    ...viewRules(known, metrics),
    ...tailRules(known, metrics),
    ...faultRules(metrics),
  }
}

function commandRules(known: KnownNames, metrics: MetricMaker): MetricRules {
  const byStream = ['stream']
  const accepted = metrics.counter('commands_accepted_total', 'Commands stored by this process.', byStream)
  const deduplicated = metrics.counter(
    'commands_deduplicated_total',
    'Repetitions of a known idempotency key.',
    byStream,
  )
  const refused = metrics.counter('commands_refused_total', 'Commands refused at the door.', [
    'stream',
    'reason',
  ])
  const unconfirmed = metrics.counter(
    'commands_unconfirmed_total',
    'Commands stored that too few replicas confirmed in time.',
    byStream,
  )
  const read = metrics.counter('entries_read_total', 'Entries read by workers.', byStream)
  const claimed = metrics.counter('entries_claimed_total', 'Entries taken over from dead workers.', byStream)
  const released = metrics.counter('entries_released_total', 'Entries handed back while draining.', byStream)
  const promoted = metrics.counter('commands_promoted_total', 'Commands whose time had come.', byStream)
  const relayed = metrics.counter('commands_relayed_total', 'Commands relayed to other partitions.', byStream)
  const handled = metrics.counter('commands_handled_total', 'Commands that handlers saw.', [
    'stream',
    'type',
    'failed',
  ])
  const handling = metrics.histogram('batch_handling_seconds', 'Run time of a batch handler.', [
    'stream',
    'type',
  ])
  const settled = metrics.counter('commands_settled_total', 'Commands settled, by outcome.', [
    'stream',
    'outcome',
  ])
  const events = metrics.counter('events_appended_total', 'Events committed with their commands.', byStream)
  const settling = metrics.histogram('batch_settling_seconds', 'Time to settle a batch.', byStream)
  const deadByType = metrics.counter('commands_dead_lettered_total', 'Commands that became dead letters.', [
    'stream',
    'type',
    'reason',
  ])
  const overdue = metrics.counter('handler_runs_overdue_total', 'Runs that passed their time limit.', [
    'stream',
    'type',
  ])
  const returned = metrics.counter(
    'handler_runs_returned_late_total',
    'Of these, the ones that have returned since.',
    ['stream', 'type'],
  )
  const retriedByType = metrics.counter('commands_retried_total', 'Runs that asked for another one.', [
    'stream',
    'type',
  ])
  const trimmed = metrics.counter('entries_trimmed_total', 'Entries trimmed, by log.', ['stream', 'log'])
  return {
    'commands.accepted': ({ stream, count, deduplicated: repeated }) => {
      accepted.add(count, { stream: known.stream(stream) })
      deduplicated.add(repeated, { stream: known.stream(stream) })
    },
    'commands.unconfirmed': ({ stream, count }) => unconfirmed.add(count, { stream: known.stream(stream) }),
    'commands.refused': ({ stream, reason, count }) =>
      refused.add(count, { stream: known.stream(stream), reason }),
    'entries.read': ({ stream, count }) => read.add(count, { stream: known.stream(stream) }),
    'entries.claimed': ({ stream, count }) => claimed.add(count, { stream: known.stream(stream) }),
    'entries.released': ({ stream, count }) => released.add(count, { stream: known.stream(stream) }),
    'commands.promoted': ({ stream, count }) => promoted.add(count, { stream: known.stream(stream) }),
    'commands.relayed': ({ stream, count }) => relayed.add(count, { stream: known.stream(stream) }),
    'batch.handled': ({ stream, type, count, durationMs, failed }) => {
      const labels = { stream: known.stream(stream), type: known.type(type) }
      handled.add(count, { ...labels, failed: String(failed) })
      handling.observeMs(durationMs, labels)
    },
    'batch.settled': ({ stream, done, retried, dead, stale, conflicts, events: appended, durationMs }) => {
      const label = { stream: known.stream(stream) }
      for (const [outcome, count] of Object.entries({ done, retried, dead, stale, conflict: conflicts })) {
        settled.add(count, { ...label, outcome })
      }
      events.add(appended, label)
      settling.observeMs(durationMs, label)
    },
    'command.dead-lettered': ({ stream, type, reason }) =>
      deadByType.add(1, { stream: known.stream(stream), type: known.type(type), reason }),
    'run.overdue': ({ stream, type }) =>
      overdue.add(1, { stream: known.stream(stream), type: known.type(type) }),
    'run.returned-late': ({ stream, type }) =>
      returned.add(1, { stream: known.stream(stream), type: known.type(type) }),
    'command.retried': ({ stream, type }) =>
      retriedByType.add(1, { stream: known.stream(stream), type: known.type(type) }),
    'stream.trimmed': ({ stream, log, count }) => trimmed.add(count, { stream: known.stream(stream), log }),
  }
}

/** Streams that are ordered by key. */
function leaseRules(known: KnownNames, metrics: MetricMaker): MetricRules {
  const byStream = ['stream']
  const refusals = metrics.counter(
    'settlements_refused_total',
    'Settlements of workers that had lost the lease of their partition.',
    byStream,
  )
  const leases = metrics.counter(
    'partition_leases_total',
    'Leases of ordered partitions taken, released and lost by this process.',
    ['stream', 'change'],
  )
  const filled = metrics.counter(
    'partition_filled_total',
    'Times that an ordered partition held as many waiting commands as it may, and stopped reading.',
    byStream,
  )
  const freed = metrics.counter('partition_freed_total', 'Times that such a partition read on.', byStream)
  const leased = (change: string) => (payload: { stream: string }) =>
    leases.add(1, { stream: known.stream(payload.stream), change })
  return {
    'settlements.refused': ({ stream, count }) => refusals.add(count, { stream: known.stream(stream) }),
    'partition.taken': leased('taken'),
    'partition.released': leased('released'),
    'partition.lost': leased('lost'),
    'partition.filled': ({ stream }) => filled.add(1, { stream: known.stream(stream) }),
    'partition.freed': ({ stream }) => freed.add(1, { stream: known.stream(stream) }),
  }
}

function viewRules(known: KnownNames, metrics: MetricMaker): MetricRules {
  const folded = metrics.counter('projection_events_total', 'Events folded into views.', ['projection'])
  const views = metrics.counter('projection_views_total', 'View changes committed.', ['projection'])
  const committing = metrics.histogram('projection_commit_seconds', 'Time to fold and commit a batch.', [
    'projection',
  ])
  const stops = metrics.counter('projection_stops_total', 'Times a projection stopped on an error.', [
    'projection',
  ])
  const skipped = metrics.counter('projection_events_skipped_total', 'Events that a fold could not take.', [
    'projection',
  ])
  const reads = metrics.counter('view_reads_total', 'Views read, from memory or from Redis.', [
    'projection',
    'cached',
  ])
  // The one event that comes for each request: its series are kept at hand.
  const [fromMemory, fromRedis] = [new Map<string, CountedSeries>(), new Map<string, CountedSeries>()]
  const fired = metrics.counter('schedule_ticks_total', 'Ticks that became commands.', ['schedule'])
  const missed = metrics.counter('schedule_ticks_missed_total', 'Ticks that no scheduler was there for.', [
    'schedule',
  ])
  return {
    'projection.committed': ({ projection, events, views: changed, durationMs }) => {
      const label = { projection: known.projection(projection) }
      folded.add(events, label)
      views.add(changed, label)
      committing.observeMs(durationMs, label)
    },
    'projection.stopped': ({ projection }) => stops.add(1, { projection: known.projection(projection) }),
    'projection.event-skipped': ({ projection }) =>
      skipped.add(1, { projection: known.projection(projection) }),
    'view.read': ({ projection, cached }) => {
      const kept = cached ? fromMemory : fromRedis
      let series = kept.get(projection)
      if (series === undefined) {
        series = reads.series({ projection: known.projection(projection), cached: String(cached) })
        if (series.labels['projection'] === projection) kept.set(projection, series)
      }
      series.count += 1
    },
    'schedule.fired': ({ schedule }) => fired.add(1, { schedule: known.schedule(schedule) }),
    'schedule.missed': ({ schedule, count }) => missed.add(count, { schedule: known.schedule(schedule) }),
  }
}

function tailRules(known: KnownNames, metrics: MetricMaker): MetricRules {
  const sent = metrics.counter('tail_events_sent_total', 'Events sent to readers of event tails.', ['stream'])
  const gaps = metrics.counter('tail_gaps_total', 'Gaps that readers of event tails were told of.', [
    'stream',
    'reason',
  ])
  const closed = metrics.counter('tails_closed_total', 'Event tails that ended, by reason.', [
    'stream',
    'end',
  ])
  return {
    'tail.sent': ({ stream, count }) => sent.add(count, { stream: known.stream(stream) }),
    'tail.gap-told': ({ stream, reason }) => gaps.add(1, { stream: known.stream(stream), reason }),
    'tail.closed': ({ stream, end }) => closed.add(1, { stream: known.stream(stream), end }),
  }
}

function faultRules(metrics: MetricMaker): MetricRules {
  const alarms = metrics.counter('alarms_total', 'Things that a person must see.', ['alarm'])
  const faults = metrics.counter('service_faults_total', 'Rounds of services that failed.', ['service'])
  const lost = metrics.counter('connections_lost_total', 'Connections to Redis that were lost.', ['role'])
  const aborted = metrics.counter('http_requests_aborted_total', 'Clients that went away too early.', [
    'route',
  ])
  const failed = metrics.counter('http_requests_failed_total', 'Requests that ran into a fault of ours.', [
    'route',
  ])
  const deaths = metrics.counter('workers_pronounced_dead_total', 'Consumers whose heartbeat stopped.', [])
  const pressed = metrics.counter('memory_pressed_total', "Times that Redis's memory pressed.", ['level'])
  return {
    'memory.pressed': ({ level }) => pressed.add(level === 'none' ? 0 : 1, { level }),
    'alarm.raised': ({ alarm }) => alarms.add(1, { alarm }),
    'service.failed': ({ service }) => faults.add(1, { service }),
    'connection.lost': ({ role }) => lost.add(1, { role }),
    'request.aborted': ({ route }) => aborted.add(1, { route }),
    'request.failed': ({ route }) => failed.add(1, { route }),
    'consumer.pronounced-dead': () => deaths.add(1, {}),
  }
}
