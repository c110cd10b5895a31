/** What the reader does about answers that never came: no entry lies in a living worker's pending list, none runs twice. */
import { afterEach, beforeEach, expect, test } from 'bun:test'
import { z } from 'zod'
import { defineBatchHandler, defineCommand, defineHandler, done } from '../src/index.ts'
import { ensureGroup } from '../src/redis/consumer-group.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { testFleet } from './support/fleet.ts'
import { HalfOpenProxy } from './support/half-open-proxy.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const Do = defineCommand({ type: 'do.it', payload: z.object({ n: z.int() }) })
const keys = partitionKeys('main', 0)

let redis: TestRedis
beforeEach(async () => {
  redis = await startTestRedis()
})
afterEach(() => redis[Symbol.asyncDispose]())

/** Ids of the connections that are blocked in a read of a group, as the server sees them. */
async function blockedReaders(): Promise<number[]> {
  const link = await redis.open()
  const list = (await link.client.client('LIST')) as string
  redis.links.close(link)
  return list
    .split('\n')
    .filter((line) => / cmd=xreadgroup /.test(line) && / flags=\w*b/.test(line))
    .map((line) => Number(/^id=(\d+)/.exec(line)?.[1]))
}

async function killReader(): Promise<void> {
  await until('a blocked reader', async () => (await blockedReaders()).length === 1)
  const [id = 0] = await blockedReaders()
  const link = await redis.open()
  await link.client.client('KILL', 'ID', id)
  redis.links.close(link)
}

test('entries whose answer got lost are in the own pending list, and are found there after the connection broke', async () => {
  const seen: number[] = []
  const handle = defineHandler(Do, ({ payload }) => {
    seen.push(payload.n)
    return done()
  })
  const fleet = await testFleet(redis, [Do, handle])
  await using worker = await fleet.worker()
  await until('a blocked reader', async () => (await blockedReaders()).length === 1)
  // As if they had been read by this worker, by a connection whose answer never came.
  const { client } = fleet.link
  await client.xgroup('SETID', keys.commands, 'workers', '99999999999999-0')
  const lost = await fleet.append(Do, [{ n: 1 }, { n: 2 }])
  for (const { token } of lost) {
    const id = token.slice(1)
    await client.call('XCLAIM', keys.commands, 'workers', worker.consumer, 0, id, 'FORCE', 'JUSTID')
  }
  await killReader()
  await until('both to run', async () => seen.length === 2 && (await fleet.pending('main')) === 0, 5000)
  expect(seen.sort()).toEqual([1, 2])
  expect(fleet.telemetry.of('entries.reconciled').map(({ count }) => count)).toEqual([2])
})

test('what is in hand does not run again when the own pending list is read', async () => {
  const gate = Promise.withResolvers<void>()
  const calls: number[] = []
  const handle = defineBatchHandler(
    Do,
    async (batch) => {
      calls.push(...batch.map(({ payload }) => payload.n))
      await gate.promise
      return batch.map(() => done())
    },
    { batchCountMax: 2, concurrencyMax: 8 },
  )
  const fleet = await testFleet(redis, [Do, handle])
  await ensureGroup(fleet.link, keys)
  await fleet.append(Do, [{ n: 1 }, { n: 2 }, { n: 3 }, { n: 4 }])
  await using _worker = await fleet.worker()
  await until('all to run', () => calls.length === 4)
  await killReader()
  // The reader blocks again only after it has looked through its pending list.
  await until('the reader to be back', async () => (await blockedReaders()).length === 1)
  gate.resolve()
  await until('all to be done', async () => (await fleet.pending('main')) === 0)
  expect(calls.sort()).toEqual([1, 2, 3, 4])
  expect(fleet.telemetry.of('entries.reconciled')).toEqual([])
})

test('a connection that only this side has lost is ended before the next read: the server hands it nothing', async () => {
  const seen: number[] = []
  const handle = defineHandler(Do, ({ payload }) => {
    seen.push(payload.n)
    return done()
  })
  await using proxy = await HalfOpenProxy.open(redis, 60_000)
  const behindProxy = { ...redis, links: proxy.links }
  const fleet = await testFleet(behindProxy, [Do, handle])
  await using _worker = await fleet.worker()
  await until('a blocked reader', async () => (await blockedReaders()).length === 1)
  const [old] = await blockedReaders()
  proxy.loseClients()
  await until('a reader that is not the old one', async () =>
    (await blockedReaders()).some((id) => id !== old),
  )
  await fleet.append(Do, [{ n: 1 }, { n: 2 }, { n: 3 }])
  await until('all to be done', async () => seen.length === 3 && (await fleet.pending('main')) === 0, 5000)
  expect(fleet.telemetry.of('entries.reconciled')).toEqual([])
  expect(await blockedReaders()).not.toContain(old)
})

test('a write that was under way when its connection died is not sent again behind the back of who wrote it', async () => {
  await using proxy = await HalfOpenProxy.open(redis, 500)
  const direct = await redis.open()
  for (const role of ['command', 'ingest', 'reader'] as const) {
    const link = proxy.links.open(role)
    await link.whenReady(5000)
    const key = `list:${role}`
    proxy.muteAnswers()
    const write = link.use('RPUSH', (client) => client.rpush(key, 'once'))
    const outcome = write.then(
      () => 'answered',
      () => 'unknown',
    )
    await until('the write to arrive', async () => (await direct.client.llen(key)) === 1)
    proxy.loseClients()
    expect(await outcome).toBe('unknown')
    await link.whenReady(5000)
    // Sent after anything that would be sent again.
    await link.use('RPUSH', (client) => client.rpush(key, 'later'))
    expect(await direct.client.lrange(key, 0, -1)).toEqual(['once', 'later'])
  }
})
