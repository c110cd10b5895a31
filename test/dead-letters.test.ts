/**
 * Planted dead letters: a redrive keeps every byte that is the command's, equal times of death do not disturb a walk, answers
 * that are lost do not spoil an operation's counts, and trimming takes no more than it is told.
 */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { z } from 'zod'
import { defineCommand } from '../src/contracts/command.ts'
import { errorCode } from '../src/contracts/errors.ts'
import { defineStream } from '../src/contracts/stream.ts'
import { DeadLetters } from '../src/dead-letters/dead-letters.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { trimDead } from '../src/redis/dead-letter-stream.ts'
import { decodeEntry, packTrace, payloadOf } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { sweepRecords } from '../src/redis/partition-care.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { FlakyLink } from './support/flaky-link.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { type Planted, type PlantedLetter, plantDeadLetters } from './support/planted-letters.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { rejection } from './support/rejection.ts'
import { until } from './support/until.ts'

/** One for each test. */
const STREAMS = ['kept', 'strange', 'ties', 'lossy', 'old', 'saved'].map((name) =>
  defineStream({ name, partitions: 3 }),
)
const pay = defineCommand({
  type: 'pay',
  stream: 'kept',
  payload: z.object({ cents: z.number().int().positive() }),
})

let redis: TestRedis
let fleet: TestFleet

beforeAll(async () => {
  redis = await startTestRedis()
  fleet = await testFleet(redis, [...STREAMS, pay])
})
afterAll(() => redis[Symbol.asyncDispose]())

function lettersOver(link: RedisLink): DeadLetters {
  const { catalogue, ids, telemetry } = fleet
  return new DeadLetters({ command: link, catalogue, ids, clock: SYSTEM_CLOCK, telemetry })
}

async function plant(
  stream: string,
  count: number,
  over: (i: number) => Partial<PlantedLetter> = () => ({}),
): Promise<Planted[]> {
  const base = { stream, partition: 0, type: 'pay', key: '', payload: { cents: 1 }, error: 'card refused' }
  return await plantDeadLetters(
    fleet.link,
    Array.from({ length: count }, (_, i) => ({ ...base, ...over(i) })),
  )
}

const idOf = ({ keys, token }: Planted): string => fleet.ids.format(keys.stream, keys.partition, token)

const stateOf = async ({ keys, token }: Planted): Promise<string> =>
  (await fleet.status({ stream: keys.stream, partition: keys.partition, token })).state

async function rowsOf(key: string): Promise<{ token: string; blob: Buffer }[]> {
  const rows = await fleet.link.client.xrangeBuffer(key, '-', '+')
  return rows.map(([, fields]) => ({ token: String(fields[0]), blob: fields[1] ?? Buffer.alloc(0) }))
}

test('a redrive keeps the command as it was, starts its attempts again, and remembers what it went through', async () => {
  const failures = [1, 2, 3].map((attempt) => ({ attempt, atMs: 1000 * attempt, error: `boom ${attempt}` }))
  const [planted] = await plant('kept', 1, () => ({
    ...{ key: 'ü', payload: { cents: 7, note: 'ü'.repeat(500) }, tickMs: 1_700_000_000_000 },
    trail: { attempts: 3, level: 2, redrives: 4, failures },
    trace: packTrace(`00-${'ab'.repeat(16)}-${'cd'.repeat(8)}-01`) ?? Buffer.alloc(0),
  }))
  if (planted === undefined) throw new Error('nothing was planted')
  const [before] = await rowsOf(planted.keys.dead)
  await lettersOver(fleet.link).redrive(idOf(planted))
  const [after] = await rowsOf(planted.keys.ready)
  expect(after?.token).toBe(planted.token)
  const read = (row: { readonly blob: Buffer } | undefined) => {
    const entry = decodeEntry(row?.blob ?? Buffer.alloc(0))
    return { ...entry, bytes: undefined, payloadAt: undefined, payload: payloadOf(entry) }
  }
  expect(read(after)).toEqual({ ...read(before), trail: { attempts: 0, level: 0, redrives: 5, failures } })
  expect(await stateOf(planted)).toBe('accepted')
})

