/** What `app/sales` leaves in Redis, and whether it is right: a rate of wrong sums is worth nothing. */
import type { Redis } from 'ioredis'
import { unpack } from 'msgpackr'
import { RunError } from '../fleet/failure.ts'
import { customersAmong } from './payload.ts'

export const SALES = { app: 'sales', type: 'sale.add', stream: 'sales', partitions: 1 } as const
export const COMMANDS = 'mr:{sales.0}:c'
export const EVENTS = 'mr:{sales.0}:e'
export const READERS = 'mr:{sales.0}:readers'
export const READER = 'customers@1'
/** Customers that the payload draws from. */
export const CUSTOMERS = 10_000

const VIEWS = `mr:{sales.0}:v:${READER}`

/** How many events each view holds. */
export async function viewCounts(client: Redis): Promise<number[]> {
  const views = await client.hvalsBuffer(VIEWS)
  return views.map((blob) => (unpack(blob) as { count: number }).count)
}

/**
 * Every event counted once, in a view for each customer among the first `lines` order lines.
 *
 * @throws RunError `failed`
 */
export function checkCounts(events: number, lines: number, counts: readonly number[]): void {
  const sum = counts.reduce((all, count) => all + count, 0)
  const views = customersAmong(lines, CUSTOMERS)
  if (sum === events && counts.length === views) return
  throw new RunError('failed', `${events} events are ${sum}, in ${counts.length} views instead of ${views}.`)
}
