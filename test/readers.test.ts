/** Readers that stop reading: connections that turn into black holes, a loop that stands still, and what readyz says of each. */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { z } from 'zod'
import { CommandBus } from '../src/commands/command-bus.ts'
import { SILENT_LOGGER } from '../src/contracts/logger.ts'
import { defineCommand, defineEvent, defineHandler, defineProjection, done } from '../src/index.ts'
import { judgeReader, type ReaderView, StuckSigns } from '../src/policies/reader-health.ts'
import { ProjectorSet } from '../src/projections/projector-set.ts'
import type { RedisLinks } from '../src/redis/connection.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { type Clock, SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { Consumer } from '../src/runtime/consumer.ts'
import { ReaderWatch } from '../src/runtime/reader-watch.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { startTcpProxy } from './support/tcp-proxy.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { until } from './support/until.ts'

setDefaultTimeout(60_000)

const Read = defineCommand({ type: 'read.this', payload: z.object({ n: z.number() }), stream: 'reads' })
const WasRead = defineEvent({ type: 'read.done', payload: z.object({ n: z.number() }) })
const handler = defineHandler(Read, (command) => {
  command.emit(WasRead, command.payload)
  return done()
})
const counted = defineProjection({ name: 'counted', stream: 'reads', version: 1, initial: () => 0 }).on(
  WasRead,
  () => 'all',
  (count) => count + 1,
)
const keys = partitionKeys('reads', 0)
const BLOCK_MS = 500
const DETECT_MS = BLOCK_MS + 2000

async function startConsumer(links: RedisLinks, fleet: TestFleet): Promise<Consumer> {
  const command = links.open('command')
  await command.whenReady(5000)
  const { catalogue, ids, telemetry } = fleet
  const consumer = new Consumer({
    ...{ links, command, catalogue, ids, telemetry, logger: SILENT_LOGGER, clock: SYSTEM_CLOCK },
    handlers: new Map([['read.this@1', handler]]),
    options: { promoteEveryMs: 20, drainLimitMs: 2000 },
  })
  await consumer.start()
  return consumer
}

const batch = (count: number) => Array.from({ length: count }, (_, n) => ({ n }))

