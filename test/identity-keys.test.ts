/** API keys over a real Redis: two key rings as in two processes, rotation, expiry, floods, and the admin routes that make them. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { errorCode } from '../src/contracts/errors.ts'
import { Schedules } from '../src/cron/schedules.ts'
import { DeadLetters } from '../src/dead-letters/dead-letters.ts'
import { createAdminApp } from '../src/http/admin-app.ts'
import { Metrics } from '../src/http/metrics.ts'
import { HttpServer } from '../src/http/server.ts'
import { formatApiKey, newKeyId, newSecret, splitApiKey } from '../src/identity/api-key-token.ts'
import { ApiKeys } from '../src/identity/api-keys.ts'
import { Gatekeeper } from '../src/identity/gatekeeper.ts'
import { KeyRing } from '../src/identity/key-ring.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { API_KEYS_MAX, putApiKey, readApiKeys } from '../src/redis/api-key-store.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { joinFleet } from '../src/redis/fleet.ts'
import { API_KEYS_KEY, API_KEYS_REVISION_KEY, API_KEYS_USED_KEY } from '../src/redis/keys.ts'
import { type Clock, SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { TelemetryHub } from '../src/runtime/telemetry-hub.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { rejection } from './support/rejection.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { until } from './support/until.ts'

const names = { streams: ['orders', 'billing'], projections: ['totals'] }
const telemetry = new RecordedTelemetry()

let redis: TestRedis
let command: RedisLink
const rings: KeyRing[] = []

beforeAll(async () => {
  redis = await startTestRedis()
  command = await redis.open()
})
afterEach(async () => {
  await Promise.all(rings.splice(0).map((ring) => ring.stop()))
  await command.use('emptying', (client) =>
    client.del(API_KEYS_KEY, API_KEYS_REVISION_KEY, API_KEYS_USED_KEY),
  )
})
afterAll(async () => {
  await redis[Symbol.asyncDispose]()
})

function invented(): string {
  const id = newKeyId()
  return formatApiKey({ id, secret: newSecret(id) })
}

/** A wall clock that a test moves; everything else is the system's. */
class MovedClock implements Clock {
  aheadMs = 0
  readonly nowMs = () => SYSTEM_CLOCK.nowMs() + this.aheadMs
  readonly monotonicMs = () => SYSTEM_CLOCK.monotonicMs() + this.aheadMs
  readonly sleep = SYSTEM_CLOCK.sleep
  readonly after = SYSTEM_CLOCK.after
  readonly random = SYSTEM_CLOCK.random
}

async function openRing(clock: Clock = SYSTEM_CLOCK): Promise<KeyRing> {
  const ring = new KeyRing({ command: await redis.open(), clock, telemetry })
  rings.push(ring)
  await ring.start()
  return ring
}

/** As in another process: no ring hears of its changes. */
function openKeys(
  clock: Clock = SYSTEM_CLOCK,
  onChange: () => Promise<void> = async () => undefined,
): ApiKeys {
  return new ApiKeys({ command, names, clock, telemetry, onChange })
}

/** The credential's id, or the code of what was thrown. */
async function asked(ring: KeyRing, key: string): Promise<unknown> {
  try {
    return (await ring.verify(key)).principal.credential
  } catch (error) {
    return errorCode(error)
  }
}

