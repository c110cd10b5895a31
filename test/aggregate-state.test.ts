/** An aggregate's state comes from its events alone, however many there are, and as it was at any version. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { z } from 'zod'
import { evolve, rebuildAggregate } from '../src/aggregates/aggregate-state.ts'
import { defineAggregate, defineEvent } from '../src/index.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { packEntry } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'

const added = defineEvent({ type: 'counter.added', payload: z.object({ by: z.int() }) })
const noted = defineEvent({ type: 'counter.noted', payload: z.object({}) })
const counter = defineAggregate({ name: 'counter', initial: () => ({ sum: 0, last: 0 }) }).on(
  added,
  (state, { by }) => ({ sum: state.sum + by, last: by }),
)

const blobOf = (type: string, payload: unknown) =>
  packEntry(
    {
      ...{ type, version: 1, atMs: 1, key: 'k' },
      ...{ trace: undefined, tickMs: undefined, trail: undefined },
    },
    payload,
  ).blob

let redis: TestRedis
let link: RedisLink
beforeAll(async () => {
  redis = await startTestRedis()
  link = await redis.open()
})
afterAll(() => redis[Symbol.asyncDispose]())

async function store(id: string, blobs: readonly Buffer[]): Promise<string> {
  const key = partitionKeys('main', 0).aggregate('counter', id)
  const pipeline = link.client.pipeline()
  blobs.forEach((blob, index) => {
    pipeline.xadd(key, `${index + 1}-0`, '-', blob)
  })
  await pipeline.exec()
  return key
}

test('an aggregate without events is initial, at version 0', async () => {
  const key = await store('none', [])
  expect(await rebuildAggregate(link, counter, key)).toEqual({
    state: { sum: 0, last: 0 },
    version: 0,
    token: '',
  })
})

test('a history of many pages is evolved in order, to the end or to any version', async () => {
  const count = 1500
  const key = await store(
    'long',
    Array.from({ length: count }, (_, i) => blobOf('counter.added', { by: i + 1 })),
  )
  const sumTo = (n: number) => (n * (n + 1)) / 2
  for (const version of [1, 499, 500, 501, 1000, 1499]) {
    const rebuilt = await rebuildAggregate(link, counter, key, version)
    expect(rebuilt).toEqual({ state: { sum: sumTo(version), last: version }, version, token: '-' })
  }
  expect(await rebuildAggregate(link, counter, key)).toEqual({
    state: { sum: sumTo(count), last: count },
    version: count,
    token: '-',
  })
})

test('an event that it does not evolve counts as a version and changes nothing', async () => {
  const key = await store('noted', [blobOf('counter.added', { by: 2 }), blobOf(noted.type, {})])
  expect(await rebuildAggregate(link, counter, key)).toEqual({
    state: { sum: 2, last: 2 },
    version: 2,
    token: '-',
  })
  expect(evolve(counter, { sum: 1, last: 1 }, blobOf('counter.unheard-of', {}))).toEqual({ sum: 1, last: 1 })
})