describe('a black hole', () => {
  for (const [link, said, limitMs] of [
    ['reader', 'XREADGROUP', DETECT_MS],
    ['command', 'EVALSHA', DETECT_MS],
  ] as const) {
    test(`behind the ${link} connections is noticed in time: dialled again, nothing lost or doubled, no restart`, async () => {
      await using redis = await startTestRedis()
      const fleet = await testFleet(redis, [Read, WasRead, handler])
      await using proxy = await startTcpProxy(redis)
      const links = proxy.links({ blockMs: BLOCK_MS, commandTimeoutMs: DETECT_MS - 500 })
      await using consumer = await startConsumer(links, fleet)
      await fleet.append(Read, batch(10))
      await until('the first', async () => (await fleet.events('reads')).length === 10)
      expect(proxy.swallow(said)).toBeGreaterThan(0)
      const startedMs = performance.now()
      await fleet.append(Read, batch(50))
      await until('all of them', async () => (await fleet.events('reads')).length === 60)
      const tookMs = performance.now() - startedMs
      console.info(`${link} black hole: ${Math.round(tookMs)} ms`)
      // Dialling again, killing the old connection and reading what it was given come on top.
      expect(tookMs).toBeLessThan(limitMs + 1500)
      await until('nothing pending', async () => (await fleet.pending('reads')) === 0)
      await until('ready', () => consumer.health().ready)
      expect(new Set((await fleet.events('reads')).map(({ token }) => token)).size).toBe(60)
      expect(consumer.state).toBe('running')
    })
  }

  test('that Redis goes on serving (half open) gets nothing: the old connection is killed before the next read', async () => {
    await using redis = await startTestRedis()
    const fleet = await testFleet(redis, [Read, WasRead, handler])
    await using proxy = await startTcpProxy(redis)
    const links = proxy.links({ blockMs: 5000, commandTimeoutMs: 2000 })
    await using _consumer = await startConsumer(links, fleet)
    const blocked = async () =>
      Number(/^blocked_clients:(\d+)/m.exec(await fleet.link.client.info('clients'))?.[1])
    await fleet.append(Read, batch(10))
    await until('the first', async () => (await fleet.events('reads')).length === 10)
    await until('a blocked read', async () => (await blocked()) === 1)
    expect(proxy.halve('XREADGROUP')).toBe(1)
    // With both of them blocked, the old one would be served first.
    await until('the new connection to block', () => proxy.open('XREADGROUP') === 1)
    const startedMs = performance.now()
    await fleet.append(Read, batch(50))
    await until('all of them', async () => (await fleet.events('reads')).length === 60)
    expect(performance.now() - startedMs).toBeLessThan(2000)
  })

  test('behind which every new connection vanishes too: not ready, and well again when it opens', async () => {
    await using redis = await startTestRedis()
    const fleet = await testFleet(redis, [Read, WasRead, handler])
    await using proxy = await startTcpProxy(redis)
    const links = proxy.links({ blockMs: BLOCK_MS, commandTimeoutMs: 1000 })
    await using consumer = await startConsumer(links, fleet)
    proxy.swallowNew = true
    proxy.swallow('')
    await fleet.append(Read, batch(20))
    await until('readyz to fail', () => !consumer.health().ready, DETECT_MS + 1500)
    proxy.swallowNew = false
    await until('ready', () => consumer.health().ready)
    await until('all of them', async () => (await fleet.events('reads')).length === 20)
    await until('nothing pending', async () => (await fleet.pending('reads')) === 0)
  })

  test('behind the ingest connection: refused in time, then taken again', async () => {
    await using redis = await startTestRedis()
    const fleet = await testFleet(redis, [Read])
    await using proxy = await startTcpProxy(redis)
    const links = proxy.links({ commandTimeoutMs: 1000 })
    const link = links.open('ingest')
    await link.whenReady(5000)
    const { catalogue, ids, telemetry } = fleet
    await using bus = new CommandBus({ link, catalogue, ids, telemetry, clock: SYSTEM_CLOCK })
    await bus.start()
    await bus.submit('read.this', { n: 1 })
    proxy.swallow('EVALSHA')
    const startedMs = performance.now()
    const outcome = await bus.submit('read.this', { n: 2 }, { idempotencyKey: 'two' }).then(
      () => 'accepted',
      (error: { code: string }) => error.code,
    )
    expect(outcome).toBe('redis.unknown')
    expect(performance.now() - startedMs).toBeLessThan(2000)
    const send = () => bus.submit('read.this', { n: 2 }, { idempotencyKey: 'two' })
    await until('the next connection', async () => (await send().catch(() => undefined)) !== undefined)
    expect(await fleet.link.client.xlen(keys.commands)).toBe(2)
  })

  test('behind the readers of events: views go on', async () => {
    await using redis = await startTestRedis()
    const definitions = [Read, WasRead, handler, counted]
    const fleet = await testFleet(redis, definitions)
    await using proxy = await startTcpProxy(redis)
    const links = proxy.links({ blockMs: BLOCK_MS, commandTimeoutMs: 1000 })
    const command = links.open('command')
    await command.whenReady(5000)
    const { catalogue, ids } = fleet
    const telemetry = new RecordedTelemetry()
    await using projectors = new ProjectorSet({
      ...{ links, command, catalogue, ids, telemetry, logger: SILENT_LOGGER, clock: SYSTEM_CLOCK },
    })
    await projectors.start()
    await using _worker = await fleet.worker()
    const folded = () => telemetry.of('projection.committed').reduce((sum, { events }) => sum + events, 0)
    await fleet.append(Read, batch(10))
    await until('ten events folded', () => folded() === 10)
    expect(proxy.swallow('XREAD')).toBe(1)
    const startedMs = performance.now()
    await fleet.append(Read, batch(10))
    await until('twenty', () => folded() === 20)
    expect(performance.now() - startedMs).toBeLessThan(DETECT_MS + 2000)
    proxy.swallowNew = true
    proxy.swallow('')
    await until('readyz to fail', () => !projectors.health().ready, 20_000)
    proxy.swallowNew = false
    await until('ready', () => projectors.health().ready)
  })
})