describe('a key ring', () => {
  test('a key works everywhere as soon as it was made, and then without a promise', async () => {
    const [keys, ring] = [openKeys(), await openRing()]
    for (let round = 0; round < 5; round++) {
      const { key, id } = await keys.create({
        scopes: ['commands:write:orders'],
        label: 'shop',
        tenant: 'acme',
      })
      expect(await asked(ring, key)).toBe(id)
      const known = ring.verify(key)
      if (known instanceof Promise) throw new Error('the second sight of a key must not wait')
      expect(known).toMatchObject({ bound: 'acme', principal: { credential: id, tenant: 'acme' } })
      expect(known.principal.allows('commands:write', 'orders')).toBe(true)
      expect(known.principal.allows('commands:write', 'billing')).toBe(false)
    }
  })

  test('a revoked key ends in another process within the bound, which is looked at by time alone', async () => {
    const [keys, ring] = [openKeys(), await openRing()]
    const { key, id } = await keys.create({ scopes: ['views:read'] })
    const other = await keys.create({ scopes: ['views:read'] })
    expect(await asked(ring, key)).toBe(id)
    await keys.revoke(id)
    const revokedMs = performance.now()
    // Asked only by what is held: a request must not be what finds out.
    await until('the key to end', () => {
      try {
        const verdict = ring.verify(key)
        if (!(verdict instanceof Promise)) return false
        verdict.catch(() => undefined)
        return true
      } catch {
        return true
      }
    })
    expect(performance.now() - revokedMs).toBeLessThan(5000)
    expect(await asked(ring, key)).toBe('identity.invalid')
    expect(await asked(ring, other.key)).toBe(other.id)
    expect((await rejection(keys.get(id))).message).toMatch(/There is no such API key/)
    expect((await rejection(keys.revoke(id))).message).toMatch(/There is no such API key/)
  })

  test('in the process that revokes, it has ended when the answer comes', async () => {
    const ring = await openRing()
    const keys = openKeys(SYSTEM_CLOCK, () => ring.refresh())
    const { key, id } = await keys.create({ scopes: ['views:read'] })
    expect(ring.verify(key)).not.toBeInstanceOf(Promise)
    await keys.revoke(id)
    const verdict = ring.verify(key)
    expect(verdict).toBeInstanceOf(Promise)
    expect((await rejection(verdict as Promise<unknown>)).message).toMatch(/unknown, expired or revoked/)
  })

  test('who can not look trusts nothing after four seconds, and again when it can', async () => {
    const clock = new MovedClock()
    const own = await startTestRedis()
    try {
      const link = await own.open()
      const keys = new ApiKeys({ command: link, names, clock, telemetry, onChange: async () => undefined })
      const { key, id } = await keys.create({ scopes: ['views:read'] })
      const ring = new KeyRing({ command: link, clock, telemetry })
      rings.push(ring)
      await ring.start()
      expect(await asked(ring, key)).toBe(id)
      await own.kill()
      expect(await asked(ring, key)).toBe(id)
      // Unknown keys can't be told from new ones now.
      expect(await asked(ring, invented())).toBe('redis.unavailable')
      clock.aheadMs += 4000
      expect(await asked(ring, key)).toBe('redis.unavailable')
      expect(ring.health().ready).toBe(false)
      await own.restart()
      await until('the ring to look again', async () => (await asked(ring, key)) === id)
      expect(ring.health().ready).toBe(true)
    } finally {
      await Promise.all(rings.splice(0).map((each) => each.stop()))
      await own[Symbol.asyncDispose]()
    }
  })

  test('a flood of invented keys costs a few looks, holds nothing, and harms no key that is known', async () => {
    const [keys, ring] = [openKeys(), await openRing()]
    const { key, id } = await keys.create({ scopes: ['views:read'] })
    expect(await asked(ring, key)).toBe(id)
    await command.use('reset', (client) => client.config('RESETSTAT'))
    const startedMs = performance.now()
    const verdicts = new Map<unknown, number>()
    for (let round = 0; round < 5; round++) {
      const flood = Array.from({ length: 2000 }, () => asked(ring, invented()))
      // Right id, wrong secret.
      flood.push(
        ...Array.from({ length: 100 }, () => asked(ring, formatApiKey({ id, secret: newSecret(id) }))),
      )
      expect(ring.verify(key)).not.toBeInstanceOf(Promise)
      for (const verdict of await Promise.all(flood)) verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1)
    }
    expect([...verdicts.keys()].sort()).toEqual(['admission.overloaded', 'identity.invalid'])
    expect(verdicts.get('identity.invalid')).toBe(5000)
    const stats = await command.use('stats', (client) => client.info('commandstats'))
    const looks = Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1] ?? 0)
    expect(looks).toBeGreaterThan(0)
    expect(looks).toBeLessThanOrEqual(Math.ceil((performance.now() - startedMs) / 100) + 2)
  })

  test('a wrong checksum never asks Redis', async () => {
    const ring = await openRing()
    const bad = invented().replace(/.$/, (last) => (last === 'a' ? 'b' : 'a'))
    // Thrown at once: nothing was asked.
    expect(() => ring.verify(bad)).toThrow('a character is wrong or missing')
  })

  test('a key that can not be read is an alarm and nobody, and costs no other key', async () => {
    const keys = openKeys()
    const { key, id } = await keys.create({ scopes: ['views:read'] })
    await putApiKey(command, { id: 'aaaaaaaaaaaa', seen: undefined, next: '{"secrets":"x"}', revision: 'r1' })
    const short = {
      label: '',
      tenant: '',
      scopes: ['admin'],
      createdAtMs: 1,
      secrets: [{ digest: '', createdAtMs: 1 }],
    }
    await putApiKey(command, {
      id: 'bbbbbbbbbbbb',
      seen: undefined,
      next: JSON.stringify(short),
      revision: 'r2',
    })
    const ring = await openRing()
    expect(await asked(ring, key)).toBe(id)
    const alarms = telemetry.of('alarm.raised').filter(({ alarm }) => alarm === 'key-unreadable')
    expect(alarms.map(({ detail }) => /"(\w+)"/.exec(detail)?.[1]).sort()).toEqual([
      'aaaaaaaaaaaa',
      'bbbbbbbbbbbb',
    ])
    expect(await asked(ring, formatApiKey({ id: 'bbbbbbbbbbbb', secret: newSecret('bbbbbbbbbbbb') }))).toBe(
      'identity.invalid',
    )
    expect((await keys.page({})).data.map(({ label }) => label).sort()).toEqual([
      '',
      'unreadable',
      'unreadable',
    ])
    await keys.revoke('aaaaaaaaaaaa')
    await keys.revoke('bbbbbbbbbbbb')
    expect((await keys.page({})).data.map((each) => each.id)).toEqual([id])
  })

  test('when all keys were lost, none is valid', async () => {
    const [keys, ring] = [openKeys(), await openRing()]
    const { key, id } = await keys.create({ scopes: ['views:read'] })
    expect(await asked(ring, key)).toBe(id)
    await command.use('losing', (client) => client.del(API_KEYS_KEY, API_KEYS_REVISION_KEY))
    await ring.refresh()
    expect(await asked(ring, key)).toBe('identity.invalid')
  })

  test('the last use is noted, once an hour at most, and not of a key that is gone', async () => {
    const clock = new MovedClock()
    const [keys, ring] = [openKeys(clock), await openRing(clock)]
    const [used, unused] = [
      await keys.create({ scopes: ['views:read'] }),
      await keys.create({ scopes: ['views:read'] }),
    ]
    expect((await keys.get(used.id)).lastUsedAtMs).toBeUndefined()
    await asked(ring, used.key)
    clock.aheadMs += 11_000
    ring.wake()
    await until('the use to be noted', async () => (await keys.get(used.id)).lastUsedAtMs !== undefined)
    expect((await keys.get(unused.id)).lastUsedAtMs).toBeUndefined()
    await keys.revoke(used.id)
    expect(await command.use('uses', (client) => client.hlen(API_KEYS_USED_KEY))).toBe(0)
  })
})

