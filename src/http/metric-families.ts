/** Counters and histograms with their children kept at hand, so that a label is looked up once and series are bounded. */
import type { Counter, Histogram } from 'prom-client'

const SERIES_MAX = 2000

type Labels = Readonly<Record<string, string>>

/** One line of a counter. */
export interface CountedSeries {
  readonly labels: Labels
  count: number
}

/** Counts by labels, kept as plain numbers until they are asked for: prom-client would hash the labels at each increment. */
export class CounterFamily {
  readonly #series = new Map<string, CountedSeries>()

  add(count: number, labels: Labels): void {
    if (count > 0) this.series(labels).count += count
  }

  /** To be kept by whoever counts often: finding it is most of the work. */
  series(labels: Labels): CountedSeries {
    return child(this.#series, labels, () => ({ labels, count: 0 })) ?? { labels, count: 0 }
  }

  tell(counter: Counter): void {
    for (const { labels, count } of this.#series.values()) if (count > 0) counter.inc({ ...labels }, count)
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
