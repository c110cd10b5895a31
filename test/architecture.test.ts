/**
 * Imports look down. Each top-level folder of src/ is a room on a floor; a file imports its own floor or a lower one, and
 * between rooms of one floor only what is listed here. Type imports count.
 */
import { expect, test } from 'bun:test'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parseSources, root, type SourceFile } from './source-files.ts'

/** From the ground up. */
const floors = [
  ['contracts'],
  ['policies'],
  ['redis'],
  ['runtime'],
  ['commands', 'dead-letters', 'cron', 'projections', 'aggregates', 'leases', 'identity', 'limits', 'tails'],
  ['config', 'http', 'host', 'cli', 'client', 'index.ts', 'testing.ts', 'client.ts'],
]

/** Rooms that may look into others of the same floor. Everything not listed here may not. */
const neighbours: Record<string, readonly string[]> = {
  http: ['config'],
  host: ['config', 'http', 'client'],
  cli: ['config', 'http', 'host'],
  'index.ts': ['config', 'http', 'host', 'client'],
  'testing.ts': ['config', 'index.ts'],
  'client.ts': ['client'],
}

/** Rooms that run anywhere: beside their own files they import types of the contracts, and nothing else at all. */
const portable = new Set(['client', 'client.ts'])

/** Packages that only one room may touch. */
const doors: Record<string, string> = { ioredis: 'redis', hono: 'http', '@hono': 'http' }

const sources = await parseSources('src/**/*.ts')
const outside = await parseSources('{workers,scripts}/**/*.ts')

const roomOf = (path: string): string => path.split('/')[1] ?? ''
const floorOf = (room: string): number => floors.findIndex((rooms) => rooms.includes(room))
const packageOf = (specifier: string): string => specifier.split('/')[0] ?? ''

function complaintsAbout(file: SourceFile): string[] {
  const room = roomOf(file.path)
  if (floorOf(room) < 0)
    return [`${file.path}: src/${room} is on no floor; put it in a room, or name the room in this test`]
  return file.imports.flatMap(({ specifier, target }) => {
    const line = `${file.path} imports ${specifier}`
    if (target === undefined) {
      if (packageOf(specifier) === 'millrace') return [`${line}: src/ does not use its own front door`]
      const door = doors[packageOf(specifier)]
      return door !== undefined && door !== room ? [`${line}: only src/${door} may`] : []
    }
    if (target === 'package.json') return []
    if (!target.startsWith('src/')) return [`${line}: src/ imports nothing outside src/`]
    const [from, to] = [floorOf(room), floorOf(roomOf(target))]
    if (to < 0) return [`${line}: src/${roomOf(target)} is on no floor`]
    if (to > from) return [`${line}: ${roomOf(target)} is on a higher floor`]
    const allowed = to < from || room === roomOf(target) || neighbours[room]?.includes(roomOf(target))
    return allowed
      ? []
      : [`${line}: ${room} and ${roomOf(target)} are siblings; move what they share one floor down`]
  })
}

/** Every import cycle once, as the path that closes it. */
function cycles(files: readonly SourceFile[]): string[] {
  const graph = new Map(files.map((file) => [file.path, file.imports.flatMap(({ target }) => target ?? [])]))
  const found: string[] = []
  const done = new Set<string>()
  const visit = (path: string, trail: readonly string[]): void => {
    const seen = trail.indexOf(path)
    if (seen >= 0) found.push([...trail.slice(seen), path].join(' → '))
    if (seen >= 0 || done.has(path)) return
    for (const next of graph.get(path) ?? []) visit(next, [...trail, path])
    done.add(path)
  }
  for (const path of graph.keys()) visit(path, [])
  return found
}

test('there are sources to judge, and their relative imports are read', () => {
  expect(sources.length).toBeGreaterThan(0)
  const targets = sources.flatMap((file) => file.imports.flatMap(({ target }) => target ?? []))
  expect(targets.length).toBeGreaterThan(0)
  expect(targets.filter((target) => !existsSync(join(root, target)))).toEqual([])
})

test('src imports its own floor or a lower one, and libraries through their one door', () => {
  expect(sources.flatMap(complaintsAbout)).toEqual([])
})

test('the client takes types from the contracts, and nothing else from anywhere', () => {
  const files = sources.filter(({ path }) => portable.has(roomOf(path)))
  expect(files.length).toBeGreaterThan(5)
  const values = /^(?:import|export)\s+(?!type\b)[^'"]*?from\s+['"]([^'"]+)['"]/gm
  const complaints = files.flatMap((file) => {
    const targets = file.imports.map(({ specifier, target }) => ({ specifier, room: roomOf(target ?? '') }))
    const strange = targets.filter(({ room }) => !portable.has(room) && room !== 'contracts')
    const named = [...file.text.matchAll(values)].map(([, specifier = '']) => specifier)
    const carried = targets.filter(({ specifier, room }) => room === 'contracts' && named.includes(specifier))
    return [
      ...strange.map(({ specifier }) => `${file.path} imports ${specifier}`),
      ...carried.map(({ specifier }) => `${file.path} imports ${specifier}: say \`import type\``),
    ]
  })
  expect(complaints).toEqual([])
})

test('nothing imports itself in a circle, types included', () => {
  expect(cycles([...sources, ...outside])).toEqual([])
})

test('workers and scripts use the public entries only', () => {
  const complaints = outside.flatMap((file) =>
    file.imports.flatMap(({ specifier, target }) => {
      const line = `${file.path} imports ${specifier}`
      if (target?.startsWith('src/')) return [`${line}: import 'millrace' or 'millrace/testing' instead`]
      const behindDoor = file.path.startsWith('workers/') && doors[packageOf(specifier)] !== undefined
      return behindDoor ? [`${line}: a worker reaches Redis and HTTP through 'millrace'`] : []
    }),
  )
  expect(complaints).toEqual([])
})
