/** The pure parts of identity: keys as texts, digests, scopes, tenants, and which listener asks. */
import { describe, expect, test } from 'bun:test'
import { timingSafeEqual } from 'node:crypto'
import { join } from 'node:path'
import fc from 'fast-check'
import { checkCredentialSource, checkIdentity, needsCredentials } from '../src/config/identity-checks.ts'
import { resolveSettings } from '../src/config/settings.ts'
import { errorCode } from '../src/contracts/errors.ts'
import { VERBS } from '../src/contracts/principal.ts'
import { formatApiKey, isApiKey, newKeyId, newSecret, splitApiKey } from '../src/identity/api-key-token.ts'
import { makeCredential } from '../src/identity/credential.ts'
import { digestOf, findDigest } from '../src/identity/secret-digest.ts'
import { Scopes, scopeComplaint } from '../src/policies/scopes.ts'
import { chooseTenant, tenantFromHeader, tenantFromHost } from '../src/policies/tenant-choice.ts'
import { root } from './source-files.ts'

const codeOf = (call: () => unknown): unknown => {
  try {
    return call()
  } catch (error) {
    return errorCode(error)
  }
}

describe('API keys as texts', () => {
  test('a key reads back, and no two are alike', () => {
    const ids = Array.from({ length: 200 }, newKeyId)
    const keys = ids.map((id) => ({ id, secret: newSecret(id) }))
    for (const key of keys) {
      expect(isApiKey(formatApiKey(key))).toBe(true)
      expect(splitApiKey(formatApiKey(key))).toEqual(key)
    }
    expect(new Set(keys.map(({ secret }) => secret)).size).toBe(200)
    expect(formatApiKey(keys[0] ?? { id: '', secret: '' })).toMatch(/^mr_[0-9a-z]{12}_[0-9A-Za-z]{49}$/)
    // 62^43 is more than 2^256.
    expect(Math.log2(62) * 43).toBeGreaterThan(256)
  })

  test('every character of the alphabets is drawn, none of them much more often', () => {
    const counts = new Map<string, number>()
    for (let i = 0; i < 2000; i++)
      for (const char of newSecret(newKeyId()).slice(0, 43)) counts.set(char, (counts.get(char) ?? 0) + 1)
    expect(counts.size).toBe(62)
    const expected = (2000 * 43) / 62
    for (const count of counts.values()) expect(Math.abs(count - expected)).toBeLessThan(expected * 0.2)
  })

  test('one wrong, missing or swapped character is noticed without Redis', () => {
    const id = newKeyId()
    const key = formatApiKey({ id, secret: newSecret(id) })
    const seed = Number(Bun.env['MILLRACE_TEST_SEED'] ?? Date.now() % 1_000_000)
    fc.assert(
      fc.property(fc.nat(key.length - 1), fc.constantFrom(...'0aZ_-é '), (at, char) => {
        fc.pre(key[at] !== char)
        expect(isApiKey(key.slice(0, at) + char + key.slice(at + 1))).toBe(false)
        expect(isApiKey(key.slice(0, at) + key.slice(at + 1))).toBe(false)
      }),
      { numRuns: 300, seed },
    )
    for (const odd of ['', 'mr_', `${key} `, `${key}\n`, key.toUpperCase(), `x${key}`]) {
      expect(isApiKey(odd)).toBe(false)
    }
  })
})

