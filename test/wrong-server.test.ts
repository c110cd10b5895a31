/**
 * Servers that are out of memory, out of disk, read-only or loading: producers are refused, workers settle and drain, and
 * everything goes on without a restart.
 */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { defineBatchHandler, defineCommand, defineEvent, done } from '../src/index.ts'
import { EvictionSigns } from '../src/policies/eviction-signs.ts'
import { decidePressure } from '../src/policies/memory-pressure.ts'
import { unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { readServerState } from '../src/redis/server-state.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { startPublicServer } from './support/public-server.ts'
import { startTestRedis } from './support/redis-server.ts'
import { startBus, submitPersistently } from './support/submissions.ts'
import { until } from './support/until.ts'

setDefaultTimeout(60_000)

const payload = z.object({ n: z.number(), text: z.string().optional() })
const Fill = defineCommand({ type: 'fill.take', payload, stream: 'fill' })
const Filled = defineEvent({ type: 'fill.taken', payload: z.object({ n: z.number() }) })
const fill = defineBatchHandler(Fill, (batch) =>
  batch.map((command) => {
    command.emit(Filled, { n: command.payload.n })
    return done()
  }),
)
const ALL = [Fill, Filled, fill]
const batch = (count: number) => Array.from({ length: count }, (_, n) => ({ n }))

async function numbers(fleet: TestFleet): Promise<number[]> {
  const events = await fleet.events('fill')
  return events.map(({ entry }) => (unpackPayloadOf(entry) as { n: number }).n)
}

async function limitMemory(fleet: TestFleet, ratio: number): Promise<void> {
  const { usedBytes } = await readServerState(fleet.link)
  await fleet.link.client.config('SET', 'maxmemory', ratio === 0 ? 0 : Math.floor(usedBytes / ratio))
}

const alarms = (fleet: TestFleet) => fleet.telemetry.of('alarm.raised').map(({ alarm }) => alarm)

test('out of memory: a new worker starts and waits, then drains one batch at a time while producers get 503', async () => {
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, ALL)
  await using server = await startPublicServer(redis, fleet.catalogue)
  await fleet.append(Fill, batch(3000))
  await limitMemory(fleet, 1.4)
  await using worker = await fleet.worker({ readCountMax: 100 })
  expect(alarms(fleet)).toContain('memory-stop')
  await until('it to wait', () => worker.health().detail.includes('told to wait'))
  expect(worker.health().ready).toBe(true)
  expect(await fleet.pending('fill')).toBe(0)
  await until('the door to close', async () => {
    const answer = await server.post('/v1/commands/fill.take', { n: 1 })
    expect(answer.status).toBe(503)
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
    return ((await answer.json()) as { detail: string }).detail.includes('of its memory')
  })
  expect(await numbers(fleet)).toEqual([])

  await limitMemory(fleet, 1.05)
  await fleet.telemetry.until('memory.pressed', (all) => all.at(-1)?.level === 'drain')
  await until('the backlog to be done', async () => (await numbers(fleet)).length === 3000)
  // What the server itself takes for a moment (its append-only buffer) may press it again before all is done.
  const levels = fleet.telemetry.of('memory.pressed').map(({ level }) => level)
  expect(levels.slice(0, 2)).toEqual(['stop', 'drain'])
  expect(levels).not.toContain('none')
  // Whatever was read had been settled before the next read.
  let inHand = 0
  for (const { name, payload: told } of fleet.telemetry.events) {
    if (name === 'entries.read' && 'count' in told) {
      expect(inHand).toBe(0)
      inHand += Number(told.count)
    } else if (name === 'batch.settled' && 'done' in told) inHand -= Number(told.done)
  }
  const refused = await server.post('/v1/commands/fill.take', { n: 1 })
  expect(refused.status).toBe(503)

  await limitMemory(fleet, 0)
  await fleet.telemetry.until('memory.pressed', (all) => all.at(-1)?.level === 'none')
  await until('the door to open', async () => {
    return (await server.post('/v1/commands/fill.take', { n: 3000 })).status === 202
  })
  await until('the next one', async () => (await numbers(fleet)).includes(3000))
  expect(new Set(await numbers(fleet)).size).toBe((await numbers(fleet)).length)
})