const view = (given: Partial<ReaderView>): ReaderView => ({
  nowMs: 100_000,
  readIssuedMs: 99_000,
  blockMs: 2000,
  waitingSinceMs: undefined,
  turnMs: 99_950,
  runEndedMs: 50_000,
  runLimitMs: 30_000,
  isPaused: false,
  ...given,
})

describe('a reader', () => {
  test('is well while it reads in time, idle or not', () => {
    expect(judgeReader(view({ readIssuedMs: 96_000 })).ready).toBe(true)
    expect(judgeReader(view({ readIssuedMs: 95_999 })).ready).toBe(false)
  })

  test('that waits for room is well as long as runs end within their limits', () => {
    expect(judgeReader(view({ readIssuedMs: 0, waitingSinceMs: 60_000 })).ready).toBe(true)
    expect(judgeReader(view({ readIssuedMs: 0, waitingSinceMs: 59_000 })).ready).toBe(false)
    expect(judgeReader(view({ readIssuedMs: 0, waitingSinceMs: 0, runEndedMs: 90_000 })).ready).toBe(true)
  })

  test('whose loop stands still is not well, whatever it was waiting for', () => {
    const still = { readIssuedMs: 0, waitingSinceMs: 94_000, turnMs: 94_000 }
    expect(judgeReader(view(still)).ready).toBe(false)
    expect(judgeReader(view({ ...still, isPaused: true })).ready).toBe(false)
  })

  test('that was told to wait is well', () => {
    expect(judgeReader(view({ readIssuedMs: 0, waitingSinceMs: 0, isPaused: true })).ready).toBe(true)
  })

  test('is stuck when there is room, entries wait and nobody is given one for ten seconds', () => {
    const signs = new StuckSigns()
    const look = (atMs: number, given: object = {}) =>
      signs.observe({ atMs, delivered: 'a', hasWaiting: true, hasRoom: true, ...given })
    expect(look(0)).toBe(false)
    expect(look(1000)).toBe(false)
    expect(look(10_999)).toBe(false)
    expect(look(11_000)).toBe(true)
    expect(look(12_000, { delivered: 'b' })).toBe(false)
    expect(look(13_000, { delivered: 'b' })).toBe(false)
    expect(look(20_000, { delivered: 'b', hasRoom: false })).toBe(false)
    expect(look(21_000, { delivered: 'b' })).toBe(false)
    expect(look(30_999, { delivered: 'b' })).toBe(false)
    signs.forget()
    expect(look(32_000, { delivered: 'b' })).toBe(false)
    expect(look(42_000, { delivered: 'b', hasWaiting: false })).toBe(false)
  })
})

test('entries that wait while nobody reads are seen from outside the loop: alarm, and a new connection', async () => {
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [Read])
  await fleet.link.run('ensure-group', [keys.commands, keys.ready, keys.floors], ['workers'])
  // Time of this process runs a hundred times as fast: ten seconds pass in a tenth.
  const clock: Clock = {
    ...SYSTEM_CLOCK,
    monotonicMs: () => performance.now() * 100,
    sleep: (ms, signal) => SYSTEM_CLOCK.sleep(ms / 100, signal),
  }
  let renewed = 0
  const { link, telemetry } = fleet
  await using watch = new ReaderWatch({
    ...{ link, keys, clock, telemetry },
    hasRoom: () => true,
    renew: () => {
      renewed += 1
    },
    onLoss: async () => undefined,
  })
  await watch.start()
  await fleet.append(Read, batch(1))
  await telemetry.until('alarm.raised')
  await until('it to be told', () => watch.isStuck)
  expect(telemetry.of('alarm.raised')).toMatchObject([{ alarm: 'reader-stuck' }])
  expect(renewed).toBeGreaterThan(0)
  const reader = await redis.open('reader')
  await reader.client.xreadgroup('GROUP', 'workers', 'me', 'COUNT', 1, 'STREAMS', keys.commands, '>')
  await until('it to be well', () => !watch.isStuck)
})
