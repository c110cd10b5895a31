/**
 * What is taken away behind our back: the whole data set, one stream, the scripts, every connection. Each is an alarm where
 * something was lost, the fleet goes on with no restart, and what was lost says so.
 */
import { describe, expect, setDefaultTimeout, spyOn, test } from 'bun:test'
import { z } from 'zod'
import { CommandStatusReader } from '../src/commands/command-status.ts'
import { SILENT_LOGGER } from '../src/contracts/logger.ts'
import {
  defineBatchHandler,
  defineCommand,
  defineEvent,
  defineProjection,
  done,
  retry,
} from '../src/index.ts'
import { LossSigns } from '../src/policies/loss-signs.ts'
import { ProjectorSet } from '../src/projections/projector-set.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { joinFleet } from '../src/redis/fleet.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { startBus, submitPersistently } from './support/submissions.ts'
import { until } from './support/until.ts'

setDefaultTimeout(60_000)

const Keep = defineCommand({ type: 'keep.this', payload: z.object({ n: z.number() }), stream: 'keeps' })
const Kept = defineEvent({ type: 'keep.done', payload: z.object({ n: z.number() }) })
const keys = partitionKeys('keeps', 0)

/** A handler whose batches from number `from` on wait for `open`. */
class Gate {
  from = Number.POSITIVE_INFINITY
  reached = 0
  readonly #open = Promise.withResolvers<void>()

  readonly handler = defineBatchHandler(
    Keep,
    async (batch) => {
      if (batch.some(({ payload }) => payload.n >= this.from)) {
        this.reached += batch.length
        await this.#open.promise
      }
      return batch.map((command) => {
        if (command.payload.n % 10 === 3 && command.attempt === 1) return retry('again', { delayMs: 5 })
        command.emit(Kept, command.payload)
        return done()
      })
    },
    { batchCountMax: 10, concurrencyMax: 2 },
  )

  open(): void {
    this.from = Number.POSITIVE_INFINITY
    this.#open.resolve()
  }
}

async function numbers(fleet: TestFleet): Promise<number[]> {
  const events = await fleet.events('keeps')
  return events.map(({ entry }) => (unpackPayloadOf(entry) as { n: number }).n)
}

const alarms = (fleet: TestFleet) => new Set(fleet.telemetry.of('alarm.raised').map(({ alarm }) => alarm))

/** A connection for a worker, and how often its watch has looked at the streams over it. */
async function watchedLink(redis: TestRedis): Promise<{ link: RedisLink; looks: () => number }> {
  const link = await redis.open()
  const run = spyOn(link, 'run')
  return { link, looks: () => run.mock.calls.filter(([name]) => name === 'progress').length }
}

const upTo = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i)

