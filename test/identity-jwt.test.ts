/** Tokens of an issuer: which are taken, by which keys, and how often the issuer is asked. The issuer is a real HTTP server here. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { errorCode } from '../src/contracts/errors.ts'
import { JWT_SIGNATURES } from '../src/http/jwt-signatures.ts'
import { IssuerKeys } from '../src/identity/issuer-keys.ts'
import type { JwtAlgorithm, JwtRules } from '../src/identity/jwt-rules.ts'
import { JwtVerifier } from '../src/identity/jwt-verifier.ts'
import { type Clock, SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { rejection } from './support/rejection.ts'
import { RecordedTelemetry } from './support/telemetry.ts'

class MovedClock implements Clock {
  aheadMs = 0
  readonly nowMs = () => SYSTEM_CLOCK.nowMs() + this.aheadMs
  readonly monotonicMs = () => SYSTEM_CLOCK.monotonicMs() + this.aheadMs
  readonly sleep = SYSTEM_CLOCK.sleep
  readonly after = SYSTEM_CLOCK.after
  readonly random = SYSTEM_CLOCK.random
}

const exponent = new Uint8Array([1, 0, 1])
const RSA = { hash: 'SHA-256', modulusLength: 2048, publicExponent: exponent }
const PARAMS: Readonly<Record<string, object>> = {
  RS256: { ...RSA, name: 'RSASSA-PKCS1-v1_5' },
  PS256: { ...RSA, name: 'RSA-PSS', saltLength: 32 },
  ES256: { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
  EdDSA: { name: 'Ed25519' },
}

interface Signer {
  readonly alg: string
  readonly kid: string
  readonly jwk: Readonly<Record<string, unknown>>
  sign(bytes: Buffer<ArrayBuffer>): Promise<ArrayBuffer>
}

async function makeSigner(alg: string, kid: string, extra: object = {}): Promise<Signer> {
  const params = { ...PARAMS[alg], ...extra } as { readonly name: string }
  const pair = (await crypto.subtle.generateKey(params, true, ['sign', 'verify'])) as CryptoKeyPair
  const exported = await crypto.subtle.exportKey('jwk', pair.publicKey)
  const jwk = { ...exported, key_ops: ['verify'], kid, alg, use: 'sig' }
  return { alg, kid, jwk, sign: (bytes) => crypto.subtle.sign(params, pair.privateKey, bytes) }
}

const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')

async function token(signer: Signer, claims: object, header: object = {}): Promise<string> {
  const head = `${part({ alg: signer.alg, typ: 'JWT', kid: signer.kid, ...header })}.${part(claims)}`
  return `${head}.${Buffer.from(await signer.sign(Buffer.from(head))).toString('base64url')}`
}

const rules: JwtRules = {
  issuer: 'https://issuer.example',
  audience: 'millrace',
  algorithms: new Set<JwtAlgorithm>(['RS256', 'PS256', 'ES256', 'EdDSA']),
  tenantClaim: 'tenant',
  scopeClaim: 'scope',
}
const nowS = () => Math.floor(Date.now() / 1000)
const good = () => ({
  iss: rules.issuer,
  aud: rules.audience,
  sub: 'ada@example.com',
  exp: nowS() + 600,
  scope: 'views:read openid commands:write:orders',
  tenant: 'acme',
})

/** An issuer whose set a test changes, and which counts how often it is asked. */
class Issuer {
  keys: object[] = []
  body: string | undefined
  status = 200
  asked = 0
  readonly server = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    fetch: () => {
      this.asked += 1
      return new Response(this.body ?? JSON.stringify({ keys: this.keys }), { status: this.status })
    },
  })
  readonly url = `http://127.0.0.1:${this.server.port}/keys`
}

let rsa: Signer
let issuer: Issuer
beforeAll(async () => {
  rsa = await makeSigner('RS256', 'rsa')
  issuer = new Issuer()
})
afterAll(async () => await issuer.server.stop(true))

interface World extends AsyncDisposable {
  readonly verifier: JwtVerifier
  readonly keys: IssuerKeys
  readonly clock: MovedClock
  readonly telemetry: RecordedTelemetry
  /** The credential's tenant, or the sentence of the refusal. */
  told(text: string): Promise<string>
}

async function open(
  options: { readonly source?: string; readonly secret?: string; readonly rules?: Partial<JwtRules> } = {},
): Promise<World> {
  const clock = new MovedClock()
  const telemetry = new RecordedTelemetry()
  let verifier: JwtVerifier | undefined
  const keys = new IssuerKeys({
    source: options.source ?? issuer.url,
    clock,
    telemetry,
    onChange: () => verifier?.forget(),
  })
  await keys.start()
  verifier = new JwtVerifier({
    rules: { ...rules, ...options.rules },
    signatures: JWT_SIGNATURES,
    keys,
    secret: options.secret,
    clock,
  })
  const opened = verifier
  return {
    ...{ verifier: opened, keys, clock, telemetry },
    told: async (text) => {
      try {
        return (await opened.verify(text)).principal.tenant
      } catch (error) {
        const sentence = (error as Error).message
        if (text.length > 20) expect(sentence).not.toContain(text.slice(0, 20))
        return `${errorCode(error)}: ${sentence}`
      }
    },
    [Symbol.asyncDispose]: () => keys.stop(),
  }
}

