/** Counters and histograms with their children kept at hand, so that a label is looked up once and series are bounded. */
import type { Counter, Histogram } from 'prom-client'

const SERIES_MAX = 2000

type Labels = Readonly<Record<string, string>>

/** Counter children by their labels, each resolved once. */
export class CounterFamily {
  readonly #counter: Counter
  readonly #children = new Map<string, Counter.Internal>()

  constructor(counter: Counter) {
    this.#counter = counter
  }

  add(count: number, labels: Labels): void {
    if (count > 0) child(this.#children, labels, (all) => this.#counter.labels(all))?.inc(count)
  }
}

export class HistogramFamily {
  readonly #histogram: Histogram
  readonly #children = new Map<string, Histogram.Internal<string>>()

  constructor(histogram: Histogram) {
    this.#histogram = histogram
  }

  observeMs(durationMs: number, labels: Labels): void {
    child(this.#children, labels, (all) => this.#histogram.labels(all))?.observe(durationMs / 1000)
  }
}

/** Undefined at the bound on series: what comes then is not counted, rather than memory without end. */
function child<Child>(
  children: Map<string, Child>,
  labels: Labels,
  make: (labels: Labels) => Child,
): Child | undefined {
  let key = ''
  for (const name in labels) key += `${labels[name]}\0`
  const known = children.get(key)
  if (known !== undefined || children.size >= SERIES_MAX) return known
  const made = make(labels)
  children.set(key, made)
  return made
}
