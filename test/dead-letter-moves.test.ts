/** One dead letter against a real Redis and a real worker: look into it, redrive, edit, discard; and what retention takes. */
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { DeadLetters } from '../src/dead-letters/dead-letters.ts'
import { fingerprintOf } from '../src/dead-letters/error-fingerprint.ts'
import { defineCommand, defineHandler, defineStream, reject, retry } from '../src/index.ts'
import { partitionOf } from '../src/policies/partition.ts'
import { discardDead, redriveDead, trimDead } from '../src/redis/dead-letter-stream.ts'
import { decodeEntry, encodeCopy } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { sweepRecords } from '../src/redis/partition-care.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { Bill, codeOf, Graveyard, numbers, Ship } from './support/dead-letters.ts'
import { type Appended, testFleet } from './support/fleet.ts'
import { until } from './support/until.ts'

let yard: Graveyard
beforeEach(async () => {
  yard = await Graveyard.open()
})
afterEach(async () => {
  await yard[Symbol.asyncDispose]()
})

describe('inspecting', () => {
  test('shows the payload, every failed attempt with its time, and since when it is dead', async () => {
    let run = 0
    const Flaky = defineCommand({ type: 'flaky.do', stream: 'flaky', payload: z.object({ a: z.string() }) })
    const handler = defineHandler(Flaky, () => retry(`broken ${++run}`, { delayMs: 5 }), { attemptsMax: 3 })
    const { link: command, catalogue, ids, ...own } = await testFleet(yard.redis, [Flaky, handler])
    const startedMs = Date.now()
    const [at] = await own.append(Flaky, [{ a: 'x' }])
    {
      await using _worker = await own.worker()
      await own.telemetry.until('batch.settled', (all) => all.some(({ dead }) => dead === 1))
    }
    const parts = { command, catalogue, ids, clock: SYSTEM_CLOCK, telemetry: own.telemetry }
    const letter = await new DeadLetters(parts).inspect(ids.format('flaky', 0, at?.token ?? ''))
    expect(letter).toMatchObject({
      ...{ stream: 'flaky', partition: 0, type: 'flaky.do', version: 1, payload: { a: 'x' } },
      ...{ attempts: 3, redrives: 0, error: 'broken 3', fingerprint: fingerprintOf('broken 9') },
    })
    expect(letter.failures.map(({ attempt, error }) => [attempt, error])).toEqual([
      [1, 'broken 1'],
      [2, 'broken 2'],
      [3, 'broken 3'],
    ])
    const times = letter.failures.map(({ atMs }) => atMs)
    expect(times).toEqual(times.toSorted())
    expect(times[0]).toBeGreaterThanOrEqual(startedMs)
    expect(letter.deadSinceMs).toBeGreaterThanOrEqual(startedMs)
    expect(letter.deadSinceMs).toBeLessThanOrEqual(Date.now())
  })

  test('of what is not dead, or never was a command, is not found', async () => {
    const [waiting] = await yard.fleet.append(Ship, [{ orderId: 'o-1', weight: 2 }])
    const id = yard.idOf(waiting as Appended)
    const letters = yard.letters()
    expect(await codeOf(letters.inspect(id))).toBe('not-found')
    expect(await codeOf(letters.redrive(id))).toBe('not-found')
    expect(await codeOf(letters.discard(id))).toBe('not-found')
    expect(await codeOf(letters.inspect('orders.0.e1-1.AAAAAAAAAAA'))).toBe('not-found')
    expect(await codeOf(letters.inspect('nonsense'))).toBe('command.malformed')
    yard.mood.fails = false
    await yard.work(1)
    expect(await codeOf(letters.redrive(id))).toBe('not-found')
  })
})