describe('which tokens are taken', () => {
  test('each algorithm of the list by the key that fits it; at first sight with a promise, then without', async () => {
    const signers = [
      rsa,
      await makeSigner('PS256', 'pss'),
      await makeSigner('ES256', 'ec'),
      await makeSigner('EdDSA', 'ed'),
    ]
    issuer.keys = signers.map(({ jwk }) => jwk)
    await using world = await open()
    for (const signer of signers) {
      const text = await token(signer, good())
      expect([signer.alg, world.verifier.verify(text) instanceof Promise]).toEqual([signer.alg, true])
      expect([signer.alg, await world.told(text)]).toEqual([signer.alg, 'acme'])
      const known = world.verifier.verify(text)
      if (known instanceof Promise) throw new Error('the second sight must not wait')
      const { principal } = known
      expect(principal.credential).toMatch(/^jwt:[0-9a-f]{24}$/)
      expect([
        principal.allows('views:read', undefined),
        principal.allows('commands:write', 'orders'),
        principal.allows('commands:write', 'billing'),
        principal.allowsSome('admin'),
      ]).toEqual([true, true, false, false])
    }
  })

  test('a token that is wrong in one way is refused for that', async () => {
    issuer.keys = [rsa.jwk]
    await using world = await open()
    const told = async (claims: object, header: object = {}) =>
      await world.told(await token(rsa, { ...good(), ...claims }, header))
    expect(await told({})).toBe('acme')
    expect(await told({ iss: 'https://evil.example' })).toContain('(iss)')
    expect(await told({ iss: undefined })).toContain('(iss)')
    expect(await told({ iss: [rules.issuer] })).toContain('(iss)')
    expect(await told({ aud: 'other' })).toContain('(aud)')
    expect(await told({ aud: undefined })).toContain('(aud)')
    expect(await told({ aud: ['x', 'millrace'] })).toBe('acme')
    expect(await told({ exp: nowS() - 31 })).toContain('expired (exp)')
    expect(await told({ exp: nowS() - 20 })).toBe('acme')
    expect(await told({ exp: undefined })).toContain('(exp)')
    expect(await told({ exp: String(nowS() + 600) })).toContain('(exp)')
    expect(await told({ nbf: nowS() + 60 })).toContain('(nbf)')
    expect(await told({ nbf: nowS() + 20 })).toBe('acme')
    expect(await told({ nbf: 'soon' })).toContain('(nbf)')
    expect(await told({ iat: nowS() + 600 })).toContain('(iat)')
    expect(await told({ sub: undefined })).toContain('(sub)')
    expect(await told({ tenant: 'Acme' })).toContain('its tenant is not a name')
    expect(await told({ tenant: ['acme'] })).toContain('its tenant is not a name')
    expect(await told({ tenant: undefined })).toBe('')
    expect(await told({}, { typ: 'at+jwt' })).toBe('acme')
    expect(await told({}, { typ: undefined })).toBe('acme')
    expect(await told({}, { typ: 'other' })).toContain('signature')
    expect(await told({}, { crit: ['x'] })).toContain('signature')
    expect(await told({}, { kid: 'other' })).toContain('(kid)')
    expect(await told({}, { kid: 7 })).toContain('(kid)')
    expect(await told({}, { kid: undefined })).toBe('acme')
  })

  test('no algorithm that is not on the list, and no key of another kind', async () => {
    const stranger = await makeSigner('RS256', 'rsa')
    const ed = await makeSigner('EdDSA', 'ed')
    issuer.keys = [rsa.jwk, ed.jwk]
    await using world = await open()
    const claims = good()
    const none = `${part({ alg: 'none', typ: 'JWT' })}.${part(claims)}.`
    expect(await world.told(none)).toContain('its algorithm')
    for (const alg of ['NONE', 'None', 'nOnE', 'HS256', 'HS512', 'RS1', 'rs256', '', 7, null, ['RS256']]) {
      expect([alg, await world.told(await token(rsa, claims, { alg }))]).toEqual([
        alg,
        expect.stringContaining('its algorithm'),
      ])
    }
    // The public key as a shared secret: what made others famous.
    const head = `${part({ alg: 'HS256', typ: 'JWT', kid: 'rsa' })}.${part(claims)}`
    for (const secret of [JSON.stringify(rsa.jwk), String(rsa.jwk['n'])]) {
      const forged = new Bun.CryptoHasher('sha256', secret).update(head).digest('base64url')
      expect(await world.told(`${head}.${forged}`)).toContain('its algorithm')
    }
    expect(await world.told(await token(stranger, claims))).toContain('signature')
    expect(await world.told(await token(ed, claims, { kid: 'rsa', alg: 'RS256' }))).toContain('signature')
    expect(await world.told(await token(ed, claims, { kid: 'rsa' }))).toContain('(kid)')
    // A key in the token itself is nobody's.
    expect(await world.told(await token(stranger, claims, { jwk: stranger.jwk, kid: 'evil' }))).toContain(
      '(kid)',
    )
    const [h = '', , s = ''] = (await token(rsa, claims)).split('.')
    expect(await world.told(`${h}.${part({ ...claims, tenant: 'other' })}.${s}`)).toContain('signature')
    for (const odd of [
      '',
      'a',
      'a.b',
      'a.b.c',
      '..',
      `${h}.${h}`,
      'x'.repeat(9000),
      `${part([])}.${part(1)}.x`,
      `${part(null)}.${part(null)}.`,
    ])
      expect(await world.told(odd)).toContain('identity.invalid')
  })

  test('HS256 by a configured secret only, and never by the keys of the issuer', async () => {
    issuer.keys = [rsa.jwk, { kty: 'oct', k: Buffer.from('published').toString('base64url'), kid: 'oct' }]
    const secret = '-----BEGIN PUBLIC KEY-----0123456789abcdef'
    await using world = await open({
      secret,
      rules: { algorithms: new Set<JwtAlgorithm>(['HS256', 'RS256']) },
    })
    const signed = (by: string, header: object = {}) => {
      const head = `${part({ alg: 'HS256', typ: 'JWT', ...header })}.${part(good())}`
      return `${head}.${new Bun.CryptoHasher('sha256', by).update(head).digest('base64url')}`
    }
    expect(await world.told(signed(secret))).toBe('acme')
    expect(await world.told(signed('other'))).toContain('signature')
    expect(await world.told(signed('published', { kid: 'oct' }))).toContain('signature')
    expect(await world.told(signed(String(rsa.jwk['n']), { kid: 'rsa' }))).toContain('signature')
  })

  test('a token that is known ends when it ends', async () => {
    issuer.keys = [rsa.jwk]
    await using world = await open()
    const text = await token(rsa, { ...good(), exp: nowS() + 60 })
    expect(await world.told(text)).toBe('acme')
    world.clock.aheadMs += 89_000
    expect(await world.told(text)).toBe('acme')
    world.clock.aheadMs += 3000
    expect(await world.told(text)).toContain('expired (exp)')
    expect(await world.told(text)).toContain('expired (exp)')
  })

  test('claims have the names that were configured; admin does not go with a tenant', async () => {
    issuer.keys = [rsa.jwk]
    await using world = await open({ rules: { tenantClaim: 'https://x/org', scopeClaim: 'permissions' } })
    const verify = async (claims: object) =>
      await world.verifier.verify(await token(rsa, { ...good(), ...claims }))
    const listed = await verify({ 'https://x/org': 'beta', permissions: ['admin', 'views:read', 7] })
    expect([
      listed.bound,
      listed.principal.allowsSome('admin'),
      listed.principal.allowsSome('views:read'),
      listed.principal.allowsSome('commands:write'),
    ]).toEqual(['beta', false, true, false])
    const every = await verify({ 'https://x/org': '*', permissions: ['admin'] })
    expect([every.bound, every.principal.allows('admin', undefined)]).toEqual(['*', true])
  })

  test('a burst of one new token is checked once; of many, only so many at a time', async () => {
    issuer.keys = [rsa.jwk]
    let checked = 0
    const gate = Promise.withResolvers<void>()
    await using world = await open()
    const verifier = new JwtVerifier({
      ...{ rules, keys: world.keys, secret: undefined, clock: world.clock },
      signatures: {
        decode: JWT_SIGNATURES.decode,
        verify: async () => {
          checked += 1
          await gate.promise
          return false
        },
      },
    })
    const text = await token(rsa, good())
    const told = async (each: string) => {
      try {
        return await verifier.verify(each)
      } catch (error) {
        return errorCode(error)
      }
    }
    const burst = Array.from({ length: 50 }, () => told(text))
    const [head, claims] = [part({ alg: 'RS256', kid: 'rsa' }), good()]
    const flood = Array.from({ length: 2000 }, (_, i) => told(`${head}.${part({ ...claims, jti: i })}.AAAA`))
    await Bun.sleep(0)
    gate.resolve()
    expect(new Set(await Promise.all(burst))).toEqual(new Set(['identity.invalid']))
    const verdicts = await Promise.all(flood)
    expect(checked).toBe(256)
    expect(verdicts.filter((each) => each === 'admission.overloaded').length).toBe(2000 - 255)
    // What was refused a moment ago is not checked again.
    expect(await told(text)).toBe('identity.invalid')
    expect(checked).toBe(256)
  })
})