describe('rotation', () => {
  test('two secrets are valid until the old one is revoked; a third must wait', async () => {
    const ring = await openRing()
    const keys = openKeys(SYSTEM_CLOCK, () => ring.refresh())
    const first = await keys.create({ scopes: ['views:read'], tenant: 'acme' })
    const second = await keys.rotate(first.id)
    expect(second.id).toBe(first.id)
    expect(second.key).not.toBe(first.key)
    expect([await asked(ring, first.key), await asked(ring, second.key)]).toEqual([first.id, first.id])
    expect((await keys.get(first.id)).secrets.length).toBe(2)
    expect((await rejection(keys.rotate(first.id))).message).toMatch(
      /Two secrets of this key are valid already/,
    )
    await keys.revoke(first.id, 'old')
    expect([await asked(ring, first.key), await asked(ring, second.key)]).toEqual([
      'identity.invalid',
      first.id,
    ])
    expect((await rejection(keys.revoke(first.id, 'old'))).message).toMatch(/has no old secret/)
    const third = await keys.rotate(first.id)
    expect([await asked(ring, second.key), await asked(ring, third.key)]).toEqual([first.id, first.id])
    await keys.revoke(first.id)
    expect([await asked(ring, second.key), await asked(ring, third.key)]).toEqual([
      'identity.invalid',
      'identity.invalid',
    ])
  })

  test('an old secret ends at the time that was given, and makes room for the next', async () => {
    const clock = new MovedClock()
    const ring = await openRing(clock)
    const keys = openKeys(clock, () => ring.refresh())
    const first = await keys.create({ scopes: ['views:read'] })
    const second = await keys.rotate(first.id, { expiresInMs: 60_000 })
    expect([await asked(ring, first.key), await asked(ring, second.key)]).toEqual([first.id, first.id])
    clock.aheadMs += 60_001
    await ring.refresh()
    expect([await asked(ring, first.key), await asked(ring, second.key)]).toEqual([
      'identity.invalid',
      first.id,
    ])
    expect((await keys.rotate(first.id)).secrets.length).toBe(2)
  })

  test('of many that rotate at once one wins, and every secret that was told works', async () => {
    const [keys, ring] = [openKeys(), await openRing()]
    const first = await keys.create({ scopes: ['views:read'] })
    const tried = await Promise.allSettled(Array.from({ length: 8 }, () => keys.rotate(first.id)))
    const won = tried.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
    expect(won.length).toBe(1)
    for (const { key } of [first, ...won]) expect(await asked(ring, key)).toBe(first.id)
  })
})

