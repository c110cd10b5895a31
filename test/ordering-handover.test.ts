/** How partitions change hands between living workers: nothing is held longer than what runs in it, and nothing starts late. */
import { expect, test } from 'bun:test'
import { z } from 'zod'
import { defineCommand, defineHandler, defineStream, done } from '../src/index.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { sampleLeases } from '../src/redis/partition-lease.ts'
import type { CommandRun } from '../src/runtime/command-run.ts'
import { testFleet } from './support/fleet.ts'
import { heartbeatThrough } from './support/heartbeat-proxy.ts'
import { startTestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const pair = defineStream({ name: 'pair', partitions: 4, ordering: 'key' })
const payload = z.object({ key: z.string() })
const Go = defineCommand({ type: 'pair.go', payload, stream: pair, key: ({ key }) => key })
const KEYS = Array.from({ length: 4 }, (_, partition) => partitionKeys('pair', partition, 'key'))
const NAMES = Array.from({ length: 40 }, (_, i) => ({ key: `k${i}` }))

interface Call {
  readonly partition: number
  readonly epoch: number
}

test('a command that lost a version race while its partition was given up runs under the next owner only', async () => {
  await using redis = await startTestRedis()
  const gate = Promise.withResolvers<void>()
  const calls: Call[] = []
  let isOpen = false
  const handle = defineHandler(Go, async (command, { partition, epoch = 0 }) => {
    calls.push({ partition, epoch })
    if (isOpen) return done()
    await gate.promise
    // On a state that is not there: a lost race.
    const key = partitionKeys('pair', partition).aggregate('none', 'x')
    const run = command as unknown as CommandRun
    run.appendToAggregate({ key, expectedVersion: 7, expectedToken: 'e1-1', events: [] })
    return done()
  })
  const fleet = await testFleet(redis, [pair, Go, handle])
  const one = new Map((await fleet.append(Go, NAMES)).map((at) => [at.partition, at]))
  expect(one.size).toBe(4)
  await using first = await fleet.worker()
  await until('a call in each partition', () => new Set(calls.map(({ partition }) => partition)).size === 4)
  await using _second = await fleet.worker()
  const leases = async () => (await sampleLeases(fleet.link, KEYS)).leases
  await until(
    'two to be asked for',
    async () => (await leases()).filter(({ wanted }) => wanted !== '').length === 2,
  )
  const asked = (await leases()).filter(({ wanted }) => wanted !== '')
  expect(asked.every(({ owner }) => owner === first.consumer)).toBe(true)
  await until('the owner to read only what it keeps', async () => {
    const clients = (await fleet.link.client.client('LIST')) as string
    return clients.split('\n').filter((line) => / flags=\w*b/.test(line)).length === 2
  })
  const before = calls.length
  isOpen = true
  gate.resolve()
  await fleet.telemetry.until('partition.released', (all) => all.length === 2)
  await until('all to be done', async () => {
    const states = await Promise.all([...one.values()].map(async (at) => (await fleet.status(at)).state))
    return states.every((state) => state === 'done')
  })
  const late = calls
    .slice(before)
    .filter((call) =>
      asked.some((lease) => lease.partition === call.partition && Number(lease.epoch) === call.epoch),
    )
  expect(late).toEqual([])
}, 60_000)

test('a leaving worker gives back at once what nothing runs in, however long something else runs', async () => {
  await using redis = await startTestRedis()
  const gate = Promise.withResolvers<void>()
  const ran: string[] = []
  const handle = defineHandler(Go, async ({ key }) => {
    ran.push(key)
    if (key === 'slow') await gate.promise
    return done()
  })
  const fleet = await testFleet(redis, [pair, Go, handle])
  const first = await fleet.worker({ drainLimitMs: 20_000 })
  const owners = async () => (await sampleLeases(fleet.link, KEYS)).leases.map(({ owner }) => owner)
  await until('one to own all', async () => (await owners()).every((owner) => owner === first.consumer))
  await fleet.append(Go, [{ key: 'slow' }])
  await until('the slow one', () => ran.length === 1)
  await using second = await fleet.worker()
  const stopping = first.stop()
  const startedMs = performance.now()
  await until(
    'the others to be owned again',
    async () => (await owners()).filter((owner) => owner === second.consumer).length === 3,
    10_000,
  )
  const tookMs = performance.now() - startedMs
  expect((await owners()).filter((owner) => owner === first.consumer)).toHaveLength(1)
  gate.resolve()
  await stopping
  expect(tookMs).toBeLessThan(3000)
  await until('the last one too', async () => (await owners()).every((owner) => owner === second.consumer))
  expect(ran).toEqual(['slow'])
}, 60_000)

test('a command that its owner did not know runs as soon as the partition belongs to one that knows it', async () => {
  await using redis = await startTestRedis()
  const New = defineCommand({ type: 'pair.new', payload, stream: pair, key: ({ key }) => key })
  const ran: number[] = []
  const go = defineHandler(Go, () => done())
  const handleNew = defineHandler(New, () => {
    ran.push(performance.now())
    return done()
  })
  const older = await testFleet(redis, [pair, Go, go])
  const newer = await testFleet(redis, [pair, Go, New, go, handleNew])
  const old = await older.worker()
  await newer.append(New, [{ key: 'a' }])
  // Waits grow to more than two seconds.
  await older.telemetry.until('command.deferred', (all) => all.length >= 4)
  const sinceMs = performance.now()
  await using _new = await newer.worker()
  await old.stop()
  await until('the new one to run it', () => ran.length === 1)
  expect((ran[0] ?? 0) - sinceMs).toBeLessThan(2000)
}, 60_000)

test('a worker stays ready while it takes over partitions with much in them', async () => {
  await using redis = await startTestRedis()
  const handle = defineHandler(Go, () => done())
  const fleet = await testFleet(redis, [pair, Go, handle])
  await using worker = await fleet.worker()
  const reports: string[] = []
  let isWatching = true
  const watch = (async () => {
    while (isWatching) {
      const { ready, detail } = worker.health()
      if (!ready) reports.push(detail)
      await Bun.sleep(0)
    }
  })()
  await fleet.telemetry.until('partition.taken', (all) => all.length === 4)
  await fleet.append(Go, NAMES)
  await until('all to be read', () => {
    const read = fleet.telemetry.of('entries.read').reduce((sum, { count }) => sum + count, 0)
    return read === NAMES.length
  })
  isWatching = false
  await watch
  expect(reports).toEqual([])
})

test('a worker whose heartbeat connection goes silent dials again, and goes on', async () => {
  await using redis = await startTestRedis()
  await using proxied = await heartbeatThrough(redis)
  let ran = 0
  const handle = defineHandler(Go, () => {
    ran += 1
    return done()
  })
  const fleet = await testFleet(proxied.redis, [pair, Go, handle])
  await using worker = await fleet.worker()
  const sample = async () => await sampleLeases(fleet.link, KEYS)
  await until('the worker to own all', async () =>
    (await sample()).leases.every(({ owner }) => owner === worker.consumer),
  )
  proxied.silence()
  const last = (await sample()).beats.get(worker.consumer)
  await until('the beat to stand still', async () => {
    await Bun.sleep(400)
    return (await sample()).beats.get(worker.consumer) === last
  })
  await until('another beat', async () => (await sample()).beats.get(worker.consumer) !== last)
  await fleet.append(Go, NAMES)
  await until('all to be handled', () => ran === NAMES.length)
  expect(worker.health().ready).toBe(true)
}, 60_000)
