/**
 * An API key as it is stored, and as it is told. Times are ms since 1970. Its newest secret comes first; while it is rotated
 * it has two.
 */
import { MillraceError } from '../contracts/errors.ts'

export interface KeySecret {
  /** SHA-256, hex. */
  readonly digest: string
  readonly createdAtMs: number
  /** From when on this secret is not valid any more; the key itself may expire before. */
  readonly expiresAtMs: number | undefined
}

export interface ApiKeyRecord {
  readonly label: string
  /** A name, '' for none, `*` for every one. */
  readonly tenant: string
  readonly scopes: readonly string[]
  readonly createdAtMs: number
  readonly expiresAtMs: number | undefined
  readonly secrets: readonly KeySecret[]
}

/** What may be told of a key: everything but the digests. */
export interface ApiKeyReport extends Omit<ApiKeyRecord, 'secrets'> {
  readonly id: string
  readonly secrets: readonly Omit<KeySecret, 'digest'>[]
  /** Within an hour; undefined: never, or not for long enough to be noted. */
  readonly lastUsedAtMs: number | undefined
}

export function encodeRecord(record: ApiKeyRecord): string {
  return JSON.stringify(record)
}

/** @throws MillraceError `entry.unreadable` */
export function decodeRecord(id: string, text: string): ApiKeyRecord {
  try {
    const record = JSON.parse(text) as ApiKeyRecord
    if (Array.isArray(record.secrets) && Array.isArray(record.scopes)) return record
  } catch {
    // Told below, without what was read.
  }
  throw new MillraceError('entry.unreadable', `The API key "${id}" in Redis can't be read.`)
}

export function reportOf(id: string, record: ApiKeyRecord, lastUsedAtMs: number | undefined): ApiKeyReport {
  const secrets = record.secrets.map(({ createdAtMs, expiresAtMs }) => ({ createdAtMs, expiresAtMs }))
  return { ...record, id, secrets, lastUsedAtMs }
}

export function isOver(expiresAtMs: number | undefined, nowMs: number): boolean {
  return expiresAtMs !== undefined && nowMs >= expiresAtMs
}
