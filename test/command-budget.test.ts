/** How many Redis commands the work costs: counts don't depend on the machine, so they guard performance in every run. */
import { expect, test } from 'bun:test'
import { z } from 'zod'
import { defineProjection } from '../src/contracts/projection.ts'
import { defineBatchHandler, defineCommand, defineEvent, done } from '../src/index.ts'
import { buildCatalogue, type Definition } from '../src/policies/catalogue.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { SCRIPTS } from '../src/redis/scripts.ts'
import { testFleet } from './support/fleet.ts'
import { change, changed, World } from './support/projections.ts'
import { startPublicServer } from './support/public-server.ts'
import { startTestRedis } from './support/redis-server.ts'
import { RecordedTelemetry } from './support/telemetry.ts'

const Note = defineCommand({ type: 'budget.note', payload: z.object({ n: z.number() }), stream: 'budget' })
const Noted = defineEvent({ type: 'budget.noted', payload: z.object({ n: z.number() }) })
const COUNT = 1000

/** Calls per Redis command while a worker handles `COUNT` commands that were waiting. */
async function callsOf(handler: Definition): Promise<(name: string) => number> {
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [Note, Noted, handler])
  // The first worker creates the groups and loads the scripts: that is not the price of a command.
  await (await fleet.worker()).stop()
  await fleet.append(
    Note,
    Array.from({ length: COUNT }, (_, n) => ({ n })),
  )
  await fleet.link.client.config('RESETSTAT')
  await using _worker = await fleet.worker({ promoteEveryMs: 1000, trimEveryMs: 60_000 })
  await fleet.telemetry.until('batch.settled', (all) => all.reduce((sum, one) => sum + one.done, 0) >= COUNT)
  const calls = await callsBy(fleet.link)
  return (name) => calls.get(name) ?? 0
}

/** Calls per Redis command since `RESETSTAT`, those inside scripts too. */
async function callsBy(link: RedisLink): Promise<ReadonlyMap<string, number>> {
  const stats = await link.client.info('commandstats')
  const found = stats.matchAll(/^cmdstat_(\S+?):calls=(\d+)/gm)
  return new Map([...found].map(([, name = '', calls]) => [name, Number(calls)]))
}

/** All calls but those of one command. */
function callsBeside(name: string, calls: ReadonlyMap<string, number>): number {
  return [...calls.values()].reduce((sum, count) => sum + count, 0) - (calls.get(name) ?? 0)
}

test('a thousand commands without effects cost a handful of reads and acknowledgements', async () => {
  const handler = defineBatchHandler(Note, (batch) => batch.map(() => done()), { batchCountMax: 500 })
  const calls = await callsOf(handler)
  expect(calls('xreadgroup')).toBeGreaterThan(0)
  expect(calls('xreadgroup')).toBeLessThanOrEqual(12)
  expect(calls('xack')).toBeGreaterThan(0)
  expect(calls('xack')).toBeLessThanOrEqual(10)
  expect(calls('xadd')).toBe(0)
  expect(calls('hset')).toBeLessThanOrEqual(20)
})

test('an event for each is acknowledged one by one and written in a few entries, without an owner check', async () => {
  const handler = defineBatchHandler(
    Note,
    (batch) =>
      batch.map((command) => {
        command.emit(Noted, command.payload)
        return done()
      }),
    { batchCountMax: 500 },
  )
  const calls = await callsOf(handler)
  expect(calls('xack')).toBe(COUNT)
  expect(calls('xadd')).toBeGreaterThan(0)
  expect(calls('xadd')).toBeLessThanOrEqual(10)
  expect(calls('xpending')).toBeLessThanOrEqual(20)
})

test('the server takes every script, under the digest by which it is called', async () => {
  await using redis = await startTestRedis()
  const link = await redis.open()
  const scripts = Object.values(SCRIPTS)
  expect(scripts.length).toBeGreaterThan(20)
  for (const { source, digest } of scripts) {
    expect(String(await link.client.script('LOAD', source))).toBe(digest)
  }
})

const VIEWS = 500

const sums = defineProjection<{ sum: number }>({
  name: 'sums',
  stream: 'accounts',
  initial: () => ({ sum: 0 }),
}).on(
  changed,
  ({ payload }) => payload.account,
  (view, { payload }) => ({ sum: view.sum + payload.amount }),
)

/** Calls while a projector that has just started folds `COUNT` events that were waiting into `VIEWS` views. */
async function foldCalls(world: World, eventsPerEntry: number): Promise<ReadonlyMap<string, number>> {
  for (let from = 0; from < COUNT; from += eventsPerEntry) {
    const changes = Array.from({ length: eventsPerEntry }, (_, i) => change(`a${(from + i) % VIEWS}`, 1))
    await world.source.log(changes)
  }
  const telemetry = new RecordedTelemetry()
  await using set = world.set({}, telemetry)
  await world.link.client.config('RESETSTAT')
  await set.start()
  await telemetry.until(
    'projection.committed',
    (all) => all.reduce((sum, { events }) => sum + events, 0) >= COUNT,
  )
  return await callsBy(world.link)
}

// Reads grow from 8 entries to 256, and what one read brought is one commit of six calls: 74 calls were counted for entries of
// one event, 28 for entries as a settlement writes them. The rest is room for a read that comes back early.
for (const { eventsPerEntry, callsMax } of [
  { eventsPerEntry: 1, callsMax: 90 },
  { eventsPerEntry: 50, callsMax: 40 },
]) {
  test(`a thousand events, ${eventsPerEntry} in each entry, become views in at most ${callsMax} calls`, async () => {
    await using redis = await startTestRedis()
    const world = await World.create(redis, { projections: [sums] })
    const first = await foldCalls(world, eventsPerEntry)
    expect(first.get('zadd')).toBe(VIEWS)
    expect(callsBeside('zadd', first)).toBeLessThanOrEqual(callsMax)
    const again = await foldCalls(world, eventsPerEntry)
    expect(again.get('xread')).toBeGreaterThan(0)
    expect(again.get('zadd')).toBeUndefined()
    expect(callsBeside('zadd', again)).toBeLessThanOrEqual(callsMax)
    expect((await world.stored(sums))[0]?.get('a0')).toEqual({ sum: (2 * COUNT) / VIEWS })
  })
}

test('a thousand commands in two bodies are appended by a handful of scripts', async () => {
  await using redis = await startTestRedis()
  // Samples of the load would be counted when they fall in between.
  const bus = { sampleMs: 60_000 }
  await using api = await startPublicServer(redis, buildCatalogue([Note]), { bus })
  const lines = Array.from({ length: COUNT / 2 }, (_, n) =>
    JSON.stringify({ type: Note.type, payload: { n } }),
  )
  const send = () => api.post('/v1/commands', lines.join('\n'), { 'content-type': 'application/x-ndjson' })
  // The first one loads the script.
  expect((await send()).status).toBe(202)
  await api.ingest.client.config('RESETSTAT')
  for (const answer of [await send(), await send()]) expect(answer.status).toBe(202)
  const calls = await callsBy(api.ingest)
  expect(calls.get('xadd')).toBe(COUNT)
  // Four of at most 256 commands, and RESETSTAT.
  expect(callsBeside('xadd', calls)).toBeLessThanOrEqual(8)
})