describe('of a fleet under load', () => {
  for (const [what, destroy] of [
    ['FLUSHALL', ['FLUSHALL']],
    ['DEL of the command stream', ['DEL', keys.commands]],
    ['DEL of both streams that are read', ['DEL', keys.commands, keys.ready]],
  ] as const) {
    test(`${what}: alarm, groups again, lost commands say so, new ones are done`, async () => {
      await using redis = await startTestRedis()
      const gate = new Gate()
      const fleet = await testFleet(redis, [Keep, Kept, gate.handler])
      await using bus = await startBus(redis, fleet)
      const { link, looks } = await watchedLink(redis)
      await using one = await fleet.worker({ inFlightMax: 50 }, link)
      await using two = await fleet.worker({ inFlightMax: 50 })
      const send = (numbersToSend: number[]) =>
        Promise.all(numbersToSend.map((n) => submitPersistently(bus, 'keep.this', { n }, `${what}${n}`)))
      await send(upTo(0, 100))
      await until('a hundred', async () => (await numbers(fleet)).length === 100)
      await until('nothing in retry', async () => (await fleet.link.client.zcard(keys.due)) === 0)
      const looksBefore = looks()
      await until('a look at them', () => looks() > looksBefore + 1)
      gate.from = 1000
      const lost = await send(upTo(1000, 300))
      await until('some to be running', () => gate.reached >= 20)
      const [name, ...rest] = destroy
      await fleet.link.use('the disaster', (client) => client.call(name, ...rest))
      gate.open()
      await fleet.telemetry.until('alarm.raised', (all) =>
        all.some(({ alarm }) => alarm === 'group-vanished'),
      )
      await fleet.telemetry.until('alarm.raised', (all) =>
        all.some(({ alarm }) => alarm === 'stream-vanished'),
      )
      const later = await send(upTo(2000, 100))
      await until('the later ones to be done', async () => {
        const found = (await numbers(fleet)).filter((n) => n >= 2000)
        return new Set(found).size === 100
      })
      await until('nothing pending', async () => (await fleet.pending('keeps')) === 0)
      const statuses = new CommandStatusReader({ ...fleet, quorum: undefined, clock: SYSTEM_CLOCK })
      const stateOf = async (id: string) => (await statuses.status(id, '')).status
      for (const id of later) expect(await stateOf(id)).toBe('done')
      for (const id of lost) expect(await stateOf(id)).toBe('lost')
      expect((await numbers(fleet)).filter((n) => n >= 2000)).toHaveLength(100)
      expect([one.state, two.state]).toEqual(['running', 'running'])
      await until('both to be ready', () => one.health().ready && two.health().ready)
      // A process that starts now knows the ids that were given out.
      const known = await joinFleet(fleet.link, fleet.catalogue.streams.values())
      for (const id of [...lost, ...later].slice(0, 5)) expect(known.parse(id).stream).toBe('keeps')
    })
  }

  test('DEL of the ready stream: alarm, and its commands say that they are lost', async () => {
    await using redis = await startTestRedis()
    const gate = new Gate()
    const fleet = await testFleet(redis, [Keep, Kept, gate.handler])
    await using bus = await startBus(redis, fleet)
    const worker = await fleet.worker()
    gate.from = 1000
    // Delayed ones come through the ready stream.
    const { id } = await bus.submit('keep.this', { n: 1000 }, { deliver: { delayMs: 1 } })
    await until('it to run', () => gate.reached === 1)
    await fleet.link.client.del(keys.ready)
    gate.open()
    await fleet.telemetry.until('alarm.raised', (all) => all.some(({ alarm }) => alarm === 'group-vanished'))
    const next = await bus.submit('keep.this', { n: 1 }, { deliver: { delayMs: 1 } })
    await until('the next one', async () => (await bus.status(next.id)).status === 'done')
    expect((await bus.status(id)).status).toBe('lost')
    await worker.stop()
  })

  test('DEL of the events: alarm, and new events are folded', async () => {
    await using redis = await startTestRedis()
    const kept = defineProjection({ name: 'kept', stream: 'keeps', version: 1, initial: () => 0 }).on(
      Kept,
      () => 'all',
      (count) => count + 1,
    )
    const gate = new Gate()
    const fleet = await testFleet(redis, [Keep, Kept, gate.handler, kept])
    await using bus = await startBus(redis, fleet)
    const { links } = redis
    await using projectors = new ProjectorSet({
      ...{ links, command: fleet.link, catalogue: fleet.catalogue, ids: fleet.ids },
      ...{ telemetry: fleet.telemetry, logger: SILENT_LOGGER, clock: SYSTEM_CLOCK },
    })
    await projectors.start()
    const { link, looks } = await watchedLink(redis)
    await using _worker = await fleet.worker({}, link)
    const folded = () =>
      fleet.telemetry.of('projection.committed').reduce((sum, { events }) => sum + events, 0)
    for (let n = 0; n < 3; n++) await bus.submit('keep.this', { n })
    await until('three', () => folded() === 3)
    const looksBefore = looks()
    await until('a look at them', () => looks() > looksBefore + 1)
    await fleet.link.client.del(keys.events)
    await fleet.telemetry.until('alarm.raised')
    expect(alarms(fleet)).toEqual(new Set(['stream-vanished']))
    const before = folded()
    await bus.submit('keep.this', { n: 1 })
    await until('a new one', () => folded() > before)
    await until('ready', () => projectors.health().ready)
  })

  test('SCRIPT FLUSH again and again: nothing is lost or doubled', async () => {
    await using redis = await startTestRedis()
    const gate = new Gate()
    const fleet = await testFleet(redis, [Keep, Kept, gate.handler])
    await using bus = await startBus(redis, fleet)
    await using _one = await fleet.worker()
    await using _two = await fleet.worker()
    const operator = await redis.open()
    let flushing = true
    let flushes = 0
    const flush = (async () => {
      while (flushing) {
        await operator.client.script('FLUSH')
        flushes += 1
        await Bun.sleep(1)
      }
    })()
    for (let from = 0; from < 2000; from += 100) {
      await Promise.all(upTo(from, 100).map((n) => submitPersistently(bus, 'keep.this', { n }, `flush-${n}`)))
    }
    await until('all of them', async () => (await numbers(fleet)).length >= 2000)
    flushing = false
    await flush
    expect(flushes).toBeGreaterThan(20)
    await until('nothing pending', async () => (await fleet.pending('keeps')) === 0)
    expect((await numbers(fleet)).sort((a, b) => a - b)).toEqual(upTo(0, 2000))
  })

  test('every connection killed every 50 ms for three seconds: nothing is lost or doubled, nothing left behind', async () => {
    await using redis = await startTestRedis()
    const gate = new Gate()
    const fleet = await testFleet(redis, [Keep, Kept, gate.handler])
    await using bus = await startBus(redis, fleet)
    await using one = await fleet.worker({ readCountMax: 50 })
    await using two = await fleet.worker({ readCountMax: 50 })
    const operator = await redis.open()
    let storming = true
    const storm = (async () => {
      for (let i = 0; i < 60; i++) {
        await operator.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
        await Bun.sleep(50)
      }
      storming = false
    })()
    const refusals = new Map<string, number>()
    let sent = 0
    while (storming) {
      const from = sent
      sent += 20
      await Promise.all(
        upTo(from, 20).map((n) => submitPersistently(bus, 'keep.this', { n }, `storm-${n}`, { refusals })),
      )
    }
    await storm
    expect(refusals.size).toBeGreaterThan(0)
    await until('the connection', () => fleet.link.ready)
    await until('all of them', async () => (await numbers(fleet).catch(() => [])).length >= sent)
    await until('nothing pending', async () => (await fleet.pending('keeps')) === 0)
    await until('nothing in retry', async () => (await fleet.link.client.zcard(keys.due)) === 0)
    expect((await numbers(fleet)).sort((a, b) => a - b)).toEqual(upTo(0, sent))
    await until('both to be ready', () => one.health().ready && two.health().ready)
    expect(await fleet.deadLetters('keeps')).toEqual([])
    expect(alarms(fleet)).toEqual(new Set())
  })
})

test('a stream is another one when it has fewer entries added than before and goes on, or is gone', () => {
  const signs = new LossSigns()
  const observe = (stream: string, added: number | undefined, lastMs = 0): boolean =>
    signs.observe(stream, { added, lastMs })
  expect(observe('c', undefined)).toBe(false)
  expect(observe('c', 0)).toBe(false)
  expect(observe('c', 7, 1000)).toBe(false)
  expect(observe('r', 3, 1000)).toBe(false)
  expect(observe('c', 6, 2000)).toBe(true)
  expect(observe('c', 6, 2000)).toBe(false)
  expect(observe('c', undefined)).toBe(true)
  expect(observe('c', undefined)).toBe(false)
  expect(observe('c', 1, 3000)).toBe(false)
  expect(observe('c', 0, 0)).toBe(true)
})

test('a stream that lacks its newest entries after a crash is the same one: that loss is told with its range', () => {
  const signs = new LossSigns()
  expect(signs.observe('c', { added: 100, lastMs: 5000 })).toBe(false)
  expect(signs.observe('c', { added: 60, lastMs: 3000 })).toBe(false)
  expect(signs.observe('c', { added: 61, lastMs: 6000 })).toBe(false)
})
