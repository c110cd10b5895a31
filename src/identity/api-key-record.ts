/**
 * An API key as it is stored, and as it is told. Times are ms since 1970. Its newest secret comes first; while it is rotated
 * it has two.
 */
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

/** Stands for a record that can't be read: it has no secret, so it is nobody's, and it can be seen and revoked. */
export const UNREADABLE: ApiKeyRecord = {
  label: 'unreadable',
  tenant: '',
  scopes: [],
  createdAtMs: 0,
  expiresAtMs: undefined,
  secrets: [],
}

const DIGEST = /^[0-9a-f]{64}$/

export function decodeRecord(text: string): ApiKeyRecord {
  try {
    const record = JSON.parse(text) as ApiKeyRecord
    const isWhole =
      typeof record.tenant === 'string' &&
      Number.isFinite(record.createdAtMs) &&
      record.scopes.every((scope) => typeof scope === 'string') &&
      record.secrets.every(({ digest }) => DIGEST.test(digest))
    return isWhole ? record : UNREADABLE
  } catch {
    return UNREADABLE
  }
}

export function reportOf(id: string, record: ApiKeyRecord, lastUsedAtMs: number | undefined): ApiKeyReport {
  const secrets = record.secrets.map(({ createdAtMs, expiresAtMs }) => ({ createdAtMs, expiresAtMs }))
  return { ...record, id, secrets, lastUsedAtMs }
}

export function isOver(expiresAtMs: number | undefined, nowMs: number): boolean {
  return expiresAtMs !== undefined && nowMs >= expiresAtMs
}
