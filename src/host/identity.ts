/**
 * Who may ask this process: the credentials behind its listeners, and the guards in front of those that ask for one. A process
 * whose listeners ask nobody holds no keys and fetches none.
 */
import { readFileSync } from 'node:fs'
import { checkCredentialSource, type ListenerName, needsCredentials } from '../config/identity-checks.ts'
import type { Settings } from '../config/settings.ts'
import { describeError, MillraceError } from '../contracts/errors.ts'
import type { HealthSource } from '../contracts/health.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Guard } from '../http/guard.ts'
import { JWT_SIGNATURES } from '../http/jwt-signatures.ts'
import { ApiKeys } from '../identity/api-keys.ts'
import { Gatekeeper, type GatekeeperParts } from '../identity/gatekeeper.ts'
import { IssuerKeys } from '../identity/issuer-keys.ts'
import { JwtVerifier } from '../identity/jwt-verifier.ts'
import { KeyRing } from '../identity/key-ring.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import { countApiKeys } from '../redis/api-key-store.ts'
import type { RedisLink } from '../redis/connection.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Supervisor } from '../runtime/supervisor.ts'

export interface IdentityParts {
  readonly supervisor: Supervisor
  readonly settings: Settings
  readonly command: RedisLink
  readonly catalogue: Catalogue
  /** Those that this process has. */
  readonly listeners: readonly ListenerName[]
  readonly clock: Clock
  readonly telemetry: Telemetry
}

export interface Identity {
  readonly keys: ApiKeys
  /** Undefined for a listener that asks nobody. */
  readonly guards: Readonly<Record<ListenerName, Guard | undefined>>
  /** Listeners that ask for a credential. */
  readonly asking: readonly ListenerName[]
  readonly health: readonly HealthSource[]
}

/** RFC 7518, section 3.2: as long as the hash. */
const SECRET_BYTES_MIN = 32

/**
 * What lives in it lives until the supervisor stops.
 *
 * @throws MillraceError `config.invalid` for a listener that would ask for credentials that nobody has
 */
export async function openIdentity(parts: IdentityParts): Promise<Identity> {
  const { supervisor, settings, command, catalogue, listeners, clock, telemetry } = parts
  const asking = listeners.filter((listener) => needsCredentials(settings, listener))
  if (asking.length > 0) {
    const keyCount = await countApiKeys(command)
    for (const listener of asking) checkCredentialSource(settings, listener, keyCount)
  }
  const ring =
    asking.length === 0 ? undefined : await supervisor.run(new KeyRing({ command, clock, telemetry }))
  const keys = new ApiKeys({
    ...{ command, clock, telemetry },
    names: { streams: [...catalogue.streams.keys()], projections: [...catalogue.projections.keys()] },
    onChange: async () => await ring?.refresh(),
  })
  const credentials = ring && { keys: ring, tokens: await openTokens(parts) }
  return {
    keys,
    guards: {
      public: guardOf(parts, asking.includes('public') ? credentials : undefined, settings.tenantFrom),
      // Above tenants, so nothing in a request chooses one.
      admin: asking.includes('admin') ? guardOf(parts, credentials, ['credential']) : undefined,
    },
    asking,
    health: ring === undefined ? [] : [ring],
  }
}

/** Where nobody is asked and a request says nothing about tenants, nothing stands in its way. */
function guardOf(
  { settings, catalogue }: IdentityParts,
  credentials: GatekeeperParts['credentials'],
  tenantSources: Settings['tenantFrom'],
): Guard | undefined {
  if (credentials === undefined && tenantSources.every((source) => source === 'credential')) return undefined
  const { tenantDomain } = settings
  const gatekeeper = new Gatekeeper({ credentials, tenantSources, tenantDomain })
  return {
    identify: (headers) => gatekeeper.identify(headers),
    streamOfType: (type) => catalogue.commands.get(type)?.stream,
  }
}

async function openTokens({
  supervisor,
  settings,
  clock,
  telemetry,
}: IdentityParts): Promise<JwtVerifier | undefined> {
  const { jwtIssuer: issuer, jwtAudience: audience, jwtKeys: source, jwtSecretFile } = settings
  if (issuer === undefined || audience === undefined) return undefined
  const { jwtTenantClaim: tenantClaim, jwtScopeClaim: scopeClaim } = settings
  const algorithms = new Set(settings.jwtAlgorithms)
  let verifier: JwtVerifier | undefined
  const onChange = () => verifier?.forget()
  const keys = source && (await supervisor.run(new IssuerKeys({ source, clock, telemetry, onChange })))
  verifier = new JwtVerifier({
    ...{
      rules: { issuer, audience, algorithms, tenantClaim, scopeClaim },
      signatures: JWT_SIGNATURES,
      clock,
    },
    keys: keys || undefined,
    secret: jwtSecretFile && readSecret(jwtSecretFile),
  })
  return verifier
}

function readSecret(path: string): string {
  let secret: string
  try {
    secret = readFileSync(path, 'utf8').trim()
  } catch (cause) {
    throw new MillraceError(
      'config.invalid',
      `MILLRACE_JWT_SECRET_FILE names a file that can't be read: ${describeError(cause)}. Mount it, or unset it.`,
    )
  }
  if (Buffer.byteLength(secret) >= SECRET_BYTES_MIN) return secret
  throw new MillraceError(
    'config.invalid',
    `The secret in MILLRACE_JWT_SECRET_FILE has fewer than ${SECRET_BYTES_MIN} bytes; make one of random bytes.`,
  )
}
