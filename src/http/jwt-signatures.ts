/**
 * JSON Web Tokens by Hono's library: taking one apart, and checking its signature with WebCrypto. Times and names in it are
 * checked by `identity`, which knows the clock and allows for others; what the library throws may quote the token and goes no
 * further.
 */
import { Jwt } from 'hono/utils/jwt'
import type { JwtSignatures } from '../identity/jwt-verifier.ts'

/** Plain tokens, and access tokens as RFC 9068 marks them. */
const TYPES = ['JWT', 'at+jwt']

export const JWT_SIGNATURES: JwtSignatures = {
  decode: (token) => {
    try {
      const { header, payload } = Jwt.decode(token)
      return isObject(header) && isObject(payload) ? { header, claims: payload } : undefined
    } catch {
      return undefined
    }
  },
  verify: async (token, alg, key) => {
    try {
      const marked = Jwt.decode(token).header.typ === undefined ? {} : { typ: TYPES }
      await Jwt.verify(token, key, { alg, exp: false, nbf: false, iat: false, ...marked })
      return true
    } catch {
      return false
    }
  },
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
