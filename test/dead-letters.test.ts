/** Dead letters against a real Redis: one move of many wins, edits, history, statuses, pages, filters, operations, retention. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { defineCommand } from '../src/contracts/command.ts'
import { errorCode } from '../src/contracts/errors.ts'
import { defineHandler } from '../src/contracts/handler.ts'
import { done, reject, retry } from '../src/contracts/outcome.ts'
import { defineStream } from '../src/contracts/stream.ts'
import type { DeadLetterFilter } from '../src/dead-letters/dead-letter-filter.ts'
import type { Operation } from '../src/dead-letters/dead-letter-operations.ts'
import { DeadLetters, type DeadLettersOptions } from '../src/dead-letters/dead-letters.ts'
import { partitionOf } from '../src/policies/partition.ts'
import { redriveDead, trimDead } from '../src/redis/dead-letter-stream.ts'
import { decodeEntry, packTrace, unpackPayload } from '../src/redis/entry-codec.ts'
import { type PartitionKeys, partitionKeys } from '../src/redis/keys.ts'
import { sweepRecords } from '../src/redis/partition-care.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { type Planted, type PlantedLetter, plantDeadLetters } from './support/planted-letters.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const STREAMS = Array.from({ length: 30 }, (_, i) => defineStream({ name: `dead-${i}`, partitions: 3 }))
const pay = (stream: number) =>
  defineCommand({
    type: `pay-${stream}`,
    stream: `dead-${stream}`,
    payload: z.object({ account: z.string(), cents: z.number().int().positive() }),
    key: ({ account }) => account,
  })
const COMMANDS = STREAMS.map((_, i) => pay(i))

let redis: TestRedis
let fleet: TestFleet
let used = 0

beforeAll(async () => {
  redis = await startTestRedis()
  fleet = await testFleet(redis, [...STREAMS, ...COMMANDS])
})
afterAll(() => redis[Symbol.asyncDispose]())

/** An account of partition 0, and a stream that no other test uses. */
const ACCOUNT = accountIn(0)
function accountIn(partition: number): string {
  for (let i = 0; ; i++) if (partitionOf(`account-${i}`, 3) === partition) return `account-${i}`
}

function freshStream(): string {
  used += 1
  return `dead-${used}`
}

const typeOf = (stream: string): string => stream.replace('dead-', 'pay-')

async function openLetters(options: Partial<DeadLettersOptions> = {}): Promise<DeadLetters> {
  const { catalogue, ids, telemetry, link } = fleet
  const letters = new DeadLetters({ command: link, catalogue, ids, clock: SYSTEM_CLOCK, telemetry, options })
  await letters.start()
  return letters
}

async function plant(
  stream: string,
  count: number,
  over: Partial<PlantedLetter> = {},
): Promise<(Planted & { id: string })[]> {
  const base = { stream, partition: 0, type: typeOf(stream), key: ACCOUNT, error: 'card refused' }
  const letters = Array.from({ length: count }, (_, i) => ({
    ...base,
    payload: { account: ACCOUNT, cents: i + 1 },
    ...over,
  }))
  const planted = await plantDeadLetters(fleet.link, letters)
  return planted.map((one) => ({ ...one, id: fleet.ids.format(stream, one.keys.partition, one.token) }))
}

async function one(over: Partial<PlantedLetter> = {}): Promise<Planted & { id: string }> {
  const [planted] = await plant(freshStream(), 1, over)
  if (planted === undefined) throw new Error('nothing was planted')
  return planted
}

async function rowsOf(key: string): Promise<{ token: string; blob: Buffer }[]> {
  const rows = await fleet.link.client.xrangeBuffer(key, '-', '+')
  return rows.map(([, fields]) => ({ token: String(fields[0]), blob: fields[1] ?? Buffer.alloc(0) }))
}

const lengths = async ({ dead, ready }: PartitionKeys): Promise<{ dead: number; ready: number }> => ({
  dead: await fleet.link.client.xlen(dead),
  ready: await fleet.link.client.xlen(ready),
})

const stateOf = async ({ keys, token }: Planted): Promise<string> =>
  (await fleet.status({ stream: keys.stream, partition: keys.partition, token })).state

