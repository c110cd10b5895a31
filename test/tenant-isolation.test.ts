/**
 * Tenants share every stream, partition, worker and projection, and use the same names for everything: nothing of one is ever
 * met by another, over HTTP or in process. The third party has no tenant at all.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import { openProducer } from '../src/index.ts'
import { partitionOf } from '../src/policies/partition.ts'
import { rejection } from './support/rejection.ts'
import { TailClient } from './support/tail-client.ts'
import { addItem, shop, type TenantClient, TenantWorld } from './support/tenants.ts'
import { until } from './support/until.ts'

setDefaultTimeout(30_000)

const PARTIES = ['', 'acme', 'zeta'] as const
/** What each of them adds: sums that no mixture of them has. */
const amounts = { '': 1, acme: 10, zeta: 40 } as const

let world: TenantWorld
let parties: readonly TenantClient[]
beforeAll(async () => {
  world = await TenantWorld.open()
  parties = PARTIES.map((tenant) => world.as(tenant))
  await world.worker()
})
afterAll(() => world[Symbol.asyncDispose]())

/** A name for which all of these are the same. */
function sharing(places: (name: string) => readonly number[]): string {
  for (let n = 0; ; n++) if (new Set(places(`name-${n}`)).size === 1) return `name-${n}`
}

const amountOf = ({ tenant }: TenantClient): number => amounts[tenant as keyof typeof amounts]

async function untilDone(party: TenantClient, id: string, wanted = 'done'): Promise<void> {
  await until(`${id} to be ${wanted}`, async () => (await party.statusOf(id)) === wanted)
}

/** Every party does the same, at the same time. */
async function each<Value>(act: (party: TenantClient) => Promise<Value>): Promise<Value[]> {
  return await Promise.all(parties.map(act))
}

