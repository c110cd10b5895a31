/** docs/http.md is what the tables of routes make of it, and its links lead somewhere. */
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { PROBLEM_KINDS } from '../src/http/problem.ts'
import { root } from './source-files.ts'
import { httpDocs, PAGE_PATH } from './support/http-docs.ts'

const page = await Bun.file(PAGE_PATH).text()

/** Of every heading, as GitHub makes it. */
const anchors = [...page.matchAll(/^#+ (.+)$/gm)].map(([, title = '']) =>
  title
    .toLowerCase()
    .replace(/[^\w\- ]/g, '')
    .replaceAll(' ', '-'),
)

test('docs/http.md is up to date; `bun run docs` makes it so', async () => {
  expect(page).toBe(await httpDocs())
})

test('its links lead to headings, problems and pages that are there', async () => {
  const links = [...page.matchAll(/\]\(([^)]+)\)/g)].map(([, link = '']) => link)
  expect(links.length).toBeGreaterThan(100)
  const broken: string[] = []
  for (const link of new Set(links)) {
    const [file = '', anchor = ''] = link.split('#')
    const isThere =
      file === ''
        ? anchors.includes(anchor)
        : (await Bun.file(join(root, 'docs', file)).exists()) &&
          (anchor === '' || Object.hasOwn(PROBLEM_KINDS, anchor))
    if (!isThere) broken.push(link)
  }
  expect(broken).toEqual([])
})

test('no two headings that are linked to share a name', () => {
  const linked = new Set([...page.matchAll(/\]\(#([^)]+)\)/g)].map(([, anchor]) => anchor))
  const twice = anchors.filter((anchor, index) => anchors.indexOf(anchor) !== index)
  expect(twice.filter((anchor) => linked.has(anchor))).toEqual([])
})
