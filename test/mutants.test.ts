/** Mutants fit the code, their guards are there, and a trial tells what is proved from what is not. Breaks nothing itself. */
import { describe, expect, test } from 'bun:test'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parseSync } from 'oxc-parser'
import { MUTANTS } from '../scripts/mutants/catalogue.ts'
import { type Mutant, mutate } from '../scripts/mutants/mutant.ts'
import { readReport } from '../scripts/mutants/test-report.ts'
import type { TestRun } from '../scripts/mutants/test-runner.ts'
import { Trial } from '../scripts/mutants/trial.ts'
import { root } from './source-files.ts'

const read = (file: string): Promise<string> => Bun.file(join(root, file)).text()

describe('the mutants', () => {
  test('each has a name of its own, a sentence, a promise, an edit and a guard', () => {
    expect(MUTANTS.length).toBeGreaterThan(10)
    expect(new Set(MUTANTS.map(({ name }) => name)).size).toBe(MUTANTS.length)
    for (const { name, breaks, promise, edits, guards, tries } of MUTANTS) {
      expect(name).toMatch(/^[a-z]+(-[a-z]+)+$/)
      expect(breaks).toMatch(/^[A-Z].+\.$/)
      expect(promise).toMatch(/^P([1-9]|1[0-5])$/)
      expect(edits.length).toBeGreaterThan(0)
      expect(guards.length).toBeGreaterThan(0)
      if (tries !== undefined) expect(tries.because).not.toBe('')
    }
  })

  test('every search text is in its file exactly once, and what comes out is still TypeScript', async () => {
    const complaints: string[] = []
    for (const mutant of MUTANTS) {
      const change = await mutate(mutant, read)
      if ('stale' in change) {
        complaints.push(`${mutant.name}: ${change.stale}; let it break the mechanism where that is now`)
        continue
      }
      for (const [file, text] of change.texts) {
        if (!file.endsWith('.ts')) continue
        const { errors } = parseSync(file, text)
        if (errors.length > 0)
          complaints.push(`${mutant.name}: ${file} does not parse: ${errors[0]?.message}`)
      }
    }
    expect(complaints).toEqual([])
  })

  test('every guard is a test that is there', async () => {
    const complaints: string[] = []
    for (const { name, guards } of MUTANTS) {
      for (const { file, test: title } of guards) {
        const text = existsSync(join(root, file)) ? await read(file) : ''
        const quoted = [`'${title}'`, `"${title}"`, `\`${title}\``]
        if (!quoted.some((each) => text.includes(`test(${each}`))) {
          complaints.push(`${name}: there is no test "${title}" in ${file}`)
        }
      }
    }
    expect(complaints).toEqual([])
  })
})

const TEXTS = new Map([
  ['a.ts', 'const a = 1\nconst b = 1\n'],
  ['b.ts', 'const c = $1\n'],
])
const textOf = async (file: string): Promise<string> => {
  const text = TEXTS.get(file)
  if (text === undefined) throw new Error(`no ${file}`)
  return text
}
const guard = (name: string) => ({ file: 'test/a.test.ts', test: name })
const MUTANT: Mutant = {
  name: 'a-mutant',
  breaks: 'It breaks.',
  promise: 'P1',
  edits: [{ file: 'a.ts', search: 'const a = 1', replacement: 'const a = 2' }],
  guards: [guard('first'), guard('second')],
}

describe('an edit', () => {
  const outcome = (search: string, replacement: string, file = 'a.ts') =>
    mutate({ ...MUTANT, edits: [{ file, search, replacement }] }, textOf)

  test('is stale when its text is not there once, or when it changes nothing', async () => {
    expect(await outcome('const z', '')).toEqual({ stale: 'a.ts: the search text is not there any more' })
    expect(await outcome('= 1', '')).toEqual({ stale: 'a.ts: the search text is there 2 times' })
    expect(await outcome('const a', 'const a')).toEqual({ stale: 'a.ts: the replacement changes nothing' })
    expect(await outcome('const a', '', 'gone.ts')).toEqual({
      stale: 'gone.ts: the search text is not there any more',
    })
  })

  test('puts its replacement in as it is, and builds on the one before it', async () => {
    expect(await outcome('$1', '$& $1', 'b.ts')).toEqual({ texts: new Map([['b.ts', 'const c = $& $1\n']]) })
    const [first] = MUTANT.edits
    if (first === undefined) throw new Error('no edit')
    const second = { file: 'a.ts', search: 'a = 2', replacement: 'a = 3' }
    expect(await mutate({ ...MUTANT, edits: [first, second] }, textOf)).toEqual({
      texts: new Map([['a.ts', 'const a = 3\nconst b = 1\n']]),
    })
  })
})

