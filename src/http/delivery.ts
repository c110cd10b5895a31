/**
 * When a command is to be delivered, and when it expires, as a request says it: `delayMs` and `expiresInMs`, or `deliverAt` and
 * `expiresAt` as RFC 3339 times.
 */

import type { Delivery, Expiry } from '../commands/submission.ts'
import { MillraceError } from '../contracts/errors.ts'

export const RFC_3339: RegExp = /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})$/

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

/** @throws MillraceError `command.invalid` when both are given or one is not what it should be */
export function parseExpiry(expiresInMs: unknown, expiresAt: unknown): Expiry | undefined {
  if (expiresInMs === undefined && expiresAt === undefined) return undefined
  if (expiresInMs !== undefined && expiresAt !== undefined)
    throw refused('Give "expiresInMs" or "expiresAt", not both.')
  if (expiresInMs !== undefined) {
    if (typeof expiresInMs === 'number' && Number.isInteger(expiresInMs) && expiresInMs >= 1)
      return { inMs: expiresInMs }
    throw refused('"expiresInMs" must be a whole number of milliseconds, 1 or more.')
  }
  const atMs = timeOf(expiresAt)
  if (atMs !== undefined) return { atMs }
  throw refused('"expiresAt" must be a time such as "2030-01-31T08:00:00Z" (RFC 3339).')
}

export const TIME_NAMES = ['delayMs', 'deliverAt', 'expiresInMs', 'expiresAt'] as const

export interface CommandTimes {
  readonly deliver: Delivery | undefined
  readonly expires: Expiry | undefined
}

/**
 * The same from query parameters.
 *
 * @throws MillraceError `command.malformed`
 */
export function parseTimesQuery(
  query: Readonly<Partial<Record<(typeof TIME_NAMES)[number], string | undefined>>>,
): CommandTimes {
  const { delayMs, deliverAt, expiresInMs, expiresAt } = query
  try {
    return {
      deliver: parseDelivery(numberOf(delayMs), deliverAt),
      expires: parseExpiry(numberOf(expiresInMs), expiresAt),
    }
  } catch (error) {
    throw new MillraceError(
      'command.malformed',
      error instanceof Error ? error.message : 'The query is wrong.',
    )
  }
}

function numberOf(text: string | undefined): string | number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : text
}

function refused(sentence: string): MillraceError {
  return new MillraceError('command.invalid', sentence)
}
