/** The arithmetic of the benchmark: a wrong median or verdict would be a claim nobody measured. */
import { describe, expect, test } from 'bun:test'
import { bottleneckOf } from '../scripts/bench/bottleneck.ts'
import { compare, type DuelOptions, duel } from '../scripts/bench/duel.ts'
import { parseOptions } from '../scripts/bench/options.ts'
import { customersAmong, orderLine, PAYLOAD_BYTES } from '../scripts/bench/payload.ts'
import { ProcessorTime, residentBytes } from '../scripts/bench/processor-time.ts'
import type { Stage } from '../scripts/bench/stage.ts'
import { median, quantile } from '../scripts/bench/statistics.ts'

const contestant = (name: string, play = () => 1) => ({ name, play: async () => ({ value: play() }) })
const options: DuelOptions = {
  name: 'x',
  unit: 'commands/s',
  millrace: contestant('millrace'),
  baseline: contestant('plain'),
  budget: { of: 'ratio', is: 'at least', bound: 0.5 },
  rounds: { full: 3, quick: 1 },
}
const played = (pairs: readonly [number, number][]) =>
  pairs.map(
    ([mine, theirs]) =>
      new Map([
        ['millrace', { value: mine }],
        ['plain', { value: theirs }],
      ]),
  )

describe('a duel', () => {
  test('takes the median of the ratios, pair by pair, not the ratio of the medians', () => {
    const row = compare(
      options,
      played([
        [10, 20],
        [90, 100],
        [30, 1000],
      ]),
    )
    expect(row.ratio).toBe(0.5)
    expect(row.spread).toEqual([0.03, 0.9])
    expect(row.value).toBe(30)
    expect(row.baseline).toBe(100)
    expect(row.pass).toBe(true)
  })

  test('misses its budget below the bound, and above it when less is better', () => {
    const fast = played([[49, 100]])
    expect(compare(options, fast).pass).toBe(false)
    const atMost = { of: 'ratio', is: 'at most', bound: 0.4 } as const
    expect(compare({ ...options, budget: atMost }, fast).pass).toBe(false)
    expect(compare({ ...options, budget: { ...atMost, bound: 0.5 } }, fast).pass).toBe(true)
    const difference = { of: 'difference', is: 'at most', bound: -51 } as const
    expect(compare({ ...options, budget: difference }, fast).pass).toBe(true)
  })

  test('lets everybody begin in turn, as often as there are rounds', async () => {
    const order: string[] = []
    const noted = (name: string) => contestant(name, () => order.push(name))
    const stage = { quick: false, tell: () => undefined } as unknown as Stage
    await duel(stage, { ...options, millrace: noted('m'), baseline: noted('b'), beside: [noted('c')] })
    expect(order.join(' ')).toBe('b m c m c b c b m')
  })

  test('refuses a contestant that measured nothing', () => {
    expect(() => compare(options, played([[0, 100]]))).toThrow('measured nothing')
  })
})

test('quantiles lie between ranks, and of nothing there are none', () => {
  expect(median([4, 1, 3, 2])).toBe(2.5)
  expect(quantile([10, 20, 30, 40, 50], 0.99)).toBeCloseTo(49.6)
  expect(() => median([])).toThrow(RangeError)
})

test('no two payloads are alike, and all are as long as they are said to be', () => {
  const texts = Array.from({ length: 5000 }, (_, n) => JSON.stringify(orderLine(n)))
  expect(new Set(texts).size).toBe(5000)
  for (const text of texts) expect(Math.abs(text.length - PAYLOAD_BYTES)).toBeLessThanOrEqual(4)
})

test('customers come back as random draws do, and none is left out for good', () => {
  const customers = (count: number) => new Set(Array.from({ length: count }, (_, n) => orderLine(n).customer))
  // 10,000 draws of 10,000 leave out one of e, give or take 31.
  expect(Math.abs(customers(10_000).size - 10_000 * (1 - Math.exp(-1)))).toBeLessThan(100)
  expect(customersAmong(10_000)).toBe(customers(10_000).size)
  expect(customersAmong(1000, 10)).toBe(10)
  expect(customersAmong(200_000)).toBe(10_000)
})

test('a busy process is seen to be busy', () => {
  const used = new ProcessorTime({ me: process.pid, nobody: 2 ** 30 })
  const endMs = performance.now() + 200
  while (performance.now() < endMs) JSON.stringify(orderLine(1))
  const cores = used.cores()
  if (process.platform !== 'linux') return
  expect(cores['me']).toBeGreaterThan(0.3)
  expect('nobody' in cores).toBe(false)
  expect(residentBytes(process.pid)).toBeGreaterThan(1024 ** 2)
})

describe('the command line', () => {
  test('knows its scenarios, and guesses what was meant', () => {
    expect(parseOptions(['consume-noop', '--quick']).scenarios.map(({ name }) => name)).toEqual([
      'consume-noop',
    ])
    expect(() => parseOptions(['consume-nop'])).toThrow('Did you mean "consume-noop"?')
    expect(() => parseOptions(['--secnds', '3'])).toThrow('--help tells more')
    expect(() => parseOptions(['--seconds', '0'])).toThrow('whole number')
  })

  test('plays what needs peers only when they are asked for', () => {
    const without = parseOptions([]).scenarios
    expect(without.length).toBeGreaterThan(0)
    expect(without.some(({ needsPeers }) => needsPeers === true)).toBe(false)
    expect(parseOptions(['--with-peers']).scenarios.length).toBeGreaterThanOrEqual(without.length)
    expect(parseOptions([]).gate).toBe(true)
    expect(parseOptions(['--no-gate']).gate).toBe(false)
  })
})

describe('a bottleneck', () => {
  test('is the machine when all cores are used, whoever uses them', () => {
    expect(bottleneckOf({ api: 0.5, worker: 0.95, redis: 0.45 }, 2)).toBe(
      'the machine, 1.9 of 2 cores: worker 0.95, api 0.50, redis 0.45',
    )
  })

  test('is the process that keeps a core busy while others wait', () => {
    expect(bottleneckOf({ api: 0.2, worker: 0.97 }, 2)).toStartWith('worker, which kept a core busy')
  })

  test('is waiting when nobody does', () => {
    expect(bottleneckOf({ api: 0.2, worker: 0.3 }, 2)).toStartWith('waiting: no process')
    expect(bottleneckOf({}, 2)).toStartWith('waiting')
  })
})