describe('the same names', () => {
  test('of keys and views: each sees its own sums, events and ids, and handlers are told whose a command is', async () => {
    const ids = await each((party) => party.send('item.add', { item: 'tea', amount: amountOf(party) }))
    await each((party) => untilDone(party, ids[parties.indexOf(party)] ?? ''))
    for (const [at, party] of parties.entries()) {
      const id = ids[at] ?? ''
      const view = await party.view('stock', 'tea', { 'millrace-after': id })
      expect(view.body).toEqual({ amount: amountOf(party), tenants: [party.tenant], ids: [id] })
      expect((await party.view('totals', 'all', { 'millrace-after': id })).body).toEqual(view.body)
      const seen = world.handled.filter((each) => each.id === id)
      expect(seen).toMatchObject([{ type: 'item.add', tenant: party.tenant, key: 'tea' }])
    }
  })

  test('of follow-ups, in this partition and another: they are the tenant’s that caused them', async () => {
    const before = world.handled.length
    const ids = await each((party) => party.send('item.add', { item: 'ink', amount: amountOf(party) }))
    await each((party) => untilDone(party, ids[parties.indexOf(party)] ?? ''))
    const followed = () =>
      world.handled.slice(before).filter(({ key, type }) => key === 'ink' && type !== 'item.add')
    await until('the follow-ups to be handled', () => followed().length === 6)
    for (const party of parties) {
      const types = followed()
        .filter(({ tenant }) => tenant === party.tenant)
        .map(({ type }) => type)
      expect(types.sort()).toEqual(['item.remind', 'parcel.send'])
      await until('the parcel to be seen', async () => (await party.view('shipped', 'ink')).status === 200)
      expect((await party.view('shipped', 'ink')).body).toMatchObject({
        amount: amountOf(party),
        tenants: [party.tenant],
      })
    }
  })

  test('of aggregates: each has its own balance and its own limit', async () => {
    const account = sharing((name) => PARTIES.map((tenant) => partitionOf(name, 3, tenant)))
    const payload = (party: TenantClient) => ({ account, amount: amountOf(party) })
    const all = await Promise.all(
      parties.flatMap((party) => Array.from({ length: 2 }, () => party.send('account.book', payload(party)))),
    )
    const owner = (at: number): TenantClient => parties[Math.floor(at / 2)] as TenantClient
    await Promise.all(all.map((id, at) => untilDone(owner(at), id)))
    const [, acme, zeta] = parties as [TenantClient, TenantClient, TenantClient]
    await untilDone(zeta, await zeta.send('account.book', payload(zeta)), 'dead')
    await untilDone(acme, await acme.send('account.book', payload(acme)))
    for (const [party, sum] of [
      [acme, 30],
      [zeta, 80],
    ] as const) {
      await until('the balance', async () => (await party.view('stock', account)).body?.amount === sum)
    }
  })

  test('of idempotency keys, with other bodies and with the same: a repetition finds only its own', async () => {
    const key = { 'idempotency-key': '"once"' }
    const body = { item: 'soap', amount: 3 }
    const first = await each((party) => party.ask('POST', '/v1/commands/item.add', body, key))
    expect(first.map(({ status }) => status)).toEqual([202, 202, 202])
    expect(first.every(({ body }) => body.deduplicated === false)).toBe(true)
    expect(new Set(first.map(({ body }) => body.id)).size).toBe(3)
    const again = await each((party) => party.ask('POST', '/v1/commands/item.add', body, key))
    expect(again.map(({ body }) => [body.id, body.deduplicated])).toEqual(
      first.map(({ body }) => [body.id, true]),
    )
    const own = { 'idempotency-key': '"own"' }
    const other = await each((party) =>
      party.ask('POST', '/v1/commands/item.add', { item: 'soap', amount: amountOf(party) }, own),
    )
    expect(other.map(({ status }) => status)).toEqual([202, 202, 202])
  })

  test('in bulk, atomic and delayed', async () => {
    const items = [1, 2].map((n) => ({
      type: 'item.add',
      payload: { item: 'box', amount: n },
      idempotencyKey: `b-${n}`,
    }))
    const plain = await each((party) => party.ask('POST', '/v1/commands', items))
    const atomic = await each((party) =>
      party.ask(
        'POST',
        '/v1/commands?atomic=true',
        items.map((each) => ({ ...each, idempotencyKey: `a-${each.idempotencyKey}` })),
      ),
    )
    const delayed = await each((party) =>
      party.ask('POST', '/v1/commands/item.add?delayMs=30', { item: 'box', amount: 5 }),
    )
    const accepted = [...plain, ...atomic].flatMap(({ body }) =>
      body.results.map(({ id }: { id: string }) => id),
    )
    expect(new Set(accepted).size).toBe(12)
    for (const [at, party] of parties.entries()) {
      const own = [plain[at], atomic[at]].flatMap((reply) =>
        reply?.body.results.map(({ id }: { id: string }) => id),
      )
      for (const id of [...own, delayed[at]?.body.id]) await untilDone(party, id)
      await until('the box to be full', async () => (await party.view('stock', 'box')).body?.amount === 11)
    }
    expect(
      await rejectionOf(parties[1], { type: 'item.add', payload: items[0]?.payload, tenant: 'zeta' }),
    ).toBe('invalid-command')
  })

  test('of events: a tail sends its tenant’s alone, from wherever it begins and whatever it is filtered by', async () => {
    const url = `${world.api.url}/v1/events/shop`
    const ids = await each((party) => party.send('item.add', { item: 'tail', amount: amountOf(party) }))
    await each((party) => untilDone(party, ids[parties.indexOf(party)] ?? ''))
    let cursor = ''
    for (const query of ['?from=start', '?from=start&key=tail', '?from=start&type=item.added']) {
      for (const [at, party] of parties.entries()) {
        const whose: Record<string, string> = party.tenant === '' ? {} : { 'x-tenant': party.tenant }
        await using reader = await TailClient.open(`${url}${query}`, whose)
        const idsSeen = () =>
          reader.events.map(({ data }) => String((data as { commandId: string }).commandId))
        await reader.until('the own event', () => idsSeen().includes(ids[at] ?? ''))
        for (const id of idsSeen()) expect(world.api.ids.parse(id, party.tenant).stream).toBe('shop')
        cursor = reader.lastId
      }
    }
    // The cursor of another one tells a place, and nothing of what is there.
    const zeta = world.as('zeta')
    await using reader = await TailClient.open(url, { 'x-tenant': 'zeta', 'last-event-id': cursor })
    const [, acmeId] = await each((party) =>
      party.send('item.add', { item: 'tail', amount: amountOf(party) }),
    )
    const own = await zeta.send('item.add', { item: 'tail', amount: 1 })
    const seen = () => reader.events.map(({ data }) => String((data as { commandId: string }).commandId))
    await reader.until('the own event', () => seen().includes(own))
    expect(seen()).not.toContain(acmeId)
    for (const id of seen()) expect(world.api.ids.parse(id, 'zeta').stream).toBe('shop')
  })

  test('of CloudEvents, whose source and id are an idempotency key, and while their end is waited for', async () => {
    const event = (amount: number) => ({
      ...{ specversion: '1.0', id: 'e-1', source: '/tills/7', type: 'item.add' },
      ...{ datacontenttype: 'application/json', data: { item: 'till', amount } },
    })
    const type = { 'content-type': 'application/cloudevents+json' }
    const ask = (party: TenantClient, headers: Record<string, string>) =>
      party.ask('POST', '/v1/commands', event(amountOf(party)), { ...type, ...headers })
    const waited = await each((party) => ask(party, { prefer: 'wait=10' }))
    expect(waited.map(({ status, body }) => [status, body.status])).toEqual([
      [200, 'done'],
      [200, 'done'],
      [200, 'done'],
    ])
    const again = await each((party) => ask(party, {}))
    expect(again.map(({ body }) => [body.id, body.deduplicated])).toEqual(
      waited.map(({ body }) => [body.id, true]),
    )
    const batch = { 'content-type': 'application/cloudevents-batch+json' }
    const many = await each((party) =>
      party.ask('POST', '/v1/commands', [event(amountOf(party))], { ...batch }),
    )
    expect(many.map(({ body }) => body.results[0].id)).toEqual(waited.map(({ body }) => body.id))
    for (const [at, owner] of parties.entries()) {
      const id = String(waited[at]?.body.id)
      expect((await owner.get(`/v1/commands/${id}`, { prefer: 'wait=5' })).body.status).toBe('done')
      for (const stranger of parties.filter((party) => party !== owner))
        expect((await stranger.get(`/v1/commands/${id}`, { prefer: 'wait=5' })).status).toBe(404)
    }
  })
})