const codeOf = async (work: Promise<unknown>): Promise<string> =>
  await work.then(
    () => 'nothing was thrown',
    (error: unknown) => errorCode(error) ?? String(error),
  )

async function ended(letters: DeadLetters, id: string): Promise<Operation> {
  await until('the operation to end', () => letters.operation(id).state !== 'running')
  return letters.operation(id)
}

describe('redriving one', () => {
  test('of many that try at once one wins, and the command is there once', async () => {
    await using letters = await openLetters()
    const { id, keys } = await one()
    const codes = await Promise.all(Array.from({ length: 8 }, () => codeOf(letters.redrive(id))))
    expect(codes.filter((code) => code === 'nothing was thrown').length).toBe(1)
    expect(codes.filter((code) => code === 'dead-letter.conflict').length).toBe(7)
    expect(await lengths(keys)).toEqual({ dead: 0, ready: 1 })
  })

  test('against a discard at the same time, exactly one of the two happens', async () => {
    await using letters = await openLetters()
    for (const [round, { id }] of (await plant(freshStream(), 20)).entries()) {
      const moves = [() => letters.redrive(id), () => letters.discard(id)]
      const order = round % 2 === 0 ? moves : moves.toReversed()
      const codes = await Promise.all(order.map((move) => codeOf(move())))
      expect(codes.toSorted()).toEqual(['dead-letter.conflict', 'nothing was thrown'])
    }
  })

  test('keeps the command as it was, starts its attempts again, and remembers what it went through', async () => {
    await using letters = await openLetters()
    const failures = [1, 2, 3].map((attempt) => ({ attempt, atMs: 1000 * attempt, error: `boom ${attempt}` }))
    const trace = packTrace(`00-${'ab'.repeat(16)}-${'cd'.repeat(8)}-01`)
    const planted = await one({
      payload: { account: ACCOUNT, cents: 7, note: 'ü'.repeat(500) },
      trail: { attempts: 3, level: 2, redrives: 4, failures },
      tickMs: 1_700_000_000_000,
      ...(trace === undefined ? {} : { trace }),
    })
    const before = await rowsOf(planted.keys.dead)
    expect(await letters.redrive(planted.id)).toEqual({ id: planted.id, redrives: 5 })
    const [copy] = await rowsOf(planted.keys.ready)
    const [was, is] = [
      decodeEntry(before[0]?.blob ?? Buffer.alloc(0)),
      decodeEntry(copy?.blob ?? Buffer.alloc(0)),
    ]
    expect(copy?.token).toBe(planted.token)
    expect(is).toEqual({ ...was, trail: { attempts: 0, level: 0, redrives: 5, failures } })
    expect(await stateOf(planted)).toBe('accepted')
  })

  test('what is no dead letter is not found; what was one is a conflict', async () => {
    await using letters = await openLetters()
    const stream = freshStream()
    const [alive] = await fleet.append(pay(used), [{ account: ACCOUNT, cents: 1 }])
    const living = fleet.ids.format(stream, alive?.partition ?? 0, alive?.token ?? '')
    expect(await codeOf(letters.redrive(living))).toBe('not-found')
    expect(await codeOf(letters.discard(living))).toBe('not-found')
    expect(await codeOf(letters.inspect(living))).toBe('not-found')
    expect(await codeOf(letters.redrive(`${living.slice(0, -3)}abc`))).toBe('not-found')
    expect(await codeOf(letters.redrive('nonsense'))).toBe('command.malformed')
    const { id } = await one()
    await letters.redrive(id)
    expect(await codeOf(letters.redrive(id))).toBe('dead-letter.conflict')
    expect(await codeOf(letters.discard(id))).toBe('dead-letter.conflict')
    expect(await codeOf(letters.inspect(id))).toBe('not-found')
  })

  test('a view from before it died again takes nothing', async () => {
    const planted = await one()
    const { keys, token, entryId } = planted
    const move = { token, bytes: Buffer.from('x'), replacesBytes: undefined, record: Buffer.alloc(0) }
    expect(await redriveDead(fleet.link, keys, [{ ...move, entryId }])).toEqual([true])
    const again = (await fleet.link.client.xadd(keys.dead, '*', token, 'again')) ?? ''
    await fleet.link.client.hset(keys.records, token, `X${again}:`)
    expect(await redriveDead(fleet.link, keys, [{ ...move, entryId }])).toEqual([false])
    expect(await lengths(keys)).toEqual({ dead: 1, ready: 1 })
  })
})