describe('secrets', () => {
  test('the digest is SHA-256, and each is compared, also after the right one and where there is none', () => {
    expect(digestOf('abc').toString('hex')).toBe(
      'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    )
    const digests = [digestOf('new'), digestOf('old')]
    let compared = 0
    const counting: typeof timingSafeEqual = (a, b) => {
      compared += 1
      return timingSafeEqual(a, b)
    }
    expect([findDigest('new', digests, counting), compared]).toEqual([0, 2])
    expect([findDigest('old', digests, counting), compared]).toEqual([1, 4])
    expect([findDigest('other', digests, counting), compared]).toEqual([-1, 6])
    expect([findDigest('other', [], counting), compared]).toEqual([-1, 7])
  })

  test('they are compared in that one place, by a comparison that takes the same time for all', async () => {
    const own = await Bun.file(join(root, 'src/identity/secret-digest.ts')).text()
    expect(own).toContain('same: typeof timingSafeEqual = timingSafeEqual')
    const paths = [...new Bun.Glob('src/identity/*.ts').scanSync({ cwd: root })]
    expect(paths.length).toBeGreaterThan(8)
    for (const path of paths) {
      const text = await Bun.file(join(root, path)).text()
      expect(
        text.match(/digest\w*\)?\s*(===|!==|\.equals\()|Buffer\.compare/i)?.[0] ?? `nothing in ${path}`,
      ).toBe(`nothing in ${path}`)
    }
  })
})

describe('scopes', () => {
  test('a scope reaches what it names and nothing else', () => {
    const scopes = new Scopes([
      'commands:write:orders',
      'commands:write:billing',
      'views:read',
      'events:read:*',
    ])
    expect(scopes.allows('commands:write', 'orders')).toBe(true)
    expect(scopes.allows('commands:write', 'billing')).toBe(true)
    expect(scopes.allows('commands:write', 'stock')).toBe(false)
    expect(scopes.allows('commands:write', undefined)).toBe(false)
    expect(scopes.allowsSome('commands:write')).toBe(true)
    expect(scopes.allows('commands:read', 'orders')).toBe(false)
    expect([scopes.allows('views:read', undefined), scopes.allows('events:read', undefined)]).toEqual([
      true,
      true,
    ])
    expect(scopes.allowsSome('admin')).toBe(false)
  })

  test('one for all is not narrowed by one for some, in either order', () => {
    for (const texts of [
      ['views:read', 'views:read:totals'],
      ['views:read:totals', 'views:read'],
    ]) {
      expect(new Scopes(texts).allows('views:read', 'other')).toBe(true)
    }
  })

  test('what is no scope allows nothing', () => {
    const odd = [
      '',
      'admin:orders',
      'commands',
      'commands:write:',
      'commands:write:a:b',
      'COMMANDS:WRITE',
      'commands:write:}x{',
    ]
    const scopes = new Scopes(odd)
    expect(VERBS.filter((verb) => scopes.allowsSome(verb))).toEqual([])
  })

  test('a mistake is told with what was meant', () => {
    const names = { streams: ['orders'], projections: ['totals'] }
    const told = (text: string) => scopeComplaint(text, names)
    expect(
      told('commands:write:orders') ?? told('views:read:totals') ?? told('admin') ?? told('events:read:*'),
    ).toBeUndefined()
    expect(told('command:write')).toContain('Did you mean "commands:write"?')
    expect(told('commands:wirte:orders')).toContain('Did you mean "commands:write"?')
    expect(told('commands:write:ordres')).toContain('Did you mean "orders"?')
    expect(told('views:read:orders')).toContain('names a projection that nobody defines')
    expect(told('everything')).toContain('Scopes are commands:write')
  })

  test('admin does not go with one tenant, whatever a credential says', () => {
    expect(makeCredential('c', 'acme', new Scopes(['admin'])).principal.allows('admin', undefined)).toBe(
      false,
    )
    expect(makeCredential('c', 'acme', new Scopes(['admin'])).principal.allowsSome('admin')).toBe(false)
    expect(makeCredential('c', '*', new Scopes(['admin'])).principal.allows('admin', undefined)).toBe(true)
    expect(makeCredential('c', '', new Scopes(['admin'])).principal.allows('admin', undefined)).toBe(true)
  })
})

describe('tenants', () => {
  const all = ['credential', 'header', 'subdomain'] as const

  test('a bound credential stays where it is, whatever the request says, and in whatever order it is asked', () => {
    for (const bound of ['acme', '']) {
      for (const sources of [all, [...all].reverse(), ['header', 'subdomain'] as const]) {
        expect(chooseTenant(bound, { header: undefined, subdomain: undefined }, sources)).toBe(bound)
        expect(codeOf(() => chooseTenant(bound, { header: 'other', subdomain: undefined }, sources))).toBe(
          'identity.forbidden',
        )
        expect(codeOf(() => chooseTenant(bound, { header: undefined, subdomain: 'other' }, sources))).toBe(
          'identity.forbidden',
        )
        expect(
          codeOf(() => chooseTenant(bound, { header: bound || 'acme', subdomain: 'other' }, sources)),
        ).toBe('identity.forbidden')
      }
    }
    expect(chooseTenant('acme', { header: 'acme', subdomain: 'acme' }, all)).toBe('acme')
  })

  test('one for every tenant takes the first that is named', () => {
    expect(chooseTenant('*', { header: 'a', subdomain: 'b' }, all)).toBe('a')
    expect(chooseTenant('*', { header: 'a', subdomain: 'b' }, ['subdomain', 'header'])).toBe('b')
    expect(chooseTenant('*', { header: undefined, subdomain: 'b' }, all)).toBe('b')
    expect(chooseTenant('*', { header: undefined, subdomain: undefined }, all)).toBe('')
    // What was not asked says nothing.
    expect(chooseTenant('*', { header: 'a', subdomain: 'b' }, ['credential'])).toBe('')
  })

  test('a host names a tenant only as one label before the domain', () => {
    const told = (host: string | null) => codeOf(() => tenantFromHost(host, 'api.example.com'))
    expect(told('acme.api.example.com')).toBe('acme')
    expect(told('ACME.Api.Example.COM:8443')).toBe('acme')
    expect(told('acme.api.example.com.')).toBe('acme')
    expect(told('acme.api.example.com.:80')).toBe('acme')
    for (const nobody of [
      null,
      'api.example.com',
      'example.com',
      '127.0.0.1:80',
      '[::1]:80',
      'acme.api.example.com.evil.com',
      'acmeapi.example.com',
    ])
      expect(told(nobody)).toBeUndefined()
    for (const odd of [
      'a.b.api.example.com',
      '.api.example.com',
      '-a.api.example.com',
      'acme.api.example.com, other.api.example.com',
      'acme.api.example.com:80:90',
      'acme.api.example.com/x',
      'acme_x.api.example.com',
      'acme.api.example.com@evil.com',
      'acmé.api.example.com',
      '',
      'acme .api.example.com',
    ]) {
      expect([odd, told(odd)]).toEqual([odd, 'command.malformed'])
    }
    expect(told(`${'a'.repeat(64)}.api.example.com`)).toBe('command.malformed')
  })

  test('a header names a tenant exactly, or is refused', () => {
    expect([tenantFromHeader(null), tenantFromHeader('acme')]).toEqual([undefined, 'acme'])
    for (const odd of ['', '*', 'Acme', 'a b', 'acme, other', '}x{', 'a.b', '-a'])
      expect(codeOf(() => tenantFromHeader(odd))).toBe('command.malformed')
  })
})

describe('which listener asks', () => {
  const settings = (environment: Record<string, string>) =>
    resolveSettings({ environment: new Map(Object.entries(environment)) as never })
  const jwt = { MILLRACE_JWT_ISSUER: 'i', MILLRACE_JWT_AUDIENCE: 'a', MILLRACE_JWT_JWKS: '/keys' }

  test('as the table says', () => {
    const asks = (environment: Record<string, string>) => {
      const resolved = settings(environment)
      return [needsCredentials(resolved, 'public'), needsCredentials(resolved, 'admin')]
    }
    const open = { HOST: '0.0.0.0', MILLRACE_ADMIN_HOST: '::' }
    const byName = { MILLRACE_ALLOW_UNSAFE: 'public-bind,public-admin' }
    expect(asks({})).toEqual([false, false])
    expect(asks({ ...jwt })).toEqual([true, false])
    expect(asks({ MILLRACE_AUTH: 'required' })).toEqual([true, false])
    expect(asks({ MILLRACE_AUTH: 'open', ...jwt })).toEqual([false, false])
    expect(asks({ ...open })).toEqual([true, true])
    expect(asks({ ...open, MILLRACE_AUTH: 'required', ...byName })).toEqual([true, true])
    expect(asks({ ...open, ...byName })).toEqual([false, false])
    expect(asks({ ...open, ...byName, ...jwt })).toEqual([true, false])
    expect(asks({ ...open, ...byName, MILLRACE_AUTH: 'open' })).toEqual([false, false])
    expect(() => settings({ ...open, MILLRACE_AUTH: 'open' })).toThrow(
      /HOST 0\.0\.0\.0 .*MILLRACE_AUTH=open.*public-bind/,
    )
    expect(() => settings({ MILLRACE_ADMIN_HOST: '::', MILLRACE_AUTH: 'open' })).toThrow(/public-admin/)
  })

  test('nobody is asked for a credential that nobody has, unless somebody decided so', () => {
    const told = (environment: Record<string, string>, keys: number) =>
      codeOf(() => checkCredentialSource(settings({ HOST: '0.0.0.0', ...environment }), 'public', keys))
    expect(told({}, 0)).toBe('config.invalid')
    expect(told({}, 1)).toBeUndefined()
    expect(told({ ...jwt }, 0)).toBeUndefined()
    expect(told({ MILLRACE_AUTH: 'required' }, 0)).toBeUndefined()
    expect(told({ MILLRACE_ALLOW_UNSAFE: 'public-bind' }, 0)).toBeUndefined()
  })

  test('half a configuration is refused with what is missing', () => {
    const { MILLRACE_JWT_AUDIENCE, ...noAudience } = jwt
    const { MILLRACE_JWT_ISSUER, ...noIssuer } = jwt
    const { MILLRACE_JWT_JWKS, ...noKeys } = jwt
    expect(() => settings(noAudience)).toThrow('MILLRACE_JWT_AUDIENCE is needed')
    expect(() => settings(noIssuer)).toThrow('MILLRACE_JWT_ISSUER is needed')
    expect(() => settings(noKeys)).toThrow('MILLRACE_JWT_JWKS has to say')
    expect(() => settings({ ...jwt, MILLRACE_JWT_ALGORITHMS: 'none' })).toThrow(/use RS256/)
    expect(() => settings({ ...jwt, MILLRACE_JWT_ALGORITHMS: 'RS265' })).toThrow('did you mean "RS256"?')
    expect(() => settings({ ...jwt, MILLRACE_JWT_ALGORITHMS: 'HS256' })).toThrow('MILLRACE_JWT_SECRET_FILE')
    expect(() => settings({ ...jwt, MILLRACE_JWT_SECRET_FILE: '/s' })).toThrow('only used for HS256')
    expect(() =>
      settings({ ...noKeys, MILLRACE_JWT_SECRET_FILE: '/s', MILLRACE_JWT_ALGORITHMS: 'HS256,RS256' }),
    ).toThrow('only HS256 can be checked')
    for (const odd of ['http://keys.example.com/set', 'ftp://x/y', 'https://me:hunter2@x/y'])
      expect(() => settings({ ...jwt, MILLRACE_JWT_JWKS: odd })).toThrow(
        'neither a file nor an https:// address',
      )
    expect(settings({ ...jwt, MILLRACE_JWT_JWKS: 'http://127.0.0.1:1/set' }).jwtKeys).toBe(
      'http://127.0.0.1:1/set',
    )
    expect(() => settings({ MILLRACE_TENANT_FROM: 'subdomain' })).toThrow('MILLRACE_TENANT_DOMAIN')
    expect(() => settings({ MILLRACE_TENANT_DOMAIN: 'x.com' })).toThrow('has no effect')
    expect(() => settings({ MILLRACE_TENANT_FROM: 'subdomian' })).toThrow('did you mean "subdomain"?')
    expect(
      settings({ MILLRACE_TENANT_FROM: 'subdomain', MILLRACE_TENANT_DOMAIN: '.API.example.com.' })
        .tenantDomain,
    ).toBe('api.example.com')
    expect(() => checkIdentity(settings({}))).not.toThrow()
  })
})
