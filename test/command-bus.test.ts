/** The command bus against a real Redis: appending, routing, idempotency, delays, all-or-none, status, cancelling, drain. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import * as v from 'valibot'
import { z } from 'zod'
import { CommandBus } from '../src/commands/command-bus.ts'
import type { CommandBusOptions } from '../src/commands/submission.ts'
import { defineCommand } from '../src/contracts/command.ts'
import { errorCode } from '../src/contracts/errors.ts'
import type { SubmitOutcome } from '../src/contracts/producer.ts'
import { defineStream } from '../src/contracts/stream.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { partitionOf } from '../src/policies/partition.ts'
import type { CommandIds } from '../src/redis/command-id.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { decodeEntry, unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { joinFleet } from '../src/redis/fleet.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { loseNextReply } from './support/lost-reply.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { RecordedTelemetry } from './support/telemetry.ts'

const stream = defineStream({ name: 'orders', partitions: 4 })
const place = defineCommand({
  type: 'order.place',
  stream,
  payload: z.object({ orderId: z.string(), qty: z.number().int().positive().default(1) }),
  key: (payload) => payload.orderId,
})
const note = defineCommand({ type: 'note', stream: 'notes', payload: v.object({ text: v.string() }) })
const slow = defineCommand({
  type: 'slow',
  stream: 'notes',
  payload: z.object({ text: z.string() }).refine(async ({ text }) => text !== 'no', 'must not be no'),
})
const catalogue = buildCatalogue([stream, place, note, slow])

let redis: TestRedis
let link: RedisLink
let ids: CommandIds
const telemetry = new RecordedTelemetry()

beforeAll(async () => {
  redis = await startTestRedis(['--maxmemory', '200mb'])
  link = await redis.open('ingest')
  ids = await joinFleet(await redis.open(), catalogue.streams.values())
})
afterAll(() => redis[Symbol.asyncDispose]())

async function startBus(
  options: Partial<CommandBusOptions> = {},
  over: RedisLink = link,
): Promise<CommandBus> {
  const bus = new CommandBus({ link: over, catalogue, ids, clock: SYSTEM_CLOCK, telemetry, options })
  await bus.start()
  return bus
}

const lengthOf = (name: string, partition: number): Promise<number> =>
  link.use('XLEN', (client) => client.xlen(partitionKeys(name, partition).commands))

async function totalOf(name: string, partitions: number): Promise<number> {
  let total = 0
  for (let partition = 0; partition < partitions; partition++) total += await lengthOf(name, partition)
  return total
}

async function codeOf(work: Promise<unknown>): Promise<string | undefined> {
  return await work.then(() => 'nothing was thrown', errorCode)
}

const codes = (outcomes: readonly SubmitOutcome[]): (string | undefined)[] =>
  outcomes.map((outcome) => (outcome.accepted === undefined ? outcome.error.code : 'accepted'))

describe('submit', () => {
  test('stores the validated payload in the partition of its key, and the id tells where', async () => {
    await using bus = await startBus()
    const accepted = await bus.submit('order.place', { orderId: 'o-1', extra: true })
    const partition = partitionOf('o-1', 4)
    expect(accepted).toMatchObject({
      type: 'order.place',
      status: 'accepted',
      durability: 'everysec',
      deduplicated: false,
    })
    const position = ids.parse(accepted.id)
    expect(position).toMatchObject({ stream: 'orders', partition })
    const rows = await link.use('XRANGE', (client) =>
      client.xrangeBuffer(partitionKeys('orders', partition).commands, '-', '+'),
    )
    const entry = decodeEntry(rows.at(-1)?.[1][1] ?? Buffer.alloc(0))
    expect(entry).toMatchObject({ type: 'order.place', version: 1, key: 'o-1' })
    expect(unpackPayloadOf(entry)).toEqual({ orderId: 'o-1', qty: 1 })
  })

  test('what arrives in one turn goes to Redis in one script', async () => {
    await using bus = await startBus()
    await bus.submit('note', { text: 'warm' })
    const before = await callsOf('evalsha')
    const accepted = await Promise.all(
      Array.from({ length: 200 }, (_, i) => bus.submit('note', { text: `n${i}` })),
    )
    expect(new Set(accepted.map(({ id }) => id)).size).toBe(200)
    expect((await callsOf('evalsha')) - before).toBe(1)
  })

  test('arrival order is stream order, with and without keys', async () => {
    await using bus = await startBus()
    const keys = partitionKeys('notes', 0)
    await link.use('DEL', (client) => client.del(keys.commands))
    await Promise.all(
      Array.from({ length: 600 }, (_, i) =>
        bus.submit('note', { text: `n${i}` }, i % 3 === 0 ? { idempotencyKey: `order-${i}` } : {}),
      ),
    )
    const rows = await link.use('XRANGE', (client) => client.xrangeBuffer(keys.commands, '-', '+'))
    const texts = rows.map(([, fields]) => {
      const payload = unpackPayloadOf(decodeEntry(fields[1] ?? Buffer.alloc(0)))
      return (payload as { text: string }).text
    })
    expect(texts).toEqual(Array.from({ length: 600 }, (_, i) => `n${i}`))
  })

  test('an asynchronous schema works too', async () => {
    await using bus = await startBus()
    expect((await bus.submit('slow', { text: 'yes' })).status).toBe('accepted')
    expect(await codeOf(bus.submit('slow', { text: 'no' }))).toBe('command.invalid')
  })

  test('refuses unknown types, invalid payloads, large ones and long keys, and stores nothing', async () => {
    await using bus = await startBus()
    const before = await totalOf('orders', 4)
    expect(await codeOf(bus.submit('order.plac', {}))).toBe('command.unknown-type')
    expect(bus.submit('order.plac', {})).rejects.toThrow('Did you mean "order.place"?')
    expect(await codeOf(bus.submit('order.place', { orderId: 7 }))).toBe('command.invalid')
    expect(await codeOf(bus.submit('order.place', { orderId: 'x'.repeat(300) }))).toBe('command.invalid')
    expect(await codeOf(bus.submit('note', { text: 'x'.repeat(300_000) }))).toBe('command.too-large')
    expect(await codeOf(bus.submit('order.place', { orderId: 'o' }, { deliver: { delayMs: -1 } }))).toBe(
      'command.invalid',
    )
    expect(await codeOf(bus.submit('order.place', { orderId: 'o' }, { deliver: { delayMs: 1e15 } }))).toBe(
      'command.invalid',
    )
    expect(await totalOf('orders', 4)).toBe(before)
  })
})

describe('idempotency', () => {
  test('the same key and payload is one entry with one id', async () => {
    await using bus = await startBus()
    const first = await bus.submit('order.place', { orderId: 'same' }, { idempotencyKey: 'k-same' })
    const before = await totalOf('orders', 4)
    const second = await bus.submit('order.place', { orderId: 'same' }, { idempotencyKey: 'k-same' })
    expect(second).toEqual({ ...first, deduplicated: true })
    expect(await totalOf('orders', 4)).toBe(before)
  })

  test('50 at once with one key are one entry', async () => {
    await using one = await startBus()
    await using two = await startBus({}, await redis.open('ingest'))
    const before = await totalOf('orders', 4)
    const accepted = await Promise.all(
      Array.from({ length: 50 }, (_, i) =>
        (i % 2 === 0 ? one : two).submit('order.place', { orderId: 'race' }, { idempotencyKey: 'k-race' }),
      ),
    )
    expect(new Set(accepted.map(({ id }) => id)).size).toBe(1)
    expect(accepted.filter(({ deduplicated }) => !deduplicated)).toHaveLength(1)
    expect((await totalOf('orders', 4)) - before).toBe(1)
  })

  test('another payload under the key is refused, also when it belongs to another partition or type', async () => {
    await using bus = await startBus()
    await bus.submit('order.place', { orderId: 'a' }, { idempotencyKey: 'k-other' })
    const elsewhere = ['b', 'c', 'd', 'e', 'f'].find((id) => partitionOf(id, 4) !== partitionOf('a', 4)) ?? ''
    const before = await totalOf('orders', 4)
    const again = (payload: unknown) => bus.submit('order.place', payload, { idempotencyKey: 'k-other' })
    expect(await codeOf(again({ orderId: elsewhere }))).toBe('idempotency.conflict')
    expect(await codeOf(again({ orderId: 'a', qty: 2 }))).toBe('idempotency.conflict')
    expect(await codeOf(bus.submit('note', { text: 'a' }, { idempotencyKey: 'k-other' }))).toBe(
      'idempotency.conflict',
    )
    expect(await totalOf('orders', 4)).toBe(before)
  })

  test('a key whose command could not be stored is still unused', async () => {
    await using bus = await startBus()
    const partition = partitionOf('unstored', 4)
    const { commands } = partitionKeys('orders', partition)
    const kept = `${commands}:kept`
    const isThere = await link.use('EXISTS', (client) => client.exists(commands))
    if (isThere === 1) await link.use('RENAME', (client) => client.rename(commands, kept))
    await link.use('SET', (client) => client.set(commands, 'no stream'))
    const send = () => bus.submit('order.place', { orderId: 'unstored' }, { idempotencyKey: 'k-unstored' })
    try {
      expect(await codeOf(send())).toBe('redis.unknown')
    } finally {
      await link.use('DEL', (client) => client.del(commands))
      if (isThere === 1) await link.use('RENAME', (client) => client.rename(kept, commands))
    }
    const before = await lengthOf('orders', partition)
    const { deduplicated, id } = await send()
    expect(deduplicated).toBe(false)
    expect(await lengthOf('orders', partition)).toBe(before + 1)
    expect((await send()).id).toBe(id)
  })

  test('a key is known in the next window, and forgotten after two', async () => {
    const windowMs = 1500
    await using bus = await startBus({ idempotencyWindowMs: windowMs })
    const serverMs = async () => {
      const [seconds, micros] = await link.use('TIME', (client) => client.time())
      return Number(seconds) * 1000 + Number(micros) / 1000
    }
    const windowNow = async () => Math.floor((await serverMs()) / windowMs)
    const send = () => bus.submit('order.place', { orderId: 'w' }, { idempotencyKey: 'k-window' })
    const first = await send()
    const born = await windowNow()
    while ((await windowNow()) <= born) await Bun.sleep(20)
    const next = await send()
    expect(next.id).toBe(first.id)
    while ((await windowNow()) <= born + 1) await Bun.sleep(20)
    const later = await send()
    expect(later.deduplicated).toBe(false)
    expect(later.id).not.toBe(first.id)
  })

  test('a caller whose clock is in another window is corrected by the server', async () => {
    const off = { ...SYSTEM_CLOCK, nowMs: () => SYSTEM_CLOCK.nowMs() - 5 * 86_400_000 }
    await using bus = new CommandBus({ link, catalogue, ids, clock: off, telemetry })
    await bus.start()
    const first = await bus.submit('order.place', { orderId: 'skew' }, { idempotencyKey: 'k-skew' })
    await using straight = await startBus()
    expect((await straight.submit('order.place', { orderId: 'skew' }, { idempotencyKey: 'k-skew' })).id).toBe(
      first.id,
    )
  })

  test('when no more keys fit, keyed commands are refused and others still pass', async () => {
    await using bus = await startBus({ idempotencyRecordsMax: 64, idempotencyWindowMs: 3_600_000 * 7 })
    const fates = await Promise.all(
      Array.from({ length: 300 }, (_, i) =>
        codeOf(bus.submit('note', { text: 'full' }, { idempotencyKey: `full-${i}` })),
      ),
    )
    const refused = fates.filter((fate) => fate === 'idempotency.full')
    expect(refused.length).toBeGreaterThanOrEqual(300 - 64)
    expect((await bus.submit('note', { text: 'free' })).status).toBe('accepted')
  })
})

describe('submitMany', () => {
  test('gives each its own fate, in order', async () => {
    await using bus = await startBus()
    const outcomes = await bus.submitMany([
      { type: 'order.place', payload: { orderId: 'm1' } },
      { type: 'nothing', payload: {} },
      { type: 'slow', payload: { text: 'no' } },
      { type: 'order.place', payload: { orderId: 'm2', qty: 0 } },
      { type: 'slow', payload: { text: 'fine' } },
    ])
    expect(codes(outcomes)).toEqual([
      'accepted',
      'command.unknown-type',
      'command.invalid',
      'command.invalid',
      'accepted',
    ])
  })

  test('a thousand in one call keep their order and take few scripts', async () => {
    await using bus = await startBus()
    const before = await callsOf('evalsha')
    const outcomes = await bus.submitMany(
      Array.from({ length: 1000 }, (_, i) => ({ type: 'note', payload: { text: `${i}` } })),
    )
    expect((await callsOf('evalsha')) - before).toBe(4)
    const positions = outcomes.map((outcome) => ids.parse(outcome.accepted?.id ?? '').token)
    expect(positions).toEqual([...positions].sort(compareTokens))
  })

  test('all or none: one invalid command keeps the others out', async () => {
    await using bus = await startBus()
    const before = await lengthOf('notes', 0)
    const outcomes = await bus.submitMany(
      [
        { type: 'note', payload: { text: 'a' } },
        { type: 'note', payload: { text: 1 } },
      ],
      { atomic: true },
    )
    expect(codes(outcomes)).toEqual(['command.invalid', 'command.invalid'])
    expect(await lengthOf('notes', 0)).toBe(before)
  })

  test('all or none: a used key keeps the others out, also one used twice in the request', async () => {
    await using bus = await startBus()
    await bus.submit('note', { text: 'first' }, { idempotencyKey: 'atomic-used' })
    const before = await lengthOf('notes', 0)
    const used = await bus.submitMany(
      [
        { type: 'note', payload: { text: 'x' }, idempotencyKey: 'atomic-new' },
        { type: 'note', payload: { text: 'second' }, idempotencyKey: 'atomic-used' },
      ],
      { atomic: true },
    )
    expect(codes(used)).toEqual(['command.invalid', 'idempotency.conflict'])
    const twice = await bus.submitMany(
      [
        { type: 'note', payload: { text: 'x' }, idempotencyKey: 'atomic-twice' },
        { type: 'note', payload: { text: 'y' }, idempotencyKey: 'atomic-twice' },
      ],
      { atomic: true },
    )
    expect(codes(twice)).toEqual(['command.invalid', 'idempotency.conflict'])
    expect(await lengthOf('notes', 0)).toBe(before)
  })

  test('all or none: stored together, and a repetition finds all of them', async () => {
    await using bus = await startBus()
    const before = await lengthOf('notes', 0)
    const items = ['x', 'y', 'z'].map((text) => ({
      type: 'note',
      payload: { text },
      idempotencyKey: `atomic-${text}`,
    }))
    const first = await bus.submitMany(items, { atomic: true })
    const second = await bus.submitMany(items, { atomic: true })
    expect(second.map((outcome) => outcome.accepted?.id)).toEqual(
      first.map((outcome) => outcome.accepted?.id),
    )
    expect(second.every((outcome) => outcome.accepted?.deduplicated === true)).toBe(true)
    expect(await lengthOf('notes', 0)).toBe(before + 3)
  })

  test('all or none: refused over several partitions', async () => {
    await using bus = await startBus()
    const before = await totalOf('orders', 4)
    const outcomes = await bus.submitMany(
      ['a', 'b', 'c', 'd', 'e'].map((orderId) => ({ type: 'order.place', payload: { orderId } })),
      { atomic: true },
    )
    expect(new Set(codes(outcomes))).toEqual(new Set(['command.invalid']))
    expect(await totalOf('orders', 4)).toBe(before)
  })
})

describe('delays, status and cancelling', () => {
  test('a delayed command is scheduled, not appended', async () => {
    await using bus = await startBus()
    const before = await totalOf('orders', 4)
    const accepted = await bus.submit('order.place', { orderId: 'later' }, { deliver: { delayMs: 60_000 } })
    expect(accepted.status).toBe('scheduled')
    expect(await totalOf('orders', 4)).toBe(before)
    const report = await bus.status(accepted.id)
    expect(report.status).toBe('scheduled')
    const waitMs = (report.dueAtMs ?? 0) - SYSTEM_CLOCK.nowMs()
    expect(waitMs).toBeGreaterThan(55_000)
    expect(waitMs).toBeLessThan(61_000)
    const keys = partitionKeys('orders', partitionOf('later', 4))
    expect(
      await link.use('HEXISTS', (client) => client.hexists(keys.dueBodies, ids.parse(accepted.id).token)),
    ).toBe(1)
  })

  test('a delayed command under a key is found again with its status', async () => {
    await using bus = await startBus()
    const send = () =>
      bus.submit(
        'order.place',
        { orderId: 'later' },
        { idempotencyKey: 'k-later', deliver: { atMs: SYSTEM_CLOCK.nowMs() + 60_000 } },
      )
    const first = await send()
    expect(await send()).toEqual({ ...first, status: 'scheduled', deduplicated: true })
  })

  test('accepted, then cancelled, and cancelling again is fine', async () => {
    await using bus = await startBus()
    const { id } = await bus.submit('note', { text: 'cancel me' })
    expect((await bus.status(id)).status).toBe('accepted')
    expect((await bus.cancel(id)).status).toBe('cancelled')
    expect((await bus.cancel(id)).status).toBe('cancelled')
    expect((await bus.status(id)).status).toBe('cancelled')
  })

  test('a scheduled command can be cancelled', async () => {
    await using bus = await startBus()
    const { id } = await bus.submit('note', { text: 'later' }, { deliver: { delayMs: 60_000 } })
    expect((await bus.cancel(id)).status).toBe('cancelled')
    expect(
      await link.use('ZSCORE', (client) => client.zscore(partitionKeys('notes', 0).due, ids.parse(id).token)),
    ).toBeNull()
  })

  test('what has started is processing, and too late to cancel; what is acknowledged is done', async () => {
    await using bus = await startBus()
    const keys = partitionKeys('notes', 0)
    const { id } = await bus.submit('note', { text: 'started' })
    const entryId = ids.parse(id).token.slice(1)
    await link.use('XGROUP', (client) => client.xgroup('CREATE', keys.commands, 'workers', '0'))
    await link.use('XREADGROUP', (client) =>
      client.xreadgroup('GROUP', 'workers', 'me', 'COUNT', 10_000, 'STREAMS', keys.commands, '>'),
    )
    expect(await bus.status(id)).toMatchObject({ status: 'processing', attempt: 1 })
    expect(await codeOf(bus.cancel(id))).toBe('cancel.too-late')
    await link.use('XACK', (client) => client.xack(keys.commands, 'workers', entryId))
    expect((await bus.status(id)).status).toBe('done')
    expect(await codeOf(bus.cancel(id))).toBe('cancel.too-late')
  })

  test('an invented id is not found, and what is no id at all is malformed', async () => {
    await using bus = await startBus()
    const { id } = await bus.submit('note', { text: 'real' })
    const invented = id.replace(/\d+-/, '1-')
    expect(await codeOf(bus.status(invented))).toBe('not-found')
    expect(await codeOf(bus.status('whatever'))).toBe('command.malformed')
    expect(await codeOf(bus.cancel(invented))).toBe('not-found')
    // Its checksum is ours, so it was issued, by a Redis that has forgotten it.
    expect((await bus.status(ids.format('notes', 0, 'x999999999'))).status).toBe('lost')
  })

  test('what Redis acknowledged and no longer has is lost, with an alarm', async () => {
    await using bus = await startBus()
    const { id } = await bus.submit('note', { text: 'gone' })
    await link.use('XDEL', (client) =>
      client.xdel(partitionKeys('notes', 0).commands, ids.parse(id).token.slice(1)),
    )
    expect((await bus.status(id)).status).toBe('lost')
    expect(telemetry.of('alarm.raised').some(({ alarm }) => alarm === 'command-lost')).toBe(true)
  })
})

describe('bounds and endings', () => {
  test('a full stream closes the door, and says when to come back', async () => {
    await using bus = await startBus({ depthMax: 5, sampleMs: 20 })
    await link.use('DEL', (client) => client.del(partitionKeys('notes', 0).commands))
    await bus.submitMany(Array.from({ length: 6 }, () => ({ type: 'note', payload: { text: 'x' } })))
    let code: string | undefined
    while (code !== 'admission.overloaded') {
      code = await codeOf(bus.submit('note', { text: 'x' }))
      await Bun.sleep(5)
    }
    expect(bus.submit('note', { text: 'x' })).rejects.toMatchObject({ retryAfterS: expect.any(Number) })
  })

  test('too many waiting in the process is refused before it costs anything', async () => {
    await using bus = await startBus({ waitingCountMax: 10 })
    const fates = await Promise.all(
      Array.from({ length: 30 }, () => codeOf(bus.submit('note', { text: 'x' }))),
    )
    expect(fates.filter((fate) => fate === 'admission.overloaded')).toHaveLength(20)
    expect(
      await codeOf(bus.submitMany(Array.from({ length: 11 }, () => ({ type: 'note', payload: {} })))),
    ).toBe('admission.overloaded')
  })

  test('stopping refuses what comes and finishes what was taken in', async () => {
    const bus = await startBus()
    const open = Promise.all(Array.from({ length: 100 }, () => bus.submit('note', { text: 'x' })))
    const stopped = bus.stop()
    expect(await codeOf(bus.submit('note', { text: 'late' }))).toBe('admission.draining')
    expect(bus.health().ready).toBe(false)
    await stopped
    expect(await open).toHaveLength(100)
  })

  test('a lost reply is unknown, and a retry with the same key finds the first one', async () => {
    const own = await redis.open('ingest')
    await using bus = await startBus({}, own)
    const before = await totalOf('orders', 4)
    const send = () =>
      bus.submit('order.place', { orderId: 'lost-reply' }, { idempotencyKey: 'k-lost-reply' })
    loseNextReply(own)
    expect(await codeOf(send())).toBe('redis.unknown')
    await own.whenReady(5000)
    expect((await totalOf('orders', 4)) - before).toBe(1)
    expect(await send()).toMatchObject({ status: 'accepted', deduplicated: true })
    expect((await totalOf('orders', 4)) - before).toBe(1)
  })

  test('without Redis a command is refused at once, and taken again afterwards', async () => {
    await using own = await startTestRedis()
    const ingest = await own.open('ingest')
    const fleet = await joinFleet(await own.open(), catalogue.streams.values())
    await using bus = new CommandBus({ link: ingest, catalogue, ids: fleet, clock: SYSTEM_CLOCK, telemetry })
    await bus.start()
    await own.kill()
    while (ingest.ready) await Bun.sleep(5)
    expect(await codeOf(bus.submit('note', { text: 'x' }))).toBe('redis.unavailable')
    expect(bus.health().ready).toBe(false)
    await own.restart()
    await ingest.whenReady(5000)
    expect((await bus.submit('note', { text: 'x' })).status).toBe('accepted')
  })

  test('unknown options are refused', () => {
    const options = { batchCount: 3 } as object
    expect(() => new CommandBus({ link, catalogue, ids, clock: SYSTEM_CLOCK, telemetry, options })).toThrow(
      'no option "batchCount"',
    )
  })
})

function compareTokens(a: string, b: string): number {
  const [aMs = 0, aSeq = 0] = a.slice(1).split('-').map(Number)
  const [bMs = 0, bSeq = 0] = b.slice(1).split('-').map(Number)
  return aMs === bMs ? aSeq - bSeq : aMs - bMs
}

async function callsOf(command: string): Promise<number> {
  const text = await link.use('INFO', (client) => client.info('commandstats'))
  return Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(text)?.[1] ?? 0)
}
