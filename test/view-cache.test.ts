/** The cache of views in a process: never older than what its notices allow, also when notices are missed. */
import { afterAll, expect, setDefaultTimeout, test } from 'bun:test'
import { type LoadedView, ViewCache, viewPlace } from '../src/projections/view-cache.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { packPayload, unpackPayload } from '../src/redis/payload-codec.ts'
import {
  type CommitNotice,
  commitViews,
  openReader,
  readCommitNotice,
  readViews,
} from '../src/redis/view-store.ts'
import { startTestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const redis = await startTestRedis()
setDefaultTimeout(30_000)
afterAll(() => redis[Symbol.asyncDispose]())

const view = (value: unknown, checkpoint: string): LoadedView => ({
  value,
  etag: 'x',
  checkpoints: [checkpoint],
  bytes: 10,
})

function trustedCache(clock = { nowMs: 0 }): ViewCache {
  const cache = new ViewCache({
    viewsMax: 100,
    bytesMax: 100_000,
    trustMs: 2000,
    monotonicMs: () => clock.nowMs,
  })
  cache.watch('r@1', 2)
  cache.proven(clock.nowMs)
  return cache
}

function load(cache: ViewCache, key: string, value: unknown, checkpoint: string): void {
  cache.finish(cache.begin(viewPlace('r@1', key, [0])), view(value, checkpoint))
}

const notice = (previous: string, checkpoint: string, keys?: string[]): CommitNotice => ({
  previous,
  checkpoint,
  keys,
})

test('a notice that joins on clears what it names, one that does not clears the partition', () => {
  const cache = trustedCache()
  load(cache, 'a', 1, '5-0')
  load(cache, 'b', 1, '5-0')
  cache.finish(cache.begin(viewPlace('r@1', 'c', [1])), view(1, '5-0'))
  cache.committed('r@1', 0, notice('5-0', '6-0', ['a']))
  expect(cache.get(viewPlace('r@1', 'a', [0]))).toBeUndefined()
  expect(cache.get(viewPlace('r@1', 'b', [0]))?.checkpoints).toEqual(['6-0'])
  cache.committed('r@1', 0, notice('7-0', '8-0', ['a']))
  expect(cache.get(viewPlace('r@1', 'b', [0]))).toBeUndefined()
  expect(cache.get(viewPlace('r@1', 'c', [1]))?.value).toBe(1)
  load(cache, 'b', 2, '8-0')
  cache.committed('r@1', 0, notice('8-0', '9-0'))
  expect(cache.get(viewPlace('r@1', 'b', [0]))).toBeUndefined()
})

test('a notice that comes late, after a load that had seen its commit, is no gap', () => {
  const cache = trustedCache()
  load(cache, 'a', 1, '5-0')
  load(cache, 'b', 1, '6-0')
  cache.committed('r@1', 0, notice('5-0', '6-0', ['x']))
  cache.committed('r@1', 0, notice('4-0', '5-0', ['a']))
  expect(cache.get(viewPlace('r@1', 'a', [0]))?.value).toBe(1)
  expect(cache.get(viewPlace('r@1', 'b', [0]))?.value).toBe(1)
})

test('what was being loaded when a notice came is not kept', () => {
  const cache = trustedCache()
  load(cache, 'z', 0, '5-0')
  const named = cache.begin(viewPlace('r@1', 'a', [0]))
  const other = cache.begin(viewPlace('r@1', 'b', [0]))
  cache.committed('r@1', 0, notice('5-0', '6-0', ['a']))
  cache.finish(named, view(1, '5-0'))
  cache.finish(other, view(1, '5-0'))
  expect(cache.get(viewPlace('r@1', 'a', [0]))).toBeUndefined()
  expect(cache.get(viewPlace('r@1', 'b', [0]))?.value).toBe(1)
  const across = cache.begin(viewPlace('r@1', 'c', [0]))
  cache.committed('r@1', 0, notice('7-0', '8-0', ['x']))
  cache.finish(across, view(1, '6-0'))
  expect(cache.get(viewPlace('r@1', 'c', [0]))).toBeUndefined()
})

test('without a ping that came back, and after a lost connection, nothing is served or kept', () => {
  const clock = { nowMs: 0 }
  const cache = trustedCache(clock)
  load(cache, 'a', 1, '5-0')
  clock.nowMs = 1999
  expect(cache.get(viewPlace('r@1', 'a', [0]))?.value).toBe(1)
  clock.nowMs = 2001
  expect(cache.get(viewPlace('r@1', 'a', [0]))).toBeUndefined()
  expect(cache.seen('r@1', 0)).toBeUndefined()
  load(cache, 'b', 1, '5-0')
  cache.proven(2001)
  expect(cache.get(viewPlace('r@1', 'b', [0]))).toBeUndefined()
  expect(cache.get(viewPlace('r@1', 'a', [0]))?.value).toBe(1)
  const across = cache.begin(viewPlace('r@1', 'c', [0]))
  cache.lost()
  cache.proven(2001)
  cache.finish(across, view(1, '5-0'))
  expect(cache.get(viewPlace('r@1', 'a', [0]))).toBeUndefined()
  expect(cache.get(viewPlace('r@1', 'c', [0]))).toBeUndefined()
})

test('trust counts from when the ping was sent, however late it came back', () => {
  const clock = { nowMs: 0 }
  const cache = trustedCache(clock)
  load(cache, 'a', 1, '5-0')
  clock.nowMs = 1900
  cache.proven(500)
  clock.nowMs = 2499
  expect(cache.get(viewPlace('r@1', 'a', [0]))?.value).toBe(1)
  clock.nowMs = 2501
  expect(cache.get(viewPlace('r@1', 'a', [0]))).toBeUndefined()
  // One that comes back after a later one takes nothing away.
  cache.proven(2400)
  cache.proven(1000)
  expect(cache.get(viewPlace('r@1', 'a', [0]))?.value).toBe(1)
})

test('a view read from Redis replaces an older one, even when it may not be kept itself', () => {
  const clock = { nowMs: 0 }
  const cache = trustedCache(clock)
  load(cache, 'a', 1, '5-0')
  load(cache, 'b', 1, '5-0')
  load(cache, 'c', 1, '5-0')
  clock.nowMs = 2001
  load(cache, 'a', 2, '6-0')
  cache.proven(2001)
  expect(cache.get(viewPlace('r@1', 'a', [0]))).toBeUndefined()
  cache.overtake('r@1', 'b', 0, '5-0')
  expect(cache.get(viewPlace('r@1', 'b', [0]))?.value).toBe(1)
  cache.overtake('r@1', 'b', 0, '6-0')
  expect(cache.get(viewPlace('r@1', 'b', [0]))).toBeUndefined()
  expect(cache.get(viewPlace('r@1', 'c', [0]))?.value).toBe(1)
})

test('a merged view is valid only while every one of its partitions is', () => {
  const cache = trustedCache()
  const both = (value: number) =>
    cache.finish(cache.begin(viewPlace('r@1', 'm', [0, 1])), {
      ...view(value, '5-0'),
      checkpoints: ['5-0', '3-0'],
    })
  both(1)
  cache.committed('r@1', 1, notice('3-0', '4-0', ['x']))
  expect(cache.get(viewPlace('r@1', 'm', [0, 1]))?.checkpoints).toEqual(['5-0', '4-0'])
  cache.committed('r@1', 1, notice('4-0', '5-0', ['m']))
  expect(cache.get(viewPlace('r@1', 'm', [0, 1]))).toBeUndefined()
  both(2)
  cache.committed('r@1', 0, notice('9-0', '9-1', ['x']))
  expect(cache.get(viewPlace('r@1', 'm', [0, 1]))).toBeUndefined()
})

/**
 * One writer commits random views, one reader loads them through the cache with small delays, and one notice in fifty is
 * lost, the last but one among them. Answers how many cached views differ from Redis in the end.
 */
async function staleViews(chained: boolean): Promise<{ stale: number; cached: number; dropped: number }> {
  const link = await redis.open()
  const reading = await redis.open()
  const subscriber = await redis.open('subscriber')
  await link.use('a clean server', (client) => client.flushall())
  const keys = partitionKeys('s', 0)
  const cache = new ViewCache({ viewsMax: 1000, bytesMax: 1e6, trustMs: 1e9, monotonicMs: () => 0 })
  cache.watch('r@1', 1)
  cache.proven(0)
  let dropped = 0
  let last = ''
  let before = ''
  subscriber.client.on('messageBuffer', (_: Buffer, bytes: Buffer) => {
    const heard = readCommitNotice(bytes)
    if (heard === undefined) return
    last = heard.checkpoint
    if (heard.checkpoint === '0-3000' || Math.random() < 0.02) dropped += 1
    // Without the chain every notice is taken as if it joined on to the one before.
    else cache.committed('r@1', 0, chained ? heard : { ...heard, previous: before })
    if (cache.seen('r@1', 0) === heard.checkpoint) before = heard.checkpoint
  })
  await subscriber.use('notices', (client) => client.subscribe(keys.commits('r@1')))
  await openReader(link, keys, 'r@1')
  const names = Array.from({ length: 100 }, (_, i) => `v${i}`)
  const pick = () => names[Math.floor(Math.random() * names.length)] ?? ''
  let done = false
  const loads = (async () => {
    while (!done) {
      const key = pick()
      if (cache.get(viewPlace('r@1', key, [0])) === undefined) {
        const started = cache.begin(viewPlace('r@1', key, [0]))
        void readViews(reading, keys, 'r@1', [key]).then(async ({ checkpoint, blobs }) => {
          if (Math.random() < 0.1) await Bun.sleep(1)
          const [blob] = blobs
          const value = blob === undefined ? undefined : unpackPayload(blob)
          cache.finish(started, { value, etag: '', checkpoints: [checkpoint], bytes: 1 })
        })
      }
      await Bun.sleep(0)
    }
  })()
  const commit = async (i: number, written: readonly string[]) => {
    const blobs = written.map((key) => ({ key, blob: packPayload(i), isNew: false }))
    const changes = { written: blobs, deleted: [], skipped: [] }
    await commitViews(link, keys, { reader: 'r@1', expected: `0-${i - 1}`, checkpoint: `0-${i}`, changes })
  }
  for (let i = 1; i < 3000; i++) await commit(i, [...new Set([pick(), pick(), pick()])])
  await until('every view to be cached', () =>
    names.every((key) => cache.get(viewPlace('r@1', key, [0])) !== undefined),
  )
  await commit(3000, names.slice(0, 10))
  await commit(3001, names.slice(90))
  await until('the last notice', () => last === '0-3001')
  done = true
  await loads
  await Bun.sleep(10)
  let stale = 0
  let cached = 0
  for (const key of names) {
    const known = cache.get(viewPlace('r@1', key, [0]))
    if (known === undefined) continue
    cached += 1
    const [blob] = (await readViews(link, keys, 'r@1', [key])).blobs
    if (blob !== undefined && unpackPayload(blob) !== known.value) stale += 1
  }
  for (const each of [link, reading, subscriber]) redis.links.close(each)
  return { stale, cached, dropped }
}

test('no view stays stale when notices are lost; without the chain of notices some would', async () => {
  const chained = await staleViews(true)
  expect(chained.dropped).toBeGreaterThan(0)
  expect(chained.stale).toBe(0)
  const naive = await staleViews(false)
  expect(naive.dropped).toBeGreaterThan(0)
  expect(naive.stale).toBeGreaterThan(0)
})
