/** The page about problems holds every problem as the code has it. */
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { PROBLEM_KINDS, type ProblemName, problemType } from '../src/http/problem.ts'
import { root } from './source-files.ts'

const page = await Bun.file(join(root, 'docs/problems.md')).text()
const names = Object.keys(PROBLEM_KINDS) as ProblemName[]

test('docs/problems.md tells status, title and meaning of each problem, and of no other', () => {
  expect(names.length).toBeGreaterThan(15)
  for (const name of names) {
    const { status, title, meaning } = PROBLEM_KINDS[name]
    expect(page).toContain(`| [${name}](#${name}) | ${status} | ${title} |`)
    expect(page).toContain(`## ${name}\n\n\`${problemType(name)}\`, ${status}. ${meaning}`)
  }
  expect([...page.matchAll(/^## (.+)$/gm)].map(([, name]) => name)).toEqual(names)
})
