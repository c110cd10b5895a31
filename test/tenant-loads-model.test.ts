/**
 * What tenants have waiting is kept by many scripts in many places: after every one of thousands of random operations it is what a
 * count of the entries gives. A failure names its seed; `LOADS_SEED=… bun test test/tenant-loads-model.test.ts` repeats it.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { joinFleet } from '../src/redis/fleet.ts'
import { recountTenants } from '../src/redis/tenant-loads.ts'
import { Chance } from './simulator/chance.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { LoadsModel, QUOTA } from './support/tenant-loads-model.ts'

setDefaultTimeout(60_000)

const RUNS = 12
const STEPS = 150
const given = Bun.env['LOADS_SEED']

let redis: TestRedis
beforeAll(async () => {
  redis = await startTestRedis()
})
afterAll(() => redis[Symbol.asyncDispose]())

async function run(seed: number, isOrdered: boolean): Promise<number> {
  const link = await redis.open()
  await link.client.flushall()
  const ids = await joinFleet(link, [])
  const model = new LoadsModel(link, await redis.open('reader'), ids, new Chance(seed), isOrdered)
  await model.start()
  let waited = 0
  for (let step = 0; step < STEPS; step++) {
    const before = await model.kept(model.here)
    await model.step()
    const told = { seed, step, done: model.log.at(-1) }
    for (const keys of [model.here, model.there]) {
      const [kept, counted] = [await model.kept(keys), await model.counted(keys)]
      expect({ ...told, kept: sorted(kept) }).toEqual({ ...told, kept: sorted(counted) })
      expect({ ...told, doubt: await link.client.hexists(keys.tenantLoads, '!') }).toEqual({
        ...told,
        doubt: 0,
      })
      waited += counted.size
    }
    if (told.done?.startsWith('append') === true) {
      for (const [tenant, load] of await model.kept(model.here)) {
        const [count, bytes] = amounts(load)
        const [countBefore, bytesBefore] = amounts(before.get(tenant) ?? '0 0')
        // What is not let in here may bring a tenant above its quota; then nothing more is let in.
        expect(count).toBeLessThanOrEqual(Math.max(QUOTA.countMax, countBefore))
        expect(bytes).toBeLessThanOrEqual(Math.max(QUOTA.bytesMax, bytesBefore))
      }
    }
  }
  for (const keys of [model.here, model.there])
    expect({ seed, wrong: await recountTenants(link, keys) }).toEqual({ seed, wrong: [] })
  return waited
}

function amounts(load: string): readonly [number, number] {
  const [count = 0, bytes = 0] = load.split(' ').map(Number)
  return [count, bytes]
}

const sorted = (loads: ReadonlyMap<string, string>): [string, string][] => [...loads].sort()

for (const isOrdered of [false, true]) {
  test(`in a partition ${isOrdered ? 'ordered by key' : 'without order'}, after every operation`, async () => {
    const first = given === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(given)
    console.log(`loads seed ${first}`)
    let waited = 0
    for (let n = 0; n < (given === undefined ? RUNS : 1); n++) waited += await run(first + n, isOrdered)
    expect(waited).toBeGreaterThan(STEPS)
  })
}
