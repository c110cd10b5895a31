/** `/metrics` in both formats is what Prometheus expects: by its own promtool where it is installed, and by the same rules. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { Answers } from '../src/http/answers.ts'
import { BODY_BOUNDS_DEFAULTS, BodyReader } from '../src/http/body-reader.ts'
import { type MetricMaker, metricRules } from '../src/http/metric-rules.ts'
import { Metrics } from '../src/http/metrics.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import type { PartitionOverview } from '../src/redis/stream-overview.ts'
import { TelemetryHub } from '../src/runtime/telemetry-hub.ts'
import { asOldText, metricMistakes, withEverySample } from './support/metric-lint.ts'

const telemetry = new TelemetryHub()
const catalogue = buildCatalogue([])
const overview: PartitionOverview = {
  ...{ partition: 0, depth: 1, lag: 1, lagIsExact: true, pending: 1, due: 1, dead: 1, events: 1, outbox: 1 },
  ...{ overdue: 1, oldestAgeMs: 5, consumers: [], lease: undefined },
}
/** Enough for every event: what one of them doesn't have it doesn't look at. */
const anything = {
  ...{ stream: 'orders "x" \\ \n', type: 'order.place', projection: 'p', schedule: 's', log: 'commands' },
  ...{ outcome: 'done', reason: 'failed', alarm: 'a', service: 's', role: 'r', route: 'r', level: 'high' },
  ...{ count: 2, deduplicated: 1, durationMs: 5, failed: true, cached: true, events: 1, views: 1 },
  ...{ done: 1, retried: 1, dead: 1, stale: 1, conflicts: 1, partition: 0 },
}

let metrics: Metrics
let text: string
let openText: string
beforeAll(async () => {
  metrics = new Metrics({ catalogue, telemetry, streams: async () => new Map([['orders', [overview]]]) })
  const answers = new Answers(telemetry)
  metrics.watchListener({ listener: 'public', answers, bodies: new BodyReader(BODY_BOUNDS_DEFAULTS) })
  const names = Object.keys(metricRules(catalogue, NOWHERE))
  expect(names.length).toBeGreaterThan(20)
  for (const name of names) telemetry.emit(name as 'commands.accepted', anything as never)
  text = (await metrics.scrape(null)).text
  openText = (await metrics.scrape('application/openmetrics-text')).text
})
afterAll(() => metrics.close())

/** Rules need somewhere to count, whose counts nobody asks for. */
const NOWHERE = { counter: () => ({}), histogram: () => ({}) } as unknown as MetricMaker

describe('the rules', () => {
  test('find nothing in either format', () => {
    expect(metricMistakes(text, false)).toEqual([])
    expect(metricMistakes(openText, true)).toEqual([])
    expect([...text.matchAll(/^# TYPE/gm)].length).toBeGreaterThan(50)
  })

  test.each([
    ['no help text', '# HELP a_total \n# TYPE a_total counter\na_total 1\n'],
    ['no help text', 'a 1\n'],
    ['a counter ends in _total', '# HELP a Help.\n# TYPE a counter\na 1\n'],
    ['ends as another type', '# HELP a_total Help.\n# TYPE a_total gauge\na_total 1\n'],
    ['ends as another type', '# HELP a_count Help.\n# TYPE a_count gauge\na_count 1\n'],
    ['is not in base units', '# HELP a_ms Help.\n# TYPE a_ms gauge\na_ms 1\n'],
    ['has its type in its name', '# HELP a_gauge Help.\n# TYPE a_gauge gauge\na_gauge 1\n'],
    ['is not written in small letters', '# HELP aB Help.\n# TYPE aB gauge\naB 1\n'],
    ['has a label of histograms', '# HELP a Help.\n# TYPE a gauge\na{quantile="0.5"} 1\n'],
    ['has samples of other names', '# HELP a Help.\n# TYPE a gauge\nb 1\n'],
    ['has a series twice', '# HELP a Help.\n# TYPE a gauge\na{x="1"} 1\na{x="1"} 2\n'],
    ['told twice', '# HELP a Help.\n# TYPE a gauge\na 1\n# HELP a Help.\n# TYPE a gauge\n'],
    ["can't be read", '# HELP a Help.\n# TYPE a gauge\na{x="a"b"} 1\n'],
    ["can't be read", '# HELP a Help.\n# TYPE a gauge\na x\n'],
    ['type summary', '# HELP a Help.\n# TYPE a summary\na_sum 1\n'],
    ['# EOF', '# HELP a Help.\n# TYPE a gauge\na 1\n# EOF\n'],
    ['there is no metric', '\n'],
  ])('find: %s', (mistake, bad) => {
    expect(metricMistakes(bad, false).join('\n')).toContain(mistake)
  })

  test('find a counter that OpenMetrics would not take', () => {
    const bad = '# HELP a_total Help.\n# TYPE a_total counter\na_total 1\n# EOF\n'
    expect(metricMistakes(bad, true)).not.toEqual([])
    expect(metricMistakes('# HELP a Help.\n# TYPE a counter\na_total 1\n# EOF\n', true)).toEqual([])
  })
})

const promtool = Bun.which('promtool')
describe.skipIf(promtool === null)('promtool check metrics', () => {
  const check = async (input: string): Promise<string> => {
    const child = Bun.spawn([promtool ?? '', 'check', 'metrics'], {
      stdin: new TextEncoder().encode(input),
      stdout: 'pipe',
      stderr: 'pipe',
    })
    const [out, errors, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
    return code === 0 ? '' : `${code}: ${out}${errors}`
  }

  test('takes the text format', async () => {
    expect(await check(text)).toBe('')
    expect(await check(withEverySample(text))).toBe('')
  })

  test('takes what OpenMetrics holds', async () => {
    expect(await check(withEverySample(asOldText(openText)))).toBe('')
  })

  test('would find a mistake', async () => {
    expect(await check('a_ms 1\n')).toContain('no help text')
  })
})
