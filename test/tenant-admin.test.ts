/** What operators see of tenants: whose each dead letter is, dead letters of one tenant, and what each tenant has waiting. */
import { expect, test } from 'bun:test'
import { Schedules } from '../src/cron/schedules.ts'
import { createAdminApp } from '../src/http/admin-app.ts'
import { Metrics } from '../src/http/metrics.ts'
import { ApiKeys } from '../src/identity/api-keys.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { TelemetryHub } from '../src/runtime/telemetry-hub.ts'
import { addItem, shop, TenantWorld } from './support/tenants.ts'
import { until } from './support/until.ts'

test('dead letters by tenant, and who has how much waiting; no metric names a tenant', async () => {
  await using world = await TenantWorld.open()
  const catalogue = buildCatalogue([shop, addItem])
  const command = await world.redis.open()
  const telemetry = new TelemetryHub()
  const metrics = new Metrics({ catalogue, telemetry, streams: async () => new Map() })
  const { app } = createAdminApp({
    ...{ command, catalogue, metrics, telemetry, deadLetters: world.letters },
    schedules: new Schedules({ command, catalogue, ids: world.api.ids }),
    keys: new ApiKeys({
      ...{ command, clock: SYSTEM_CLOCK, telemetry, names: { streams: [], projections: [] } },
      onChange: async () => undefined,
    }),
    health: () => [],
    started: () => true,
    draining: () => false,
  })
  // biome-ignore lint/suspicious/noExplicitAny: what a test looks into is the test's matter
  const ask = async (path: string, init?: RequestInit): Promise<any> => {
    const response = await app.fetch(new Request(`http://admin${path}`, init), {})
    const text = await response.text()
    return { status: response.status, ...(text === '' ? {} : JSON.parse(text)) }
  }
  const waits = { item: 'tea', amount: 1 }
  await world.as('zeta').send('item.add?delayMs=600000', waits)
  for (let n = 0; n < 3; n++) await world.as('acme').send('item.add?delayMs=600000', waits)
  const { tenants } = await ask('/v1/streams/shop')
  expect(
    tenants.map(({ tenant, waiting }: { tenant: string; waiting: number }) => [tenant, waiting]),
  ).toEqual([
    ['acme', 3],
    ['zeta', 1],
  ])
  expect(tenants[1].waitingBytes).toBeGreaterThan(30)

  await world.worker()
  for (const tenant of ['acme', 'zeta', '']) {
    const id = await world.as(tenant).send('item.add', { item: 'dies', amount: 1, fate: 'dead' })
    await until('it to be dead', async () => (await world.as(tenant).statusOf(id)) === 'dead')
    telemetry.emit('commands.refused', {
      stream: 'shop',
      reason: 'quota',
      count: 1,
      ...(tenant === '' ? {} : { tenant }),
    })
  }
  const all = await ask('/v1/dead-letters')
  expect(all.data.map(({ tenant }: { tenant: string }) => tenant)).toEqual(['', 'zeta', 'acme'])
  const own = await ask('/v1/dead-letters?tenant=acme')
  expect(own.data.map(({ tenant }: { tenant: string }) => tenant)).toEqual(['acme'])
  expect(own.groups.data[0].count).toBe(1)
  const shown = await ask(`/v1/dead-letters/${own.data[0].id}`)
  expect(shown).toMatchObject({ status: 200, tenant: 'acme', payload: { item: 'dies' } })
  expect((await ask('/v1/dead-letters?tennant=acme')).detail).toContain('Did you mean "tenant"?')
  const plan = { filter: { tenant: 'zeta' }, dryRun: false }
  const headers = { 'content-type': 'application/json' }
  const purge = await ask('/v1/dead-letters:purge', { method: 'POST', headers, body: JSON.stringify(plan) })
  await until('the purge', async () => (await ask(`/v1/operations/${purge.id}`)).state === 'finished')
  expect((await ask('/v1/dead-letters')).data.map(({ tenant }: { tenant: string }) => tenant)).toEqual([
    '',
    'acme',
  ])
  const text = await (await app.fetch(new Request('http://admin/metrics'), {})).text()
  expect(text).toContain('reason="quota"')
  expect(text).not.toMatch(/acme|zeta|tenant/)
})
