/** The comparison of a replay finds what differs: a check that can't fail proves nothing. */
import { afterAll, expect, test } from 'bun:test'
import { compareViews, type ExpectedViews, ViewReader } from '../scripts/fleet/view-check.ts'
import { foldedByAll } from '../scripts/replay/folded.ts'

type Stored = { key: string; value: { flights: number; hours?: number[] } }

/** Serves one view a page, as the API does. */
let stored: Record<string, Stored[]> = {}
let refusals = 0
const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch: (request) => {
    if (refusals > 0) {
      refusals -= 1
      return new Response('{}', { status: 503 })
    }
    const url = new URL(request.url)
    const all = stored[url.pathname.replace('/v1/views/', '')] ?? []
    const at = Number(url.searchParams.get('cursor') ?? 0)
    const next = at + 1 < all.length ? String(at + 1) : null
    return Response.json({ data: all.slice(at, at + 1), page: { next, prev: null } })
  },
})
afterAll(() => server.stop(true))

const reader = new ViewReader(server.url.href.replace(/\/$/, ''), new AbortController().signal)
const view = (key: string, flights: number): Stored => ({ key, value: { flights, hours: [1, 2] } })
const expected: ExpectedViews = new Map([
  ['flight-days', new Map([1, 2, 3].map((n) => [`day-${n}`, { flights: n, hours: [1, 2] }]))],
])

test('equal views are equal, over pages and refusals', async () => {
  stored = { 'flight-days': [view('day-1', 1), view('day-2', 2), view('day-3', 3)] }
  refusals = 2
  expect(await compareViews(reader, expected)).toEqual({ compared: 3, different: 0, differences: [] })
})

test.each([
  ['a missing view', [view('day-1', 1), view('day-2', 2)], 3, 'day-3 is missing'],
  [
    'a view too many',
    [view('day-1', 1), view('day-2', 2), view('day-3', 3), view('day-4', 4)],
    4,
    'day-4 should not',
  ],
  ['another number', [view('day-1', 1), view('day-2', 2), view('day-3', 4)], 3, 'day-3 is {"flights":4'],
  [
    'a field too many',
    [view('day-1', 1), view('day-2', 2), { key: 'day-3', value: { ...view('', 3).value, x: 1 } }],
    3,
    '"x":1',
  ],
  [
    'a field too few',
    [view('day-1', 1), view('day-2', 2), { key: 'day-3', value: { flights: 3 } }],
    3,
    'day-3 is',
  ],
  [
    'a view that comes twice',
    [view('day-1', 1), view('day-2', 2), view('day-3', 3), view('day-3', 3)],
    4,
    'day-3 should not',
  ],
] as const)('%s is found', async (_, views, compared, sentence) => {
  stored = { 'flight-days': [...views] }
  const comparison = await compareViews(reader, expected)
  expect(comparison).toMatchObject({ compared, different: 1 })
  expect(comparison.differences[0]).toContain(sentence)
})

test('what all projections have folded is what the slowest has', async () => {
  stored = {
    'flight-airports': [view('SEA', 5), view('PDX', 6)],
    'flight-routes': [view('SEA-PDX', 10)],
    'flight-days': [view('day-1', 11)],
  }
  expect(await foldedByAll(reader)).toBe(10)
})
