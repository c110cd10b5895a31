/** A tenant's quota of waiting commands: exact, for that tenant alone, and kept whatever becomes of the commands. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { partitionOf } from '../src/policies/partition.ts'
import { decodeEntry, packEntry } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { readTenantLoads, recountTenants } from '../src/redis/tenant-loads.ts'
import { TenantWorld } from './support/tenants.ts'
import { until } from './support/until.ts'

setDefaultTimeout(30_000)

const COUNT_MAX = 5
const places = [
  ...[0, 1, 2].map((partition) => partitionKeys('shop', partition)),
  ...[0, 1].map((partition) => partitionKeys('parcels', partition)),
  ...[0, 1].map((partition) => partitionKeys('rows', partition, 'key')),
]

let world: TenantWorld
beforeAll(async () => {
  world = await TenantWorld.open({
    server: { bus: { tenantWaitingMax: COUNT_MAX, tenantWaitingBytesMax: 2000 } },
  })
})
afterAll(() => world[Symbol.asyncDispose]())

const waiting = async (tenant: string): Promise<{ count: number; bytes: number }> => {
  const link = await world.redis.open()
  const sum = { count: 0, bytes: 0 }
  for (const keys of places) {
    for (const load of await readTenantLoads(link, keys)) {
      if (load.tenant !== tenant) continue
      sum.count += load.count
      sum.bytes += load.bytes
    }
  }
  return sum
}

const send = (n: number, tenant: string, path = '', body: object = {}) =>
  world.as(tenant).ask('POST', `/v1/commands/item.add${path}`, { item: 'tea', amount: n, ...body })

describe('before any worker runs', () => {
  test('at its quota a tenant gets 429, to the command, and nobody else does', async () => {
    const replies = await Promise.all(Array.from({ length: 12 }, (_, n) => send(n, 'acme')))
    const refused = replies.filter(({ status }) => status !== 202)
    expect(refused).toHaveLength(12 - COUNT_MAX)
    for (const { status, headers, body } of refused) {
      expect(status).toBe(429)
      expect(headers.get('retry-after')).toBe('1')
      expect(body.type).toBe('https://iana.org/assignments/http-problem-types#quota-exceeded')
      expect(body['violated-policies']).toEqual(['waiting'])
    }
    expect((await waiting('acme')).count).toBe(COUNT_MAX)
    for (const path of ['?delayMs=1000', '?expiresInMs=60000'])
      expect((await send(1, 'acme', path)).status).toBe(429)
    expect((await send(1, 'zeta')).status).toBe(202)
    const many = await Promise.all(Array.from({ length: 20 }, (_, n) => send(n, '')))
    expect(many.every(({ status }) => status === 202)).toBe(true)
    const told = world.api.telemetry.of('commands.refused').filter(({ reason }) => reason === 'quota')
    expect(told.every(({ tenant }) => tenant === 'acme')).toBe(true)
  })

  test('with idempotency keys: a repetition is answered, and only what is new is counted', async () => {
    const key = (n: number) => ({ 'idempotency-key': `"k${n}"` })
    const ask = (n: number) =>
      world.as('keyed').ask('POST', '/v1/commands/item.add', { item: 'tea', amount: n }, key(n))
    const first = await Promise.all(Array.from({ length: 9 }, (_, n) => ask(n)))
    expect(first.filter(({ status }) => status === 202)).toHaveLength(COUNT_MAX)
    const again = await Promise.all(Array.from({ length: 9 }, (_, n) => ask(n)))
    expect(again.map(({ status, body }) => [status, body.id])).toEqual(
      first.map(({ status, body }) => [status, body.id]),
    )
    expect((await waiting('keyed')).count).toBe(COUNT_MAX)
  })

  test('all or none: none, when not all of them fit', async () => {
    const party = world.as('whole')
    const items = (count: number) =>
      Array.from({ length: count }, (_, n) => ({ type: 'item.add', payload: { item: 'tea', amount: n } }))
    const six = await party.ask('POST', '/v1/commands?atomic=true', items(COUNT_MAX + 1))
    expect([six.status, six.body['violated-policies']]).toEqual([429, ['waiting']])
    expect(six.headers.get('retry-after')).toBe('1')
    expect((await waiting('whole')).count).toBe(0)
    expect((await party.ask('POST', '/v1/commands?atomic=true', items(COUNT_MAX))).status).toBe(202)
    const bulk = await party.ask('POST', '/v1/commands', items(2))
    expect([bulk.status, bulk.body['violated-policies']]).toEqual([429, ['waiting']])
    expect((await waiting('whole')).count).toBe(COUNT_MAX)
  })

  test('bytes are counted too, and the next one that fits is taken', async () => {
    const long = { note: undefined, item: 'x'.repeat(200) }
    const large = await Promise.all(
      Array.from({ length: 4 }, () =>
        send(1, 'wide', '', { ...long, item: `${long.item}${'y'.repeat(50)}` }),
      ),
    )
    expect(large.map(({ status }) => status).sort()).toEqual([202, 202, 202, 429])
    const { bytes } = await waiting('wide')
    expect(bytes).toBeGreaterThan(1500)
    expect(bytes).toBeLessThanOrEqual(2000)
  })

  test('cancelling makes room at once', async () => {
    const ids: string[] = []
    for (let n = 0; n < COUNT_MAX; n++) {
      const path = n % 2 === 0 ? '' : '?delayMs=600000'
      ids.push(String((await send(n, 'cancels', path)).body.id))
    }
    expect((await send(9, 'cancels')).status).toBe(429)
    for (const id of ids)
      expect((await world.as('cancels').ask('DELETE', `/v1/commands/${id}`)).status).toBe(202)
    expect(await waiting('cancels')).toEqual({ count: 0, bytes: 0 })
    expect((await send(9, 'cancels')).status).toBe(202)
  })
})

describe('with workers', () => {
  test('everything ends: no key of a load is left, in no partition', async () => {
    await world.worker()
    world.mood.fails = false
    const link = await world.redis.open()
    await until(
      'all to have ended',
      async () => (await link.client.exists(...places.map((keys) => keys.tenantLoads))) === 0,
    )
    expect((await send(1, 'acme')).status).toBe(202)
  })

  test('the dead don’t wait; redriven they do', async () => {
    world.mood.fails = true
    const party = world.as('mortal')
    const ids = await Promise.all(
      [1, 2].map((n) => party.send('item.add', { item: 'tea', amount: n, fate: 'dead' })),
    )
    for (const id of ids) await until('it to be dead', async () => (await party.statusOf(id)) === 'dead')
    expect(await waiting('mortal')).toEqual({ count: 0, bytes: 0 })
    world.mood.fails = false
    for (const id of ids) await world.letters.redrive(id)
    for (const id of ids) await until('it to be done', async () => (await party.statusOf(id)) === 'done')
    await until('its follow-ups to end', async () => (await waiting('mortal')).count === 0)
    expect(world.api.telemetry.of('alarm.raised')).toEqual([])
  })
})

describe('a load that is wrong', () => {
  const keys = partitionKeys('shop', partitionOf('tea', 3, 'drift'))

  test('is counted again and mended, and told once', async () => {
    const link = await world.redis.open()
    const { blob } = packEntry(
      {
        type: 'nobody.knows',
        version: 1,
        atMs: 1,
        key: 'tea',
        tenant: 'drift',
        trace: undefined,
        tickMs: undefined,
        trail: undefined,
      },
      {},
    )
    await link.client.zadd(keys.due, String(Date.now() + 600_000), 'x999')
    await link.client.hset(keys.dueBodies, 'x999', blob)
    await link.client.hset(keys.tenantLoads, {
      drift: '7',
      'drift/b': '1',
      gone: '3',
      'gone/b': '9',
      '!': '1',
    })
    const wrong = (await recountTenants(link, keys)) ?? []
    expect(
      wrong.map(({ kept, counted }) => [kept.tenant, kept.count, counted.count, counted.bytes]).sort(),
    ).toEqual([
      ['drift', 7, 1, blob.length],
      ['gone', 3, 0, 0],
    ])
    expect(await link.client.hgetall(keys.tenantLoads)).toEqual({
      drift: '1',
      'drift/b': String(blob.length),
    })
    expect(await recountTenants(link, keys)).toEqual([])
    expect(decodeEntry(blob).tenant).toBe('drift')
    await link.client.del(keys.due, keys.dueBodies, keys.tenantLoads)
  })

  test('never falls below nothing, and asks to be counted again', async () => {
    const link = await world.redis.open()
    const id = await world.as('drift').send('item.add?delayMs=600000', { item: 'tea', amount: 1 })
    await link.client.del(keys.tenantLoads)
    expect((await world.as('drift').ask('DELETE', `/v1/commands/${id}`)).status).toBe(202)
    expect(await link.client.hgetall(keys.tenantLoads)).toEqual({ '!': '1' })
    expect(await recountTenants(link, keys)).toEqual([])
    expect(await link.client.exists(keys.tenantLoads)).toBe(0)
  })

  test('is left alone while too much waits to be counted in one step', async () => {
    const link = await world.redis.open()
    const big = partitionKeys('elsewhere', 0)
    for (let n = 0; n < 2001; n++) await link.client.xadd(big.commands, '*', '-', 'x'.repeat(12))
    await link.client.hset(big.tenantLoads, { acme: '5', 'acme/b': '60' })
    expect(await recountTenants(link, big)).toBeUndefined()
    expect(await link.client.hget(big.tenantLoads, 'acme')).toBe('5')
  })
})
