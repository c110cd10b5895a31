/** Upkeep of a partition: what is due moves once, and nothing that is pending or unread is ever trimmed. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import { appendPlain } from '../src/redis/command-log.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { ensureGroup, readNew } from '../src/redis/consumer-group.ts'
import { type PartitionKeys, partitionKeys } from '../src/redis/keys.ts'
import { sharedMembership } from '../src/redis/membership.ts'
import { promoteDue, trimCommands } from '../src/redis/partition-care.ts'
import { lyingEntries, lyingEntry } from './support/lying-entries.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'

let redis: TestRedis
let link: RedisLink
let keys: PartitionKeys
let made = 0

beforeAll(async () => {
  redis = await startTestRedis()
  link = await redis.open()
})
afterAll(() => redis[Symbol.asyncDispose]())
beforeEach(() => {
  made += 1
  keys = partitionKeys(`care${made}`, 0)
})

const BLOB = Buffer.from('blob')

test('what is due is in one place: among the due ones before, in the ready stream after, and there once', async () => {
  const { client } = link
  for (const [token, atMs] of [
    ['x1', 1],
    ['x2', 2],
    ['x3', Date.now() + 60_000],
  ] as const) {
    await client.zadd(keys.due, atMs, token)
    await client.hset(keys.dueBodies, token, BLOB)
    await client.hset(keys.records, token, `T${atMs}:why`)
  }
  expect(await promoteDue(link, keys, 1)).toMatchObject({ moved: 1, missing: [], nextMs: 0 })
  expect(await promoteDue(link, keys, 10)).toMatchObject({ moved: 1, missing: [] })
  expect(await promoteDue(link, keys, 10)).toMatchObject({ moved: 0, missing: [] })
  const ready = await client.xrange(keys.ready, '-', '+')
  expect(ready.map(([, fields]) => fields)).toEqual([
    ['x1', 'blob'],
    ['x2', 'blob'],
  ])
  expect(await client.zrange(keys.due, '0', '-1')).toEqual(['x3'])
  expect(await client.hkeys(keys.dueBodies)).toEqual(['x3'])
  expect(await client.hget(keys.records, 'x1')).toBe(`R${ready[0]?.[0]}:why`)
})

test('a due one without a body is told as lost, once', async () => {
  await link.client.zadd(keys.due, 1, 'x1')
  expect((await promoteDue(link, keys, 10)).missing).toEqual(['x1'])
  expect((await promoteDue(link, keys, 10)).missing).toEqual([])
})

test('a trim leaves what is pending and what is unread, however long the stream is', async () => {
  const { client } = link
  await ensureGroup(link, keys)
  const blobs = Array.from({ length: 3000 }, () => BLOB)
  const tokens = await appendPlain(link, keys, lyingEntries(blobs))
  const ids = tokens.map((token) => token.slice(1))
  await readNew(await redis.open('reader'), sharedMembership(keys, 'w'), 2500, 100)
  expect((await trimCommands(link, keys)).commands).toBe(0)

  await client.xack(keys.commands, 'workers', ...ids.slice(0, 500), ...ids.slice(1000, 2500))
  const { commands, oldestPending } = await trimCommands(link, keys)
  expect(commands).toBeGreaterThan(0)
  expect(oldestPending).toBe(ids[500] ?? '')
  const left = new Set((await client.xrange(keys.commands, '-', '+')).map(([id]) => id))
  expect(ids.slice(500).filter((id) => !left.has(id))).toEqual([])

  await client.xack(keys.commands, 'workers', ...ids.slice(500, 1000))
  await trimCommands(link, keys)
  const unread = (await client.xrange(keys.commands, `(${ids[2499]}`, '+')).map(([id]) => id)
  expect(unread).toEqual(ids.slice(2500))
})

test('a group that is made again after a trim starts at what was pending, not at what happens to be left', async () => {
  await ensureGroup(link, keys)
  const tokens = await appendPlain(
    link,
    keys,
    Array.from({ length: 400 }, () => lyingEntry(BLOB)),
  )
  const ids = tokens.map((token) => token.slice(1))
  const own = sharedMembership(keys, 'w')
  const reader = await redis.open('reader')
  await readNew(reader, own, 380, 100)
  const pinned = ids[350] ?? ''
  await link.client.xack(keys.commands, 'workers', ...ids.slice(0, 380).filter((id) => id !== pinned))
  await trimCommands(link, keys)
  const [first] = await link.client.xrange(keys.commands, '-', '+', 'COUNT', 1)
  expect(first?.[0] === pinned).toBe(false)
  await link.client.xgroup('DESTROY', keys.commands, 'workers')
  expect(await ensureGroup(link, keys)).toBe('lost')
  expect((await readNew(reader, own, 400, 100)).map(({ entryId }) => entryId)).toEqual(ids.slice(350))
})
