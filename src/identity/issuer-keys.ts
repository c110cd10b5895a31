/**
 * The public keys of a token issuer (JWKS, RFC 7517), from a URL or a file.
 *
 * They are fetched at start, every ten minutes, and when a token names a key that is not among them; but never more often than
 * every ten seconds, however many tokens do. When the source is away or answers nonsense, the last good set stays.
 */
import { readFile } from 'node:fs/promises'
import { describeError, MillraceError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Clock } from '../runtime/clock.ts'
import { PeriodicService } from '../runtime/service.ts'
import type { JwtAlgorithm } from './jwt-rules.ts'

/** A JSON Web Key that can check signatures of one kind. */
export interface IssuerKey extends Readonly<Record<string, unknown>> {
  readonly kty: string
  readonly kid?: string
}

export interface IssuerKeysParts {
  /** `https://…`, or a path. */
  readonly source: string
  readonly clock: Clock
  readonly telemetry: Telemetry
  /** Told when the set has become another one. */
  readonly onChange: () => void
}

const FETCH_EVERY_MS = 600_000
const FETCH_SPACING_MS = 10_000
const FETCH_LIMIT_MS = 5000
const SET_BYTES_MAX = 256 * 1024
const KEYS_MAX = 100
/** RFC 7518, section 3.3: 2048 bits or more. */
const MODULUS_CHARS_MIN = 342

export class IssuerKeys extends PeriodicService {
  readonly #parts: IssuerKeysParts
  #keys: readonly IssuerKey[] | undefined
  #text = ''
  #triedMs = Number.NEGATIVE_INFINITY
  #fetching: Promise<void> | undefined

  constructor(parts: IssuerKeysParts) {
    const { clock, telemetry } = parts
    const pauses = { pauseMinMs: FETCH_SPACING_MS, pauseMaxMs: FETCH_EVERY_MS }
    super({ name: 'issuer keys', clock, telemetry, ...pauses }, async () => {
      // At start it was just tried, and a token may have asked a moment ago.
      const isDue = clock.monotonicMs() - this.#triedMs >= FETCH_SPACING_MS
      const worked = isDue ? await this.#tryFetch() : this.#keys !== undefined
      return worked ? FETCH_EVERY_MS : FETCH_SPACING_MS
    })
    this.#parts = parts
  }

