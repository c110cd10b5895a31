/** `WWW-Authenticate` (RFC 6750, section 3): how to come with a credential, or what is wrong with the one that came. */
import { errorCode } from '../contracts/errors.ts'

const REALM = 'Bearer realm="millrace"'

/** Nothing is said about a credential that did not come. */
export function challengeHeaders(error: unknown): Readonly<Record<string, string>> {
  const code = errorCode(error)
  if (code === 'identity.missing') return { 'www-authenticate': REALM }
  if (code === 'identity.invalid') return { 'www-authenticate': `${REALM}, error="invalid_token"` }
  if (code === 'identity.forbidden') return { 'www-authenticate': `${REALM}, error="insufficient_scope"` }
  return {}
}