describe('keys of the issuer', () => {
  test('unknown key ids ask the issuer once in ten seconds, however many there are', async () => {
    issuer.keys = [rsa.jwk]
    await using world = await open()
    issuer.asked = 0
    const unknown = async (kid: string) => await world.told(await token(rsa, good(), { kid }))
    await Promise.all(Array.from({ length: 30 }, (_, i) => unknown(`a${i}`)))
    expect(issuer.asked).toBe(0)
    world.clock.aheadMs += 10_000
    await Promise.all(Array.from({ length: 30 }, (_, i) => unknown(`b${i}`)))
    expect(issuer.asked).toBe(1)
    await Promise.all(Array.from({ length: 30 }, (_, i) => unknown(`c${i}`)))
    expect(issuer.asked).toBe(1)
    expect(await world.told(await token(rsa, good()))).toBe('acme')
  })

  test('a new key works at its first token; a withdrawn one takes its tokens with it', async () => {
    const next = await makeSigner('RS256', 'next')
    issuer.keys = [rsa.jwk]
    await using world = await open()
    const old = await token(rsa, good())
    expect(await world.told(old)).toBe('acme')
    issuer.keys = [rsa.jwk, next.jwk]
    world.clock.aheadMs += 10_000
    expect(await world.told(await token(next, good()))).toBe('acme')
    expect(await world.told(old)).toBe('acme')
    issuer.keys = [next.jwk]
    world.clock.aheadMs += 10_000
    expect(await world.told(await token(next, good(), { kid: 'asks again' }))).toContain('(kid)')
    expect(await world.told(old)).toContain('(kid)')
  })

  test('while the issuer is away or talks nonsense, the last good keys stay', async () => {
    issuer.keys = [rsa.jwk]
    await using world = await open()
    const nonsense: [number, string | undefined][] = [
      [500, undefined],
      [200, 'no JSON'],
      [200, '{"keys":[]}'],
      [200, '{"keys":{}}'],
      [200, `{"keys":[],"x":"${'x'.repeat(300_000)}"}`],
      [302, undefined],
    ]
    for (const [status, body] of nonsense) {
      issuer.status = status
      issuer.body = body
      world.clock.aheadMs += 10_000
      expect(await world.told(await token(rsa, good(), { kid: 'unknown' }))).toContain('(kid)')
      expect(await world.told(await token(rsa, { ...good(), jti: `${status} ${body?.slice(0, 20)}` }))).toBe(
        'acme',
      )
    }
    expect(world.telemetry.of('service.failed').length).toBeGreaterThanOrEqual(nonsense.length)
    issuer.status = 200
    issuer.body = undefined
  })

  test('an issuer that is away at start is asked again; until then nobody is told that a token is bad', async () => {
    issuer.keys = [rsa.jwk]
    issuer.status = 503
    await using world = await open()
    const text = await token(rsa, good())
    expect(await world.told(text)).toContain('redis.unavailable')
    issuer.status = 200
    world.clock.aheadMs += 10_000
    expect(await world.told(text)).toBe('acme')
  })

  test('short RSA keys, keys for encryption and shared secrets are left out', async () => {
    const short = await makeSigner('RS256', 'short', { modulusLength: 1024 })
    issuer.keys = [
      short.jwk,
      { ...rsa.jwk, kid: 'enc', use: 'enc' },
      { kty: 'oct', k: 'AAAA', kid: 'oct' },
      rsa.jwk,
    ]
    await using world = await open()
    expect(await world.told(await token(short, good()))).toContain('(kid)')
    expect(await world.told(await token(rsa, good(), { kid: 'enc' }))).toContain('(kid)')
    expect(await world.told(await token(rsa, good()))).toBe('acme')
    expect(world.telemetry.of('issuer-keys.fetched')).toEqual([{ keys: 1 }])
  })

  test('from a file; one that can not be used ends the start', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'millrace-jwks-'))
    try {
      const path = join(folder, 'keys.json')
      expect((await rejection(open({ source: path }))).message).toMatch(/MILLRACE_JWT_JWKS can't be used/)
      await Bun.write(path, JSON.stringify({ keys: [] }))
      expect((await rejection(open({ source: path }))).message).toMatch(/no key that can check signatures/)
      await Bun.write(path, JSON.stringify({ keys: [rsa.jwk] }))
      await using world = await open({ source: path })
      expect(await world.told(await token(rsa, good()))).toBe('acme')
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })
})