  /**
   * The key for this algorithm and id; a promise only when the source has to be asked. Undefined: the issuer has no such key.
   *
   * @throws MillraceError `redis.unavailable`, no keys were ever seen
   */
  find(
    algorithm: JwtAlgorithm,
    keyId: string | undefined,
  ): IssuerKey | undefined | Promise<IssuerKey | undefined> {
    const known = this.#known(algorithm, keyId)
    if (known !== undefined) return known
    const mayFetch = this.#parts.clock.monotonicMs() - this.#triedMs >= FETCH_SPACING_MS
    if (!mayFetch && this.#fetching === undefined) return this.#orNone(undefined)
    return this.#tryFetch().then(() => this.#orNone(this.#known(algorithm, keyId)))
  }

  /** A file must be readable, and hold keys, when the process starts; a URL may be away then. */
  protected override async onStart(): Promise<void> {
    if (isUrl(this.#parts.source)) await this.#tryFetch()
    else {
      await this.#fetch().catch((cause) => {
        throw new MillraceError('config.invalid', `MILLRACE_JWT_JWKS can't be used: ${sentenceOf(cause)}.`, {
          cause,
        })
      })
    }
    await super.onStart()
  }

  /** Without any keys it is not known whether a token is good. */
  #orNone(key: IssuerKey | undefined): IssuerKey | undefined {
    if (this.#keys !== undefined) return key
    throw new MillraceError('redis.unavailable', 'The keys of the token issuer could not be fetched yet.', {
      retryAfterS: FETCH_SPACING_MS / 1000,
    })
  }

  /** Without an id it must be the only one that fits. */
  #known(algorithm: JwtAlgorithm, keyId: string | undefined): IssuerKey | undefined {
    const fitting = (this.#keys ?? []).filter((key) => fits(key, algorithm))
    if (keyId === undefined) return fitting.length === 1 ? fitting[0] : undefined
    return fitting.find((key) => key.kid === keyId)
  }

  /** False when it failed; whoever comes while one is under way shares it. */
  async #tryFetch(): Promise<boolean> {
    this.#fetching ??= this.#fetch().finally(() => {
      this.#fetching = undefined
    })
    try {
      await this.#fetching
      return true
    } catch (error) {
      if (!this.stopSignal.aborted)
        this.#parts.telemetry.emit('service.failed', { service: this.name, error: sentenceOf(error) })
      return false
    }
  }

  async #fetch(): Promise<void> {
    const { source, clock, telemetry, onChange } = this.#parts
    this.#triedMs = clock.monotonicMs()
    const text = isUrl(source) ? await this.#download(source) : await readFile(source, 'utf8')
    const keys = readKeys(text)
    if (text === this.#text) return
    const isFirst = this.#keys === undefined
    this.#keys = keys
    this.#text = text
    telemetry.emit('issuer-keys.fetched', { keys: keys.length })
    if (!isFirst) onChange()
  }

  async #download(url: string): Promise<string> {
    const signal = AbortSignal.any([this.stopSignal, AbortSignal.timeout(FETCH_LIMIT_MS)])
    const response = await fetch(url, { signal, redirect: 'error', headers: { accept: 'application/json' } })
    if (!response.ok) throw new Error(`the issuer answered ${response.status}`)
    const parts: Uint8Array[] = []
    let bytes = 0
    for await (const part of response.body ?? []) {
      bytes += part.length
      if (bytes > SET_BYTES_MAX) throw new Error(`the issuer's keys have more than ${SET_BYTES_MAX} bytes`)
      parts.push(part)
    }
    return Buffer.concat(parts).toString('utf8')
  }
}

function isUrl(source: string): boolean {
  return /^https?:\/\//i.test(source)
}

function sentenceOf(error: unknown): string {
  return describeError(error, 200).replace(/[.?!]+$/, '')
}

/** Keys for signatures, as JWKs; what can't be used here is left out. */
function readKeys(text: string): IssuerKey[] {
  let set: unknown
  try {
    set = JSON.parse(text)
  } catch {
    throw new Error('what the source gave is not JSON')
  }
  const listed = typeof set === 'object' && set !== null && 'keys' in set ? set.keys : undefined
  if (!Array.isArray(listed)) throw new Error('what the source gave has no list "keys" (RFC 7517)')
  const keys = listed.slice(0, KEYS_MAX).filter(isUsable)
  if (keys.length === 0) throw new Error('the source gave no key that can check signatures')
  return keys
}

/** Public keys only: a secret in a public set would be nobody's secret, and a short RSA key is none. */
function isUsable(key: unknown): key is IssuerKey {
  if (typeof key !== 'object' || key === null) return false
  const { kty, use, kid, n } = key as Readonly<Record<string, unknown>>
  if (kid !== undefined && typeof kid !== 'string') return false
  if (use !== undefined && use !== 'sig') return false
  if (kty === 'RSA') return typeof n === 'string' && n.length >= MODULUS_CHARS_MIN
  return kty === 'EC' || kty === 'OKP'
}

const CURVES: Readonly<Partial<Record<JwtAlgorithm, string>>> = {
  ES256: 'P-256',
  ES384: 'P-384',
  EdDSA: 'Ed25519',
}

function fits(key: IssuerKey, algorithm: JwtAlgorithm): boolean {
  if (key['alg'] !== undefined && key['alg'] !== algorithm) return false
  const curve = CURVES[algorithm]
  if (curve !== undefined) return key['crv'] === curve
  return key.kty === 'RSA' && /^[RP]S/.test(algorithm)
}