describe('expiry and bounds', () => {
  test('a key ends at its time, everywhere at once', async () => {
    const clock = new MovedClock()
    const [keys, ring] = [openKeys(clock), await openRing(clock)]
    const { key, id } = await keys.create({ scopes: ['views:read'], expiresInMs: 60_000 })
    expect(await asked(ring, key)).toBe(id)
    clock.aheadMs += 60_001
    await ring.refresh()
    expect(() => ring.verify(key)).toThrow('unknown, expired or revoked')
  })

  test('mistakes are refused with what to write', async () => {
    const keys = openKeys()
    const refused = async (wanted: Parameters<ApiKeys['create']>[0]) =>
      await keys.create(wanted).then(
        () => 'made',
        (error: Error) => error.message,
      )
    expect(await refused({ scopes: [] })).toContain('needs one scope at least')
    expect(await refused({ scopes: ['command:write'] })).toContain('Did you mean "commands:write"?')
    expect(await refused({ scopes: ['commands:write:ordres'] })).toContain('Did you mean "orders"?')
    expect(await refused({ scopes: ['views:read'], tenant: 'Acme' })).toContain('A tenant is 1-63')
    expect(await refused({ scopes: ['admin'], tenant: 'acme' })).toContain('does not go with one')
    expect(await refused({ scopes: ['views:read'], label: 'a\nb' })).toContain('on one line')
    expect(await refused({ scopes: ['views:read'], expiresAtMs: 1 })).toContain('only expire in the future')
    expect(await refused({ scopes: ['views:read'], expiresAtMs: 1, expiresInMs: 1 })).toContain(
      'one of the two',
    )
    expect(await refused({ scopes: Array.from({ length: 65 }, () => 'views:read') })).toContain('at most 64')
    expect((await readApiKeys(command, undefined)).records?.size).toBe(0)
  })

  test('no secret is stored, only its digest', async () => {
    const keys = openKeys()
    const made = await keys.create({ scopes: ['views:read'] })
    const again = await keys.rotate(made.id)
    const stored = JSON.stringify([...((await readApiKeys(command, undefined)).records ?? [])])
    for (const { key } of [made, again]) {
      expect(stored).not.toContain(splitApiKey(key).secret)
      expect(stored).toContain(new Bun.CryptoHasher('sha256').update(splitApiKey(key).secret).digest('hex'))
    }
  })

  test('there are only so many keys, and pages of them', async () => {
    const keys = openKeys()
    const made: string[] = []
    for (let i = 0; i < 5; i++) made.push((await keys.create({ scopes: ['views:read'], label: `k${i}` })).id)
    const first = await keys.page({ limit: 3 })
    const second = await keys.page({ limit: 3, cursor: first.next })
    expect([...first.data, ...second.data].map(({ id }) => id).sort()).toEqual([...made].sort())
    expect([first.data.length, second.data.length, second.next]).toEqual([3, 2, undefined])
    expect((await rejection(keys.page({ cursor: 'nonsense' }))).message).toMatch(
      /not one that a page of keys gave/,
    )
    const filler = Array.from({ length: API_KEYS_MAX - 5 }, (_, i) => [`f${i}`, '{}']).flat()
    await command.use('filling', (client) => client.hset(API_KEYS_KEY, ...filler))
    expect((await rejection(keys.create({ scopes: ['views:read'] }))).message).toMatch(/no more are kept/)
  })
})

