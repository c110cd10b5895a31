/** When a command is to be delivered, as a request says it: `delayMs`, or `deliverAt` as an RFC 3339 time. */

import type { Delivery } from '../commands/submission.ts'
import { MillraceError } from '../contracts/errors.ts'

const RFC_3339 = /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})$/

/** @throws MillraceError `command.invalid` when both are given or one is not what it should be */
export function parseDelivery(delayMs: unknown, deliverAt: unknown): Delivery | undefined {
  if (delayMs === undefined && deliverAt === undefined) return undefined
  if (delayMs !== undefined && deliverAt !== undefined)
    throw refused('Give "delayMs" or "deliverAt", not both.')
  if (delayMs !== undefined) {
    if (typeof delayMs === 'number' && Number.isInteger(delayMs) && delayMs >= 0) return { delayMs }
    throw refused('"delayMs" must be a whole number of milliseconds, 0 or more.')
  }
  const atMs = timeOf(deliverAt)
  if (atMs !== undefined) return { atMs }
  throw refused('"deliverAt" must be a time such as "2030-01-31T08:00:00Z" (RFC 3339).')
}

/** An RFC 3339 time as ms since 1970; undefined for anything else. */
export function timeOf(text: unknown): number | undefined {
  const atMs = typeof text === 'string' && RFC_3339.test(text) ? Date.parse(text) : Number.NaN
  return Number.isFinite(atMs) && atMs >= 0 ? atMs : undefined
}

/**
 * The same from query parameters.
 *
 * @throws MillraceError `command.malformed`
 */
export function parseDeliveryQuery(
  delayMs: string | undefined,
  deliverAt: string | undefined,
): Delivery | undefined {
  if (delayMs === undefined && deliverAt === undefined) return undefined
  const delay = delayMs !== undefined && /^\d{1,15}$/.test(delayMs) ? Number(delayMs) : delayMs
  try {
    return parseDelivery(delay, deliverAt)
  } catch (error) {
    throw new MillraceError(
      'command.malformed',
      error instanceof Error ? error.message : 'The query is wrong.',
    )
  }
}

function refused(sentence: string): MillraceError {
  return new MillraceError('command.invalid', sentence)
}
