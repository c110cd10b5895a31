/** What a process holds of a partition: each entry enters once, also while the own pending list is being read. */
import { expect, test } from 'bun:test'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { InFlight, inFlightKey } from '../src/runtime/in-flight.ts'

test('an entry enters once, and again after it has left', () => {
  const table = new InFlight(SYSTEM_CLOCK, 10, 1_000_000)
  expect(table.enter('1-0', 100)).toBe(true)
  expect(table.enter('1-0', 100)).toBe(false)
  expect(table.count).toBe(1)
  table.leave('1-0')
  expect(table.enter('1-0', 100)).toBe(true)
})

test('what leaves while the pending list is being read does not come back by that reading', () => {
  const table = new InFlight(SYSTEM_CLOCK, 10, 1_000_000)
  table.enter('1-0', 100)
  table.rereadStarted()
  // It was pending when the list was read, and is settled before the list is looked at.
  table.leave('1-0')
  expect(table.has('1-0')).toBe(true)
  expect(table.enter('1-0', 100)).toBe(false)
  table.rereadEnded()
  expect(table.has('1-0')).toBe(false)
  expect(table.enter('1-0', 100)).toBe(true)
})

test('the same entry id in both streams is two entries', () => {
  const table = new InFlight(SYSTEM_CLOCK, 10, 1_000_000)
  expect(table.enter(inFlightKey('commands', '1-0'), 1)).toBe(true)
  expect(table.enter(inFlightKey('ready', '1-0'), 1)).toBe(true)
  expect([...table.keys()]).toEqual(['1-0', 'r1-0'])
})
