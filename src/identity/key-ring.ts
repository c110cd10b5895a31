/**
 * All API keys, held by a process that asks for them, so that a request is judged without Redis and without a promise.
 *
 *   every second           look: is the revision still the known one? else all keys again
 *   request, unknown key   waits for one more look, at most ten a second, shared by all who wait
 *
 * A revocation counts in every process within five seconds, mostly within one: who could not look for four seconds trusts
 * nothing that it holds, and trust runs from when the look was sent. Invented keys cost one look for all of them together, and
 * take no memory beyond their own requests.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { HealthReport, HealthSource } from '../contracts/health.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { Scopes } from '../policies/scopes.ts'
import { noteApiKeysUsed, readApiKeys } from '../redis/api-key-store.ts'
import type { RedisLink } from '../redis/connection.ts'
import type { Clock } from '../runtime/clock.ts'
import { PeriodicService } from '../runtime/service.ts'
import { decodeRecord, isOver, UNREADABLE } from './api-key-record.ts'
import { type ApiKeyToken, isApiKey, splitApiKey } from './api-key-token.ts'
import { type Credential, makeCredential } from './credential.ts'
import { findDigest } from './secret-digest.ts'

export interface KeyRingParts {
  readonly command: RedisLink
  readonly clock: Clock
  readonly telemetry: Telemetry
}

const LOOK_EVERY_MS = 1000
const LOOK_SPACING_MS = 100
const TRUST_MS = 4000
const WAITING_MAX = 1000
const NOTE_EVERY_MS = 10_000
const NOTE_AGAIN_MS = 3_600_000

interface HeldKey {
  /** As it was read. */
  readonly text: string
  readonly credential: Credential
  readonly digests: readonly Buffer[]
  /** Of each secret, the key's own included. */
  readonly expiresAtMs: readonly (number | undefined)[]
  isUsed: boolean
  notedAtMs: number
}

const NO_DIGESTS: readonly Buffer[] = []

export class KeyRing extends PeriodicService implements HealthSource {
  readonly #parts: KeyRingParts
  #held: ReadonlyMap<string, HeldKey> = new Map()
  #revision: string | undefined
  /** Of the look that what is held came from, or was confirmed by. */
  #seenMs = Number.NEGATIVE_INFINITY
  #sentMs = Number.NEGATIVE_INFINITY
  #notedMs = Number.NEGATIVE_INFINITY
  /** A look that is not sent yet. */
  #coming: Promise<void> | undefined
  #waiting = 0

  constructor(parts: KeyRingParts) {
    const { clock, telemetry } = parts
    const pauses = { pauseMinMs: LOOK_EVERY_MS, pauseMaxMs: LOOK_EVERY_MS }
    super({ name: 'API keys', clock, telemetry, ...pauses }, async () => {
      await this.#look()
      await this.#noteUses()
      return LOOK_EVERY_MS
    })
    this.#parts = parts
  }