/** What a bulk item that says its own tenant is refused with. */
async function rejectionOf(party: TenantClient | undefined, item: unknown): Promise<string> {
  const { body } = (await party?.ask('POST', '/v1/commands', [item])) ?? {}
  return String(body.results[0].problem.type).replace('/problems/', '')
}

describe('another one’s', () => {
  test('id is not found on any route, and nothing happens to its command', async () => {
    const later = await each((party) =>
      party.ask('POST', '/v1/commands/item.add?delayMs=600000', { item: 'later', amount: 1 }),
    )
    for (const [at, owner] of parties.entries()) {
      const id = String(later[at]?.body.id)
      for (const stranger of parties.filter((party) => party !== owner)) {
        expect((await stranger.get(`/v1/commands/${id}`)).status).toBe(404)
        expect((await stranger.get(`/v1/commands/${id}`, { 'if-none-match': '*' })).status).toBe(404)
        expect((await stranger.ask('DELETE', `/v1/commands/${id}`)).status).toBe(404)
        const after = await stranger.view('stock', 'tea', { 'millrace-after': id })
        expect(after.status).toBe(400)
        expect(await rejection(world.api.bus.status(id, stranger.tenant))).toMatchObject({
          code: 'not-found',
        })
        expect(await rejection(world.api.bus.cancel(id, stranger.tenant))).toMatchObject({
          code: 'not-found',
        })
        expect(await owner.statusOf(id)).toBe('scheduled')
      }
      expect((await owner.ask('DELETE', `/v1/commands/${id}`)).status).toBe(202)
      expect(await owner.statusOf(id)).toBe('cancelled')
    }
  })

  test('id can be made by nobody who changes a letter of it, and a tenant called "default" is a tenant like any other', async () => {
    const named = world.as('default')
    const id = await named.send('item.add', { item: 'plain', amount: 1 })
    await untilDone(named, id)
    expect(await world.as('').statusOf(id)).toBe('404')
    const own = await world.as('').send('item.add', { item: 'plain', amount: 1 })
    expect(await named.statusOf(own)).toBe('404')
    expect(await named.statusOf(`${id.slice(0, -1)}${id.endsWith('A') ? 'B' : 'A'}`)).toBe('404')
  })

  test('views are in no page, under no prefix, behind no cursor, and in nobody’s memory', async () => {
    const names = ['a', 'b', 'c', 'd', 'e']
    for (const party of parties) {
      const mine = party.tenant === '' ? 'none' : party.tenant
      const ids = await Promise.all(
        names.map((name) => party.send('item.add', { item: `p/${name}`, amount: amountOf(party) })),
      )
      ids.push(await party.send('item.add', { item: `only-${mine}`, amount: 1 }))
      await Promise.all(ids.map((id) => untilDone(party, id)))
      for (const id of ids) await party.view('stock', 'p/a', { 'millrace-after': id })
    }
    for (const party of parties) {
      for (const direction of ['forward', 'backward']) {
        const found = await pages(party, `prefix=p/&limit=2&direction=${direction}`)
        expect(found.map(({ key }) => key).sort()).toEqual(names.map((name) => `p/${name}`))
        expect(found.every(({ value }) => value.amount === amountOf(party))).toBe(true)
        const all = await pages(party, `limit=3&direction=${direction}`)
        const only = all.filter(({ key }) => key.startsWith('only-')).map(({ key }) => key)
        expect(only).toEqual([`only-${party.tenant === '' ? 'none' : party.tenant}`])
        expect(all.every(({ value }) => value.tenants.join() === party.tenant)).toBe(true)
      }
      for (let round = 0; round < 3; round++) {
        for (const reader of parties) {
          const view = await reader.view('stock', 'p/a')
          expect([view.status, view.body.amount]).toEqual([200, amountOf(reader)])
        }
      }
      for (const stranger of parties.filter((each) => each !== party)) {
        const name = `only-${party.tenant === '' ? 'none' : party.tenant}`
        expect((await party.view('stock', name)).status).toBe(200)
        expect((await stranger.view('stock', name)).status).toBe(404)
        const { body } = await party.get('/v1/views/stock?limit=2')
        const cursor = encodeURIComponent(body.page.next)
        expect((await stranger.get(`/v1/views/stock?limit=2&cursor=${cursor}`)).status).toBe(400)
      }
    }
  })

  test('views can’t be named by any key, prefix or cursor, however it is spelt', async () => {
    // In one partition with one of the spellings, so that one projector folds both.
    const vault = sharing((name) => [partitionOf(name, 3, 'acme'), partitionOf(`\udc00acme/${name}`, 3)])
    const acme = world.as('acme')
    const id = await acme.send('item.add', { item: vault, amount: 7 })
    await untilDone(acme, id)
    await acme.view('stock', vault, { 'millrace-after': id })
    expect((await acme.view('stock', vault)).status).toBe(200)
    const spellings = [
      `acme/${vault}`,
      `\ud800acme/${vault}`,
      `\udc00acme/${vault}`,
      `\u00ffacme/${vault}`,
      `\0acme/${vault}`,
      ` acme/${vault}`,
      `/acme/${vault}`,
      `\u{10ffff}acme/${vault}`,
      `\ufffdacme/${vault}`,
    ]
    await using memory = await world.reader()
    await until('the view to be in memory', async () => {
      return (await memory.read('stock', vault, { tenant: 'acme' })).cached
    })
    for (const key of spellings) {
      for (const tenant of ['', 'zeta', 'acm']) {
        expect(memory.held(memory.address('stock', key, tenant))).toBeUndefined()
        expect((await world.views.read('stock', key, { tenant })).value).toBeUndefined()
      }
      const prefix = key.slice(0, -vault.length)
      const page = world.views.page('stock', { prefix }).catch((error) => error)
      expect((await page).data ?? []).toEqual([])
      const cursor = Buffer.from(JSON.stringify(['stock@1', '', 'forward', 'next', key])).toString(
        'base64url',
      )
      const found = await world.views.page('stock', { cursor }).catch(() => ({ data: [] }))
      expect(found.data.every(({ value }) => (value as { tenants: string[] }).tenants.join() === '')).toBe(
        true,
      )
      const back = Buffer.from(JSON.stringify(['stock@1', '', 'forward', 'prev', key])).toString('base64url')
      const before = await world.views.page('stock', { cursor: back }).catch(() => ({ data: [] }))
      expect(before.data.every(({ value }) => (value as { tenants: string[] }).tenants.join() === '')).toBe(
        true,
      )
    }
    const none = world.as('')
    for (const key of spellings) {
      await untilDone(none, await none.send('item.add', { item: key, amount: 1000 }))
    }
    const last = await none.send('item.add', { item: 'last', amount: 1 })
    await untilDone(none, last)
    await until('the projection to go on', async () => (await none.view('stock', 'last')).status === 200)
    await until(
      'what names no view to be skipped',
      () => world.api.telemetry.of('projection.event-skipped').length === 2,
    )
    expect((await acme.view('stock', vault)).body).toEqual({ amount: 7, tenants: ['acme'], ids: [id] })
    for (const tenant of ['acme/x', 'Acme', 'a b', '-a', 'a'.repeat(64)]) {
      expect(await rejection(world.views.read('stock', vault, { tenant }))).toMatchObject({
        code: 'command.malformed',
      })
      expect(await rejection(world.views.page('stock', { tenant }))).toMatchObject({
        code: 'command.malformed',
      })
      expect(
        await rejection(world.api.bus.submit('item.add', { item: 'x', amount: 1 }, { tenant })),
      ).toMatchObject({ code: 'command.malformed' })
    }
  })
})

