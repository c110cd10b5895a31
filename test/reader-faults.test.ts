/** What the reader does about answers that never came: no entry lies in a living worker's pending list, none runs twice. */
import { afterEach, beforeEach, expect, test } from 'bun:test'
import { z } from 'zod'
import { defineBatchHandler, defineCommand, defineHandler, done } from '../src/index.ts'
import { ensureGroup, readNew } from '../src/redis/consumer-group.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { sharedMembership } from '../src/redis/membership.ts'
import { FlakyLink } from './support/flaky-link.ts'
import { type Appended, type TestFleet, testFleet } from './support/fleet.ts'
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

/** A command that the server has handed to this consumer, by a connection whose answer never came. */
async function handToNobody(fleet: TestFleet, consumer: string, n: number): Promise<Appended> {
  const { client } = fleet.link
  await until('a blocked reader', async () => (await blockedReaders()).length === 1)
  await client.xgroup('SETID', keys.commands, 'workers', '99999999999999-0')
  const [appended] = await fleet.append(Do, [{ n }])
  if (appended === undefined) throw new Error('nothing was appended')
  const id = appended.token.slice(1)
  await client.call('XCLAIM', keys.commands, 'workers', consumer, 0, id, 'FORCE', 'JUSTID')
  return appended
}

test('entries whose answer got lost are in the own pending list, and are found there after the connection broke', async () => {
  const seen: number[] = []
  const handle = defineHandler(Do, ({ payload }) => {
    seen.push(payload.n)
    return done()
  })
  const fleet = await testFleet(redis, [Do, handle])
  await using worker = await fleet.worker()
  await handToNobody(fleet, worker.consumer, 1)
  await handToNobody(fleet, worker.consumer, 2)
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

test('what is being settled does not run again when the own pending list is read meanwhile', async () => {
  const calls: number[] = []
  const handle = defineHandler(Do, ({ payload }) => {
    calls.push(payload.n)
    return done()
  })
  const fleet = await testFleet(redis, [Do, handle])
  const flaky = new FlakyLink(redis.links.options, 1, [])
  await flaky.whenReady(5000)
  flaky.swallow = 'settle'
  await using _worker = await fleet.worker({}, flaky)
  try {
    await fleet.append(Do, [{ n: 1 }, { n: 2 }])
    await until('both to be on their way', () => calls.length === 2 && flaky.swallowed > 0)
    await killReader()
    await until('the reader to be back', async () => (await blockedReaders()).length === 1)
  } finally {
    flaky.release()
  }
  await until('both to be done', async () => (await fleet.pending('main')) === 0)
  expect(calls.sort()).toEqual([1, 2])
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

test('a reader whose connection is open but dead gets a new one, and what was handed to the old one runs', async () => {
  const seen: number[] = []
  const handle = defineHandler(Do, ({ payload }) => {
    seen.push(payload.n)
    return done()
  })
  await using proxy = await HalfOpenProxy.open(redis, 300)
  const fleet = await testFleet({ ...redis, links: proxy.links }, [Do, handle])
  await using _worker = await fleet.worker()
  await until('a blocked reader', async () => (await blockedReaders()).length === 1)
  proxy.muteReaders()
  await fleet.append(Do, [{ n: 1 }])
  // The bound of a silent read, block + 2 s, and the reconnect.
  const isDone = async () => seen.length === 1 && (await fleet.pending('main')) === 0
  try {
    await until('the command to run', isDone, 5000)
  } finally {
    proxy.loseClients()
  }
  expect(fleet.telemetry.of('entries.reconciled').map(({ count }) => count)).toEqual([1])
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

test('a pending entry whose body is gone is an alarm and a lost command, whoever finds it', async () => {
  const handle = defineHandler(Do, () => done())
  const fleet = await testFleet(redis, [Do, handle])
  const { client } = fleet.link
  await ensureGroup(fleet.link, keys)
  const [theirs] = await fleet.append(Do, [{ n: 1 }])
  if (theirs === undefined) throw new Error('nothing was appended')
  await readNew(await redis.open('reader'), sharedMembership(keys, 'dead'), 1, 100)
  await client.xdel(keys.commands, theirs.token.slice(1))
  const lost = () => fleet.telemetry.of('alarm.raised').filter(({ alarm }) => alarm === 'entries-lost').length
  await using worker = await fleet.worker()
  const own = await handToNobody(fleet, worker.consumer, 2)
  await client.xdel(keys.commands, own.token.slice(1))
  await killReader()
  await until('both to be noticed', () => lost() === 2, 5000)
  await until('nothing to be pending', async () => (await fleet.pending('main')) === 0)
  expect((await fleet.status(theirs)).state).toBe('lost')
  expect((await fleet.status(own)).state).toBe('lost')
})

test('a group that vanishes under its readers is an alarm each time, is made again, and the reading goes on', async () => {
  const seen: number[] = []
  const handle = defineHandler(Do, ({ payload }) => {
    seen.push(payload.n)
    return done()
  })
  const fleet = await testFleet(redis, [Do, handle])
  const { client } = fleet.link
  await using _worker = await fleet.worker()
  const alarms = () => fleet.telemetry.of('alarm.raised').map(({ alarm }) => alarm)
  const vanish = [
    () => client.xgroup('DESTROY', keys.commands, 'workers'),
    () => client.del(keys.ready),
    () => client.flushall(),
  ]
  for (const [n, destroy] of vanish.entries()) {
    await until('a blocked reader', async () => (await blockedReaders()).length === 1)
    await destroy()
    await until('an alarm', () => alarms().length > n, 5000)
    await fleet.append(Do, [{ n }])
    await until('the next command to run', () => seen.includes(n), 5000)
  }
  expect(new Set(alarms())).toEqual(new Set(['group-vanished']))
  expect(seen).toEqual([0, 1, 2])
})
