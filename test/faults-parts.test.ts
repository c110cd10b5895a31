/** The parts of the fault harness find what they are there to find: a check that can't fail proves nothing. */
import { afterAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { journalEntries, sumHandlerCalls } from '../scripts/faults/handler-calls.ts'
import {
  JOURNAL_RECORD_BYTES,
  type JournalRecord,
  KIND_END,
  KIND_START,
  OUTCOME_DONE,
  OUTCOME_NONE,
  tokenNumber,
  tokenTimeMs,
  writeRecord,
} from '../scripts/faults/journal-format.ts'
import { parseOptions } from '../scripts/faults/options.ts'
import { checkOrder } from '../scripts/faults/order.ts'
import { Random } from '../scripts/faults/random.ts'
import { FrameScanner } from '../scripts/faults/resp.ts'
import { spreadOf } from '../scripts/faults/result.ts'
import { requestName } from '../scripts/faults/script-names.ts'
import { scaled } from '../scripts/faults/size.ts'
import { planStrikes } from '../scripts/faults/strikes.ts'
import { Workload } from '../scripts/faults/workload.ts'
import { Ledger } from '../scripts/fleet/ledger.ts'
import { SCRIPTS } from '../src/redis/scripts.ts'

const folder = mkdtempSync(join(tmpdir(), 'millrace-faults-parts-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const BASE_MS = 1_700_000_000_000

function journal(name: string, records: readonly Partial<JournalRecord>[], torn = 0): string {
  const own = mkdtempSync(join(folder, 'journals-'))
  const bytes = Buffer.alloc(records.length * JOURNAL_RECORD_BYTES)
  let at = 0
  for (const record of records) {
    at = writeRecord(bytes, at, {
      ...{ kind: KIND_START, outcome: OUTCOME_NONE, attempt: 1, row: 0, key: 0, sequence: 0 },
      ...{ monotonicMs: 0, wallMs: 0, batch: 1, stream: 0, partition: 0, token: Number.NaN },
      ...record,
    })
  }
  writeFileSync(join(own, `${name}.journal`), bytes.subarray(0, bytes.length - torn))
  return own
}

describe('journals', () => {
  test('records come back as they were written; a torn end is left out', () => {
    const own = journal('work-1', [{ row: 7, attempt: 2, monotonicMs: 1.5, token: 42 }, { row: 8 }], 5)
    const read = [...journalEntries(own)]
    expect(read).toHaveLength(1)
    expect(read[0]).toMatchObject({ row: 7, attempt: 2, monotonicMs: 1.5, token: 42, process: 'work-1' })
  })

  test('a call of the same attempt is a repetition, the next attempt is none', () => {
    const own = journal('work-1', [{ row: 1 }, { row: 1, attempt: 2 }, { row: 1 }, { row: 1, stream: 1 }])
    expect(sumHandlerCalls(own, 10, [], BASE_MS)).toMatchObject({ calls: 4, duplicates: 1 })
  })

  test('what a casualty held ran again when another process started it', () => {
    const token = `e${BASE_MS + 5}-3`
    const start = { token: tokenNumber(token, BASE_MS), row: 1 }
    const own = journal('work-2', [
      { ...start, monotonicMs: 90 },
      { ...start, monotonicMs: 1100 },
      { ...start, monotonicMs: 1500 },
    ])
    const place = { stream: 'steps', partition: 0 }
    const held = [
      { place, token },
      { place, token: `e${BASE_MS + 5}-4` },
    ]
    const casualty = { process: 'work-1', consumers: new Set(['w1']), atMs: 100, held }
    expect(sumHandlerCalls(own, 10, [casualty], BASE_MS)).toMatchObject({
      recoveriesMs: [1000],
      unrecovered: 1,
    })
  })

  test('a token tells when its entry was appended', () => {
    expect(tokenTimeMs(tokenNumber(`e${BASE_MS + 77}-9`, BASE_MS), BASE_MS)).toBe(BASE_MS + 77)
    expect(tokenNumber('x12', BASE_MS)).toBeNaN()
  })
})

describe('order', () => {
  const workload = new Workload({ rows: 2, keys: 1, bodyRows: 2, typeOf: () => 'step' })
  const ledger = new Ledger(join(folder, 'ledger'), 2, BASE_MS)
  // Row 1 arrived before row 0.
  ledger.accept([0, 1], [`turns.0.e${BASE_MS}-2`, `turns.0.e${BASE_MS}-1`])
  const run = (row: number, startMs: number, endMs: number): Partial<JournalRecord>[] => [
    { row, monotonicMs: startMs },
    { row, kind: KIND_END, outcome: OUTCOME_DONE, monotonicMs: endMs },
  ]

  test.each([
    { what: 'one after the other', runs: [...run(1, 0, 10), ...run(0, 10, 20)], violations: 0 },
    {
      what: 'the later one before the end of the earlier',
      runs: [...run(1, 0, 10), ...run(0, 9, 20)],
      violations: 1,
    },
    {
      what: 'in the order of rows, not of arrival',
      runs: [...run(0, 0, 10), ...run(1, 10, 20)],
      violations: 1,
    },
    {
      what: 'the earlier one once more in between',
      runs: [...run(1, 0, 10), ...run(1, 11, 12), ...run(0, 12, 20)],
      violations: 0,
    },
    {
      what: 'the earlier one once more afterwards',
      runs: [...run(1, 0, 10), ...run(0, 12, 20), ...run(1, 30, 40)],
      violations: 1,
    },
    {
      what: 'the earlier one without an end',
      runs: [{ row: 1, monotonicMs: 0 }, ...run(0, 12, 20)],
      violations: 1,
    },
  ])('$what: $violations violations', ({ runs, violations }) => {
    expect(checkOrder(journal('work-1', runs), ledger, workload)).toMatchObject({ violations, pairs: 1 })
  })
})

test('a command that ended as a dead letter holds up nobody', () => {
  const workload = new Workload({ rows: 2, keys: 1, bodyRows: 2, typeOf: () => 'step' })
  const ledger = new Ledger(join(folder, 'ledger-of-the-dead'), 2, BASE_MS)
  ledger.accept([0, 1], [`turns.0.e${BASE_MS}-1`, `turns.0.e${BASE_MS}-2`])
  const own = journal('work-1', [{ row: 1, monotonicMs: 5 }])
  expect(checkOrder(own, ledger, workload)).toMatchObject({ violations: 1, pairs: 1 })
  expect(checkOrder(own, ledger, workload, new Set([0]))).toMatchObject({ violations: 0, pairs: 0 })
})

describe('the proxy tells requests apart', () => {
  const frame = (words: readonly string[]): Buffer =>
    Buffer.from(
      `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join('')}`,
    )

  test('wherever the bytes are cut', () => {
    const word = fc.string({ unit: 'binary', maxLength: 12 })
    const requests = fc.array(fc.array(word, { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 6 })
    fc.assert(
      fc.property(requests, fc.array(fc.nat(), { maxLength: 8 }), (given, cuts) => {
        const bytes = Buffer.concat(given.map(frame))
        const places = [0, ...cuts.map((cut) => cut % bytes.length), bytes.length].sort((a, b) => a - b)
        const scanner = new FrameScanner()
        const found: (readonly string[])[] = []
        for (let i = 1; i < places.length; i++) {
          for (const { complete, words } of scanner.scan(bytes.subarray(places[i - 1], places[i]))) {
            if (complete) found.push(words)
          }
        }
        const expected = given.map((words) =>
          words.slice(0, 3).map((each) => Buffer.from(each).toString('latin1')),
        )
        expect(found).toEqual(expected)
      }),
    )
  })

  test('replies of every shape end where they end', () => {
    const replies = [
      '+OK\r\n',
      '-ERR no\r\n',
      ':12\r\n',
      '$-1\r\n',
      '$5\r\na\r\nbc\r\n',
      '*-1\r\n',
      '*0\r\n',
      '*2\r\n*1\r\n:1\r\n$0\r\n\r\n',
    ]
    const frames = new FrameScanner().scan(Buffer.from(replies.join('')))
    expect(frames.map(({ start, end }) => end - start)).toEqual(replies.map((reply) => reply.length))
    expect(frames.every(({ complete }) => complete)).toBe(true)
  })

  test('scripts are known by digest and by text', () => {
    expect(requestName(['EVALSHA', SCRIPTS.settle.digest])).toBe('settle')
    const text = Buffer.from(SCRIPTS['commit-views'].source).toString('latin1')
    expect(requestName(['EVAL', text])).toBe('commit-views')
    expect(requestName(['XREADGROUP', 'GROUP'])).toBe('xreadgroup')
  })
})

describe('the plan of faults', () => {
  const counts = { workerKills: 20, pauses: 5, redisKills: 2 }

  test('is the same for the same seed, and another for another', () => {
    const plan = (seed: number) => planStrikes(new Random(seed).fork('kills'), counts, 60)
    expect(plan(7)).toEqual(plan(7))
    expect(plan(7)).not.toEqual(plan(8))
    expect(plan(7)).toHaveLength(27)
    expect(plan(7).every(({ atMs }) => atMs >= 0 && atMs < 60_000)).toBe(true)
  })

  test('scales with the seconds, and never to nothing', () => {
    const full = { commands: 1_000_000, seconds: 100, workerKills: 100, pauses: 4, redisKills: 0, rounds: 20 }
    expect(scaled(full, { commands: undefined, seconds: 10 })).toEqual({
      ...{
        full: false,
        commands: 100_000,
        seconds: 10,
        workerKills: 10,
        pauses: 1,
        redisKills: 0,
        rounds: 2,
      },
    })
    expect(scaled(full, { commands: 5000, seconds: undefined })).toEqual({
      ...full,
      full: true,
      commands: 5000,
    })
  })
})

test('a spread is taken from sorted values', () => {
  expect(spreadOf([5, 1, 3])).toEqual({ p50: 3, p99: 5, max: 5 })
  expect(spreadOf([])).toBeUndefined()
})

test('a misspelt scenario or option is told what was meant', () => {
  expect(() => parseOptions(['--scenario', 'kils'])).toThrow('Did you mean "kills"?')
  expect(() => parseOptions(['--secnods', '3'])).toThrow('--seconds')
})