describe('redriving one', () => {
  test('after the fix runs it again as attempt 1 under the same id, and it is done', async () => {
    const { at, id } = await yard.oneDead()
    const { fleet, mood } = yard
    expect((await fleet.status(at)).state).toBe('dead')
    const letters = yard.letters()
    expect(await letters.redrive(id)).toEqual({ id, redrives: 1 })
    expect((await fleet.status(at)).state).toBe('accepted')
    mood.fails = false
    await yard.work(1)
    expect(mood.runs.map(({ attempt }) => attempt)).toEqual([1, 1])
    const status = await fleet.status(at)
    expect(status.state).toBe('done')
    expect(status.record).toMatchObject({ attempts: 1, redrives: 1 })
    expect(await fleet.deadLetters('orders', at.partition)).toEqual([])
    expect(await codeOf(letters.redrive(id))).toBe('dead-letter.conflict')
    expect(await codeOf(letters.discard(id))).toBe('dead-letter.conflict')
    expect(await codeOf(letters.inspect(id))).toBe('not-found')
  })

  test('by many at once: exactly one succeeds, and the command runs once', async () => {
    const { at, id } = await yard.oneDead()
    const [here, there] = [yard.letters(), yard.letters({}, await yard.redis.open())]
    const all = [here, there, here, there, here].map((letters) => codeOf(letters.redrive(id)))
    const codes = await Promise.all(all)
    expect(codes.filter((each) => each === 'no error')).toHaveLength(1)
    expect(codes.filter((each) => each === 'dead-letter.conflict')).toHaveLength(4)
    yard.mood.fails = false
    yard.mood.runs = []
    await yard.work(1)
    expect(yard.mood.runs).toHaveLength(1)
    expect(await yard.fleet.pending('orders', at.partition)).toBe(0)
    expect(await yard.fleet.link.client.xlen(partitionKeys('orders', at.partition).ready)).toBeLessThan(2)
  })

  test('against a discard at once: exactly one of the two succeeds', async () => {
    const letters = yard.letters()
    for (let round = 0; round < 4; round++) {
      const { at, id } = await yard.oneDead()
      const both = round % 2 === 0 ? ['redrive', 'discard'] : ['discard', 'redrive']
      const [first, second] = await Promise.all(
        both.map((move) => codeOf(move === 'redrive' ? letters.redrive(id) : letters.discard(id))),
      )
      expect([first, second].toSorted()).toEqual(['dead-letter.conflict', 'no error'])
      const winner = first === 'no error' ? both[0] : both[1]
      expect((await yard.fleet.status(at)).state).toBe(winner === 'redrive' ? 'accepted' : 'dead')
      if (winner === 'redrive') await yard.work(1)
    }
  })

  test('what dies again keeps a bounded history, counts its redrives and can be redriven again', async () => {
    const { at, id } = await yard.oneDead()
    const letters = yard.letters()
    await using _worker = await yard.fleet.worker()
    for (let round = 1; round <= 25; round++) {
      const goal = yard.settled + 1
      expect(await letters.redrive(id)).toEqual({ id, redrives: round })
      await yard.untilSettled(goal)
    }
    const letter = await letters.inspect(id)
    expect(letter).toMatchObject({ redrives: 25, attempts: 1 })
    expect(letter.failures).toHaveLength(20)
    expect((await yard.fleet.status(at)).record).toMatchObject({ attempts: 1, redrives: 25 })
  })

  test('a dead letter that was seen before it came back and died again is not taken', async () => {
    const { at, id } = await yard.oneDead()
    const { link } = yard.fleet
    const keys = partitionKeys(at.stream, at.partition)
    const [seen] = await link.client.xrange(keys.dead, '-', '+')
    await yard.letters().redrive(id)
    await yard.work(1)
    const stale = { token: at.token, entryId: seen?.[0] ?? '' }
    const move = { bytes: Buffer.from('x'), replacesBytes: undefined, record: Buffer.alloc(0) }
    expect(await discardDead(link, keys, [stale])).toEqual([false])
    expect(await redriveDead(link, keys, [{ ...stale, ...move }])).toEqual([false])
    expect((await yard.fleet.status(at)).state).toBe('dead')
    expect(await link.client.xlen(keys.dead)).toBe(1)
  })

  test('forgets the crash level', async () => {
    const { at, id } = await yard.oneDead()
    const { client } = yard.fleet.link
    const keys = partitionKeys(at.stream, at.partition)
    const [[entryId, fields] = ['', []]] = await client.xrangeBuffer(keys.dead, '-', '+')
    const entry = decodeEntry(fields[1] ?? Buffer.alloc(0))
    const trail = { attempts: 1, redrives: 0, failures: entry.trail?.failures ?? [], level: 3 }
    await client.xdel(keys.dead, entryId)
    const crashed = encodeCopy(entry, { trail })
    const again = await client.xadd(keys.dead, '*', at.token, crashed)
    await client.hset(keys.records, at.token, `X${again}:`)
    await client.hset(keys.crashes, at.token, 3)
    await yard.letters().redrive(id)
    const [[, copy] = ['', []]] = await client.xrangeBuffer(keys.ready, '-', '+')
    expect(decodeEntry(copy[1] ?? Buffer.alloc(0)).trail).toMatchObject({ level: 0, redrives: 1 })
    expect(await client.hexists(keys.crashes, at.token)).toBe(0)
    yard.mood.fails = false
    await yard.work(1)
    expect((await yard.fleet.status(at)).state).toBe('done')
  })

  test('of one that is older than any result is done afterwards, not forgotten', async () => {
    const { at, id } = await yard.oneDead()
    const { floors } = partitionKeys(at.stream, at.partition)
    await yard.fleet.link.client.hset(floors, 'records', Date.now() + 60_000)
    yard.mood.fails = false
    await yard.letters().redrive(id)
    await yard.work(1)
    expect((await yard.fleet.status(at)).state).toBe('done')
  })
})

