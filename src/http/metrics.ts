/**
 * Metrics for Prometheus, fed by telemetry: a subscriber that counts batches, and gauges that are read when asked.
 *
 * Labels come only from what the application declares, and from closed sets of our own; anything else is `other`, so the
 * number of series is bounded. prom-client's own process metrics are wrong on Bun in part, so the few that matter are
 * collected here. Names start with `millrace_`, units are base units.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks'
// By their files: the package as a whole also loads default collectors, cluster and push gateway, of which nothing is used
// here, and took four times as long, 32 ms of every start of a process (2 cores).
import Counter from 'prom-client/lib/counter.js'
import Gauge from 'prom-client/lib/gauge.js'
import Histogram from 'prom-client/lib/histogram.js'
import Registry from 'prom-client/lib/registry.js'
import { version } from '../../package.json' with { type: 'json' }
import type { TelemetryEvents, TelemetryListener } from '../contracts/telemetry.ts'
import type { Policy } from '../limits/rate-limiter.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import type { PartitionOverview } from '../redis/stream-overview.ts'
import type { TelemetryHub } from '../runtime/telemetry-hub.ts'
import type { Answers } from './answers.ts'
import type { BodyReader } from './body-reader.ts'
import { CounterFamily, HistogramFamily } from './metric-families.ts'
import { type MetricMaker, metricRules } from './metric-rules.ts'

export interface MetricsParts {
  readonly catalogue: Catalogue
  readonly telemetry: TelemetryHub
  /** Partitions by stream, as they are now. */
  readonly streams: () => Promise<ReadonlyMap<string, readonly PartitionOverview[]>>
}

/** What a listener tells. */
export interface ListenerMetrics {
  readonly listener: string
  readonly answers: Answers
  readonly bodies?: BodyReader
}

/** What waits in this process for Redis. */
export interface WaitingMetrics {
  readonly waiting: { readonly count: number; readonly bytes: number }
  /** Undefined unless acceptance waits for replicas. */
  readonly replicas?: { readonly following: number; readonly needed: number } | undefined
}

const BUCKETS_S = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

type OpenMetricsRegistry = Registry<typeof Registry.OPENMETRICS_CONTENT_TYPE>

export class Metrics implements MetricMaker {
  readonly #parts: MetricsParts
  readonly #registry: Registry = new Registry()
  /** The same metrics in the other format. */
  readonly #openRegistry: OpenMetricsRegistry = new Registry<typeof Registry.OPENMETRICS_CONTENT_TYPE>()
  readonly #unsubscribe: () => void
  readonly #loopDelay = monitorEventLoopDelay({ resolution: 10 })
  readonly #streamGauges: readonly StreamGauge[]
  readonly #totals = new Map<Counter, string>()
  readonly #listeners: ListenerMetrics[] = []
  readonly #waiting: WaitingMetrics[] = []

