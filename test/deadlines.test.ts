/**
 * Commands with a deadline: by Redis's clock they are not started from then on, wherever they waited meanwhile, and end as
 * dead letters that say `expired`.
 */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { z } from 'zod'
import { CommandBus } from '../src/commands/command-bus.ts'
import type { SubmitOptions } from '../src/commands/submission.ts'
import { SILENT_LOGGER } from '../src/contracts/logger.ts'
import { DeadLetters } from '../src/dead-letters/dead-letters.ts'
import {
  defineBatchHandler,
  defineCommand,
  defineEvent,
  defineHandler,
  done,
  type HandlerDefinition,
  retry,
} from '../src/index.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { readNew } from '../src/redis/consumer-group.ts'
import { decodeEntry, encodeEntry, payloadOf } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { sharedMembership } from '../src/redis/membership.ts'
import { packPayload } from '../src/redis/payload-codec.ts'
import { type Clock, SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { Consumer } from '../src/runtime/consumer.ts'
import { ServerTime } from '../src/runtime/server-time.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { startPublicServer } from './support/public-server.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { rejection } from './support/rejection.ts'
import { until } from './support/until.ts'

setDefaultTimeout(30_000)

const Note = defineCommand({ type: 'note.take', payload: z.object({ n: z.number() }), stream: 'notes' })
const Follow = defineCommand({ type: 'note.follow', payload: z.object({ n: z.number() }), stream: 'notes' })
const Noted = defineEvent({ type: 'note.taken', payload: z.object({ n: z.number() }) })
const keys = partitionKeys('notes', 0)
const HOUR_MS = 3_600_000

function taking(calls: number[]): HandlerDefinition {
  return defineBatchHandler(Note, (batch) =>
    batch.map((command) => {
      calls.push(command.payload.n)
      command.emit(Noted, command.payload)
      return done()
    }),
  )
}

function skewed(byMs: number): Clock {
  return { ...SYSTEM_CLOCK, nowMs: () => SYSTEM_CLOCK.nowMs() + byMs }
}

async function startBus(
  redis: TestRedis,
  fleet: TestFleet,
  clock: Clock = SYSTEM_CLOCK,
): Promise<CommandBus> {
  const { catalogue, ids, telemetry } = fleet
  const bus = new CommandBus({ link: await redis.open('ingest'), catalogue, ids, clock, telemetry })
  await bus.start()
  return bus
}

async function serverMs(fleet: TestFleet): Promise<number> {
  const [seconds, micros] = await fleet.link.client.time()
  return Number(seconds) * 1000 + Number(micros) / 1000
}

async function passed(fleet: TestFleet, atMs: number): Promise<void> {
  await until('the deadline to pass', async () => (await serverMs(fleet)) > atMs)
}

async function expectExpired(fleet: TestFleet, count: number): Promise<void> {
  await until('dead letters', async () => (await fleet.deadLetters('notes')).length === count)
  await until('nothing pending', async () => (await fleet.pending('notes')) === 0)
  for (const { entry } of await fleet.deadLetters('notes')) {
    expect(entry.trail?.reason).toBe('expired')
    expect(entry.trail?.failures.at(-1)?.error).toContain('passed before it could run')
  }
  const told = fleet.telemetry.of('command.dead-lettered')
  expect(told).toHaveLength(count)
  expect(told.every(({ reason }) => reason === 'expired')).toBe(true)
}

describe('a command that waits past its deadline', () => {
  test('is dead as expired; its handler never runs; others of its batch are done', async () => {
    await using redis = await startTestRedis()
    const calls: number[] = []
    const fleet = await testFleet(redis, [Note, Noted, taking(calls)])
    await using bus = await startBus(redis, fleet)
    const soon = await bus.submit('note.take', { n: 1 }, { expires: { inMs: 50 } })
    await bus.submit('note.take', { n: 2 }, { expires: { inMs: HOUR_MS } })
    await bus.submit('note.take', { n: 3 })
    await bus.submit('note.take', { n: 4 }, { expires: { atMs: Math.floor(await serverMs(fleet)) - 1 } })
    await passed(fleet, (await serverMs(fleet)) + 60)
    await using _worker = await fleet.worker()
    await expectExpired(fleet, 2)
    expect(calls).toEqual([2, 3])
    expect(await bus.status(soon.id)).toMatchObject({ status: 'dead', reason: 'expired', attempt: 0 })
  })

  test('also as a retry: due when it expires, not when its backoff ends', async () => {
    await using redis = await startTestRedis()
    let calls = 0
    const failing = defineHandler(
      Note,
      () => {
        calls += 1
        return retry('not yet', { delayMs: HOUR_MS })
      },
      { attemptsMax: 100 },
    )
    const fleet = await testFleet(redis, [Note, failing])
    await using bus = await startBus(redis, fleet)
    await using _worker = await fleet.worker()
    const { id } = await bus.submit('note.take', { n: 1 }, { expires: { inMs: 400 } })
    await expectExpired(fleet, 1)
    expect(calls).toBe(1)
    const [dead] = await fleet.deadLetters('notes')
    expect(dead?.entry.trail?.failures.map(({ error }) => error.slice(0, 7))).toEqual(['not yet', 'Its dea'])
    expect(await bus.status(id)).toMatchObject({ status: 'dead', reason: 'expired', attempt: 1 })
  })

  test('also one of a type that no worker knows', async () => {
    await using redis = await startTestRedis()
    const Other = defineCommand({ type: 'note.other', payload: z.object({ n: z.number() }), stream: 'notes' })
    const fleet = await testFleet(redis, [Note, Noted, Other, taking([])])
    await using bus = await startBus(redis, fleet)
    await using _worker = await fleet.worker()
    const { id } = await bus.submit('note.other', { n: 1 }, { expires: { inMs: 600 } })
    await fleet.telemetry.until('command.deferred')
    await until('it to expire', async () => (await bus.status(id)).status === 'dead')
    expect(await bus.status(id)).toMatchObject({ status: 'dead', reason: 'expired' })
  })

  test('also while a dead worker held it, and as a suspect', async () => {
    await using redis = await startTestRedis()
    const calls: number[] = []
    const fleet = await testFleet(redis, [Note, Noted, taking(calls)])
    await using bus = await startBus(redis, fleet)
    await fleet.link.run('ensure-group', [keys.commands, keys.ready, keys.floors], ['workers'])
    await bus.submit('note.take', { n: 1 }, { expires: { inMs: 100 } })
    await bus.submit('note.take', { n: 2 }, { expires: { inMs: HOUR_MS } })
    const taken = await readNew(await redis.open('reader'), sharedMembership(keys, 'dead'), 10, 100)
    expect(taken).toHaveLength(2)
    await passed(fleet, (await serverMs(fleet)) + 110)
    await using _worker = await fleet.worker()
    await expectExpired(fleet, 1)
    await until('the other to run', () => calls.length === 1)
    expect(calls).toEqual([2])
    expect(fleet.telemetry.of('entries.claimed')).toMatchObject([{ suspects: 2 }])
    await until('no suspects', async () => (await fleet.link.client.hlen(keys.crashes)) === 0)
  })

  test('also when it was delayed, and when another handler sent it', async () => {
    await using redis = await startTestRedis()
    const calls: number[] = []
    const note = defineHandler(Note, (command) => {
      command.send(Follow, { n: 1 }, { expiresInMs: 50 })
      command.send(Follow, { n: 100 }, { delayMs: 1, expiresInMs: HOUR_MS })
      expect(() => command.send(Follow, { n: 0 }, { delayMs: 10, expiresInMs: 10 })).toThrow('delivered')
      expect(() => command.send(Follow, { n: 0 }, { expiresInMs: 0 })).toThrow('whole number')
      return done()
    })
    const follow = defineHandler(Follow, (command) => {
      calls.push(command.payload.n)
      return done()
    })
    // The first worker knows only the sender, and puts the others back.
    const before = await testFleet(redis, [Note, Follow, note])
    await before.append(Note, [{ n: 1 }])
    const sender = await before.worker()
    await before.telemetry.until('command.deferred', (all) => all.length >= 2)
    await sender.stop()
    const fleet = await testFleet(redis, [Note, Follow, note, follow])
    await using bus = await startBus(redis, fleet)
    await bus.submit('note.follow', { n: 2 }, { deliver: { delayMs: 1 }, expires: { inMs: 2 } })
    await passed(fleet, (await serverMs(fleet)) + 60)
    await using _worker = await fleet.worker()
    await until('the long one', () => calls.includes(100))
    await expectExpired(fleet, 2)
    expect(calls).toEqual([100])
  })
})

test('process clocks an hour off change nothing: the deadline is judged by the clock of Redis', async () => {
  for (const [busByMs, workerByMs] of [
    [-HOUR_MS, HOUR_MS],
    [HOUR_MS, -HOUR_MS],
  ] as const) {
    await using redis = await startTestRedis()
    const calls: number[] = []
    const handler = taking(calls)
    const fleet = await testFleet(redis, [Note, Noted, handler])
    await using bus = await startBus(redis, fleet, skewed(busByMs))
    await bus.submit('note.take', { n: 1 }, { expires: { inMs: 600_000 } })
    await bus.submit('note.take', { n: 2 }, { expires: { inMs: 1 } })
    await passed(fleet, (await serverMs(fleet)) + 2)
    const { links } = redis
    const { catalogue, ids, telemetry, link: command } = fleet
    await using consumer = new Consumer({
      ...{ links, command, catalogue, ids, telemetry, logger: SILENT_LOGGER },
      handlers: new Map([['note.take@1', handler]]),
      clock: skewed(workerByMs),
    })
    await consumer.start()
    await expectExpired(fleet, 1)
    await until('the other', () => calls.length === 1)
    expect(calls).toEqual([1])
  }
})

describe('at the door', () => {
  const refused = async (options: SubmitOptions) => {
    await using redis = await startTestRedis()
    const fleet = await testFleet(redis, [Note])
    await using bus = await startBus(redis, fleet)
    return await rejection(bus.submit('note.take', { n: 1 }, options))
  }

  test('a command that would expire before it is delivered is refused', async () => {
    const atMs = Date.now() + 10_000
    for (const options of [
      { deliver: { delayMs: 10 }, expires: { inMs: 10 } },
      { deliver: { atMs }, expires: { atMs } },
    ]) {
      expect(await refused(options)).toMatchObject({
        code: 'command.invalid',
        message: expect.stringContaining('before it is delivered'),
      })
    }
    expect(await refused({ deliver: { atMs }, expires: { inMs: 20_000 } })).toMatchObject({
      message: expect.stringContaining('"expiresAt" with "deliverAt"'),
    })
    expect(await refused({ expires: { inMs: 0 } })).toMatchObject({ code: 'command.invalid' })
    expect(await refused({ expires: { atMs: atMs + 400 * 86_400_000 } })).toMatchObject({
      code: 'command.invalid',
    })
  })

  test('over HTTP: one, many, status, dead letters by reason', async () => {
    await using redis = await startTestRedis()
    const calls: number[] = []
    const definitions = [Note, Noted, taking(calls)]
    const fleet = await testFleet(redis, definitions)
    await using server = await startPublicServer(redis, buildCatalogue(definitions))
    const at = new Date(Date.now() + HOUR_MS).toISOString()
    const one = await server.post('/v1/commands/note.take?expiresInMs=1', { n: 1 })
    expect(one.status).toBe(202)
    expect((await server.post(`/v1/commands/note.take?expiresAt=${at}`, { n: 2 })).status).toBe(202)
    const many = await server.post('/v1/commands', [
      { type: 'note.take', payload: { n: 3 }, expiresInMs: 1 },
      { type: 'note.take', payload: { n: 4 }, expiresAt: at },
      { type: 'note.take', payload: { n: 5 }, delayMs: 5, expiresInMs: 5 },
      { type: 'note.take', payload: { n: 6 }, expiresInMs: 'soon' },
      { type: 'note.take', payload: { n: 7 }, expiresAt: 'tomorrow' },
    ])
    expect(await many.json()).toMatchObject({ accepted: 2, rejected: 3 })
    for (const query of ['expiresInMs=0', 'expiresAt=x', `expiresInMs=5&expiresAt=${at}`]) {
      expect((await server.post(`/v1/commands/note.take?${query}`, { n: 1 })).status).toBe(400)
    }
    const late = await server.post('/v1/commands/note.take?delayMs=50&expiresInMs=50', { n: 1 })
    expect(late.status).toBe(422)
    await passed(fleet, (await serverMs(fleet)) + 5)
    await using _worker = await fleet.worker()
    await expectExpired(fleet, 2)
    await until('the others', () => calls.length === 2)
    expect(calls.sort()).toEqual([2, 4])
    const { id } = (await one.json()) as { id: string }
    const status = await (await server.fetch(`/v1/commands/${id}`)).json()
    expect(status).toMatchObject({
      status: 'dead',
      reason: 'expired',
      problem: { type: '/problems/command-expired' },
    })
  })
})

test('a redriven command has no deadline any more', async () => {
  await using redis = await startTestRedis()
  const calls: number[] = []
  const fleet = await testFleet(redis, [Note, Noted, taking(calls)])
  await using bus = await startBus(redis, fleet)
  const { id } = await bus.submit('note.take', { n: 1 }, { expires: { inMs: 1 } })
  const edited = await bus.submit('note.take', { n: 2 }, { expires: { inMs: 1 } })
  await bus.submit('note.take', { n: 4 }, { expires: { inMs: 1 } })
  await passed(fleet, (await serverMs(fleet)) + 2)
  await using _worker = await fleet.worker()
  await expectExpired(fleet, 3)
  const { link: command, catalogue, ids, telemetry } = fleet
  await using letters = new DeadLetters({ command, catalogue, ids, clock: SYSTEM_CLOCK, telemetry })
  await letters.start()
  const count = async (reason: 'expired' | 'failed') => (await letters.page({ reason })).data.length
  expect(await count('expired')).toBe(3)
  const payloadBytes = JSON.stringify({ n: 1 }).length
  const { data } = await letters.page()
  expect(data.every((letter) => letter.payloadBytes === payloadBytes)).toBe(true)
  expect(await count('failed')).toBe(0)
  expect(await letters.inspect(id)).toMatchObject({ reason: 'expired', attempts: 0, payload: { n: 1 } })
  await letters.redrive(id)
  await letters.redrive(edited.id, { payload: { n: 3 } })
  await until('both to run', () => calls.length === 2)
  letters.redriveAll({ reason: 'expired' })
  await until('the rest to run', () => calls.length === 3)
  expect(calls.sort()).toEqual([1, 3, 4])
})

describe('the bytes of an entry', () => {
  const nothing = { trace: undefined, tickMs: undefined, trail: undefined }
  const envelope = { type: 'note.take', version: 1, atMs: 5, key: 'k', ...nothing }

  test('with a deadline are of a format that older workers leave to others; without one nothing has changed', () => {
    const dated = encodeEntry({ ...envelope, expiresAtMs: 1234 }, packPayload({ n: 1 }))
    const plain = encodeEntry(envelope, packPayload({ n: 1 }))
    expect([dated[0], plain[0]]).toEqual([2, 1])
    expect(dated.length - plain.length).toBe(6)
    expect(decodeEntry(dated)).toMatchObject({ expiresAtMs: 1234, key: 'k' })
    expect(payloadOf(decodeEntry(dated))).toEqual(payloadOf(decodeEntry(plain)))
    expect(decodeEntry(plain).expiresAtMs).toBeUndefined()
  })

  test('with flags from the future are refused, not misread', () => {
    const entry = encodeEntry(envelope, packPayload({ n: 1 }))
    entry[2] = (entry[2] ?? 0) | 128
    expect(() => decodeEntry(entry)).toThrow('newer worker')
  })
})

test('the clock of Redis is bounded from both sides', () => {
  const time = new ServerTime()
  expect(time.latestAt(0)).toBeNaN()
  time.learn(1000, 10, 14)
  // Asked at 10, answered at 14: at 14 the server read from 1000 to 1005.
  expect(time.at(14)).toBe(1000)
  expect(time.latestAt(14)).toBe(1005)
})