describe('the admin routes behind a guard', () => {
  async function startAdmin(guarded: boolean): Promise<{ server: HttpServer; ring: KeyRing; keys: ApiKeys }> {
    const hub = new TelemetryHub()
    const catalogue = buildCatalogue([])
    const ids = await joinFleet(command, [])
    const ring = await openRing()
    const keys = openKeys(SYSTEM_CLOCK, () => ring.refresh())
    const gatekeeper = new Gatekeeper({
      credentials: { keys: ring, tokens: undefined },
      tenantSources: ['credential'],
      tenantDomain: undefined,
    })
    const { app } = createAdminApp({
      ...{ command, catalogue, keys, telemetry: hub },
      metrics: new Metrics({ catalogue, telemetry: hub, streams: async () => new Map() }),
      schedules: new Schedules({ command, catalogue, ids }),
      deadLetters: new DeadLetters({ command, catalogue, ids, clock: SYSTEM_CLOCK, telemetry: hub }),
      health: () => [],
      started: () => true,
      draining: () => false,
      guard: guarded
        ? { identify: (headers) => gatekeeper.identify(headers), streamOfType: () => undefined }
        : undefined,
    })
    const server = new HttpServer({
      name: 'admin',
      app,
      host: '127.0.0.1',
      port: 0,
      clock: SYSTEM_CLOCK,
      telemetry: hub,
    })
    await server.start()
    return { server, ring, keys }
  }

  test('only scope admin, and health without', async () => {
    const { server, keys } = await startAdmin(true)
    await using _ = server
    const [admin, plain] = [
      await keys.create({ scopes: ['admin'] }),
      await keys.create({ scopes: ['commands:write', 'views:read'] }),
    ]
    const asked = async (path: string, key?: string, method = 'GET') =>
      (
        await fetch(`${server.url}${path}`, {
          method,
          headers: key === undefined ? {} : { authorization: `Bearer ${key}` },
        })
      ).status
    const paths = [
      '/v1/keys',
      `/v1/keys/${plain.id}`,
      '/v1/streams',
      '/v1/schedules',
      '/v1/dead-letters',
      '/metrics',
    ]
    for (const path of paths) {
      expect([path, await asked(path), await asked(path, plain.key), await asked(path, admin.key)]).toEqual([
        path,
        401,
        403,
        200,
      ])
    }
    for (const [method, path] of [
      ['POST', '/v1/keys'],
      ['POST', `/v1/keys/${plain.id}/rotate`],
      ['DELETE', `/v1/keys/${plain.id}`],
      ['POST', '/v1/dead-letters:purge'],
      ['POST', '/v1/dead-letters/x/redrive'],
      ['DELETE', '/v1/dead-letters/x'],
      ['POST', '/v1/schedules/x/run'],
      ['POST', '/v1/schedules/x/pause'],
      ['POST', '/v1/schedules/x/resume'],
      ['GET', '/v1/schedules/x'],
      ['GET', '/v1/streams/x'],
      ['GET', '/v1/operations/x'],
    ] as const) {
      expect([path, await asked(path, undefined, method), await asked(path, plain.key, method)]).toEqual([
        path,
        401,
        403,
      ])
    }
    expect([
      await asked('/livez'),
      await asked('/readyz'),
      await asked('/startupz'),
      await asked('/problems/forbidden'),
    ]).toEqual([200, 200, 200, 200])
    await keys.revoke(admin.id)
    expect(await asked('/v1/keys', admin.key)).toBe(401)
  })

  test('make, show, list, rotate, revoke; a key is told once; no web page makes one', async () => {
    const { server, ring } = await startAdmin(false)
    await using _ = server
    const call = async (
      method: string,
      path: string,
      body?: object,
      headers: Record<string, string> = {},
    ) => {
      const init = body === undefined ? {} : { body: JSON.stringify(body) }
      const response = await fetch(`${server.url}${path}`, {
        method,
        headers: { 'content-type': 'application/json', ...headers },
        ...init,
      })
      const text = await response.text()
      return {
        status: response.status,
        headers: response.headers,
        text,
        json: text === '' ? {} : JSON.parse(text),
      }
    }
    const wanted = {
      label: 'shop',
      tenant: 'acme',
      scopes: ['commands:write:orders'],
      expiresInMs: 3_600_000,
    }
    const made = await call('POST', '/v1/keys', wanted)
    expect([made.status, made.headers.get('location'), made.headers.get('cache-control')]).toEqual([
      201,
      `/v1/keys/${made.json.id}`,
      'no-store',
    ])
    expect(made.json).toMatchObject({
      label: 'shop',
      tenant: 'acme',
      scopes: ['commands:write:orders'],
      lastUsedAt: null,
    })
    expect(await asked(ring, made.json.key)).toBe(made.json.id)
    const [shown, listed] = [await call('GET', `/v1/keys/${made.json.id}`), await call('GET', '/v1/keys')]
    expect(shown.json).toMatchObject({ id: made.json.id, label: 'shop', expiresAt: made.json.expiresAt })
    expect(listed.json).toMatchObject({ data: [{ id: made.json.id }], page: { next: null, prev: null } })
    for (const { text } of [shown, listed]) {
      expect(text).not.toContain(splitApiKey(made.json.key).secret)
      expect(text).not.toMatch(/[0-9a-f]{64}/)
    }
    const rotated = await call('POST', `/v1/keys/${made.json.id}/rotate`, { oldExpiresInMs: 60_000 })
    expect([rotated.status, rotated.json.secrets.length]).toEqual([201, 2])
    const conflict = await call('POST', `/v1/keys/${made.json.id}/rotate`)
    expect([conflict.status, conflict.json.type]).toEqual([409, '/problems/key-conflict'])
    expect((await call('DELETE', `/v1/keys/${made.json.id}?secret=old`)).status).toBe(204)
    expect((await call('DELETE', `/v1/keys/${made.json.id}`)).status).toBe(204)
    expect((await call('GET', `/v1/keys/${made.json.id}`)).status).toBe(404)
    const refused: [string, object, number, string][] = [
      ['a field', { scope: ['views:read'] }, 400, 'Did you mean \\"scopes\\"?'],
      ['a scope', { scopes: ['view:read'] }, 422, 'Did you mean \\"views:read\\"?'],
      ['no list', { scopes: 'views:read' }, 400, 'is a list of texts'],
      ['a time', { scopes: ['views:read'], expiresAt: 'tomorrow' }, 400, 'RFC 3339'],
      ['a number', { scopes: ['views:read'], expiresInMs: '1' }, 400, 'whole number'],
    ]
    for (const [what, body, status, says] of refused) {
      const answer = await call('POST', '/v1/keys', body)
      expect([what, answer.status]).toEqual([what, status])
      expect(answer.text).toContain(says)
    }
    expect((await call('DELETE', `/v1/keys/${made.json.id}?secret=new`)).status).toBe(400)
    // A whole key where its id belongs is not repeated.
    const whole = await call('GET', `/v1/keys/${made.json.key}`)
    expect([whole.status, whole.text.includes(made.json.key.slice(16))]).toEqual([404, false])
    for (const origin of ['http://evil.example', 'null', server.url]) {
      expect((await call('POST', '/v1/keys', wanted, { origin })).status).toBe(403)
      expect((await call('DELETE', '/v1/keys/aaaaaaaaaaaa', undefined, { origin })).status).toBe(403)
      expect((await call('POST', '/v1/keys/aaaaaaaaaaaa/rotate', undefined, { origin })).status).toBe(403)
    }
  })
})
