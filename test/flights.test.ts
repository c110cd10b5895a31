/**
 * The flight views against the reference of the replay, without Redis: whatever the order of the events and wherever the
 * partitions are cut, the sums must come out to the last digit.
 */
import { expect, test } from 'bun:test'
import { recordTables } from '../scripts/replay/records.ts'
import { expectedViews } from '../scripts/replay/reference.ts'
import { validatePayloadNow } from '../src/contracts/schema.ts'
import type { ProjectionDefinition, RecordedEvent } from '../src/index.ts'
import { partitionOf } from '../src/policies/partition.ts'
import { packPayload, unpackPayload } from '../src/redis/payload-codec.ts'
import { flightRecorded, recordFlight } from '../workers/flights/recording.ts'
import { flightAirports, flightDays, flightRoutes } from '../workers/flights/views.ts'

const ROWS = 20_000
const PARTITIONS = 2

type Flight = { origin: string }
type AnyProjection = ProjectionDefinition<never>

const flights: Flight[] = []
for await (const table of recordTables(ROWS)) {
  for (let row = table.firstRow; row < table.firstRow + table.count; row++) {
    flights.push(validatePayloadNow('flight.record', recordFlight.payload, JSON.parse(table.payload(row))))
  }
}
const expected = await expectedViews(ROWS)

/** Numbers of a small linear congruential generator: the same shuffle in every run. */
function shuffled<Value>(values: readonly Value[], seed: number): Value[] {
  const out = [...values]
  let state = seed
  for (let i = out.length - 1; i > 0; i--) {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    const j = state % (i + 1)
    ;[out[i], out[j]] = [out[j] as Value, out[i] as Value]
  }
  return out
}

/** Folds as a projector does, per partition, with a pass through msgpack now and then. */
function foldAll(definition: AnyProjection, events: readonly Flight[]): Map<string, unknown> {
  const projection = definition as unknown as ProjectionDefinition<unknown>
  const fold = projection.folds.get(flightRecorded.type)
  if (fold === undefined) throw new Error('it folds nothing')
  const parts = Array.from({ length: PARTITIONS }, () => new Map<string, unknown>())
  events.forEach((payload, index) => {
    const event = { payload } as RecordedEvent<Flight>
    const part = parts[partitionOf(payload.origin, PARTITIONS)]
    for (const key of [fold.keys(event)].flat()) {
      if (key === undefined || part === undefined) throw new Error('no key')
      const before = part.get(key) ?? projection.initial(key)
      const after = fold.fold(before, event)
      part.set(key, index % 7 === 0 ? unpackPayload(packPayload(after)) : after)
    }
  })
  const merged = new Map<string, unknown>()
  for (const part of parts) {
    for (const [key, view] of part) {
      const other = merged.get(key)
      if (other !== undefined && projection.merge === undefined)
        throw new Error(`${key} is in two partitions`)
      merged.set(key, other === undefined ? view : projection.merge?.(other, view))
    }
  }
  return merged
}

test.each([
  ['flight-airports', flightAirports],
  ['flight-routes', flightRoutes],
  ['flight-days', flightDays],
] as const)('%s equals the reference in any order of events', (name, projection) => {
  const wanted = expected.get(name)
  expect(wanted?.size).toBeGreaterThan(1)
  for (const seed of [1, 2, 3]) {
    const views = foldAll(projection as unknown as AnyProjection, shuffled(flights, seed))
    expect(views.size).toBe(wanted?.size ?? 0)
    for (const [key, view] of wanted ?? []) expect(views.get(key)).toEqual(view)
  }
})

test('a route belongs to the partition of its origin', () => {
  expect(flightRoutes.partitionKey?.('SEA-PDX')).toBe('SEA')
})

test('a record with a field that is no flight is refused at the door', () => {
  const good = { date: '2001-01-31T17:05', delay: -3, distance: 129, origin: 'SEA', destination: 'PDX' }
  const parse = (payload: unknown) => validatePayloadNow('flight.record', recordFlight.payload, payload)
  expect(parse(good)).toEqual(good)
  for (const bad of [
    { date: '2001-01-31' },
    { delay: 0.5 },
    { distance: -1 },
    { origin: 'sea' },
    { destination: '' },
  ]) {
    expect(() => parse({ ...good, ...bad })).toThrow()
  }
})
