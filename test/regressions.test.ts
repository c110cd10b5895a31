/** Faults that were found once: Redis without memory, lost groups, entries behind floors, races inside a worker. */
import { expect, test } from 'bun:test'
import { z } from 'zod'
import { defineBatchHandler, type HandlerDefinition } from '../src/contracts/handler.ts'
import { defineCommand, defineHandler, defineStream, done } from '../src/index.ts'
import { partitionOf } from '../src/policies/partition.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import {
  ensureGroup,
  forgetGone,
  identifyConnection,
  markRunning,
  readNew,
  sampleConsumers,
  takeOver,
} from '../src/redis/consumer-group.ts'
import { joinFleet } from '../src/redis/fleet.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { sharedMembership } from '../src/redis/membership.ts'
import { trimCommands } from '../src/redis/partition-care.ts'
import { settle } from '../src/redis/settlements.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import type { CommandRun } from '../src/runtime/command-run.ts'
import { HeldEntry, InFlight } from '../src/runtime/in-flight.ts'
import type { PartitionDesk } from '../src/runtime/partition-desk.ts'
import { Settler } from '../src/runtime/settler.ts'
import { Suspects } from '../src/runtime/suspects.ts'
import { testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { until } from './support/until.ts'

const Do = defineCommand({ type: 'do.it', payload: z.object({ n: z.int() }) })
const keys = partitionKeys('main', 0)
const numbers = (count: number) => Array.from({ length: count }, (_, n) => ({ n }))

test('a suspect that arrives while the mark of the last one is taken off still runs', async () => {
  const ran: CommandRun[] = []
  const unmark = Promise.withResolvers<void>()
  let unmarking = 0
  const desk = {
    isOurs: () => true,
    mark: () => Promise.resolve(),
    unmark: () => {
      unmarking += 1
      return unmark.promise
    },
  } as unknown as PartitionDesk
  const handler = { options: { batchCountMax: 100 } } as HandlerDefinition
  const suspects = new Suspects(
    (_desk, _handler, runs) => {
      ran.push(...runs)
      return Promise.resolve()
    },
    SYSTEM_CLOCK,
    new AbortController().signal,
    () => undefined,
  )
  const run = (token: string) => ({ ref: { token, level: 1 } }) as CommandRun
  suspects.add({ desk, handler, run: run('e1-0') })
  await until('the mark to be taken off', () => unmarking === 1)
  suspects.add({ desk, handler, run: run('e2-0') })
  unmark.resolve()
  await until('the second suspect to run', () => ran.length === 2, 1000)
})

test('with Redis out of memory the dead are still seen, suspects marked, and a worker can start', async () => {
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [Do])
  await ensureGroup(fleet.link, keys)
  await fleet.append(Do, numbers(1))
  await readNew(await redis.open('reader'), sharedMembership(keys, 'dead'), 10, 100)
  await fleet.link.client.config('SET', 'maxmemory', '1mb')
  expect((await sampleConsumers(fleet.link, keys)).map((view) => view.pending)).toEqual([1])
  await markRunning(fleet.link, keys, 'w1', ['e1-0'])
  expect(await fleet.link.client.smembers(keys.running('w1'))).toEqual(['e1-0'])
  await joinFleet(fleet.link, fleet.catalogue.streams.values())
})

test('a group that vanished is made again so that the entry which pinned the stream is delivered', async () => {
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [Do])
  await ensureGroup(fleet.link, keys)
  await fleet.append(Do, numbers(400))
  const entries = await readNew(await redis.open('reader'), sharedMembership(keys, 'w'), 400, 100)
  const ids = entries.map((entry) => entry.entryId)
  const pinned = ids[300] ?? ''
  await fleet.link.client.xack(keys.commands, 'workers', ...ids.filter((id) => id !== pinned))
  expect((await trimCommands(fleet.link, keys)).commands).toBeGreaterThan(0)
  await fleet.link.client.xgroup('DESTROY', keys.commands, 'workers')
  expect(await ensureGroup(fleet.link, keys)).toBe('lost')
  const again = await readNew(await redis.open('reader'), sharedMembership(keys, 'w'), 1, 100)
  expect(again[0]?.entryId).toBe(pinned)
})

test('a command that has waited longer than results are kept is waiting, not expired', async () => {
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [Do])
  await ensureGroup(fleet.link, keys)
  const [first, second] = await fleet.append(Do, numbers(2))
  if (first === undefined || second === undefined) throw new Error('nothing was appended')
  await readNew(await redis.open('reader'), sharedMembership(keys, 'w'), 1, 100)
  await fleet.link.client.hset(keys.floors, 'records', Date.now() + 60_000)
  expect((await fleet.status(first)).state).toBe('processing')
  expect((await fleet.status(second)).state).toBe('accepted')
  await fleet.link.client.xack(keys.commands, 'workers', first.token.slice(1))
  expect((await fleet.status(first)).state).toBe('expired')
})