test('Redis itself says that it is out of memory before a sample does: 503, and nothing is stored', async () => {
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, ALL)
  await using server = await startPublicServer(redis, fleet.catalogue, { bus: { sampleMs: 60_000 } })
  await limitMemory(fleet, 1.1)
  const answer = await server.post('/v1/commands/fill.take', { n: 1 })
  expect(answer.status).toBe(503)
  expect(answer.headers.get('retry-after')).toBe('5')
  expect(await answer.json()).toMatchObject({ detail: expect.stringContaining('out of memory') })
  await limitMemory(fleet, 0)
  expect((await server.post('/v1/commands/fill.take', { n: 1 })).status).toBe(202)
  expect(await fleet.link.client.xlen('mr:{fill.0}:c')).toBe(1)
})

test('a stream whose oldest command waits too long takes no more, and opens when it is worked off', async () => {
  await using redis = await startTestRedis()
  const { defineStream } = await import('../src/index.ts')
  const patient = defineStream({ name: 'fill', waitingMsMax: 1000 })
  const fleet = await testFleet(redis, [patient, ...ALL])
  await using server = await startPublicServer(redis, fleet.catalogue, { bus: { sampleMs: 20 } })
  expect((await server.post('/v1/commands/fill.take', { n: 1 })).status).toBe(202)
  let detail = ''
  await until('the door to close', async () => {
    const answer = await server.post('/v1/commands/fill.take', { n: 2 })
    if (answer.status === 202) return false
    expect(answer.status).toBe(503)
    detail = ((await answer.json()) as { detail: string }).detail
    return true
  })
  expect(detail).toContain('its oldest command waits for 1 s')
  await using _worker = await fleet.worker()
  await until('it to open', async () => {
    return (await server.post('/v1/commands/fill.take', { n: 3 })).status === 202
  })
})

/** A file system of a few MiB; undefined where that is not allowed. */
async function tinyDisk(): Promise<(AsyncDisposable & { readonly path: string }) | undefined> {
  const path = await mkdtemp(join(tmpdir(), 'millrace-disk-'))
  const mounted = Bun.spawnSync(['mount', '-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', path])
  if (mounted.exitCode !== 0) {
    await rm(path, { recursive: true, force: true })
    return undefined
  }
  return {
    path,
    [Symbol.asyncDispose]: async () => {
      Bun.spawnSync(['umount', '-l', path])
      await rm(path, { recursive: true, force: true })
    },
  }
}

const probe = await tinyDisk()
const canMount = probe !== undefined
await probe?.[Symbol.asyncDispose]()

test.skipIf(!canMount)(
  'disk full (needs the right to mount): 503, nobody is thought dead, and all goes on',
  async () => {
    await using disk = await tinyDisk()
    if (disk === undefined) throw new Error('no disk')
    const filler = join(disk.path, 'filler')
    const folder = join(disk.path, 'redis')
    await mkdir(folder)
    await using redis = await startTestRedis([
      ...['--dir', folder, '--appendfsync', 'everysec', '--auto-aof-rewrite-percentage', '0'],
    ])
    const fleet = await testFleet(redis, ALL)
    await using bus = await startBus(redis, fleet)
    await using one = await fleet.worker()
    await using two = await fleet.worker()
    const text = 'x'.repeat(20_000)
    let sent = 0
    const refusals = new Map<string, number>()
    const send = async () => {
      const n = sent++
      await submitPersistently(bus, 'fill.take', { n, text }, `fill-${n}`, { refusals })
    }
    await send()
    await writeFile(filler, Buffer.alloc(14 * 1024 ** 2))
    const sending = (async () => {
      while (!refusals.has('redis.unavailable')) await send()
    })()
    await until('Redis to refuse', () => refusals.has('redis.unavailable'))
    const failures = () =>
      fleet.telemetry.of('service.failed').filter(({ error }) => error.includes('MISCONF'))
    // Long enough for the other to be judged dead, if silence were enough.
    await until('many looks', () => failures().length > 100)
    await rm(filler)
    await sending
    for (let i = 0; i < 20; i++) await send()
    await until('all to be done', async () => (await numbers(fleet)).length >= sent)
    await until('nothing pending', async () => (await fleet.pending('fill')) === 0)
    expect((await numbers(fleet)).sort((a, b) => a - b)).toEqual(batch(sent).map(({ n }) => n))
    expect(fleet.telemetry.of('consumer.pronounced-dead')).toEqual([])
    expect(fleet.telemetry.of('entries.claimed')).toEqual([])
    expect([one.state, two.state]).toEqual(['running', 'running'])
  },
)

