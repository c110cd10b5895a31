/**
 * Who asks, and for which tenant, from the headers of a request: the one place where credentials of all kinds come together.
 * Without a tenant of the request's own choice, and with a credential that is known, it answers at once.
 */
import { MillraceError } from '../contracts/errors.ts'
import { ANYBODY, type Principal } from '../contracts/principal.ts'
import {
  chooseTenant,
  EVERY_TENANT,
  type TenantSource,
  tenantFromHeader,
  tenantFromHost,
} from '../policies/tenant-choice.ts'
import { looksLikeApiKey } from './api-key-token.ts'
import { type Credential, forTenant } from './credential.ts'
import type { JwtVerifier } from './jwt-verifier.ts'
import type { KeyRing } from './key-ring.ts'

export interface GatekeeperParts {
  /** Undefined: nobody needs a credential. */
  readonly credentials:
    | {
        readonly keys: Pick<KeyRing, 'verify'>
        /** Undefined: no tokens of an issuer. */
        readonly tokens: Pick<JwtVerifier, 'verify'> | undefined
      }
    | undefined
  readonly tenantSources: readonly TenantSource[]
  /** For source `subdomain`; in lower case, without a dot at either end. */
  readonly tenantDomain: string | undefined
}

/** Nobody is asked who they are, so nobody is bound. */
const EVERYBODY: Credential = { bound: EVERY_TENANT, principal: ANYBODY }

/** RFC 6750, section 2.1; the scheme in any case (RFC 9110, section 11.1). */
const BEARER = /^bearer +([A-Za-z0-9\-._~+/]+=*)$/i

export class Gatekeeper {
  readonly #parts: GatekeeperParts
  /** False: the tenant is the credential's, and the request is not asked. */
  readonly #asksRequest: boolean

  constructor(parts: GatekeeperParts) {
    this.#parts = parts
    this.#asksRequest = parts.tenantSources.some((source) => source !== 'credential')
  }

  /**
   * @throws MillraceError `identity.missing`, `identity.invalid`, `identity.forbidden` for another tenant,
   * `command.malformed` for a tenant that is none, `redis.unavailable`, `admission.overloaded`
   */
  identify(headers: Headers): Principal | Promise<Principal> {
    const credential = this.#credential(headers)
    if (credential instanceof Promise) return credential.then((known) => this.#place(known, headers))
    return this.#place(credential, headers)
  }

  #credential(headers: Headers): Credential | Promise<Credential> {
    const { credentials } = this.#parts
    if (credentials === undefined) return EVERYBODY
    const header = headers.get('authorization')
    if (header === null)
      throw new MillraceError(
        'identity.missing',
        'Send a credential: Authorization: Bearer <API key or token>.',
      )
    // As most write it, and one word: two headers arrive as one with a comma and a space.
    const isPlain = header.startsWith('Bearer ') && !header.includes(' ', 7)
    const token = isPlain ? header.slice(7) : BEARER.exec(header)?.[1]
    if (token === undefined) {
      throw new MillraceError(
        'identity.invalid',
        'The Authorization header is not one of the form "Bearer <API key or token>".',
      )
    }
    if (looksLikeApiKey(token)) return credentials.keys.verify(token)
    if (credentials.tokens !== undefined) return credentials.tokens.verify(token)
    throw new MillraceError('identity.invalid', 'This is not an API key, and no token issuer is configured.')
  }

  #place({ bound, principal }: Credential, headers: Headers): Principal {
    if (!this.#asksRequest) return principal
    const { tenantSources, tenantDomain } = this.#parts
    const asks = (source: TenantSource): boolean => tenantSources.includes(source)
    const claims = {
      header: asks('header') ? tenantFromHeader(headers.get('millrace-tenant')) : undefined,
      subdomain:
        asks('subdomain') && tenantDomain !== undefined
          ? tenantFromHost(headers.get('host'), tenantDomain)
          : undefined,
    }
    return forTenant(principal, chooseTenant(bound, claims, tenantSources))
  }
}
