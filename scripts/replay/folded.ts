/** How many records each projection of the flights has folded: what the counts of its views add up to. */
import type { ViewReader } from '../fleet/view-check.ts'

const PROJECTIONS = ['flight-airports', 'flight-routes', 'flight-days'] as const

/** Records that a projection has folded so far. */
export async function folded(reader: ViewReader, projection: string): Promise<number> {
  let sum = 0
  for await (const [, view] of reader.views(projection)) sum += Number(view['flights'])
  return sum
}

/** Of the projection that is furthest behind. */
export async function foldedByAll(reader: ViewReader): Promise<number> {
  return Math.min(...(await Promise.all(PROJECTIONS.map((projection) => folded(reader, projection)))))
}
