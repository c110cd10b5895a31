/** Settings about who may ask: whether credentials are needed, which token issuer is trusted, where a tenant comes from. */
import { isAbsolute, resolve } from 'node:path'
import { MillraceError } from '../contracts/errors.ts'
import { isTenantName } from '../contracts/tenant.ts'
import { JWT_ALGORITHMS, type JwtAlgorithm } from '../identity/jwt-rules.ts'
import { TENANT_SOURCES, type TenantSource } from '../policies/tenant-choice.ts'
import type { Variable } from './environment.ts'
import { isLoopback } from './loopback.ts'
import { invalid, listOf, oneOf, parseText } from './setting-values.ts'

export const AUTH_MODES = ['auto', 'required', 'open'] as const
export type AuthMode = (typeof AUTH_MODES)[number]

export interface IdentitySettings {
  readonly auth: AuthMode
  /** Value of `iss`; undefined: no tokens are taken. */
  readonly jwtIssuer: string | undefined
  /** One of the values of `aud`. */
  readonly jwtAudience: string | undefined
  /** Where the issuer's public keys are: `https://…`, or an absolute path. */
  readonly jwtKeys: string | undefined
  /** Absolute path of a file with the secret for HS256. */
  readonly jwtSecretFile: string | undefined
  readonly jwtAlgorithms: readonly JwtAlgorithm[]
  readonly jwtTenantClaim: string
  readonly jwtScopeClaim: string
  /** The first that names a tenant wins. */
  readonly tenantFrom: readonly TenantSource[]
  /** For `subdomain`; lower case. */
  readonly tenantDomain: string | undefined
}

interface IdentitySource<Value> {
  readonly variable: Variable
  readonly flag: string
  readonly help: string
  readonly fallback: string | undefined
  readonly parse: (text: string | undefined, where: string) => Value
}

export const IDENTITY_SETTINGS: {
  readonly [Name in keyof IdentitySettings]: IdentitySource<IdentitySettings[Name]>
} = {
  auth: {
    variable: 'MILLRACE_AUTH',
    flag: '--auth <mode>',
    help: 'required, open, or auto: credentials are needed where other machines reach the listener',
    fallback: 'auto',
    parse: oneOf(AUTH_MODES),
  },
  jwtIssuer: {
    variable: 'MILLRACE_JWT_ISSUER',
    flag: '--jwt-issuer <iss>',
    help: 'take JSON Web Tokens of this issuer (claim iss)',
    fallback: undefined,
    parse: optional(parseText),
  },
  jwtAudience: {
    variable: 'MILLRACE_JWT_AUDIENCE',
    flag: '--jwt-audience <aud>',
    help: 'that are meant for this audience (claim aud)',
    fallback: undefined,
    parse: optional(parseText),
  },
  jwtKeys: {
    variable: 'MILLRACE_JWT_JWKS',
    flag: '--jwt-jwks <source>',
    help: "the issuer's public keys (JWKS): https://…, or a file",
    fallback: undefined,
    parse: optional(parseKeySource),
  },
  jwtSecretFile: {
    variable: 'MILLRACE_JWT_SECRET_FILE',
    flag: '--jwt-secret-file <file>',
    help: 'file with a shared secret of 32 bytes or more, for HS256',
    fallback: undefined,
    parse: optional((text, where) => resolve(parseText(text, where))),
  },
  jwtAlgorithms: {
    variable: 'MILLRACE_JWT_ALGORITHMS',
    flag: '--jwt-algorithms <names>',
    help: `comma-separated: ${JWT_ALGORITHMS.join(', ')}`,
    fallback: 'RS256,ES256,EdDSA',
    parse: listOf(JWT_ALGORITHMS),
  },
  jwtTenantClaim: {
    variable: 'MILLRACE_JWT_TENANT_CLAIM',
    flag: '--jwt-tenant-claim <name>',
    help: 'claim with the tenant',
    fallback: 'tenant',
    parse: parseText,
  },
  jwtScopeClaim: {
    variable: 'MILLRACE_JWT_SCOPE_CLAIM',
    flag: '--jwt-scope-claim <name>',
    help: 'claim with the scopes, words or a list',
    fallback: 'scope',
    parse: parseText,
  },
  tenantFrom: {
    variable: 'MILLRACE_TENANT_FROM',
    flag: '--tenant-from <names>',
    help: `comma-separated, the first that names a tenant wins: ${TENANT_SOURCES.join(', ')}`,
    fallback: 'credential',
    parse: listOf(TENANT_SOURCES),
  },
  tenantDomain: {
    variable: 'MILLRACE_TENANT_DOMAIN',
    flag: '--tenant-domain <domain>',
    help: 'for subdomain: <tenant>.<domain> is the host name of a tenant',
    fallback: undefined,
    parse: optional(parseDomain),
  },
}

/** All of them, in the order in which mistakes are told. */
export function readIdentitySettings(
  read: <Name extends keyof IdentitySettings>(name: Name) => IdentitySettings[Name],
): IdentitySettings {
  return {
    auth: read('auth'),
    jwtIssuer: read('jwtIssuer'),
    jwtAudience: read('jwtAudience'),
    jwtKeys: read('jwtKeys'),
    jwtSecretFile: read('jwtSecretFile'),
    jwtAlgorithms: read('jwtAlgorithms'),
    jwtTenantClaim: read('jwtTenantClaim'),
    jwtScopeClaim: read('jwtScopeClaim'),
    tenantFrom: read('tenantFrom'),
    tenantDomain: read('tenantDomain'),
  }
}

function optional<Value>(
  parse: (text: string, where: string) => Value,
): (text: string | undefined, where: string) => Value | undefined {
  return (text, where) => (text === undefined ? undefined : parse(text, where))
}

/** Keys that somebody on the way could replace would let everybody in. */
function parseKeySource(text: string, where: string): string {
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(text)) return isAbsolute(text) ? text : resolve(parseText(text, where))
  const url = URL.parse(text)
  const isFit = url?.protocol === 'https:' || (url?.protocol === 'http:' && isLoopback(url.hostname))
  if (isFit && url.username === '' && url.password === '') return text
  // A URL may hold a password.
  throw new MillraceError(
    'config.invalid',
    `${where} is neither a file nor an https:// address without a password in it; name one of these.`,
  )
}

function parseDomain(text: string, where: string): string {
  const domain = text.toLowerCase().replace(/^\.|\.$/g, '')
  if (domain.length <= 200 && domain.split('.').every((label) => isTenantName(label))) return domain
  throw invalid(where, text, 'a domain such as api.example.com')
}
