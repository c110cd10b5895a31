/** How many Redis commands the work costs: counts don't depend on the machine, so they guard performance in every run. */
import { expect, test } from 'bun:test'
import { z } from 'zod'
import { defineBatchHandler, defineCommand, defineEvent, done } from '../src/index.ts'
import type { Definition } from '../src/policies/catalogue.ts'
import { SCRIPTS } from '../src/redis/scripts.ts'
import { testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'

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
  const stats = await fleet.link.client.info('commandstats')
  return (name) => Number(new RegExp(`^cmdstat_${name}:calls=(\\d+)`, 'm').exec(stats)?.[1] ?? 0)
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
