/** Commits of views: all or nothing, and only from the checkpoint that they were folded from. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import type { RedisLink } from '../src/redis/connection.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { packPayload, unpackPayload } from '../src/redis/payload-codec.ts'
import {
  commitViews,
  openReader,
  pageViewKeys,
  readSkipped,
  readViews,
  type ViewChanges,
} from '../src/redis/view-store.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'

let redis: TestRedis
let link: RedisLink

beforeAll(async () => {
  redis = await startTestRedis()
  link = await redis.open()
})
afterAll(() => redis[Symbol.asyncDispose]())

const keys = partitionKeys('accounts', 0)
const READER = 'balances@1'

const commit = (expected: string, checkpoint: string, total: number): Promise<boolean> => {
  const written = [{ key: 'a', blob: packPayload({ total }), isNew: true }]
  return commitViews(link, keys, {
    reader: READER,
    expected,
    checkpoint,
    changes: { written, deleted: [], skipped: [] },
  })
}

async function stored(): Promise<{ checkpoint: string; view: unknown }> {
  const { checkpoint, blobs } = await readViews(link, keys, READER, ['a'])
  const [blob] = blobs
  return { checkpoint, view: blob === undefined ? undefined : unpackPayload(blob) }
}

test('a commit counts once, and none counts that was folded from another checkpoint', async () => {
  const opened = await openReader(link, keys, READER)
  expect(opened.checkpoint).toBe('0-0')
  expect(await commit('0-0', '5-0', 1)).toBe(true)
  expect(await stored()).toEqual({ checkpoint: '5-0', view: { total: 1 } })
  // The same again, as after a lost answer; and somebody who is behind.
  expect(await commit('0-0', '5-0', 2)).toBe(false)
  expect(await commit('0-0', '7-0', 3)).toBe(false)
  expect(await stored()).toEqual({ checkpoint: '5-0', view: { total: 1 } })
  const both = await Promise.all([commit('5-0', '9-0', 4), commit('5-0', '8-0', 5)])
  expect(both).toEqual([true, false])
  expect(await stored()).toEqual({ checkpoint: '9-0', view: { total: 4 } })
})

test('a commit to a reader that nobody opened writes nothing', async () => {
  await link.client.del(keys.readers)
  expect(await commit('9-0', '10-0', 6)).toBe(false)
  expect((await stored()).checkpoint).toBe('0-0')
  expect(await link.client.exists(keys.readers)).toBe(0)
})

test('a commit of any length writes, deletes and sets aside just what it was told, byte by byte', async () => {
  const reader = 'bytes@1'
  await openReader(link, keys, reader)
  const everyByte = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))
  const many = Array.from({ length: 2500 }, (_, n) => ({
    key: `k${n}`,
    blob: Buffer.from([n & 255]),
    isNew: true,
  }))
  const written = [
    ...many,
    { key: 'é 😀', blob: everyByte, isNew: true },
    { key: 'empty', blob: Buffer.alloc(0), isNew: true },
  ]
  const skipped = [{ position: '5-0/1', error: 'it says: ß', blob: everyByte }]
  const change = (expected: string, checkpoint: string, changes: ViewChanges) =>
    commitViews(link, keys, { reader, expected, checkpoint, changes })
  expect(await change('0-0', '5-0', { written, deleted: [], skipped })).toBe(true)
  expect((await readViews(link, keys, reader, ['k0', 'k2499', 'é 😀', 'empty'])).blobs).toEqual([
    Buffer.from([0]),
    Buffer.from([2499 & 255]),
    everyByte,
    Buffer.alloc(0),
  ])
  expect(await readSkipped(link, keys, reader, 10)).toEqual(skipped)
  const deleted = [...many.map(({ key }) => key), 'empty']
  const again = [{ key: 'é 😀', blob: Buffer.from('2'), isNew: false }]
  expect(await change('5-0', '6-0', { written: again, deleted, skipped: [] })).toBe(true)
  const range = { prefix: '', beyond: undefined, direction: 'forward', countMax: 10 } as const
  expect((await pageViewKeys(link, keys, reader, range)).map(String)).toEqual(['é 😀'])
  expect(await link.client.hlen(keys.views(reader))).toBe(1)
  expect((await readViews(link, keys, reader, ['é 😀'])).blobs).toEqual([Buffer.from('2')])
})
