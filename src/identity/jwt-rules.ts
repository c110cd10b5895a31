/**
 * Which tokens of an issuer are taken, decided on what a token says, before its signature is looked at: the algorithm is one of a
 * fixed list, `iss` and `aud` are ours, it is valid now. What a token says becomes a credential only after its signature.
 */
import { MillraceError } from '../contracts/errors.ts'
import { isTenantName, NO_TENANT } from '../contracts/tenant.ts'
import { Scopes } from '../policies/scopes.ts'
import { EVERY_TENANT } from '../policies/tenant-choice.ts'
import { type Credential, makeCredential } from './credential.ts'

/** `none` is not among them, nor anything with SHA-1. HS256 needs a shared secret, all others a key of the issuer. */
export const JWT_ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'EdDSA',
  'HS256',
] as const
export type JwtAlgorithm = (typeof JWT_ALGORITHMS)[number]

export interface JwtRules {
  readonly issuer: string
  readonly audience: string
  readonly algorithms: ReadonlySet<JwtAlgorithm>
  readonly tenantClaim: string
  readonly scopeClaim: string
}

export interface DecodedJwt {
  readonly header: Readonly<Record<string, unknown>>
  readonly claims: Readonly<Record<string, unknown>>
}

export interface JwtPlan {
  readonly algorithm: JwtAlgorithm
  /** Undefined: the issuer has one key. */
  readonly keyId: string | undefined
  /** When it ends, leeway included; ms since 1970. */
  readonly untilMs: number
}

/** Clocks of machines differ. */
const LEEWAY_S = 30
const KEY_ID_CHARS_MAX = 256

/** @throws MillraceError `identity.invalid` with a reason that repeats nothing of the token */
export function planVerification({ header, claims }: DecodedJwt, rules: JwtRules, nowMs: number): JwtPlan {
  const algorithm = [...rules.algorithms].find((known) => known === header['alg'])
  if (algorithm === undefined) throw refused('its algorithm is not one of those that are taken here')
  const keyId = header['kid']
  if (keyId !== undefined && (typeof keyId !== 'string' || keyId.length > KEY_ID_CHARS_MAX))
    throw refused('its key id (kid) is not a text')
  if (claims['iss'] !== rules.issuer) throw refused('it was issued by somebody else (iss)')
  const audience = claims['aud']
  const isForUs = Array.isArray(audience) ? audience.includes(rules.audience) : audience === rules.audience
  if (!isForUs) throw refused('it is meant for somebody else (aud)')
  const { exp, nbf, iat } = claims
  if (typeof exp !== 'number' || !Number.isFinite(exp)) throw refused('it does not say when it ends (exp)')
  const nowS = nowMs / 1000
  if (exp + LEEWAY_S <= nowS) throw refused('it has expired (exp)')
  for (const [name, value] of [
    ['nbf', nbf],
    ['iat', iat],
  ] as const) {
    if (value === undefined) continue
    if (typeof value !== 'number' || !(value - LEEWAY_S <= nowS))
      throw refused(`it is not valid yet (${name})`)
  }
  return { algorithm, keyId, untilMs: (exp + LEEWAY_S) * 1000 }
}

/** @throws MillraceError `identity.invalid` */
export function credentialOf(claims: DecodedJwt['claims'], rules: JwtRules): Credential {
  const { sub, iss } = claims
  if (typeof sub !== 'string' || sub === '') throw refused('it does not say whose it is (sub)')
  const tenant = claims[rules.tenantClaim] ?? NO_TENANT
  if (tenant !== NO_TENANT && tenant !== EVERY_TENANT && !isTenantName(tenant)) {
    throw refused('its tenant is not a name of a-z, 0-9 and "-"')
  }
  // A subject may be an address of a person: logs and limits see a digest of it.
  const digest = new Bun.CryptoHasher('sha256').update(`${String(iss)} ${sub}`).digest('hex')
  return makeCredential(
    `jwt:${digest.slice(0, 24)}`,
    tenant as string,
    new Scopes(scopesOf(claims[rules.scopeClaim])),
  )
}

/** Words between spaces (RFC 8693, RFC 9068) or a list. Those that mean nothing here are somebody else's. */
function scopesOf(claim: unknown): string[] {
  const texts = typeof claim === 'string' ? claim.split(' ') : Array.isArray(claim) ? claim : []
  return texts.filter((text) => typeof text === 'string')
}

export function refused(why: string): MillraceError {
  return new MillraceError('identity.invalid', `This token is not taken: ${why}.`)
}