describe('a report', () => {
  const cases = `
    <testcase name="passes &quot;well&quot;" classname="group" time="0.1" assertions="0" />
    <testcase name="left out" classname="" time="0"><skipped /></testcase>
    <testcase name="asserts" classname="" time="0">
      <failure type="AssertionError" message="expect(received).toBe(expected)&#10;&#10;Expected: 2&#10;Received: 1">x</failure>
    </testcase>
    <testcase name="is late" classname=""><failure type="TimeoutError" message="test timed out" /></testcase>
    <testcase name="waits"><failure type="Error" message="waited 20 ms in vain for rain" /></testcase>
    <testcase name="listens"><failure type="Error" message="no batch.settled as expected within 9 ms" /></testcase>
    <testcase name="breaks"><failure type="TypeError" message="x is not a function" /></testcase>`

  test('tells who passed, and which failures were meant', () => {
    const { passed, failed } = readReport(cases)
    expect(passed).toEqual(['passes "well"'])
    expect(failed.map(({ test: name, meant }) => [name, meant])).toEqual([
      ['asserts', true],
      ['is late', true],
      ['waits', true],
      ['listens', true],
      ['breaks', false],
    ])
    expect(failed[0]?.said).toBe('expect(received).toBe(expected) · Expected: 2 · Received: 1')
    expect(failed.at(-1)?.said).toBe('TypeError: x is not a function')
  })
})

describe('a trial', () => {
  /** Answers runs in order; remembers what was planted and mended. */
  function trial(...runs: Partial<TestRun>[]) {
    const log: string[] = []
    const ground = {
      read: textOf,
      change: async (texts: ReadonlyMap<string, string>) => void log.push(`change ${[...texts.keys()]}`),
      mend: async () => void log.push('mend'),
    }
    const runner = {
      run: async (_file: string, tests: readonly string[]) => {
        log.push(`run ${tests}`)
        return { passed: tests, failed: [], exitCode: 0, tail: '', ...runs.shift() }
      },
    }
    return { log, trial: new Trial(ground, runner) }
  }
  const red = (meant: boolean): Partial<TestRun> => ({
    passed: [],
    failed: [{ test: 'x', said: 'no', meant }],
    exitCode: 1,
  })

  test('stops at the first guard that turns red, and mends', async () => {
    const { log, trial: own } = trial(red(true))
    expect(await own.judge(MUTANT)).toMatchObject({ verdict: 'killed', guard: guard('first'), tries: 1 })
    expect(log).toEqual(['change a.ts', 'run first', 'mend'])
  })

  test('a mutant that every guard lets pass has survived, after all its tries', async () => {
    const { log, trial: own } = trial()
    const lucky = { ...MUTANT, tries: { max: 2, because: 'a race' } }
    expect(await own.judge(lucky)).toMatchObject({ verdict: 'survived', guard: undefined, tries: 2 })
    expect(log).toEqual(['change a.ts', ...['run first', 'run second', 'run first', 'run second'], 'mend'])
  })

  test('a failure that no test meant, and a run that fails without one, prove nothing', async () => {
    expect((await trial(red(false)).trial.judge(MUTANT)).verdict).toBe('crashed')
    expect((await trial({ passed: [], exitCode: 1 }).trial.judge(MUTANT)).verdict).toBe('crashed')
    expect((await trial({ passed: [] }).trial.judge(MUTANT)).verdict).toBe('crashed')
  })

  test('a script that Redis does not take is found before any guard', async () => {
    const edits = [{ file: 'b.ts', search: '$1', replacement: '2' }]
    const script = { ...MUTANT, edits: edits.map((edit) => ({ ...edit, file: 'b.lua' })) }
    TEXTS.set('b.lua', '$1')
    const { log, trial: own } = trial({ exitCode: 1, passed: [] })
    expect((await own.judge(script)).verdict).toBe('crashed')
    expect(log).toHaveLength(3)
  })

  test('a stale mutant changes nothing', async () => {
    const { log, trial: own } = trial()
    const stale = { ...MUTANT, edits: [{ file: 'a.ts', search: 'z', replacement: '' }] }
    expect((await own.judge(stale)).verdict).toBe('stale')
    expect(log).toEqual(['mend'])
  })

  test('guards must be there and green before anything is broken; red once may be chance', async () => {
    const some = (...names: string[]): Partial<TestRun> => ({ passed: names })
    expect(await trial().trial.baseline([MUTANT])).toEqual([])
    expect(await trial({}, red(true)).trial.baseline([MUTANT])).toEqual([])
    const [complaint] = await trial({}, red(true), red(true)).trial.baseline([MUTANT])
    expect(complaint).toContain('red already')
    const [missing] = await trial({}, some('first'), some('first')).trial.baseline([MUTANT])
    expect(missing).toBe('test/a.test.ts: there is no test "second"')
  })
})