describe('redriving with another payload', () => {
  test('the schema checks it, and the command runs with it', async () => {
    await using letters = await openLetters()
    const { id, keys } = await one()
    expect(await codeOf(letters.redrive(id, { payload: { account: ACCOUNT, cents: -1 } }))).toBe(
      'command.invalid',
    )
    expect(await lengths(keys)).toEqual({ dead: 1, ready: 0 })
    await letters.redrive(id, { payload: { account: ACCOUNT, cents: 99, extra: 'is dropped' } })
    const [copy] = await rowsOf(keys.ready)
    const entry = decodeEntry(copy?.blob ?? Buffer.alloc(0))
    expect(unpackPayload(entry.payloadBytes)).toEqual({ account: ACCOUNT, cents: 99 })
    expect(entry.trail).toMatchObject({ attempts: 0, redrives: 1, failures: [{ error: 'card refused' }] })
  })

  test('a key of another partition is refused, because the id names the partition', async () => {
    await using letters = await openLetters()
    const { id, keys } = await one()
    const elsewhere = { payload: { account: accountIn(1), cents: 1 } }
    expect(await codeOf(letters.redrive(id, elsewhere))).toBe('command.invalid')
    expect(await lengths(keys)).toEqual({ dead: 1, ready: 0 })
  })

  test('too large, or of a type that nobody here defines, is refused and changes nothing', async () => {
    await using letters = await openLetters({ payloadBytesMax: 10 })
    const { id, keys } = await one()
    expect(await codeOf(letters.redrive(id, { payload: { account: ACCOUNT, cents: 5 } }))).toBe(
      'command.too-large',
    )
    const strange = await one({ type: 'nobody.knows' })
    expect(await codeOf(letters.redrive(strange.id, { payload: {} }))).toBe('command.invalid')
    await letters.redrive(strange.id)
    expect([(await lengths(keys)).dead, (await lengths(strange.keys)).dead]).toEqual([1, 0])
  })
})

describe('with real workers', () => {
  test('dead, redriven, dead again, mended: history, attempts and status are true at each step', async () => {
    const order = defineCommand({
      type: 'order',
      stream: 'shop',
      payload: z.object({ n: z.number(), plan: z.string() }),
    })
    const attempts: string[] = []
    const onOrder = defineHandler(
      order,
      (command) => {
        attempts.push(`${command.payload.plan} ${command.attempt}`)
        if (command.payload.plan === 'reject') return reject('out of stock 17')
        if (command.payload.plan === 'retry') return retry(new Error('try later'), { delayMs: 0 })
        return done()
      },
      { attemptsMax: 2 },
    )
    await using server = await startTestRedis()
    const shop = await testFleet(server, [order, onOrder])
    await using _worker = await shop.worker()
    const { catalogue, ids, telemetry, link } = shop
    await using letters = new DeadLetters({ command: link, catalogue, ids, clock: SYSTEM_CLOCK, telemetry })
    const [placed] = await shop.append(order, [{ n: 1, plan: 'reject' }])
    if (placed === undefined) throw new Error('nothing was appended')
    const id = ids.format('shop', 0, placed.token)
    const dead = async (count: number): Promise<void> =>
      await until('the dead letter', async () => {
        const rows = await shop.deadLetters('shop')
        return rows.length === 1 && rows[0]?.entry.trail?.failures.length === count
      })

    await dead(1)
    expect(await letters.inspect(id)).toMatchObject({
      ...{ id, type: 'order', payload: { n: 1, plan: 'reject' }, attempts: 1, redrives: 0 },
      ...{ error: 'out of stock 17', failures: [{ attempt: 1, error: 'out of stock 17' }] },
    })
    await letters.redrive(id, { payload: { n: 1, plan: 'retry' } })
    await dead(3)
    const second = await letters.inspect(id)
    expect(second).toMatchObject({ attempts: 2, redrives: 1 })
    expect(second.failures.map((failure) => failure.attempt)).toEqual([1, 1, 2])
    expect((await shop.status(placed)).state).toBe('dead')

    await letters.redrive(id, { payload: { n: 1, plan: 'fine' } })
    await until('the end', async () => (await shop.status(placed)).state === 'done')
    expect(attempts).toEqual(['reject 1', 'retry 1', 'retry 2', 'fine 1'])
    expect(await codeOf(letters.redrive(id))).toBe('dead-letter.conflict')
    expect(await codeOf(letters.inspect(id))).toBe('not-found')
    expect(await shop.pending('shop')).toBe(0)
  })
})