async function pages(
  party: TenantClient,
  query: string,
): Promise<{ key: string; value: { amount: number; tenants: string[] } }[]> {
  const found: { key: string; value: { amount: number; tenants: string[] } }[] = []
  let cursor: string | undefined
  do {
    const more = cursor === undefined ? '' : `&cursor=${encodeURIComponent(cursor)}`
    const { status, body } = await party.get(`/v1/views/stock?${query}${more}`)
    expect(status).toBe(200)
    found.push(...body.data)
    cursor = body.page.next ?? undefined
  } while (cursor !== undefined)
  return found
}

describe('on its way', () => {
  test('a retried command, and one that dies and is redriven, keeps its tenant and its id', async () => {
    world.mood.fails = true
    const retried = await each((party) => party.send('item.add', { item: 'again', amount: 1, fate: 'once' }))
    const dead = await each((party) =>
      party.send('item.add', { item: 'dies', amount: amountOf(party), fate: 'dead' }),
    )
    for (const [at, party] of parties.entries()) {
      await untilDone(party, retried[at] ?? '')
      await untilDone(party, dead[at] ?? '', 'dead')
    }
    for (const [at, party] of parties.entries()) {
      const runs = world.handled.filter(({ id }) => id === retried[at])
      expect(runs.map(({ tenant, attempt }) => [tenant, attempt])).toEqual([
        [party.tenant, 1],
        [party.tenant, 2],
      ])
      if (party.tenant !== '') {
        const { data } = await world.letters.page({ tenant: party.tenant, type: 'item.add' })
        expect(data.map(({ id, tenant }) => [id, tenant])).toEqual([[dead[at] ?? '', party.tenant]])
      }
      expect(await world.letters.inspect(dead[at] ?? '')).toMatchObject({ tenant: party.tenant, key: 'dies' })
    }
    world.mood.fails = false
    const [none, acme, zeta] = dead as [string, string, string]
    const { stream, partition, token } = world.api.ids.locate(acme)
    const forged = world.api.ids.format(stream, partition, token, 'zeta')
    expect(await rejection(world.letters.redrive(forged))).toMatchObject({ code: 'not-found' })
    expect(await rejection(world.letters.discard(forged))).toMatchObject({ code: 'not-found' })
    expect(await rejection(world.letters.inspect(forged))).toMatchObject({ code: 'not-found' })
    await world.letters.redrive(none)
    await world.letters.redrive(acme, { payload: { item: 'dies', amount: 11 } })
    const all = world.letters.redriveAll({ tenant: 'zeta' })
    await until('the operation to end', () => world.letters.operation(all.id).state === 'finished')
    expect(world.letters.operation(all.id)).toMatchObject({ done: 2, failed: 0 })
    for (const [at, party] of parties.entries()) {
      const id = dead[at] ?? ''
      await untilDone(party, id)
      for (const stranger of parties.filter((each) => each !== party))
        expect(await stranger.statusOf(id)).toBe('404')
      await until('the view to have it', async () => (await party.view('stock', 'dies')).status === 200)
      const { amount } = (await party.view('stock', 'dies')).body
      expect(amount).toBe(party.tenant === 'acme' ? 11 : amountOf(party))
    }
    expect(zeta).not.toBe(acme)
    const letter = world.api.telemetry.of('command.dead-lettered').find(({ id }) => id === acme)
    expect(letter).toMatchObject({ tenant: 'acme' })
    expect(
      'tenant' in (world.api.telemetry.of('command.dead-lettered').find(({ id }) => id === none) ?? {}),
    ).toBe(false)
  })

  test('what a producer in process sends is its tenant’s, and its ids are nobody else’s', async () => {
    await using producer = await openProducer({
      definitions: [shop, addItem],
      redisUrl: world.redis.url,
      allowUnsafe: ['lazy-fsync'],
    })
    const { id } = await producer.send(
      addItem,
      { item: 'cup', amount: 4 },
      { tenant: 'acme', idempotencyKey: 'c' },
    )
    const [other] = await producer.sendMany([
      { command: addItem, payload: { item: 'cup', amount: 5 }, tenant: 'zeta', idempotencyKey: 'c' },
    ])
    const otherId = other?.accepted?.id ?? ''
    await untilDone(world.as('acme'), id)
    await untilDone(world.as('zeta'), otherId)
    expect((await producer.status(id, { tenant: 'acme' })).status).toBe('done')
    for (const tenant of [undefined, 'zeta'])
      expect(await rejection(producer.status(id, { tenant }))).toMatchObject({ code: 'not-found' })
    expect(await rejection(producer.cancel(otherId, { tenant: 'acme' }))).toMatchObject({ code: 'not-found' })
    await until('both cups', async () => (await world.as('zeta').view('stock', 'cup')).status === 200)
    expect((await world.as('acme').view('stock', 'cup')).body.amount).toBe(4)
    expect((await world.as('zeta').view('stock', 'cup')).body.amount).toBe(5)
    expect((await world.as('').view('stock', 'cup')).status).toBe(404)
  })
})
