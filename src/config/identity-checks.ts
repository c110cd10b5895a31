/**
 * What the settings about identity mean together: which listener asks for credentials, and what does not fit.
 *
 *   listener     MILLRACE_AUTH auto                          required   open
 *   loopback     public: open, asks with JWT settings        asks       open
 *                admin: open                                 open       open
 *   other        asks, unless it is opened by name           asks       only if it is opened by name
 *
 * By name: `public-bind` and `public-admin` in MILLRACE_ALLOW_UNSAFE.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { IdentitySettings } from './identity-settings.ts'
import { isLoopback } from './loopback.ts'

export type ListenerName = 'public' | 'admin'

export interface ListenerSettings extends IdentitySettings {
  readonly host: string
  readonly adminHost: string
  readonly allowUnsafe: ReadonlySet<string>
}

const UNSAFE = { public: 'public-bind', admin: 'public-admin' } as const
const VARIABLE = { public: 'HOST', admin: 'MILLRACE_ADMIN_HOST' } as const

function addressOf({ host, adminHost }: ListenerSettings, listener: ListenerName): string {
  return listener === 'public' ? host : adminHost
}

export function needsCredentials(settings: ListenerSettings, listener: ListenerName): boolean {
  const { auth, jwtIssuer, allowUnsafe } = settings
  const isPublic = listener === 'public'
  // Who configured an issuer did not mean to ask nobody.
  const isAsked = auth === 'required' || (auth === 'auto' && isPublic && jwtIssuer !== undefined)
  if (isLoopback(addressOf(settings, listener))) return isPublic && isAsked
  return isAsked || !allowUnsafe.has(UNSAFE[listener])
}

/**
 * Nobody decided that this listener asks, and it would ask for credentials that nobody has.
 *
 * @throws MillraceError `config.invalid`
 */
export function checkCredentialSource(
  settings: ListenerSettings,
  listener: ListenerName,
  keyCount: number,
): void {
  const { auth, jwtIssuer } = settings
  if (auth !== 'auto' || jwtIssuer !== undefined || keyCount > 0 || !needsCredentials(settings, listener))
    return
  const scope = listener === 'public' ? 'commands:write' : 'admin'
  throw refused(
    `${VARIABLE[listener]} ${addressOf(settings, listener)} can be reached from other machines, and there is no credential to ask for. Create an API key from a process on 127.0.0.1 (millrace keys create --scope ${scope}), or name a token issuer (MILLRACE_JWT_ISSUER), or start with the door shut (MILLRACE_AUTH=required), or open it to everybody by name with MILLRACE_ALLOW_UNSAFE=${UNSAFE[listener]}.`,
  )
}

/** @throws MillraceError `config.invalid` */
export function checkIdentity(settings: ListenerSettings): void {
  const { auth, allowUnsafe, tenantFrom, tenantDomain } = settings
  for (const listener of ['public', 'admin'] as const) {
    const address = addressOf(settings, listener)
    if (auth !== 'open' || isLoopback(address) || allowUnsafe.has(UNSAFE[listener])) continue
    throw refused(
      `${VARIABLE[listener]} ${address} can be reached from other machines, and MILLRACE_AUTH=open asks nobody for a credential: take MILLRACE_AUTH=required, keep 127.0.0.1, or allow it by name with MILLRACE_ALLOW_UNSAFE=${UNSAFE[listener]}.`,
    )
  }
  checkJwt(settings)
  if (tenantFrom.includes('subdomain') && tenantDomain === undefined) {
    throw refused(
      'MILLRACE_TENANT_FROM names subdomain: say with MILLRACE_TENANT_DOMAIN below which domain the tenants are.',
    )
  }
  if (tenantDomain === undefined || tenantFrom.includes('subdomain')) return
  throw refused(
    'MILLRACE_TENANT_DOMAIN has no effect without subdomain in MILLRACE_TENANT_FROM; add it there, or unset the domain.',
  )
}

function checkJwt(settings: IdentitySettings): void {
  const { jwtIssuer, jwtAudience, jwtKeys, jwtSecretFile, jwtAlgorithms } = settings
  if ([jwtIssuer, jwtAudience, jwtKeys, jwtSecretFile].every((value) => value === undefined)) return
  if (jwtIssuer === undefined || jwtAudience === undefined) {
    const missing = jwtIssuer === undefined ? 'MILLRACE_JWT_ISSUER' : 'MILLRACE_JWT_AUDIENCE'
    throw refused(`To take tokens, ${missing} is needed too: a token for somebody else must not work here.`)
  }
  if (jwtKeys === undefined && jwtSecretFile === undefined)
    throw refused('To take tokens, MILLRACE_JWT_JWKS has to say where the keys of the issuer are.')
  if (jwtAlgorithms.length === 0)
    throw refused('MILLRACE_JWT_ALGORITHMS is empty; leave it out, or name one such as RS256.')
  const takesShared = jwtAlgorithms.includes('HS256')
  if (takesShared && jwtSecretFile === undefined) {
    throw refused(
      'MILLRACE_JWT_ALGORITHMS names HS256, which needs a shared secret: put it into a file and name that with MILLRACE_JWT_SECRET_FILE.',
    )
  }
  if (!takesShared && jwtSecretFile !== undefined) {
    throw refused(
      'MILLRACE_JWT_SECRET_FILE is only used for HS256: name that in MILLRACE_JWT_ALGORITHMS, or unset the file.',
    )
  }
  if (jwtKeys !== undefined || jwtAlgorithms.every((name) => name === 'HS256')) return
  throw refused(
    'Without MILLRACE_JWT_JWKS only HS256 can be checked: set MILLRACE_JWT_ALGORITHMS=HS256, or name the keys.',
  )
}

function refused(sentence: string): MillraceError {
  return new MillraceError('config.invalid', sentence)
}