describe('discarding one', () => {
  test('the status stays dead as long as results are kept, then it has expired, and never is it done', async () => {
    await using letters = await openLetters()
    const planted = await one()
    await letters.discard(planted.id)
    expect(await lengths(planted.keys)).toEqual({ dead: 0, ready: 0 })
    expect(await stateOf(planted)).toBe('dead')
    expect(await sweepRecords(fleet.link, planted.keys, 60_000, 100)).toBe(0)
    expect(await stateOf(planted)).toBe('dead')
    expect(await codeOf(letters.redrive(planted.id))).toBe('dead-letter.conflict')
    await Bun.sleep(2)
    expect(await sweepRecords(fleet.link, planted.keys, 0, 100)).toBe(1)
    expect(await stateOf(planted)).toBe('expired')
    expect(await codeOf(letters.redrive(planted.id))).toBe('not-found')
  })
})

describe('pages', () => {
  const T0 = 1_750_000_000_000

  /** 120 dead letters over three partitions, two kinds of error, a second apart, some in the same millisecond. */
  async function library(): Promise<{ stream: string; ids: string[] }> {
    const stream = freshStream()
    const letters = Array.from({ length: 120 }, (_, i) => ({
      stream,
      partition: i % 3,
      type: i % 4 === 0 ? 'other' : typeOf(stream),
      key: '',
      payload: { i },
      error: i % 2 === 0 ? `Account ${i} of "user-${i}" is closed` : `Timeout after ${i} ms`,
      deadAtMs: T0 + Math.floor(i / 6) * 1000,
    }))
    const planted = await plantDeadLetters(fleet.link, letters)
    return { stream, ids: planted.map(({ keys, token }) => fleet.ids.format(stream, keys.partition, token)) }
  }

  async function walk(letters: DeadLetters, filter: DeadLetterFilter, limit: number): Promise<string[][]> {
    const pages: string[][] = []
    let cursor: string | undefined
    do {
      const page = await letters.page(filter, { limit, ...(cursor === undefined ? {} : { cursor }) })
      pages.push(page.data.map((letter) => letter.id))
      cursor = page.next
    } while (cursor !== undefined)
    return pages
  }

  test('a walk sees each dead letter once, newest first, whatever the size of a page', async () => {
    await using letters = await openLetters()
    const { stream, ids } = await library()
    for (const limit of [1, 7, 50, 120, 500]) {
      const pages = await walk(letters, { stream }, limit)
      const seen = pages.flat()
      expect(seen.length).toBe(120)
      expect(new Set(seen)).toEqual(new Set(ids))
      expect(pages.slice(0, -1).every((page) => page.length === limit)).toBe(true)
    }
    const { data } = await letters.page({ stream }, { limit: 500 })
    const times = data.map((letter) => letter.deadSinceMs)
    expect(times).toEqual(times.toSorted((a, b) => b - a))
  })

  test('filters by type, error, kind of error and time, and counts the kinds', async () => {
    await using letters = await openLetters()
    const { stream, ids } = await library()
    const found = async (filter: DeadLetterFilter): Promise<Set<string>> =>
      new Set((await walk(letters, { stream, ...filter }, 13)).flat())
    const those = (test: (i: number) => boolean): Set<string> => new Set(ids.filter((_, i) => test(i)))

    expect(await found({ type: 'other' })).toEqual(those((i) => i % 4 === 0))
    expect(await found({ error: 'Timeout' })).toEqual(those((i) => i % 2 === 1))
    expect(await found({ error: 'after 7 ms' })).toEqual(those((i) => i === 7))
    expect(await found({ fromMs: T0 + 3000, toMs: T0 + 5000 })).toEqual(those((i) => i >= 18 && i < 30))
    expect(await found({ fromMs: T0 + 19_001 })).toEqual(new Set())

    const { groups } = await letters.page({ stream }, { limit: 1 })
    expect(groups?.complete).toBe(true)
    expect(groups?.data.map((group) => group.count)).toEqual([60, 60])
    const closed = groups?.data.find((group) => group.error.includes('closed'))
    expect(await found({ error: closed?.fingerprint })).toEqual(those((i) => i % 2 === 0))
    expect(await found({ error: closed?.fingerprint, type: typeOf(stream) })).toEqual(
      those((i) => i % 2 === 0 && i % 4 !== 0),
    )
  })

  test('work is bounded: a filter that finds little gives short pages with a next, and misses nothing', async () => {
    await using letters = await openLetters({ scanCountMax: 10 })
    const { stream, ids } = await library()
    const pages = await walk(letters, { stream, error: 'after 7 ms' }, 50)
    expect(pages.length).toBeGreaterThanOrEqual(12)
    expect(pages.flat()).toEqual([ids[7] ?? ''])
    expect((await letters.page({ stream })).groups).toMatchObject({ scanned: 10, complete: false })
  })

  test('a cursor belongs to its filter, a limit has bounds, a stream has a name', async () => {
    await using letters = await openLetters()
    const { stream } = await library()
    const { next } = await letters.page({ stream }, { limit: 5 })
    expect(await codeOf(letters.page({ stream, type: 'other' }, { cursor: next }))).toBe('cursor.invalid')
    expect(await codeOf(letters.page({ stream }, { cursor: `${next}x` }))).toBe('cursor.invalid')
    expect(await codeOf(letters.page({ stream }, { cursor: '' }))).toBe('cursor.invalid')
    for (const limit of [0, 501, 1.5, Number.NaN]) {
      expect(await codeOf(letters.page({ stream }, { limit }))).toBe('command.malformed')
    }
    expect(await codeOf(letters.page({ stream: 'daed-1' }))).toBe('not-found')
    expect((await letters.page({ stream })).data.length).toBe(50)
  })

  test('an entry of a format from the future is listed, and keeps nothing else from being read', async () => {
    await using letters = await openLetters()
    const stream = freshStream()
    const keys = partitionKeys(stream, 0)
    await plant(stream, 2)
    await fleet.link.client.xadd(keys.dead, '*', 'x99', Buffer.from([9, 9, 9]))
    const { data } = await letters.page({ stream })
    expect(data.map((letter) => letter.type)).toEqual(['', typeOf(stream), typeOf(stream)])
    const operation = await ended(letters, letters.redriveAll({ stream }).id)
    expect(operation).toMatchObject({ state: 'finished', matched: 3, done: 2, failed: 1 })
    expect(await lengths(keys)).toEqual({ dead: 1, ready: 2 })
  })
})

