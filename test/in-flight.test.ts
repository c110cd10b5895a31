/** What a process holds of a partition: each entry enters once, also while the own pending list is being read. */
import { expect, test } from 'bun:test'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { HeldEntry, InFlight } from '../src/runtime/in-flight.ts'

type Source = HeldEntry['source']

function named(entryId: string, source: Source = 'commands'): { source: Source; entryId: string } {
  return { source, entryId }
}

function enter(table: InFlight, entryId: string, source: Source = 'commands'): HeldEntry {
  const entry = new HeldEntry({ ...named(entryId, source), token: `e${entryId}` }, 0, 100)
  table.enter(entry)
  return entry
}

function freshIds(table: InFlight, ids: readonly string[]): string[] {
  return table.fresh(ids.map((id) => named(id))).map(({ entryId }) => entryId)
}

function heldIds(table: InFlight): string[] {
  return table.entries().map(({ entryId }) => entryId)
}

test('an entry enters once, and again after it has left', () => {
  const table = new InFlight(SYSTEM_CLOCK, 10, 1_000_000)
  expect(freshIds(table, ['1-0'])).toEqual(['1-0'])
  const entry = enter(table, '1-0')
  expect(freshIds(table, ['1-0'])).toEqual([])
  expect(table.count).toBe(1)
  table.leave(entry)
  table.leave(entry)
  expect(table.count).toBe(0)
  expect(freshIds(table, ['1-0'])).toEqual(['1-0'])
})

test('what came before and is not held is fresh among what is, younger or older, and counts once', () => {
  const table = new InFlight(SYSTEM_CLOCK, 10, 1_000_000)
  for (const id of freshIds(table, ['5-0', '5-9', '5-10'])) enter(table, id)
  expect(freshIds(table, ['4-0', '5-9', '5-11', '4-0'])).toEqual(['4-0', '5-11'])
  // Looked at, but never taken: it is as fresh as before.
  expect(freshIds(table, ['5-11', '5-12'])).toEqual(['5-11', '5-12'])
})

test('whoever leaves, first, last or in between, leaves the others in their order', () => {
  const table = new InFlight(SYSTEM_CLOCK, 10, 1_000_000)
  const [a, b, c, d] = ['1-0', '2-0', '3-0', '4-0'].map((id) => enter(table, id)) as [
    HeldEntry,
    HeldEntry,
    HeldEntry,
    HeldEntry,
  ]
  table.leave(b)
  expect(heldIds(table)).toEqual(['1-0', '3-0', '4-0'])
  table.leave(a)
  table.leave(d)
  expect(heldIds(table)).toEqual(['3-0'])
  table.enter(d)
  table.leave(c)
  table.leave(d)
  expect(heldIds(table)).toEqual([])
  enter(table, '5-0')
  expect(heldIds(table)).toEqual(['5-0'])
})

test('what leaves while the pending list is being read does not come back by that reading', () => {
  const table = new InFlight(SYSTEM_CLOCK, 10, 1_000_000)
  for (const id of freshIds(table, ['1-0'])) enter(table, id)
  table.rereadStarted()
  // It was pending when the list was read, and is settled before the list is looked at.
  table.leave(table.entries()[0] as HeldEntry)
  expect(table.has(named('1-0'))).toBe(true)
  expect(freshIds(table, ['1-0'])).toEqual([])
  // So is what came in meanwhile.
  for (const id of freshIds(table, ['2-0'])) table.leave(enter(table, id))
  expect(freshIds(table, ['2-0'])).toEqual([])
  table.rereadEnded()
  expect(table.has(named('1-0'))).toBe(false)
  expect(freshIds(table, ['1-0'])).toEqual(['1-0'])
})

test('the same entry id in both streams is two entries', () => {
  const table = new InFlight(SYSTEM_CLOCK, 10, 1_000_000)
  for (const source of ['commands', 'ready'] as const) {
    expect(table.fresh([named('1-0', source)])).toHaveLength(1)
    enter(table, '1-0', source)
  }
  expect(table.entries().map(({ source }) => source)).toEqual(['commands', 'ready'])
  expect(table.fresh([named('1-0', 'ready')])).toEqual([])
})