test('a command of a type that nobody here defines is redriven as it is, and not with another payload', async () => {
  const [planted] = await plant('strange', 1, () => ({ type: 'nobody.knows' }))
  if (planted === undefined) throw new Error('nothing was planted')
  const letters = lettersOver(fleet.link)
  const error = await rejection(letters.redrive(idOf(planted), { payload: { cents: 1 } }))
  expect(errorCode(error)).toBe('command.invalid')
  expect(error.message).toContain('"nobody.knows@1"')
  await letters.redrive(idOf(planted))
  expect((await rowsOf(planted.keys.ready)).length).toBe(1)
})

test('a walk over partitions with equal times of death sees each dead letter once, with any limit', async () => {
  const letters = lettersOver(fleet.link)
  const planted = await plant('ties', 120, (i) => ({
    partition: i % 3,
    deadAtMs: 1_750_000_000_000 + Math.floor(i / 6),
  }))
  for (const limit of [1, 7, 119, 120, 500]) {
    const seen: string[] = []
    let cursor: string | undefined
    do {
      const page = await letters.page({ stream: 'ties' }, { limit, cursor })
      seen.push(...page.data.map((letter) => letter.id))
      cursor = page.next
    } while (cursor !== undefined)
    expect(seen.toSorted()).toEqual(planted.map(idOf).toSorted())
  }
})

test('answers that are lost or late: an operation counts each once, and every command is in exactly one place', async () => {
  const planted = await plant('lossy', 2000)
  const link = new FlakyLink(redis.links.options, 7, ['redrive-dead', 'read-dead'])
  await link.whenReady(5000)
  const letters = lettersOver(link)
  const { id } = letters.redriveAll({ stream: 'lossy' }, { ratePerSecond: 10_000 })
  await until('the operation to end', () => letters.operation(id).state !== 'running')
  link.close()
  expect(letters.operation(id)).toMatchObject({ state: 'finished', matched: 2000, done: 2000, failed: 0 })
  const { dead, ready } = partitionKeys('lossy', 0)
  expect(await rowsOf(dead)).toEqual([])
  expect((await rowsOf(ready)).map((row) => row.token).toSorted()).toEqual(
    planted.map((one) => one.token).toSorted(),
  )
})

test('trimming takes the oldest, no more than it is told, and no status becomes done', async () => {
  const keys = partitionKeys('old', 0)
  const nowMs = Date.now()
  const old = await plant('old', 5, () => ({ deadAtMs: nowMs - 100_000 }))
  const recent = await plant('old', 3, () => ({ deadAtMs: nowMs - 10_000 }))
  expect(await trimDead(fleet.link, keys, 60_000, 2)).toBe(2)
  expect(await trimDead(fleet.link, keys, 60_000, 100)).toBe(3)
  expect(await trimDead(fleet.link, keys, 60_000, 100)).toBe(0)
  expect((await rowsOf(keys.dead)).map((row) => row.token)).toEqual(recent.map((one) => one.token))
  expect(await Promise.all([...old, ...recent].map(stateOf))).toEqual(Array(8).fill('dead'))
  expect(await sweepRecords(fleet.link, keys, 60_000, 100)).toBe(5)
  expect(await Promise.all(old.map(stateOf))).toEqual(Array(5).fill('expired'))
  expect(await Promise.all(recent.map(stateOf))).toEqual(Array(3).fill('dead'))
})

test('an old command that was redriven is not touched when the trimming comes by', async () => {
  const [planted] = await plant('saved', 1, () => ({ deadAtMs: Date.now() - 100_000 }))
  if (planted === undefined) throw new Error('nothing was planted')
  await lettersOver(fleet.link).redrive(idOf(planted))
  expect(await trimDead(fleet.link, planted.keys, 60_000, 10)).toBe(0)
  expect(await sweepRecords(fleet.link, planted.keys, 1000, 100)).toBe(0)
  expect(await stateOf(planted)).toBe('accepted')
})