describe('redriving with another payload', () => {
  const keyWhere = (test: (partition: number) => boolean): string => {
    for (let n = 0; ; n++) if (test(partitionOf(`p-${n}`, 4))) return `p-${n}`
  }
  const home = partitionOf('o-1', 4)

  test('that the schema takes: the handler sees it, and its key', async () => {
    const { at, id } = await yard.oneDead()
    yard.mood.fails = false
    yard.mood.runs = []
    const payload = { orderId: keyWhere((partition) => partition === home), weight: 5 }
    await yard.letters().redrive(id, { payload })
    await yard.work(1)
    expect(yard.mood.runs).toEqual([{ type: 'ship', payload, attempt: 1 }])
    expect((await yard.fleet.status(at)).state).toBe('done')
  })

  test('that is invalid, too large, or belongs elsewhere is refused, and the dead letter stays', async () => {
    const { at, id } = await yard.oneDead()
    const letters = yard.letters({ payloadBytesMax: 1000 })
    const redrive = (payload: unknown) => codeOf(letters.redrive(id, { payload }))
    expect(await redrive({ orderId: 'o-1', weight: 'heavy' })).toBe('command.invalid')
    expect(await redrive(undefined)).toBe('command.invalid')
    const elsewhere = keyWhere((partition) => partition !== home)
    expect(await redrive({ orderId: elsewhere, weight: 1 })).toBe('command.invalid')
    expect(await redrive({ orderId: 'o-1'.repeat(400), weight: 1 })).toBe('command.too-large')
    expect((await letters.inspect(id)).payload).toEqual({ orderId: 'o-1', weight: 2 })
    expect((await yard.fleet.status(at)).state).toBe('dead')
  })

  test('works for commands without a key, wherever the new bytes would hash to', async () => {
    const appended = await yard.fleet.append(Bill, numbers(8))
    await yard.work(8)
    yard.mood.fails = false
    yard.mood.runs = []
    for (const at of appended) await yard.letters().redrive(yard.idOf(at), { payload: { n: 77 } })
    await yard.work(8)
    expect(yard.mood.runs.map(({ payload }) => payload)).toEqual(Array(8).fill({ n: 77 }))
  })
})

describe('discarding one', () => {
  test('removes it for good; its status stays dead until results of that moment are dropped', async () => {
    const { at, id } = await yard.oneDead()
    const { fleet } = yard
    const letters = yard.letters()
    const keys = partitionKeys(at.stream, at.partition)
    await letters.discard(id)
    expect(await fleet.deadLetters(at.stream, at.partition)).toEqual([])
    const status = await fleet.status(at)
    expect(status).toMatchObject({ state: 'dead', deadLetterId: undefined })
    expect(status.record).toMatchObject({ attempts: 1, error: 'No address for order "o-1"' })
    expect(await codeOf(letters.inspect(id))).toBe('not-found')
    expect(await codeOf(letters.redrive(id))).toBe('dead-letter.conflict')
    expect(await codeOf(letters.discard(id))).toBe('dead-letter.conflict')
    expect(await sweepRecords(fleet.link, keys, 60_000, 100)).toBe(0)
    await until('a millisecond to pass', async () => (await sweepRecords(fleet.link, keys, 0, 100)) === 1)
    expect((await fleet.status(at)).state).toBe('expired')
  })
})

describe('retention', () => {
  test('a worker drops dead letters past theirs, with their records, and no status turns into done', async () => {
    const stream = defineStream({ name: 'old', retention: { deadLettersMs: 1000, resultsMs: 1000 } })
    const Old = defineCommand({ type: 'old.do', stream, payload: z.object({ n: z.number() }) })
    const own = await testFleet(yard.redis, [stream, Old, defineHandler(Old, () => reject('no'))])
    const appended = await own.append(Old, numbers(450))
    const keys = partitionKeys('old', 0)
    await using _worker = await own.worker({ trimEveryMs: 20 })
    const count = (payloads: readonly { readonly dead: number }[]) =>
      payloads.reduce((sum, { dead }) => sum + dead, 0)
    await own.telemetry.until('batch.settled', (all) => count(all) === 450)
    expect((await own.status(appended[0] as Appended)).state).toBe('dead')
    await own.telemetry.until('stream.trimmed', (all) => {
      const dead = all.filter(({ log }) => log === 'dead')
      return dead.reduce((sum, trimmed) => sum + trimmed.count, 0) === 450
    })
    await until('the records to go', async () => (await own.link.client.hlen(keys.records)) === 0)
    expect(await own.link.client.xlen(keys.dead)).toBe(0)
    for (const at of appended.slice(0, 5)) expect((await own.status(at)).state).toBe('expired')
  })

  test('where results are kept longer than dead letters, the status stays dead', async () => {
    const { at, id } = await yard.oneDead()
    const { link } = yard.fleet
    const keys = partitionKeys(at.stream, at.partition)
    expect(await trimDead(link, keys, 60_000, 100)).toBe(0)
    await until('a millisecond to pass', async () => (await trimDead(link, keys, 0, 100)) === 1)
    expect(await sweepRecords(link, keys, 60_000, 100)).toBe(0)
    expect(await yard.fleet.status(at)).toMatchObject({ state: 'dead', deadLetterId: undefined })
    expect(await codeOf(yard.letters().redrive(id))).toBe('dead-letter.conflict')
  })
})
