/** What an ordered partition relies on, piece by piece: lanes, suspects, charges and epochs, when leases change hands. */
import { expect, test } from 'bun:test'
import { z } from 'zod'
import type { HandlerDefinition } from '../src/contracts/handler.ts'
import { SILENT_LOGGER } from '../src/contracts/logger.ts'
import { defineBatchHandler, defineCommand, defineHandler, defineStream, done } from '../src/index.ts'
import { CommandIds } from '../src/redis/command-id.ts'
import { orderedGroup, partitionKeys } from '../src/redis/keys.ts'
import { membersKey, sampleLeases, takePartition } from '../src/redis/partition-lease.ts'
import { packPayload } from '../src/redis/payload-codec.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { CommandRun } from '../src/runtime/command-run.ts'
import { Dispatcher } from '../src/runtime/dispatcher.ts'
import type { PartitionDesk } from '../src/runtime/partition-desk.ts'
import type { Decided } from '../src/runtime/settler.ts'
import { Suspects } from '../src/runtime/suspects.ts'
import { testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { SILENT_TELEMETRY } from './support/telemetry.ts'
import { until } from './support/until.ts'

const line = defineStream({ name: 'line', ordering: 'key' })
const Put = defineCommand({
  type: 'line.put',
  payload: z.object({ key: z.string() }),
  stream: line,
  key: ({ key }) => key,
})
const LINE = partitionKeys('line', 0, 'key')
const ids = new CommandIds(Buffer.from('ordering'))

interface StubDesk {
  readonly desk: PartitionDesk
  readonly run: (n: number, level?: number) => CommandRun
}

function stubDesk(
  partition: number,
  epoch: number,
  parts: { push?: (decided: readonly Decided[]) => void; mark?: () => Promise<void>; unmark?: () => void },
): StubDesk {
  const serverNowMs = () => SYSTEM_CLOCK.nowMs()
  const scope = {
    stream: 'line',
    partition,
    ids,
    clock: SYSTEM_CLOCK,
    epoch,
    serverNowMs,
    partitionsOf: () => 1,
  }
  const desk = {
    scope,
    tag: `line.${partition}`,
    settler: { push: (decided: readonly Decided[]) => parts.push?.(decided) },
    defer: () => undefined,
    forget: () => undefined,
    mark: async () => await parts.mark?.(),
    unmark: async () => parts.unmark?.(),
    isOurs: () => true,
  }
  const entry = {
    ...{ type: 'line.put', version: 1, atMs: 0, key: 'a', tenant: '', trace: undefined },
    ...{ tickMs: undefined, trail: undefined, codec: 1, bytes: packPayload({ key: 'a' }), payloadAt: 0 },
  }
  const run = (n: number, level = 0): CommandRun =>
    new CommandRun(scope, { source: 'commands', entryId: `${n}-0`, token: `e${n}-0`, level }, entry)
  return { desk: desk as unknown as PartitionDesk, run }
}

function dispatcherOf(handler: HandlerDefinition): Dispatcher {
  return new Dispatcher({
    clock: SYSTEM_CLOCK,
    telemetry: SILENT_TELEMETRY,
    logger: SILENT_LOGGER,
    handlers: new Map([['line.put@1', handler]]),
    batchesMax: 64,
  })
}

test('a partition that is taken again while its earlier lease is still wound up keeps its commands', async () => {
  const gate = Promise.withResolvers<void>()
  const started: number[] = []
  const handle = defineHandler(
    Put,
    async (_, { epoch }) => {
      started.push(epoch ?? 0)
      if (epoch === 1) await gate.promise
      return done()
    },
    { concurrencyMax: 1 },
  )
  const dispatcher = dispatcherOf(handle as HandlerDefinition)
  const settled: string[] = []
  const earlier = stubDesk(0, 1, {})
  const later = stubDesk(0, 2, { push: (all) => settled.push(...all.map(({ run }) => run.ref.entryId)) })
  dispatcher.accept(earlier.desk, [earlier.run(1), earlier.run(2)])
  await until('the first call', () => started.length === 1)
  dispatcher.accept(later.desk, [later.run(3)])
  dispatcher.forget(earlier.desk)
  gate.resolve()
  await until('the command of the new lease', () => settled.length > 0)
  expect(settled).toEqual(['3-0'])
  expect(started).toEqual([1, 2])
})

test('every partition gets its turn, however fast another one is filled again', async () => {
  const handle = defineBatchHandler(Put, (batch) => batch.map(() => done()), { concurrencyMax: 1 })
  const dispatcher = dispatcherOf(handle as HandlerDefinition)
  const turns = [0, 0, 0, 0]
  let total = 0
  const ended = Promise.withResolvers<void>()
  for (const partition of turns.keys()) {
    const stub: StubDesk = stubDesk(partition, 1, {
      push: () => {
        turns[partition] = (turns[partition] ?? 0) + 1
        total += 1
        if (total === 100) ended.resolve()
        else if (total < 100) dispatcher.accept(stub.desk, [stub.run(total)])
      },
    })
    dispatcher.accept(stub.desk, [stub.run(0)])
  }
  await ended.promise
  expect(Math.min(...turns)).toBeGreaterThanOrEqual(20)
})

test('suspects whose mark is being written when their partition is given up do not start', async () => {
  const marking = Promise.withResolvers<void>()
  const marked = Promise.withResolvers<void>()
  const unmarked = Promise.withResolvers<void>()
  const started: string[] = []
  const handle = defineHandler(Put, () => done())
  const stub = stubDesk(0, 1, {
    mark: async () => {
      marking.resolve()
      await marked.promise
    },
    unmark: () => unmarked.resolve(),
  })
  const suspects = new Suspects(
    async (_desk, _handler, runs) => {
      started.push(...runs.map(({ ref }) => ref.entryId))
    },
    SYSTEM_CLOCK,
    new AbortController().signal,
    () => undefined,
  )
  suspects.add({ desk: stub.desk, handler: handle as HandlerDefinition, run: stub.run(1, 1) })
  await marking.promise
  suspects.clear(stub.desk)
  marked.resolve()
  await unmarked.promise
  expect(started).toEqual([])
})

test('a charge whose answer was lost is not charged less the second time', async () => {
  await using redis = await startTestRedis()
  const calls: string[] = []
  const handle = defineHandler(Put, ({ key }) => {
    calls.push(key)
    return done()
  })
  const fleet = await testFleet(redis, [line, Put, handle])
  const [culprit] = await fleet.append(Put, [{ key: 'a' }, { key: 'b' }])
  if (culprit === undefined) throw new Error('no command')
  // A worker that died with both in its hands, the first of them marked and crashing for the third time.
  const seen = { partition: 0, owner: '', epoch: '', wanted: '', beat: '' }
  const taken = await takePartition(fleet.link, LINE, membersKey([LINE]), 'ghost', seen)
  const { client } = fleet.link
  const group = orderedGroup(taken?.epoch ?? 0)
  await client.xreadgroup('GROUP', group, 'ghost', 'COUNT', '2', 'STREAMS', LINE.commands, '>')
  await client.hset(LINE.lease, 'charge', '')
  await client.hset(LINE.crashes, culprit.token, 2)
  await client.sadd(LINE.running('ghost'), culprit.token)
  const link = await redis.open()
  const run = link.run.bind(link)
  let charges = 0
  link.run = async (name, keys, args) => {
    const answer = await run(name, keys, args)
    if (name === 'charge-suspects') {
      charges += 1
      if (charges === 1) throw new Error('the answer was lost on purpose')
    }
    return answer
  }
  await using _worker = await fleet.worker({}, link)
  await until('the innocent', () => calls.includes('b'))
  await until('the dead letter', async () => (await fleet.deadLetters('line')).length === 1)
  expect(charges).toBe(2)
  expect(calls).toEqual(['b'])
  await until('no level to be left', async () => (await client.exists(LINE.crashes)) === 0)
})

test('an epoch that a restart of Redis forgot is not given out again', async () => {
  await using redis = await startTestRedis()
  const { link } = await testFleet(redis, [line, Put, defineHandler(Put, () => done())])
  const take = async (me: string) => {
    const { beats, leases } = await sampleLeases(link, [LINE])
    const [lease] = leases
    if (lease === undefined) throw new Error('no lease')
    return await takePartition(link, LINE, membersKey([LINE]), me, {
      ...lease,
      beat: beats.get(lease.owner) ?? '',
    })
  }
  await take('first')
  const dumps = await Promise.all(
    [LINE.commands, LINE.lease].map(async (key) => ({ key, dump: await link.client.dumpBuffer(key) })),
  )
  const second = await take('second')
  // Back to what was on disk: the second take is forgotten, and its owner does not know it yet.
  for (const { key, dump } of dumps) await link.client.restore(key, 0, dump ?? Buffer.alloc(0), 'REPLACE')
  await Bun.sleep(2)
  const third = await take('third')
  expect(third?.epoch).toBeGreaterThan(second?.epoch ?? 0)
})
