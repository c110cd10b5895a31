/**
 * Tokens of an issuer: judged once, then known by their digest until they end, so that only the first sight of one is
 * asynchronous. How many are known, under way and remembered as bad is bounded.
 *
 *   known? ─no─▶ form, claims (jwt-rules) ─▶ key of the issuer (issuer-keys) ─▶ signature ─▶ known until exp
 */
import { LRUCache } from 'lru-cache'
import { MillraceError } from '../contracts/errors.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Credential } from './credential.ts'
import type { IssuerKey, IssuerKeys } from './issuer-keys.ts'
import {
  credentialOf,
  type DecodedJwt,
  type JwtAlgorithm,
  type JwtPlan,
  type JwtRules,
  planVerification,
  refused,
} from './jwt-rules.ts'

/** Splitting tokens and checking signatures is a library's; it stands behind the one door that it has. */
export interface JwtSignatures {
  /** Undefined for what is no token. */
  decode(token: string): DecodedJwt | undefined
  verify(token: string, algorithm: JwtAlgorithm, key: IssuerKey): Promise<boolean>
}

export interface JwtVerifierParts {
  readonly rules: JwtRules
  readonly signatures: JwtSignatures
  /** Undefined when only a shared secret is configured. */
  readonly keys: Pick<IssuerKeys, 'find'> | undefined
  /** For HS256. */
  readonly secret: string | undefined
  readonly clock: Clock
}

const KNOWN_MAX = 10_000
const BAD_MAX = 1000
const BAD_MS = 10_000
const UNDER_WAY_MAX = 256
const TOKEN_CHARS_MAX = 8192

interface Known {
  readonly credential: Credential
  readonly untilMs: number
}

export class JwtVerifier {
  readonly #parts: JwtVerifierParts
  #known = new LRUCache<string, Known>({ max: KNOWN_MAX })
  /** Digest to when it may be tried again. */
  readonly #bad = new LRUCache<string, number>({ max: BAD_MAX })
  readonly #underWay = new Map<string, Promise<Credential>>()

  /** As a key like all others. */
  readonly #secret: IssuerKey | undefined

  constructor(parts: JwtVerifierParts) {
    this.#parts = parts
    const { secret } = parts
    this.#secret =
      secret === undefined ? undefined : { kty: 'oct', k: Buffer.from(secret).toString('base64url') }
  }

  /** @throws MillraceError `identity.invalid`, `redis.unavailable` without keys of the issuer, `admission.overloaded` */
  verify(token: string): Credential | Promise<Credential> {
    if (token.length > TOKEN_CHARS_MAX) throw refused('it is too long')
    const digest = Bun.SHA256.hash(token, 'base64')
    const nowMs = this.#parts.clock.nowMs()
    const known = this.#known.get(digest)
    if (known !== undefined) {
      if (nowMs < known.untilMs) return known.credential
      this.#known.delete(digest)
      throw refused('it has expired (exp)')
    }
    const underWay = this.#underWay.get(digest)
    if (underWay !== undefined) return underWay
    return this.#begin(token, digest, nowMs)
  }

  /** What was taken may have been signed by a key that the issuer has withdrawn. */
  forget(): void {
    // A new one: what is under way was checked by the old keys, and goes with the old.
    this.#known = new LRUCache({ max: KNOWN_MAX })
    this.#bad.clear()
  }

  #begin(token: string, digest: string, nowMs: number): Promise<Credential> {
    const { signatures, rules } = this.#parts
    if ((this.#bad.get(digest) ?? 0) > nowMs) throw badSignature()
    const decoded = signatures.decode(token)
    if (decoded === undefined) throw refused('it is not a JSON Web Token')
    const plan = planVerification(decoded, rules, nowMs)
    if (this.#underWay.size >= UNDER_WAY_MAX) {
      throw new MillraceError('admission.overloaded', 'Too many new tokens are being checked.', {
        retryAfterS: 1,
      })
    }
    const judging = this.#judge(token, digest, decoded, plan).finally(() => this.#underWay.delete(digest))
    this.#underWay.set(digest, judging)
    return judging
  }

  async #judge(token: string, digest: string, { claims }: DecodedJwt, plan: JwtPlan): Promise<Credential> {
    const known = this.#known
    const key = await this.#keyFor(plan)
    if (!(await this.#parts.signatures.verify(token, plan.algorithm, key))) {
      this.#bad.set(digest, this.#parts.clock.nowMs() + BAD_MS)
      throw badSignature()
    }
    const credential = credentialOf(claims, this.#parts.rules)
    known.set(digest, { credential, untilMs: plan.untilMs })
    return credential
  }

  /** A shared secret checks HS256 and nothing else, the issuer's keys everything else: neither can stand in for the other. */
  async #keyFor({ algorithm, keyId }: JwtPlan): Promise<IssuerKey> {
    const { keys } = this.#parts
    const key = algorithm === 'HS256' ? this.#secret : await keys?.find(algorithm, keyId)
    if (key === undefined) throw refused('the issuer has no such key (kid)')
    return key
  }
}

function badSignature(): MillraceError {
  return refused('its signature is not that of the issuer, or it was refused a moment ago')
}