describe('operations', () => {
  test('a dry run counts and moves nothing', async () => {
    await using letters = await openLetters()
    const stream = freshStream()
    await plant(stream, 30)
    await plant(stream, 12, { error: 'other trouble' })
    const started = letters.redriveAll({ stream, error: 'card' }, { dryRun: true })
    expect(started).toMatchObject({ kind: 'redrive', state: 'running', dryRun: true })
    expect(await ended(letters, started.id)).toMatchObject({ state: 'finished', matched: 30, done: 0 })
    expect(await lengths(partitionKeys(stream, 0))).toEqual({ dead: 42, ready: 0 })
  })

  test('a thousand are redriven at the rate asked for, each once, whole and in order', async () => {
    await using letters = await openLetters()
    const stream = freshStream()
    const planted = await plant(stream, 1000)
    const keys = partitionKeys(stream, 0)
    const startMs = performance.now()
    const { id } = letters.redriveAll({ stream }, { ratePerSecond: 1000 })
    await until('the first half', () => letters.operation(id).done >= 500)
    const halfMs = performance.now() - startMs
    const operation = await ended(letters, id)
    const tookMs = performance.now() - startMs
    expect(operation).toMatchObject({ state: 'finished', matched: 1000, done: 1000, failed: 0 })
    expect(halfMs).toBeGreaterThanOrEqual(400)
    expect(tookMs).toBeGreaterThanOrEqual(900)
    expect(tookMs).toBeLessThan(4000)
    const rows = await rowsOf(keys.ready)
    expect(rows.map((row) => row.token)).toEqual(planted.map((one) => one.token))
    expect(
      rows.map((row) => (unpackPayload(decodeEntry(row.blob).payloadBytes) as { cents: number }).cents),
    ).toEqual(planted.map((_, i) => i + 1))
    expect((await lengths(keys)).dead).toBe(0)
  })

  test('two operations over the same dead letters share them: none is redriven twice', async () => {
    await using letters = await openLetters()
    const stream = freshStream()
    await plant(stream, 400)
    const [a, b] = [letters.redriveAll({ stream }), letters.redriveAll({ stream })]
    const [first, second] = [await ended(letters, a.id), await ended(letters, b.id)]
    expect(first.done + second.done).toBe(400)
    const rows = await rowsOf(partitionKeys(stream, 0).ready)
    expect(new Set(rows.map((row) => row.token)).size).toBe(400)
    expect(rows.length).toBe(400)
  })

  test('what dies again while the operation runs is not met twice', async () => {
    await using letters = await openLetters()
    const stream = freshStream()
    const keys = partitionKeys(stream, 0)
    await plant(stream, 300)
    const { id } = letters.redriveAll({ stream }, { ratePerSecond: 600 })
    await until('some to be redriven', () => letters.operation(id).done >= 50)
    await plant(stream, 100)
    expect(await ended(letters, id)).toMatchObject({ matched: 300, done: 300 })
    expect(await lengths(keys)).toEqual({ dead: 100, ready: 300 })
  })

  test('a purge by filter takes what it means and leaves the rest; statuses stay dead', async () => {
    await using letters = await openLetters()
    const stream = freshStream()
    const keep = await plant(stream, 20)
    const drop = await plant(stream, 250, { error: 'spam 12' })
    const { id } = letters.purgeAll({ stream, error: 'spam' }, { ratePerSecond: 10_000 })
    expect(await ended(letters, id)).toMatchObject({
      kind: 'purge',
      state: 'finished',
      matched: 250,
      done: 250,
    })
    const left = (await letters.page({ stream }, { limit: 500 })).data.map((letter) => letter.id)
    expect(new Set(left)).toEqual(new Set(keep.map((one) => one.id)))
    const [gone] = drop
    if (gone !== undefined) expect(await stateOf(gone)).toBe('dead')
  })

  test('a stop ends it between two batches, and what it has not done is still there', async () => {
    const letters = await openLetters()
    const stream = freshStream()
    await plant(stream, 300)
    const { id } = letters.redriveAll({ stream }, { ratePerSecond: 100 })
    await until('some to be redriven', () => letters.operation(id).done >= 10)
    await letters.stop()
    const operation = letters.operation(id)
    expect(operation.state).toBe('stopped')
    expect(operation.done).toBeLessThan(300)
    expect(await lengths(partitionKeys(stream, 0))).toEqual({
      dead: 300 - operation.done,
      ready: operation.done,
    })
    expect(() => letters.redriveAll({ stream })).toThrow('shutting down')
  })

  test('the number that run at once and the rate are bounded; an unknown one is not found', async () => {
    await using letters = await openLetters({ operationsRunningMax: 2 })
    const stream = freshStream()
    await plant(stream, 50)
    const slow = { ratePerSecond: 1 }
    letters.redriveAll({ stream }, slow)
    letters.redriveAll({ stream }, slow)
    expect(await codeOf(Promise.try(() => letters.redriveAll({ stream }, slow)))).toBe('admission.overloaded')
    expect(await codeOf(Promise.try(() => letters.operation('op_none')))).toBe('not-found')
    for (const ratePerSecond of [0, 10_001, 1.5]) {
      expect(await codeOf(Promise.try(() => letters.purgeAll({ stream }, { ratePerSecond })))).toBe(
        'command.malformed',
      )
    }
  })

  test('Redis is killed while it runs: the operation goes on, and every command is in exactly one place', async () => {
    await using server = await startTestRedis()
    const own = await testFleet(server, [...STREAMS, ...COMMANDS])
    const { catalogue, ids, telemetry, link } = own
    await using letters = new DeadLetters({ command: link, catalogue, ids, clock: SYSTEM_CLOCK, telemetry })
    const plan = Array.from({ length: 600 }, (_, i) => {
      return {
        stream: 'dead-0',
        partition: 0,
        type: 'pay-0',
        key: ACCOUNT,
        payload: { i },
        error: 'card refused',
      }
    })
    const planted = await plantDeadLetters(link, plan)
    const { id } = letters.redriveAll({ stream: 'dead-0' }, { ratePerSecond: 600 })
    await until('some to be redriven', () => letters.operation(id).done >= 100)
    await server.kill()
    await until('the loss to be seen', () => letters.operation(id).error !== undefined)
    await server.restart()
    const operation = await ended(letters, id)
    expect(operation).toMatchObject({ state: 'finished', matched: 600, error: undefined })
    const { dead, ready } = partitionKeys('dead-0', 0)
    const reader = await server.open()
    const tokens = (rows: [Buffer, Buffer[]][]) => rows.map(([, fields]) => String(fields[0]))
    const redriven = tokens(await reader.client.xrangeBuffer(ready, '-', '+'))
    expect(await reader.client.xlen(dead)).toBe(0)
    expect(redriven.toSorted()).toEqual(planted.map((one) => one.token).toSorted())
  })
})

