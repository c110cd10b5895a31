/** Pages of dead letters against a real Redis: order, filters, cursors, bounded work, counts of errors by kind. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import type { DeadLetterFilter } from '../src/dead-letters/dead-letter-filter.ts'
import { fingerprintOf, isFingerprint, normaliseError } from '../src/dead-letters/error-fingerprint.ts'
import { readDead } from '../src/redis/dead-letter-stream.ts'
import { encodeEntry } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { packPayload } from '../src/redis/payload-codec.ts'
import { Bill, codeOf, ended, Graveyard, Note, numbers, Ship, walk } from './support/dead-letters.ts'
import type { Appended } from './support/fleet.ts'

describe('a fingerprint', () => {
  test('is equal for errors that differ in numbers, ids and quoted parts only', () => {
    const alike = (a: string, b: string) => fingerprintOf(a) === fingerprintOf(b)
    expect(alike('Order 4711 not found', 'Order 12 not found')).toBe(true)
    expect(alike('No "anna" here', "No 'bert' here")).toBe(true)
    expect(alike('Timeout after 3.5s', 'Timeout after 12s')).toBe(true)
    expect(alike('at 0xdeadbeef', 'at 0x1')).toBe(true)
    expect(alike(`id ${crypto.randomUUID()} gone`, `id ${crypto.randomUUID()} gone`)).toBe(true)
    expect(alike('commit 9fceb02d0ae598e gone', 'commit a1b2c3d4 gone')).toBe(true)
    expect(alike('Order not found', 'Customer not found')).toBe(false)
    expect(normaliseError("can't find the defaced facade, won't retry")).toBe(
      "can't find the defaced facade, won't retry",
    )
    expect(isFingerprint(fingerprintOf('x'))).toBe(true)
  })
})

describe('pages over all partitions', () => {
  let yard: Graveyard
  let [ships, bills, written]: Appended[][] = []
  beforeAll(async () => {
    yard = await Graveyard.open()
    ships = await yard.fleet.append(
      Ship,
      numbers(120).map(({ n }) => ({ orderId: `o-${n}`, weight: n })),
    )
    bills = await yard.fleet.append(Bill, numbers(60))
    written = await yard.fleet.append(Note, numbers(40))
    await yard.work(220)
  })
  afterAll(async () => {
    await yard[Symbol.asyncDispose]()
  })
  const idsOf = (...lists: (readonly Appended[] | undefined)[]): string[] =>
    lists.flatMap((list) => (list ?? []).map((at) => yard.idOf(at))).toSorted()

  test('come newest first, each dead letter once, with any limit', async () => {
    const letters = yard.letters()
    for (const limit of [1, 7, 50, 220, 500]) {
      const { all } = await walk(letters, {}, limit)
      expect(all.map(({ id }) => id).toSorted()).toEqual(idsOf(ships, bills, written))
      const times = all.map(({ deadSinceMs }) => deadSinceMs)
      expect(times).toEqual(times.toSorted((a, b) => b - a))
    }
  })

  test('are filtered by stream, type, part of the error, fingerprint and time of death', async () => {
    const letters = yard.letters()
    const count = async (filter: DeadLetterFilter) => (await walk(letters, filter, 33)).all.length
    expect(await count({ stream: 'notes' })).toBe(40)
    expect(await count({ stream: 'orders' })).toBe(180)
    expect(await count({ type: 'order.bill' })).toBe(60)
    expect(await count({ type: 'order.bill', stream: 'notes' })).toBe(0)
    expect(await count({ error: 'order "o-7"' })).toBe(1)
    expect(await count({ error: fingerprintOf('Bank said no 5 times') })).toBe(60)
    const { all } = await walk(letters, {}, 500)
    const middleMs = all[100]?.deadSinceMs ?? 0
    const before = all.filter(({ deadSinceMs }) => deadSinceMs < middleMs).length
    expect(await count({ toMs: middleMs })).toBe(before)
    expect(await count({ fromMs: middleMs })).toBe(220 - before)
    expect(await count({ fromMs: middleMs, toMs: middleMs })).toBe(0)
    expect(await count({ fromMs: 0, toMs: 0 })).toBe(0)
    expect(await codeOf(letters.page({ stream: 'order' }))).toBe('not-found')
    expect(await codeOf(letters.page({}, { limit: 501 }))).toBe('command.malformed')
  })

  test('start with counts of the errors by kind', async () => {
    const first = await yard.letters().page({}, { limit: 10 })
    expect(first.groups).toMatchObject({ scanned: 220, complete: true })
    expect(first.groups?.data.map(({ fingerprint, count }) => [fingerprint, count])).toEqual([
      [fingerprintOf('No address for order "x"'), 120],
      [fingerprintOf('Bank said no 1 times'), 60],
      [fingerprintOf('Disk full'), 40],
    ])
    const second = await yard.letters().page({}, { limit: 10, cursor: first.next })
    expect(second.groups).toBeUndefined()
  })

  test('look at a bounded number each, and still find everything', async () => {
    const letters = yard.letters({ scanCountMax: 25 })
    const { all, pages } = await walk(letters, { type: 'order.bill' }, 10)
    expect(all.map(({ id }) => id).toSorted()).toEqual(idsOf(bills))
    expect(pages).toBeGreaterThanOrEqual(8)
    expect((await letters.page({})).groups).toMatchObject({ scanned: 25, complete: false })
  })

  test('take a cursor with its own filter only, and no forged one', async () => {
    const letters = yard.letters()
    const { next } = await letters.page({ stream: 'orders' }, { limit: 5 })
    expect(next).toBeString()
    const read = (cursor: string | undefined, filter: DeadLetterFilter) =>
      codeOf(letters.page(filter, { cursor }))
    expect(await read(next, { stream: 'orders' })).toBe('no error')
    expect(await read(next, {})).toBe('cursor.invalid')
    expect(await read(next, { stream: 'orders', type: 'order.bill' })).toBe('cursor.invalid')
    const plain = Buffer.from(next ?? '', 'base64url').toString('latin1')
    const zero = Buffer.from(plain.replace(/ \d+-\d+ /, ' 0-0 ')).toString('base64url')
    for (const forged of ['', 'x', 'eHh4', 'a'.repeat(10_000), zero])
      expect(await read(forged, { stream: 'orders' })).toBe('cursor.invalid')
  })
})

describe('while things change', () => {
  let yard: Graveyard
  beforeEach(async () => {
    yard = await Graveyard.open()
  })
  afterEach(async () => {
    await yard[Symbol.asyncDispose]()
  })

  test('what arrives or leaves during a walk disturbs no other', async () => {
    const written = await yard.fleet.append(Note, numbers(40))
    await yard.work(40)
    const letters = yard.letters()
    const first = await letters.page({}, { limit: 15 })
    for (const { id } of first.data.slice(0, 5)) await letters.discard(id)
    await yard.fleet.append(Note, numbers(10))
    await yard.work(10)
    const seen = [...first.data]
    for (let cursor = first.next; cursor !== undefined; ) {
      const page = await letters.page({}, { limit: 15, cursor })
      seen.push(...page.data)
      cursor = page.next
    }
    expect(seen.map(({ id }) => id).toSorted()).toEqual(written.map((at) => yard.idOf(at)).toSorted())
  })

  test('an entry that only a newer version can read is listed as such, and can only be discarded', async () => {
    const { at, id } = await yard.oneDead()
    const keys = partitionKeys(at.stream, at.partition)
    const { client } = yard.fleet.link
    const [[entryId] = ['']] = await client.xrange(keys.dead, '-', '+')
    await client.xdel(keys.dead, entryId)
    const again = await client.xadd(keys.dead, '*', at.token, Buffer.from([9, 9, 9]))
    await client.hset(keys.records, at.token, `X${again}:`)
    const letters = yard.letters()
    expect((await letters.page()).data).toMatchObject([{ id, type: '' }])
    expect(await codeOf(letters.redrive(id))).toBe('entry.unreadable')
    const operation = await ended(letters, letters.redriveAll({}))
    expect(operation).toMatchObject({ state: 'finished', matched: 1, done: 0, failed: 1 })
    await letters.discard(id)
    expect((await letters.page()).data).toEqual([])
  })
})

test('large payloads are looked past a few at a time, and none is missed', async () => {
  await using yard = await Graveyard.open()
  const { client } = yard.fleet.link
  const { dead } = partitionKeys('notes', 0)
  const nothing = { trace: undefined, tickMs: undefined, trail: undefined }
  const head = { type: 'note.write', version: 1, atMs: 1, key: '', ...nothing }
  const blob = encodeEntry(head, packPayload({ n: 1, text: 'x'.repeat(250_000) }))
  for (let n = 1; n <= 120; n++) await client.xadd(dead, '*', `e1-${n}`, blob)
  const letters = yard.letters()
  const { all } = await walk(letters, {}, 500)
  expect(new Set(all.map(({ id }) => id)).size).toBe(120)
  expect(all[0]?.payloadBytes).toBeGreaterThan(250_000)
  const keys = partitionKeys('notes', 0)
  const range = { from: '-', to: '+', countMax: 200, newestFirst: false }
  const chunk = await readDead(yard.fleet.link, keys, range)
  expect(chunk.ended).toBe(false)
  expect(chunk.entries.length).toBeLessThan(50)
  const operation = await ended(letters, letters.purgeAll({}, { ratePerSecond: 10_000 }))
  expect(operation).toMatchObject({ matched: 120, done: 120 })
})