test('the crash level of a command goes also when a worker thought dead settled it first', async () => {
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [Do])
  await ensureGroup(fleet.link, keys)
  const [one] = await fleet.append(Do, numbers(1))
  const token = one?.token ?? ''
  await readNew(await redis.open('reader'), sharedMembership(keys, 'paused'), 1, 100)
  const from = { consumer: 'paused', beat: '' }
  const taken = await takeOver(fleet.link, keys, from, 'heir', 10)
  expect(taken?.entries.map((entry) => entry.level)).toEqual([1])
  const ref = { source: 'commands', entryId: token.slice(1), token, level: 0 } as const
  const nothing = { events: [], followUps: [], append: undefined, record: '' } as const
  await settle(fleet.link, sharedMembership(keys, 'paused'), { plain: [ref], successes: [], failures: [] })
  const late = { ref: { ...ref, level: 1 }, ...nothing }
  await settle(fleet.link, sharedMembership(keys, 'heir'), { plain: [], successes: [late], failures: [] })
  expect(await fleet.link.client.hlen(keys.crashes)).toBe(0)
})

test('the crash level of a command goes with whoever ends it, also when its heir is never heard of again', async () => {
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [Do])
  await ensureGroup(fleet.link, keys)
  const appended = await fleet.append(Do, numbers(4))
  await readNew(await redis.open('reader'), sharedMembership(keys, 'paused'), 4, 100)
  const from = { consumer: 'paused', beat: '' }
  expect((await takeOver(fleet.link, keys, from, 'heir', 10))?.entries).toHaveLength(4)
  expect(await fleet.link.client.hlen(keys.crashes)).toBe(4)
  const [plain, other, eventful, failed] = appended.map(
    ({ token }) => ({ source: 'commands', entryId: token.slice(1), token, level: 0 }) as const,
  )
  if (plain === undefined || other === undefined || eventful === undefined || failed === undefined) {
    throw new Error('nothing was appended')
  }
  const blob = Buffer.from('x')
  const effects = { events: [blob], followUps: [], append: undefined, record: '' } as const
  await settle(fleet.link, sharedMembership(keys, 'paused'), {
    plain: [plain],
    successes: [{ ref: eventful, ...effects }],
    failures: [],
  })
  const retry = { move: 'retry', delayMs: 0, blob, record: blob } as const
  await settle(fleet.link, sharedMembership(keys, 'heir'), {
    plain: [],
    successes: [],
    failures: [{ ref: failed, ...retry }],
  })
  // Settled by somebody else, in one request with one that was retried and keeps its level.
  await settle(fleet.link, sharedMembership(keys, 'paused'), {
    plain: [other, failed],
    successes: [],
    failures: [],
  })
  expect(await fleet.link.client.hkeys(keys.crashes)).toEqual([failed.token])
})

test('a request that can not be settled is split also when its first failures were an outage', async () => {
  const telemetry = new RecordedTelemetry()
  let calls = 0
  const link = {
    get ready() {
      return calls > 6
    },
    run: (_name: string, _keys: readonly string[], args: readonly unknown[]) => {
      calls += 1
      if (calls <= 6 || args[3] !== 1) return Promise.reject(new Error('no'))
      return Promise.resolve([1, '', '', '', ''])
    },
  } as unknown as RedisLink
  const clock = { ...SYSTEM_CLOCK, sleep: () => SYSTEM_CLOCK.sleep(1) }
  const inFlight = new InFlight(clock, 100, 1_000_000)
  const onConflict = () => undefined
  const settler = new Settler({
    ...{ link, membership: sharedMembership(keys, 'w'), clock, telemetry, requestsMax: 5, onConflict },
    onSettled: ({ ref }) => inFlight.leave(ref),
  })
  settler.push(
    ['1-0', '2-0'].map((entryId) => {
      const ref = new HeldEntry({ source: 'commands', entryId, token: `e${entryId}` }, 0, 100)
      inFlight.enter(ref)
      const success = { ref, events: [], followUps: [], append: undefined, record: '' } as const
      return { run: { ref } as unknown as CommandRun, success }
    }),
  )
  await until('both to be settled', () => inFlight.count === 0, 2000)
})