describe('retention', () => {
  test('old dead letters go, bounded per call, the newer stay, and no status becomes done', async () => {
    const stream = freshStream()
    const keys = partitionKeys(stream, 0)
    const now = Date.now()
    const old = await plant(stream, 5, { deadAtMs: now - 100_000 })
    const recent = await plant(stream, 3, { deadAtMs: now - 10_000 })
    expect(await trimDead(fleet.link, keys, 60_000, 2)).toBe(2)
    expect(await trimDead(fleet.link, keys, 60_000, 100)).toBe(3)
    expect(await trimDead(fleet.link, keys, 60_000, 100)).toBe(0)
    expect((await rowsOf(keys.dead)).map((row) => row.token)).toEqual(recent.map((one) => one.token))
    for (const one of [...old, ...recent]) expect(await stateOf(one)).toBe('dead')
    expect(await sweepRecords(fleet.link, keys, 60_000, 100)).toBe(5)
    for (const one of old) expect(await stateOf(one)).toBe('expired')
    for (const one of recent) expect(await stateOf(one)).toBe('dead')
  })

  test('results kept longer than dead letters: the status is dead until results of that time go', async () => {
    const stream = freshStream()
    const keys = partitionKeys(stream, 0)
    const [letter] = await plant(stream, 1, { deadAtMs: Date.now() - 100_000 })
    expect(await trimDead(fleet.link, keys, 60_000, 10)).toBe(1)
    expect(await sweepRecords(fleet.link, keys, 200_000, 100)).toBe(0)
    if (letter !== undefined) expect(await stateOf(letter)).toBe('dead')
  })

  test('a command that was redriven loses nothing when the trimming comes by', async () => {
    await using letters = await openLetters()
    const stream = freshStream()
    const keys = partitionKeys(stream, 0)
    const [letter] = await plant(stream, 1, { deadAtMs: Date.now() - 100_000 })
    await letters.redrive(letter?.id ?? '')
    expect(await trimDead(fleet.link, keys, 60_000, 10)).toBe(0)
    expect(await sweepRecords(fleet.link, keys, 1000, 100)).toBe(0)
    if (letter !== undefined) expect(await stateOf(letter)).toBe('accepted')
  })
})