  /**
   * Who presents this token; a promise only for one that is not known yet.
   *
   * @throws MillraceError `identity.invalid`; `redis.unavailable` when what is held may be too old, `admission.overloaded` when
   * too many unknown keys wait
   */
  verify(token: string): Credential | Promise<Credential> {
    const split = splitApiKey(token)
    if (!this.#isTrusted) throw tooOld()
    const found = this.#find(split)
    if (found !== undefined) return found
    if (isApiKey(token)) return this.#findLater(split)
    throw new MillraceError(
      'identity.invalid',
      'This is not an API key as Millrace makes them: a character is wrong or missing.',
    )
  }

  health(): HealthReport {
    if (!this.#isTrusted) return { ready: false, detail: 'the API keys could not be looked at for too long' }
    return { ready: true, detail: `${this.#held.size} API keys known` }
  }

  /** Resolves when this process knows every key and every revocation that was written before the call. */
  refresh(): Promise<void> {
    this.#coming ??= this.#lookSoon()
    return this.#coming
  }

  protected override async onStart(): Promise<void> {
    await this.#look()
    await super.onStart()
  }

  get #isTrusted(): boolean {
    return this.#parts.clock.monotonicMs() - this.#seenMs < TRUST_MS
  }

  /** Undefined when no key that is held has this secret. */
  #find({ id, secret }: ApiKeyToken): Credential | undefined {
    const held = this.#held.get(id)
    const index = findDigest(secret, held?.digests ?? NO_DIGESTS)
    if (held === undefined || index < 0) return undefined
    const expiresAtMs = held.expiresAtMs[index]
    if (expiresAtMs !== undefined && isOver(expiresAtMs, this.#parts.clock.nowMs())) throw unknown()
    held.isUsed = true
    return held.credential
  }

  /** It may have been made a moment ago, by another process. */
  async #findLater(token: ApiKeyToken): Promise<Credential> {
    if (this.#waiting >= WAITING_MAX) {
      throw new MillraceError('admission.overloaded', 'Too many unknown API keys are being looked up.', {
        retryAfterS: 1,
      })
    }
    this.#waiting += 1
    try {
      await this.refresh()
    } finally {
      this.#waiting -= 1
    }
    const found = this.#find(token)
    if (found === undefined) throw unknown()
    return found
  }

  async #lookSoon(): Promise<void> {
    const { clock } = this.#parts
    const pauseMs = this.#sentMs + LOOK_SPACING_MS - clock.monotonicMs()
    await clock.sleep(Math.max(0, pauseMs), this.stopSignal)
    this.#coming = undefined
    await this.#look()
  }

  async #look(): Promise<void> {
    const { command, clock } = this.#parts
    const sentMs = clock.monotonicMs()
    this.#sentMs = sentMs
    const { revision, records } = await readApiKeys(command, this.#revision)
    // An answer that was overtaken by a later one tells of the past.
    if (sentMs < this.#seenMs) return
    if (records !== undefined) this.#hold(records)
    this.#revision = revision
    this.#seenMs = sentMs
  }

  #hold(records: ReadonlyMap<string, string>): void {
    const held = new Map<string, HeldKey>()
    for (const [id, text] of records) {
      const known = this.#held.get(id)
      held.set(id, known?.text === text ? known : this.#heldKey(id, text))
    }
    this.#held = held
  }

  /** A record that can't be read is nobody's key, and no reason to refuse all others. */
  #heldKey(id: string, text: string): HeldKey {
    const record = decodeRecord(text)
    if (record === UNREADABLE) {
      const detail = `The API key "${id}" in Redis can't be read, so it is not valid. Revoke it and make a new one.`
      this.#parts.telemetry.emit('alarm.raised', { alarm: 'key-unreadable', stream: undefined, detail })
    }
    return {
      text,
      credential: makeCredential(id, record.tenant, new Scopes(record.scopes)),
      digests: record.secrets.map(({ digest }) => Buffer.from(digest, 'hex')),
      expiresAtMs: record.secrets.map(({ expiresAtMs }) => earlier(expiresAtMs, record.expiresAtMs)),
      isUsed: false,
      notedAtMs: Number.NEGATIVE_INFINITY,
    }
  }

  async #noteUses(): Promise<void> {
    const { command, clock } = this.#parts
    const nowMs = clock.monotonicMs()
    if (nowMs - this.#notedMs < NOTE_EVERY_MS) return
    this.#notedMs = nowMs
    const used = [...this.#held].filter(([, key]) => key.isUsed && nowMs - key.notedAtMs >= NOTE_AGAIN_MS)
    if (used.length === 0) return
    for (const [, key] of used) {
      key.isUsed = false
      key.notedAtMs = nowMs
    }
    await noteApiKeysUsed(
      command,
      used.map(([id]) => id),
      clock.nowMs(),
    )
  }
}

function earlier(a: number | undefined, b: number | undefined): number | undefined {
  if (a === undefined || b === undefined) return a ?? b
  return Math.min(a, b)
}

/** The same for an unknown id, a wrong secret and an expired one: nobody learns which ids there are. */
function unknown(): MillraceError {
  return new MillraceError('identity.invalid', 'This API key is unknown, expired or revoked.')
}

function tooOld(): MillraceError {
  return new MillraceError(
    'redis.unavailable',
    'Redis was away for too long to know which API keys are still valid.',
    { retryAfterS: 1 },
  )
}