test('a server that becomes a replica refuses, and goes on when it is a primary again', async () => {
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, ALL)
  await using bus = await startBus(redis, fleet)
  await using _one = await fleet.worker()
  await using _two = await fleet.worker()
  await submitPersistently(bus, 'fill.take', { n: 0 }, 'k0')
  await until('the first', async () => (await numbers(fleet)).length === 1)
  const operator = await redis.open()
  await operator.client.replicaof('127.0.0.1', 1)
  const refusals = new Map<string, number>()
  const sending = Promise.all(
    batch(20).map(({ n }) => submitPersistently(bus, 'fill.take', { n: n + 1 }, `k${n + 1}`, { refusals })),
  )
  await until('it to refuse for a while', () => (refusals.get('redis.unavailable') ?? 0) > 3000)
  const primary = await redis.open()
  await primary.client.replicaof('NO', 'ONE')
  await sending
  await until('all to be done', async () => (await numbers(fleet)).length >= 21)
  await until('nothing pending', async () => (await fleet.pending('fill')) === 0)
  expect((await numbers(fleet)).sort((a, b) => a - b)).toEqual(batch(21).map(({ n }) => n))
  expect(fleet.telemetry.of('entries.claimed')).toEqual([])
})

test('a server that loads its data for a while refuses meanwhile, and goes on by itself', async () => {
  await using redis = await startTestRedis(['--key-load-delay', '1000', '--appendfsync', 'always'])
  const fleet = await testFleet(redis, ALL)
  await using bus = await startBus(redis, fleet)
  await using _worker = await fleet.worker()
  // Each of these is a command to load, a millisecond each.
  const filler = fleet.link.client.pipeline()
  for (let i = 0; i < 2500; i++) filler.set(`filler:${i}`, i)
  await filler.exec()
  await submitPersistently(bus, 'fill.take', { n: 0 }, 'k0')
  await until('the first', async () => (await numbers(fleet)).length === 1)
  await redis.kill()
  const refusals = new Map<string, number>()
  const sending = submitPersistently(bus, 'fill.take', { n: 1 }, 'k1', { refusals })
  const startedMs = performance.now()
  await redis.restart()
  await sending
  expect(performance.now() - startedMs).toBeGreaterThan(2000)
  expect(refusals.size).toBeGreaterThan(0)
  await until('the connection', () => fleet.link.ready)
  await until('it to be done', async () => (await numbers(fleet)).length === 2)
})

test('an eviction policy set behind our back is an alarm, in workers and in the API; so are evicted keys', async () => {
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, ALL)
  const evictions = () => alarms(fleet).filter((alarm) => alarm === 'eviction').length
  await using worker = await fleet.worker()
  await until('a look', () => worker.state === 'running')
  await fleet.link.client.config('SET', 'maxmemory-policy', 'allkeys-lru')
  await until('the worker to say so', () => evictions() === 1)
  await fleet.link.client.config('SET', 'maxmemory-policy', 'noeviction')
  await worker.stop()
  await using _bus = await startBus(redis, fleet)
  await fleet.link.client.config('SET', 'maxmemory-policy', 'allkeys-random')
  await until('the API to say so', () => evictions() === 2)
})

test('pressure is entered at the limit, and left a little below it', () => {
  expect(decidePressure(0.99, 'none')).toBe('none')
  expect(decidePressure(1, 'none')).toBe('drain')
  expect(decidePressure(0.98, 'drain')).toBe('drain')
  expect(decidePressure(0.96, 'drain')).toBe('none')
  expect(decidePressure(1.2, 'drain')).toBe('stop')
  expect(decidePressure(1.17, 'stop')).toBe('stop')
  expect(decidePressure(1.16, 'stop')).toBe('drain')
  expect(decidePressure(0, 'stop')).toBe('none')
})

test('signs of eviction are told once each; a policy that was there at first was accepted', () => {
  const signs = new EvictionSigns()
  const look = (evictionPolicy: string, evictedKeys: number) =>
    signs.observe({ evictionPolicy, evictedKeys }).length
  expect(look('allkeys-lru', 5)).toBe(0)
  expect(look('allkeys-lru', 5)).toBe(0)
  expect(look('allkeys-lru', 6)).toBe(1)
  expect(look('noeviction', 6)).toBe(0)
  expect(look('volatile-ttl', 6)).toBe(1)
  expect(look('volatile-ttl', 6)).toBe(0)
  // Started again: the counter begins at zero.
  expect(look('volatile-ttl', 0)).toBe(0)
})