  constructor(parts: MetricsParts) {
    this.#parts = parts
    this.#openRegistry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE)
    this.#loopDelay.enable()
    this.#addProcessMetrics()
    this.#addListenerMetrics()
    this.#streamGauges = STREAM_GAUGES.map(([name, help, pick]) => {
      const options = { name: `millrace_stream_${name}`, help, labelNames: ['stream'], registers: [] }
      return { gauge: this.#register(new Gauge(options)), pick }
    })
    this.#unsubscribe = parts.telemetry.subscribe(this.#listener())
  }

  watchListener(listener: ListenerMetrics): void {
    this.#listeners.push(listener)
  }

  watchTails(tails: { readonly count: number }): void {
    this.#gauge('tails_open', 'Event tails that are open.', [], (gauge) => gauge.set(tails.count))
  }

  watchWaiting(source: WaitingMetrics): void {
    this.#waiting.push(source)
  }

  /** Only a process that limits has these. */
  watchLimits(policies: readonly Policy[]): void {
    const requests =
      'Requests and commands that fell under a rate limit; unchecked: let through while Redis did not answer.'
    this.#total('rate_limit_requests_total', requests, ['policy', 'verdict'], (counter) => {
      for (const { name, tally } of policies) {
        counter.inc({ policy: name, verdict: 'admitted' }, tally.admitted - tally.unchecked)
        counter.inc({ policy: name, verdict: 'returned' }, tally.returned)
        counter.inc({ policy: name, verdict: 'refused' }, tally.refused)
        counter.inc({ policy: name, verdict: 'unchecked' }, tally.unchecked)
      }
    })
    this.#total('rate_limit_calls_total', 'Times that Redis was asked.', ['policy'], (counter) => {
      for (const { name, tally } of policies) counter.inc({ policy: name }, tally.calls)
    })
    this.#total('rate_limit_leased_tokens_total', 'Tokens taken in advance.', ['policy'], (counter) => {
      for (const { name, tally } of policies) counter.inc({ policy: name }, tally.leased)
    })
    this.#gauge('rate_limit_held_tokens', 'Tokens held in advance now.', ['policy'], (gauge) => {
      for (const { name, tally } of policies) gauge.set({ policy: name }, tally.held)
    })
  }

  /** The text for a scrape: OpenMetrics when the Accept header asks for it. */
  async scrape(accept: string | null): Promise<{ readonly text: string; readonly contentType: string }> {
    await this.#readStreams()
    const isOpen = accept?.includes('application/openmetrics-text') === true
    const registry = isOpen ? this.#openRegistry : this.#registry
    const text = registry.metrics()
    // prom-client cuts `_total` from the names of counters for good when it writes OpenMetrics; it does so before it waits.
    for (const [counter, name] of this.#totals) Object.assign(counter, { name })
    return { text: await text, contentType: registry.contentType }
  }

  close(): void {
    this.#unsubscribe()
    this.#loopDelay.disable()
  }

  counter(name: string, help: string, labelNames: readonly string[]): CounterFamily {
    const family = new CounterFamily()
    this.#total(name, help, labelNames, (counter) => family.tell(counter))
    return family
  }

  histogram(name: string, help: string, labelNames: readonly string[]): HistogramFamily {
    const options = { name: `millrace_${name}`, help, labelNames, buckets: BUCKETS_S, registers: [] }
    return new HistogramFamily(this.#register(new Histogram(options)))
  }

  #listener(): TelemetryListener {
    const rules = metricRules(this.#parts.catalogue, this)
    return (name, payload) => {
      const rule = rules[name] as ((payload: TelemetryEvents[typeof name]) => void) | undefined
      rule?.(payload)
    }
  }

  #register<Metric extends Counter | Gauge | Histogram>(metric: Metric): Metric {
    if (metric instanceof Counter) this.#totals.set(metric, Reflect.get(metric, 'name') as string)
    this.#registry.registerMetric(metric)
    this.#openRegistry.registerMetric(metric)
    return metric
  }

  /** A gauge that is read when asked. */
  #gauge(name: string, help: string, labelNames: readonly string[], read: (gauge: Gauge) => void): void {
    const collect = function (this: Gauge): void {
      read(this)
    }
    this.#register(new Gauge({ name: `millrace_${name}`, help, labelNames, registers: [], collect }))
  }

  /** A counter that is kept elsewhere as a plain number. */
  #total(name: string, help: string, labelNames: readonly string[], read: (counter: Counter) => void): void {
    const collect = function (this: Counter): void {
      this.reset()
      read(this)
    }
    this.#register(new Counter({ name: `millrace_${name}`, help, labelNames, registers: [], collect }))
  }

  #addProcessMetrics(): void {
    this.#gauge('build_info', 'Always 1; tells what runs.', ['version', 'bun'], (gauge) => {
      gauge.set({ version, bun: Bun.version }, 1)
    })
    this.#gauge('process_resident_memory_bytes', 'Memory as the system sees it.', [], (gauge) => {
      gauge.set(process.memoryUsage.rss())
    })
    this.#gauge('process_heap_bytes', 'Memory of the JavaScript heap in use.', [], (gauge) => {
      gauge.set(process.memoryUsage().heapUsed)
    })
    this.#gauge('process_uptime_seconds', 'Age of the process.', [], (gauge) => {
      gauge.set(process.uptime())
    })
    this.#total('process_cpu_seconds_total', 'Processor time used so far.', ['mode'], (counter) => {
      const { user, system } = process.cpuUsage()
      counter.inc({ mode: 'user' }, user / 1e6)
      counter.inc({ mode: 'system' }, system / 1e6)
    })
    const lateness = 'How late timers ran since the last scrape.'
    this.#gauge('event_loop_delay_seconds', lateness, ['percentile'], (gauge) => {
      for (const percent of [50, 99]) {
        gauge.set({ percentile: String(percent) }, this.#loopDelay.percentile(percent) / 1e9)
      }
      this.#loopDelay.reset()
    })
  }

  #addListenerMetrics(): void {
    const labels = ['listener', 'route', 'status']
    this.#total('http_responses_total', 'Answers, by route and status.', labels, (counter) => {
      for (const { listener, answers } of this.#listeners) {
        for (const { route, status, count } of answers.counts()) {
          counter.inc({ listener, route, status: String(status) }, count)
        }
      }
    })
    const open = 'Requests with a body that are being handled.'
    this.#gauge('http_open_requests', open, ['listener'], (gauge) => {
      for (const { listener, bodies } of this.#listeners) {
        if (bodies !== undefined) gauge.set({ listener }, bodies.open.requests)
      }
    })
    this.#gauge('http_open_request_bytes', 'Bytes of their bodies.', ['listener'], (gauge) => {
      for (const { listener, bodies } of this.#listeners) {
        if (bodies !== undefined) gauge.set({ listener }, bodies.open.bytes)
      }
    })
    this.#gauge('bus_waiting_commands', 'Commands that wait in this process for Redis.', [], (gauge) => {
      gauge.set(this.#waiting.reduce((total, { waiting }) => total + waiting.count, 0))
    })
    this.#gauge('replicas_following', 'Replicas that follow the primary closely.', [], (gauge) => {
      for (const { replicas } of this.#waiting) if (replicas !== undefined) gauge.set(replicas.following)
    })
    this.#gauge('replicas_needed', 'Replicas that must have what is accepted.', [], (gauge) => {
      for (const { replicas } of this.#waiting) if (replicas !== undefined) gauge.set(replicas.needed)
    })
    this.#gauge('bus_waiting_bytes', 'Their bytes.', [], (gauge) => {
      gauge.set(this.#waiting.reduce((total, { waiting }) => total + waiting.bytes, 0))
    })
  }

  /** One look at Redis for each partition; while it can't be read, these are left out. */
  async #readStreams(): Promise<void> {
    const overviews = await this.#parts.streams().catch(() => new Map<string, PartitionOverview[]>())
    for (const { gauge, pick } of this.#streamGauges) {
      gauge.reset()
      for (const [stream, parts] of overviews) gauge.set({ stream }, pick(parts))
    }
  }
}

