/** What docs/guarantees.md names as guards is there: tests, fault scenarios, mutants. */
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { SCENARIOS } from '../scripts/faults/catalogue.ts'
import { MUTANTS } from '../scripts/mutants/catalogue.ts'
import { filesMatching, root } from './source-files.ts'

const text = await Bun.file(join(root, 'docs/guarantees.md')).text()
const promises = text.split(/^## /m).slice(1)

function named(pattern: RegExp): string[] {
  return [...new Set(text.matchAll(pattern).map(([, name = '']) => name))]
}

test('every guarantee names its guards', () => {
  const numbered = promises.filter((each) => /^\d+\. /.test(each))
  expect(numbered.length).toBe(15)
  expect(
    numbered.filter((each) => !each.includes('**Guards**')).map((each) => each.split('\n', 1)[0]),
  ).toEqual([])
})

test('test files, scenarios and mutants that it names exist', () => {
  const tests = named(/`(test\/[^`]+)`/g)
  expect(tests.length).toBeGreaterThan(10)
  expect(tests.filter((path) => filesMatching(path).length === 0)).toEqual([])
  const scenarios = named(/`faults ([a-z-]+)`/g)
  expect(scenarios.length).toBeGreaterThan(10)
  expect(scenarios.filter((name) => !SCENARIOS.some((known) => known.name === name))).toEqual([])
  const mutants = named(/mutant\s+`([a-z-]+)`/g)
  expect(mutants.length).toBeGreaterThan(10)
  expect(mutants.filter((name) => !MUTANTS.some((known) => known.name === name))).toEqual([])
})
