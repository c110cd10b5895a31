/**
 * API keys in an operator's hands: make, list, look at, rotate, revoke. Everything is read from and written to Redis, so it
 * works in any process. A secret is answered once, by who makes it, and is nowhere else afterwards.
 *
 *   create ─▶ one secret ──rotate──▶ new + old (until revoked, or a given time) ──revoke old──▶ one secret ──revoke──▶ gone
 */
import { MillraceError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { isTenantName, NO_TENANT } from '../contracts/tenant.ts'
import { SCOPES_MAX, type ScopeNames, scopeComplaint } from '../policies/scopes.ts'
import { EVERY_TENANT } from '../policies/tenant-choice.ts'
import { API_KEYS_MAX, putApiKey, readApiKey, readApiKeys, readApiKeysUsed } from '../redis/api-key-store.ts'
import type { RedisLink } from '../redis/connection.ts'
import { type Clock, randomId } from '../runtime/clock.ts'
import {
  type ApiKeyRecord,
  type ApiKeyReport,
  decodeRecord,
  encodeRecord,
  isOver,
  type KeySecret,
  reportOf,
} from './api-key-record.ts'
import { formatApiKey, isKeyId, newKeyId, newSecret } from './api-key-token.ts'
import { digestOf } from './secret-digest.ts'

export interface ApiKeysParts {
  readonly command: RedisLink
  /** What scopes may name. */
  readonly names: ScopeNames
  readonly clock: Clock
  readonly telemetry: Telemetry
  /** Hears of every change, so that this process knows it before the answer is sent. */
  readonly onChange: () => Promise<void>
}

/** Either, or neither: then it does not expire. */
export interface KeyExpiry {
  readonly expiresAtMs?: number | undefined
  readonly expiresInMs?: number | undefined
}

export interface NewApiKey extends KeyExpiry {
  readonly label?: string | undefined
  /** A name, `*` for every one; without it the key is for what belongs to no tenant. */
  readonly tenant?: string | undefined
  readonly scopes: readonly string[]
}

/** The only time that a key is told. */
export interface IssuedApiKey extends ApiKeyReport {
  readonly key: string
}

export interface ApiKeyPage {
  readonly data: readonly ApiKeyReport[]
  readonly next: string | undefined
}

const LABEL = /^[^\p{Cc}]{0,100}$/u
const ATTEMPTS_MAX = 10
const PAGE_DEFAULT = 50

export class ApiKeys {
  readonly #parts: ApiKeysParts

  constructor(parts: ApiKeysParts) {
    this.#parts = parts
  }

  /** @throws MillraceError `command.invalid`: also when there are as many keys as there may be */
  async create(wanted: NewApiKey): Promise<IssuedApiKey> {
    const { clock, telemetry } = this.#parts
    const { label = '', tenant = NO_TENANT, scopes } = wanted
    this.#check(label, tenant, scopes)
    const nowMs = clock.nowMs()
    const id = newKeyId()
    const secret = newSecret(id)
    const record: ApiKeyRecord = {
      ...{ label, tenant, scopes: [...new Set(scopes)], createdAtMs: nowMs },
      expiresAtMs: this.#expiry('A key', wanted, nowMs),
      secrets: [{ digest: digestOf(secret).toString('hex'), createdAtMs: nowMs, expiresAtMs: undefined }],
    }
    if ((await this.#put(id, undefined, record)) === 'full')
      throw invalid(
        `There are ${API_KEYS_MAX} API keys, and no more are kept. Revoke some, or let a token service issue JWTs.`,
      )
    telemetry.emit('key.created', { key: id, label, tenant })
    return { ...reportOf(id, record, undefined), key: formatApiKey({ id, secret }) }
  }

  /** Oldest first. @throws MillraceError `cursor.invalid` */
  async page(options: {
    readonly limit?: number | undefined
    readonly cursor?: string | undefined
  }): Promise<ApiKeyPage> {
    const { limit = PAGE_DEFAULT, cursor } = options
    const { command } = this.#parts
    const [{ records }, used] = await Promise.all([readApiKeys(command, undefined), readApiKeysUsed(command)])
    const after = cursor === undefined ? '' : readCursor(cursor)
    const rest = [...(records ?? [])]
      .map(([id, text]) => reportOf(id, decodeRecord(text), used.get(id)))
      .map((report) => ({ report, place: placeOf(report) }))
      .filter(({ place }) => place > after)
      .sort((a, b) => (a.place < b.place ? -1 : 1))
    const last = rest[limit - 1]
    const next =
      rest.length > limit && last !== undefined ? Buffer.from(last.place).toString('base64url') : undefined
    return { data: rest.slice(0, limit).map(({ report }) => report), next }
  }

  /** @throws MillraceError `not-found` */
  async get(id: string): Promise<ApiKeyReport> {
    const { record } = await this.#read(id)
    return reportOf(id, record, (await readApiKeysUsed(this.#parts.command)).get(id))
  }

  /**
   * A new secret beside the old one, which stays valid until it is revoked, or expires as told here.
   *
   * @throws MillraceError `not-found`, `command.invalid`, `key.conflict` while two secrets are valid
   */
  async rotate(id: string, old: KeyExpiry = {}): Promise<IssuedApiKey> {
    const { clock, telemetry } = this.#parts
    const secret = newSecret(id)
    const record = await this.#change(id, (present) => {
      const nowMs = clock.nowMs()
      const [newest, other] = present.secrets.filter((each) => !isOver(each.expiresAtMs, nowMs))
      if (other !== undefined) {
        throw new MillraceError(
          'key.conflict',
          'Two secrets of this key are valid already. Revoke the old one (millrace keys revoke <id> --old), or wait until it expires.',
        )
      }
      const digest = digestOf(secret).toString('hex')
      const added: KeySecret = { digest, createdAtMs: nowMs, expiresAtMs: undefined }
      const expiresAtMs = this.#expiry('The old secret', old, nowMs)
      return { ...present, secrets: newest === undefined ? [added] : [added, { ...newest, expiresAtMs }] }
    })
    telemetry.emit('key.rotated', { key: id, label: record.label, tenant: record.tenant })
    return { ...reportOf(id, record, undefined), key: formatApiKey({ id, secret }) }
  }

  /** Ends the key, or only its old secret. @throws MillraceError `not-found`: also when it has no old secret */
  async revoke(id: string, which: 'key' | 'old' = 'key'): Promise<void> {
    const { telemetry } = this.#parts
    const { label, tenant } = await this.#change(id, (present) => {
      if (which === 'key') return undefined
      const [newest, old] = present.secrets
      if (newest === undefined || old === undefined)
        throw new MillraceError(
          'not-found',
          'This key has no old secret: it was not rotated, or that is gone already.',
        )
      return { ...present, secrets: [newest] }
    })
    telemetry.emit('key.revoked', { key: id, label, tenant, secret: which === 'old' ? 'old' : 'all' })
  }

  async #read(id: string): Promise<{ readonly text: string; readonly record: ApiKeyRecord }> {
    const text = isKeyId(id) ? await readApiKey(this.#parts.command, id) : undefined
    if (text === undefined) {
      throw new MillraceError(
        'not-found',
        'There is no such API key; its id stands between "mr_" and the next "_".',
      )
    }
    return { text, record: decodeRecord(text) }
  }

  /** `decide` sees the present record and answers the next, or undefined to delete it; again when somebody was faster. */
  async #change(
    id: string,
    decide: (present: ApiKeyRecord) => ApiKeyRecord | undefined,
  ): Promise<ApiKeyRecord> {
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const { text, record } = await this.#read(id)
      const next = decide(record)
      if ((await this.#put(id, text, next)) === 'stored') return next ?? record
    }
    throw new MillraceError('redis.unavailable', 'This key is being changed again and again by others.', {
      retryAfterS: 1,
    })
  }

  async #put(
    id: string,
    seen: string | undefined,
    next: ApiKeyRecord | undefined,
  ): ReturnType<typeof putApiKey> {
    const { command, onChange } = this.#parts
    const change = { id, seen, next: next && encodeRecord(next), revision: randomId() }
    const answer = await putApiKey(command, change)
    // What is stored is stored: a look that fails is repeated by whoever looks every second.
    if (answer === 'stored') await onChange().catch(() => undefined)
    return answer
  }

  /** @throws MillraceError `command.invalid` */
  #check(label: unknown, tenant: unknown, scopes: readonly string[]): void {
    if (typeof label !== 'string' || !LABEL.test(label))
      throw invalid('A label has at most 100 characters, on one line.')
    if (tenant !== NO_TENANT && tenant !== EVERY_TENANT && !isTenantName(tenant)) {
      throw invalid('A tenant is 1-63 characters of a-z, 0-9 and "-", or "*" for every one.')
    }
    if (scopes.length === 0)
      throw invalid('A key needs one scope at least, such as commands:write or views:read.')
    if (scopes.length > SCOPES_MAX) throw invalid(`A key has at most ${SCOPES_MAX} scopes.`)
    for (const scope of scopes) {
      const complaint = scopeComplaint(scope, this.#parts.names)
      if (complaint !== undefined) throw invalid(complaint)
    }
    if (scopes.includes('admin') && isTenantName(tenant))
      throw invalid('Scope admin reaches every tenant, so it does not go with one: leave out the tenant.')
  }

  #expiry(what: string, { expiresAtMs, expiresInMs }: KeyExpiry, nowMs: number): number | undefined {
    if (expiresAtMs !== undefined && expiresInMs !== undefined)
      throw invalid(`${what} expires at a time or after a while: give one of the two.`)
    const atMs = expiresInMs === undefined ? expiresAtMs : nowMs + expiresInMs
    if (atMs === undefined || (atMs > nowMs && Number.isSafeInteger(atMs))) return atMs
    throw invalid(`${what} can only expire in the future.`)
  }
}

function invalid(sentence: string): MillraceError {
  return new MillraceError('command.invalid', sentence)
}

/** Sorts by age, then by id. */
function placeOf({ createdAtMs, id }: ApiKeyReport): string {
  return `${String(createdAtMs).padStart(15, '0')}.${id}`
}

function readCursor(cursor: string): string {
  const place = Buffer.from(cursor, 'base64url').toString('latin1')
  if (/^\d{15}\.[0-9a-z]{12}$/.test(place)) return place
  throw new MillraceError('cursor.invalid', 'This cursor is not one that a page of keys gave.')
}