test('a settlement is bounded by the bytes of its events, and a command with more of them goes alone', async () => {
  const sizes: number[] = []
  const link = {
    ready: true,
    marks: { note: () => undefined },
    run: (_name: string, _keys: readonly string[], args: readonly unknown[]) => {
      sizes.push(Number(args[4]))
      return Promise.resolve([0, '', '', '', '1'.repeat(Number(args[4]))])
    },
  } as unknown as RedisLink
  const telemetry = new RecordedTelemetry()
  let settled = 0
  const settler = new Settler({
    ...{ link, membership: sharedMembership(keys, 'w'), clock: SYSTEM_CLOCK, telemetry, requestsMax: 1 },
    onConflict: () => undefined,
    onSettled: () => {
      settled += 1
    },
  })
  const bytes = [300_000, 300_000, 300_000, 300_000, 3_000_000, 10]
  settler.push(
    bytes.map((length, i) => {
      const ref = { source: 'commands', entryId: `${i + 1}-0`, token: `e${i + 1}-0`, level: 0 } as const
      const events = [Buffer.alloc(length)]
      const success = { ref, events, followUps: [], append: undefined, record: '' } as const
      return { run: { ref, events } as unknown as CommandRun, success }
    }),
  )
  await settler.idle()
  expect(settled).toBe(6)
  expect(sizes).toEqual([3, 1, 1, 1])
})

test('the bytes in hand stay near their bound when entries are large', async () => {
  await using redis = await startTestRedis()
  const Large = defineCommand({ type: 'do.large', payload: z.object({ text: z.string() }) })
  const gate = Promise.withResolvers<void>()
  let held = 0
  const handle = defineHandler(
    Large,
    async () => {
      held += 1
      await gate.promise
      return done()
    },
    { concurrencyMax: 500 },
  )
  const fleet = await testFleet(redis, [Large, handle])
  for (let i = 0; i < 10; i++) {
    await fleet.append(
      Large,
      Array.from({ length: 20 }, (_, n) => ({ text: `${i} ${n}`.padEnd(200_000, 'x') })),
    )
  }
  const worker = await fleet.worker({ inFlightBytesMax: 4 * 1024 ** 2, batchesMax: 500, readCountMax: 500 })
  await until('some to be held', () => held > 0)
  await Bun.sleep(300)
  const pending = await fleet.pending('main')
  gate.resolve()
  await until('all to be done', async () => (await fleet.pending('main')) === 0 && held >= 200)
  await worker.stop()
  expect(pending).toBeLessThan(60)
})

test('room follows the size of what was read last, also when nothing is held', () => {
  const table = new InFlight(SYSTEM_CLOCK, 1000, 1_000_000)
  const pass = (bytes: number) => {
    for (let n = 0; n < 200; n++) {
      const entry = new HeldEntry({ source: 'commands', entryId: `${n}-0`, token: `e${n}-0` }, 0, bytes)
      table.enter(entry)
      table.leave(entry)
    }
  }
  pass(100_000)
  expect(table.room).toBe(10)
  pass(5_000_000)
  expect(table.room).toBe(2)
  pass(100)
  expect(table.room).toBe(1000)
})

test("after a restart of Redis a worker ends nobody else's connection", async () => {
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [Do])
  const own = await redis.open('reader')
  const before = await identifyConnection(own)
  await redis.kill()
  await redis.restart()
  await own.whenReady(5000)
  const after = await identifyConnection(own)
  expect(after.runId).not.toBe(before.runId)

  const handle = defineHandler(Do, () => done())
  const working = await testFleet(redis, [Do, handle])
  const worker = await working.worker()
  const bystanders = await Promise.all(Array.from({ length: 12 }, () => redis.open('ingest')))
  const kills = async () => {
    const [, count] =
      /cmdstat_client\|kill:calls=(\d+)/.exec(await fleet.link.client.info('commandstats')) ?? []
    return Number(count ?? 0)
  }
  await redis.kill()
  await redis.restart()
  for (const link of [...bystanders, fleet.link, working.link]) await link.whenReady(5000)
  await working.append(Do, numbers(1))
  await until('the command to be done', async () => working.telemetry.of('batch.settled').length > 0)
  expect(await kills()).toBe(0)
  await worker.stop()
})

test('looking through the own pending list does not carry what is in hand over the wire again', async () => {
  await using redis = await startTestRedis()
  const Large = defineCommand({ type: 'do.large', payload: z.object({ text: z.string() }) })
  const gate = Promise.withResolvers<void>()
  let held = 0
  const handle = defineHandler(Large, async () => {
    held += 1
    await gate.promise
    return done()
  })
  const fleet = await testFleet(redis, [Large, handle])
  const worker = await fleet.worker()
  await fleet.append(
    Large,
    Array.from({ length: 20 }, (_, n) => ({ text: `${n}`.padEnd(200_000, 'x') })),
  )
  await until('some to be held', async () => held > 0 && (await fleet.pending('main')) === 20)
  const { client } = fleet.link
  const sent = async () => Number(/total_net_output_bytes:(\d+)/.exec(await client.info('stats'))?.[1])
  const kills = async () =>
    Number(/cmdstat_client\|kill:calls=(\d+)/.exec(await client.info('commandstats'))?.[1] ?? 0)
  const before = await sent()
  const reader = /id=(\d+) [^\n]*name=millrace-reader [^\n]*cmd=xreadgroup/.exec(
    (await client.client('LIST')) as string,
  )
  await client.client('KILL', 'ID', Number(reader?.[1]))
  await until('the old connection to be ended by the worker', async () => (await kills()) >= 2)
  await Bun.sleep(500)
  expect((await sent()) - before).toBeLessThan(1_000_000)
  gate.resolve()
  await until('all to be done', async () => (await fleet.pending('main')) === 0)
  await worker.stop()
})

