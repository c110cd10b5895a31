/**
 * Views that the harness can compute by itself from the events: counts and sums of rows, by key and across partitions.
 */
import { defineProjection, type ProjectionDefinition } from 'millrace'
import { echoDone, echoes, stepDone, steps } from './steps.ts'

export interface Sums {
  count: number
  rows: number
}

export const nothing = (): Sums => ({ count: 0, rows: 0 })

export function add(view: Sums, n: number): Sums {
  view.count += 1
  view.rows += n
  return view
}

/** By key: all events of a key stand in one partition. */
export const stepKeys: ProjectionDefinition<Sums> = defineProjection<Sums>({
  name: 'step-keys',
  stream: steps,
  initial: nothing,
}).on(
  stepDone,
  ({ payload }) => `key-${payload.k}`,
  (view, { payload }) => add(view, payload.n),
)

/** By the last hexadecimal digit of the row: parts come from every partition. */
export const stepDigits: ProjectionDefinition<Sums> = defineProjection<Sums>({
  name: 'step-digits',
  stream: steps,
  initial: nothing,
  merge: (a, b) => ({ count: a.count + b.count, rows: a.rows + b.rows }),
}).on(
  stepDone,
  ({ payload }) => `digit-${payload.n % 16}`,
  (view, { payload }) => add(view, payload.n),
)

export const echoKeys: ProjectionDefinition<Sums> = defineProjection<Sums>({
  name: 'echo-keys',
  stream: echoes,
  initial: nothing,
}).on(
  echoDone,
  ({ payload }) => `key-${payload.k}`,
  (view, { payload }) => add(view, payload.n),
)
