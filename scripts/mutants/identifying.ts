/** Mutants at the guard: who asks, for which tenant, and what that credential may do. */
import type { Mutant } from './mutant.ts'

const RING = 'src/identity/key-ring.ts'
const KEYS_TEST = 'test/identity-keys.test.ts'
const JWT_TEST = 'test/identity-jwt.test.ts'

export const IDENTIFYING_MUTANTS: readonly Mutant[] = [
  {
    name: 'ring-trusts-for-ever',
    breaks: 'A process that can not reach Redis goes on honouring the keys that it knows.',
    promise: 'P14',
    edits: [{ file: RING, search: 'const TRUST_MS = 4000', replacement: 'const TRUST_MS = 4000_000' }],
    guards: [
      { file: KEYS_TEST, test: 'who can not look trusts nothing after four seconds, and again when it can' },
    ],
  },
  {
    name: 'revocation-unseen',
    breaks: 'A revocation gives the keys no new revision, so other processes never read them again.',
    promise: 'P14',
    edits: [
      {
        file: 'src/redis/lua/put-key.lua',
        search: "call('SET', KEYS[2], ARGV[4])",
        replacement: "if ARGV[3] ~= '' then call('SET', KEYS[2], ARGV[4]) end",
      },
    ],
    guards: [
      { file: KEYS_TEST, test: 'in the process that revokes, it has ended when the answer comes' },
      {
        file: KEYS_TEST,
        test: 'a revoked key ends in another process within the bound, which is looked at by time alone',
      },
    ],
  },
  {
    name: 'unknown-keys-look-alone',
    breaks: 'Each unknown key has a look at Redis of its own.',
    promise: 'P14',
    edits: [
      {
        file: RING,
        search: '    this.#coming ??= this.#lookSoon()\n    return this.#coming',
        replacement: '    return this.#look()',
      },
    ],
    guards: [
      {
        file: KEYS_TEST,
        test: 'a flood of invented keys costs a few looks, holds nothing, and harms no key that is known',
      },
    ],
  },
  {
    name: 'old-secret-stays',
    breaks: 'The end that a rotation gave to the old secret is not looked at.',
    promise: 'P14',
    edits: [
      {
        file: RING,
        search: 'earlier(expiresAtMs, record.expiresAtMs)',
        replacement: 'record.expiresAtMs ?? (expiresAtMs && undefined)',
      },
    ],
    guards: [
      { file: KEYS_TEST, test: 'an old secret ends at the time that was given, and makes room for the next' },
    ],
  },
  {
    name: 'bound-tenant-moves',
    breaks: 'A credential of one tenant goes where the request says.',
    promise: 'P14',
    edits: [
      {
        file: 'src/policies/tenant-choice.ts',
        search: 'if (bound === EVERY_TENANT) return',
        replacement: 'if (bound === EVERY_TENANT || claimed.length > 0) return',
      },
    ],
    guards: [
      {
        file: 'test/identity-units.test.ts',
        test: 'a bound credential stays where it is, whatever the request says, and in whatever order it is asked',
      },
    ],
  },
  {
    name: 'rule-unasked',
    breaks: 'A route that is found directly does not ask whether the credential may use it.',
    promise: 'P14',
    edits: [
      {
        file: 'src/http/access.ts',
        search: '      check(exchange.principal, exchange.params[0])\n',
        replacement: '',
      },
    ],
    guards: [
      {
        file: 'test/identity-http.test.ts',
        test: 'an unknown type is told to who may write all streams, and to nobody else',
      },
    ],
  },
  {
    name: 'bulk-items-unasked',
    breaks: 'A bulk request may hold commands for streams that its credential may not write.',
    promise: 'P14',
    edits: [
      {
        file: 'src/http/command-routes.ts',
        search: 'access?.allowedItems(principal, items) ?? items',
        replacement: '(access && principal && items) ?? items',
      },
    ],
    guards: [
      { file: 'test/identity-http.test.ts', test: 'a bulk body in every form: the items that may go, go' },
    ],
  },
  {
    name: 'withdrawn-key-remembered',
    breaks: 'Tokens that were judged by a key that the issuer has withdrawn stay known.',
    promise: 'P14',
    edits: [
      {
        file: 'src/identity/jwt-verifier.ts',
        search: '    this.#known = new LRUCache({ max: KNOWN_MAX })\n',
        replacement: '',
      },
    ],
    guards: [
      {
        file: JWT_TEST,
        test: 'a new key works at its first token; a withdrawn one takes its tokens with it',
      },
    ],
  },
  {
    name: 'audience-unasked',
    breaks: 'A token that is meant for somebody else is taken.',
    promise: 'P14',
    edits: [
      {
        file: 'src/identity/jwt-rules.ts',
        search: 'if (!isForUs) throw',
        replacement: 'if (!isForUs && isForUs) throw',
      },
    ],
    guards: [{ file: JWT_TEST, test: 'a token that is wrong in one way is refused for that' }],
  },
  {
    name: 'issuer-asked-each-time',
    breaks: 'Each token with an unknown key id asks the issuer for its keys.',
    promise: 'P14',
    edits: [
      {
        file: 'src/identity/issuer-keys.ts',
        search: 'if (!mayFetch && this.#fetching === undefined)',
        replacement: 'if (!mayFetch && keyId === undefined)',
      },
    ],
    guards: [
      { file: JWT_TEST, test: 'unknown key ids ask the issuer once in ten seconds, however many there are' },
    ],
  },
]