test('a command whose entry is gone stays lost in its status, whoever found out', async () => {
  await using redis = await startTestRedis()
  const handle = defineHandler(Do, () => done())
  const fleet = await testFleet(redis, [Do, handle])
  const { client } = fleet.link
  await ensureGroup(fleet.link, keys)
  const [taken, own] = await fleet.append(Do, numbers(2))
  if (taken === undefined || own === undefined) throw new Error('nothing was appended')
  await readNew(await redis.open('reader'), sharedMembership(keys, 'dead'), 1, 100)
  await client.xdel(keys.commands, taken.token.slice(1))
  expect((await fleet.status(taken)).state).toBe('lost')
  const from = { consumer: 'dead', beat: '' }
  expect((await takeOver(fleet.link, keys, from, 'heir', 10))?.gone).toEqual([taken.token.slice(1)])
  expect((await fleet.status(taken)).state).toBe('lost')

  await readNew(await redis.open('reader'), sharedMembership(keys, 'heir'), 1, 100)
  await client.xdel(keys.commands, own.token.slice(1))
  await forgetGone(fleet.link, sharedMembership(keys, 'heir'), 'commands', [own.token.slice(1)])
  expect(await fleet.pending('main')).toBe(0)
  expect((await fleet.status(own)).state).toBe('lost')

  const copy = (await client.xadd(keys.ready, '*', 'x1', 'blob')) ?? ''
  await client.set(keys.counter, 1)
  await client.hset(keys.records, 'x1', `R${copy}:`)
  await readNew(await redis.open('reader'), sharedMembership(keys, 'heir'), 1, 100)
  await client.xdel(keys.ready, copy)
  await forgetGone(fleet.link, sharedMembership(keys, 'heir'), 'ready', [copy])
  expect((await fleet.status({ stream: 'main', partition: 0, token: 'x1' })).state).toBe('lost')
  expect(await client.zcard(keys.recordTimes)).toBe(2)
})

test('a worker whose handlers keep its event loop busy takes over from the dead all the same', async () => {
  await using redis = await startTestRedis()
  const handle = defineBatchHandler(
    Do,
    (batch) => {
      const end = performance.now() + 400
      while (performance.now() < end);
      return batch.map(() => done())
    },
    { batchCountMax: 10, concurrencyMax: 1 },
  )
  const fleet = await testFleet(redis, [Do, handle])
  await ensureGroup(fleet.link, keys)
  await fleet.append(Do, numbers(10))
  await readNew(await redis.open('reader'), sharedMembership(keys, 'dead'), 10, 100)
  await fleet.append(Do, numbers(200))
  const worker = await fleet.worker({ inFlightMax: 50 })
  await fleet.telemetry.until('entries.claimed', undefined, 6000)
  await worker.stop()
}, 30_000)

test('a target of follow-ups that lost its place is an alarm once, and keeps the other targets from nothing', async () => {
  await using redis = await startTestRedis()
  const targets = defineStream({ name: 'targets', partitions: 2 })
  const Next = defineCommand({
    type: 'do.next',
    stream: targets,
    payload: z.object({ n: z.int() }),
    key: ({ n }) => `k${n}`,
  })
  const handle = defineHandler(Do, (command) => {
    command.send(Next, command.payload)
    return done()
  })
  const fleet = await testFleet(redis, [targets, Do, Next, handle])
  const worker = await fleet.worker()
  const [lost, other] = [partitionKeys('targets', 0), partitionKeys('targets', 1)]
  const relayed = async () => {
    const [a, b] = await Promise.all([
      fleet.link.client.xlen(lost.commands),
      fleet.link.client.xlen(other.commands),
    ])
    return { lost: a, other: b, all: a + b }
  }
  await fleet.append(Do, numbers(20))
  await until('the first to be relayed', async () => (await relayed()).all === 20)
  const before = await relayed()
  await fleet.link.client.del(lost.watermarks)
  await fleet.append(Do, numbers(600))
  const share = numbers(600).filter(({ n }) => partitionOf(`k${n}`, 2) === 1).length
  await until('the other target to have all', async () => (await relayed()).other === before.other + share)
  await Bun.sleep(500)
  expect((await relayed()).lost).toBe(before.lost)
  expect(fleet.telemetry.of('alarm.raised').map(({ alarm }) => alarm)).toEqual(['outbox-gap'])
  await worker.stop()
}, 30_000)
