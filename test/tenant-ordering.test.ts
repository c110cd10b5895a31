/** A stream that is ordered by key, shared: the same key of two tenants is two keys, and neither waits for the other. Schedules too. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { CronScheduler } from '../src/cron/cron-scheduler.ts'
import { Schedules } from '../src/cron/schedules.ts'
import { defineSchedule } from '../src/index.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { partitionOf } from '../src/policies/partition.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { addItem, shop, TenantWorld } from './support/tenants.ts'
import { until } from './support/until.ts'

setDefaultTimeout(30_000)

/** A key that both have in the same partition. */
const row =
  Array.from({ length: 50 }, (_, n) => `row-${n}`).find(
    (key) => partitionOf(key, 2, 'acme') === partitionOf(key, 2, 'zeta'),
  ) ?? ''

test('a key of one tenant waits for itself alone; retries in place, death and redrive keep order and tenant', async () => {
  let open: () => void = () => undefined
  const opened = new Promise<void>((resolve) => {
    open = resolve
  })
  let waits = 0
  const gate = async (): Promise<void> => {
    waits += 1
    if (waits === 1) await opened
  }
  await using world = await TenantWorld.open({ gate })
  const [acme, zeta] = [world.as('acme'), world.as('zeta')]
  await world.worker()
  const first = await acme.send('row.put', { row, n: 1 })
  await until('the first to run', () => world.handled.length === 1)
  const second = await acme.send('row.put', { row, n: 2, fate: 'once' })
  const third = await acme.send('row.put', { row, n: 3 })
  const other = await zeta.send('row.put', { row, n: 100, fate: 'dead' })
  await until('the other to be dead', async () => (await zeta.statusOf(other)) === 'dead')
  expect(world.handled.map(({ tenant, id }) => [tenant, id])).toEqual([
    ['acme', first],
    ['zeta', other],
  ])
  expect(await acme.statusOf(second)).toBe('processing')
  open()
  await until('all of acme to be done', async () => (await acme.statusOf(third)) === 'done')
  const runs = world.handled.filter(({ tenant }) => tenant === 'acme')
  expect(runs.map(({ id, attempt }) => [id, attempt])).toEqual([
    [first, 1],
    [second, 1],
    [second, 2],
    [third, 1],
  ])
  world.mood.fails = false
  await world.letters.redrive(other)
  await until('the other to be done', async () => (await zeta.statusOf(other)) === 'done')
  await until('the views', async () => (await zeta.view('rows', row)).status === 200)
  expect((await zeta.view('rows', row)).body).toEqual({ ns: [100] })
  expect((await acme.view('rows', row)).body).toEqual({ ns: [1, 2, 3] })
  expect((await world.as('').view('rows', row)).status).toBe(404)
})

test('a schedule runs for nobody, or for the tenant that its definition names; its ids are that one’s', async () => {
  await using world = await TenantWorld.open()
  await world.worker()
  const every = { command: addItem, every: 3_600_000 }
  const definitions = [
    defineSchedule({ ...every, name: 'plain', payload: { item: 'tick', amount: 1 } }),
    defineSchedule({ ...every, name: 'owned', payload: { item: 'tick', amount: 2 }, tenant: 'acme' }),
  ]
  const catalogue = buildCatalogue([shop, addItem, ...definitions])
  const shared = { command: await world.redis.open(), catalogue, clock: SYSTEM_CLOCK }
  await using scheduler = new CronScheduler({ ...shared, telemetry: world.api.telemetry })
  await scheduler.start()
  const schedules = new Schedules({ ...shared, ids: world.api.ids })
  const plain = await schedules.runNow('plain')
  const owned = await schedules.runNow('owned')
  expect((await schedules.get('owned')).lastRuns.map(({ id }) => id)).toEqual([owned.id])
  expect((await schedules.get('plain')).lastRuns.map(({ id }) => id)).toEqual([plain.id])
  const [acme, none] = [world.as('acme'), world.as('')]
  await until(
    'both to be done',
    async () => (await acme.statusOf(owned.id)) === 'done' && (await none.statusOf(plain.id)) === 'done',
  )
  expect(await none.statusOf(owned.id)).toBe('404')
  expect(await acme.statusOf(plain.id)).toBe('404')
  expect((await acme.view('stock', 'tick', { 'millrace-after': owned.id })).body).toMatchObject({
    amount: 2,
    tenants: ['acme'],
  })
  expect((await none.view('stock', 'tick', { 'millrace-after': plain.id })).body).toMatchObject({
    amount: 1,
    tenants: [''],
  })
  const wrong = { ...every, name: 'wrong', payload: { item: 'tick', amount: 1 }, tenant: 'Acme' }
  expect(() => defineSchedule(wrong)).toThrow('"tenant" of schedule "wrong"')
})