interface StreamGauge {
  readonly gauge: Gauge
  readonly pick: PickOverview
}

type PickOverview = (parts: readonly PartitionOverview[]) => number

const sum =
  (pick: (part: PartitionOverview) => number): PickOverview =>
  (parts) =>
    parts.reduce((total, part) => total + pick(part), 0)

const STREAM_GAUGES: readonly (readonly [string, string, PickOverview])[] = [
  ['partitions', 'Partitions of the stream.', (parts) => parts.length],
  ['entries', 'Entries in command and ready streams, untrimmed ones included.', sum(({ depth }) => depth)],
  ['lag_entries', 'Entries that no worker has been given.', sum(({ lag }) => lag)],
  ['pending_entries', 'Entries in the hands of workers.', sum(({ pending }) => pending)],
  ['due_commands', 'Commands that wait for their time.', sum(({ due }) => due)],
  ['dead_letters', 'Dead letters.', sum(({ dead }) => dead)],
  ['events', 'Event log entries that are kept.', sum(({ events }) => events)],
  ['outbox_entries', 'Commands on their way to other partitions.', sum(({ outbox }) => outbox)],
  ['consumers', 'Workers, one for each partition they consume.', sum(({ consumers }) => consumers.length)],
  [
    'oldest_age_seconds',
    'Since the oldest unfinished entry came in.',
    (parts) => Math.max(0, ...parts.map(({ oldestAgeMs }) => oldestAgeMs)) / 1000,
  ],
]
