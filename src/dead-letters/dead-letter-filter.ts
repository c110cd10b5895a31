/** Which dead letters are meant: by stream, type, tenant, reason, error and time of death. */
import { createHash } from 'node:crypto'
import type { DeadReason } from '../contracts/dead-reason.ts'
import { MillraceError } from '../contracts/errors.ts'
import { nearest } from '../contracts/names.ts'
import type { Tenant } from '../contracts/tenant.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import { type PartitionKeys, partitionKeys } from '../redis/keys.ts'
import type { DeadLetterSummary } from './dead-letter.ts'
import { isFingerprint } from './error-fingerprint.ts'

/** What is left out does not matter; nothing at all means every dead letter. */
export interface DeadLetterFilter {
  readonly stream?: string | undefined
  /** Command type, exactly. */
  readonly type?: string | undefined
  readonly tenant?: Tenant | undefined
  readonly reason?: DeadReason | undefined
  /** A fingerprint, or a part of the last error as written. */
  readonly error?: string | undefined
  /** Dead at or after this, ms since 1970 by Redis's clock. */
  readonly fromMs?: number | undefined
  /** Dead before this, ms since 1970 by Redis's clock. */
  readonly toMs?: number | undefined
}

/**
 * The partitions that the filter leaves, in a fixed order.
 *
 * @throws MillraceError `not-found` for a stream that nobody declared
 */
export function placesOf(catalogue: Catalogue, { stream }: DeadLetterFilter): PartitionKeys[] {
  const names = stream === undefined ? [...catalogue.streams.keys()].sort() : [stream]
  return names.flatMap((name) => {
    const definition = catalogue.streams.get(name)
    if (definition === undefined) throw unknownStream(name, catalogue)
    const { partitions, ordering } = definition
    return Array.from({ length: partitions }, (_, partition) => partitionKeys(name, partition, ordering))
  })
}

function unknownStream(name: string, { streams }: Catalogue): MillraceError {
  const near = nearest(name.slice(0, 80), streams.keys())
  const hint = near === undefined ? '' : ` Did you mean "${near}"?`
  return new MillraceError('not-found', `There is no stream "${name.slice(0, 80)}".${hint}`)
}

/** First and last entry id, both included, as XRANGE takes them. An entry id begins with the time of death. */
export function rangeOf({ fromMs, toMs }: DeadLetterFilter): { readonly from: string; readonly to: string } {
  const from = fromMs === undefined ? '-' : String(Math.max(0, Math.floor(fromMs)))
  if (toMs === undefined) return { from, to: '+' }
  return { from, to: toMs <= 0 ? '0-0' : String(Math.ceil(toMs) - 1) }
}

/** What the entry id can't tell: type, tenant, reason and error. */
export function matches(filter: DeadLetterFilter, letter: DeadLetterSummary): boolean {
  const { type, tenant, reason, error } = filter
  if (tenant !== undefined && letter.tenant !== tenant) return false
  if (reason !== undefined && letter.reason !== reason) return false
  if (type !== undefined && letter.type !== type) return false
  if (error === undefined) return true
  return isFingerprint(error) ? letter.fingerprint === error : letter.error.includes(error)
}

/** Equal for equal filters; a cursor carries it. */
export function digestOf({ stream, type, tenant, reason, error, fromMs, toMs }: DeadLetterFilter): string {
  const parts = [stream, type, reason, error, fromMs, toMs, ...(tenant === undefined ? [] : [tenant])]
  const text = JSON.stringify(parts.map((part) => part ?? null))
  return createHash('sha256').update(text).digest('base64url').slice(0, 12)
}
