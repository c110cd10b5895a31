/** An ordered partition that changes hands: who is charged for a crash, what a retry still knows, what a leaving owner finishes. */
import { afterEach, beforeEach, expect, test } from 'bun:test'
import { z } from 'zod'
import { defineBatchHandler, defineCommand, defineHandler, defineStream, done } from '../src/index.ts'
import { readNew } from '../src/redis/consumer-group.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { leasedMembership, type Membership } from '../src/redis/membership.ts'
import { membersKey, readHeld, sampleLeases, takePartition } from '../src/redis/partition-lease.ts'
import { packPayload } from '../src/redis/payload-codec.ts'
import { settle } from '../src/redis/settlements.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const line = defineStream({ name: 'line', ordering: 'key', parkedMax: 100 })
const Put = defineCommand({
  type: 'line.put',
  payload: z.object({ key: z.string(), n: z.number() }),
  stream: line,
  key: ({ key }) => key,
})
const keys = partitionKeys('line', 0, 'key')

interface Call {
  readonly name: string
  readonly attempt: number
  readonly atMs: number
}

let redis: TestRedis
let calls: Call[]
beforeEach(async () => {
  redis = await startTestRedis()
  calls = []
})
afterEach(() => redis[Symbol.asyncDispose]())

const handle = defineBatchHandler(Put, (batch) =>
  batch.map(({ payload, attempt }) => {
    calls.push({ name: `${payload.key}${payload.n}`, attempt, atMs: Date.now() })
    return done()
  }),
)

/** Commands in the hands of an owner that never beats again; answers their tokens, by name. */
async function heldByDeadOwner(
  fleet: TestFleet,
  payloads: readonly { key: string; n: number }[],
): Promise<{ tokens: Map<string, string>; membership: Membership }> {
  const nobody = { partition: 0, owner: '', epoch: '', wanted: '', beat: '' }
  const taken = await takePartition(fleet.link, keys, membersKey([keys]), 'dead', nobody)
  const membership = leasedMembership(keys, 'dead', taken?.epoch ?? 0)
  const appended = await fleet.append(Put, payloads)
  const read = await readNew(await redis.open('reader'), membership, payloads.length, 100)
  expect(read).toHaveLength(payloads.length)
  return {
    tokens: new Map(appended.map(({ token }, i) => [`${payloads[i]?.key}${payloads[i]?.n}`, token])),
    membership,
  }
}

async function pending(fleet: TestFleet): Promise<number> {
  const groups = (await fleet.link.client.xinfo('GROUPS', keys.commands)) as unknown[][]
  return groups.reduce((sum, group) => sum + Number(group[group.indexOf('pending') + 1]), 0)
}

test('the first of each key is suspect; one that was marked for the third time is dead, and its key goes on', async () => {
  const fleet = await testFleet(redis, [line, Put, handle])
  const { tokens } = await heldByDeadOwner(fleet, [
    { key: 'a', n: 0 },
    { key: 'a', n: 1 },
    { key: 'b', n: 0 },
  ])
  const crasher = tokens.get('a0') ?? ''
  await fleet.link.client.hset(keys.crashes, crasher, '2')
  await fleet.link.client.sadd(keys.running('dead'), crasher)
  await using _worker = await fleet.worker()
  await until('all to end', async () => calls.length >= 2 && (await pending(fleet)) === 0)
  expect(calls.map(({ name }) => name).sort()).toEqual(['a1', 'b0'])
  expect(calls.every(({ attempt }) => attempt === 1)).toBe(true)
  expect((await fleet.deadLetters('line')).map(({ token }) => token)).toEqual([crasher])
  expect(fleet.telemetry.of('entries.redelivered').map(({ count }) => count)).toEqual([2])
  expect(await fleet.link.client.exists(keys.crashes, keys.running('dead'))).toBe(0)
})

test('a retry that waited under the dead owner keeps its attempt, its time and its place, uncharged', async () => {
  const fleet = await testFleet(redis, [line, Put, handle])
  const { tokens, membership } = await heldByDeadOwner(fleet, [
    { key: 'a', n: 0 },
    { key: 'a', n: 1 },
  ])
  const token = tokens.get('a0') ?? ''
  const ref = { source: 'commands', entryId: token.slice(1), token, level: 0, turn: 0 } as const
  const failures = [{ attempt: 1, atMs: 1, error: 'not yet' }]
  const trail = packPayload({ attempts: 1, level: 0, redrives: 0, failures })
  const record = packPayload({ attempts: 1, error: 'not yet', atMs: 1 })
  const hold = { ref, move: 'hold', delayMs: 2500, blob: trail, record } as const
  await settle(fleet.link, membership, { plain: [], successes: [], failures: [hold] })
  const held = (await readHeld(fleet.link, keys)).get(ref.entryId)
  await using _worker = await fleet.worker()
  await until('both to end', async () => calls.length === 2 && (await pending(fleet)) === 0)
  expect(calls.map(({ name, attempt }) => `${name} attempt ${attempt}`)).toEqual([
    'a0 attempt 2',
    'a1 attempt 1',
  ])
  expect(calls[0]?.atMs).toBeGreaterThanOrEqual(held?.dueMs ?? Number.POSITIVE_INFINITY)
  expect(fleet.telemetry.of('entries.redelivered')).toEqual([])
  expect(await fleet.link.client.exists(keys.held, keys.crashes)).toBe(0)
})

test('a pending entry whose body is gone when the partition changes hands is an alarm and a lost command', async () => {
  const fleet = await testFleet(redis, [line, Put, handle])
  const payloads = [
    { key: 'a', n: 0 },
    { key: 'a', n: 1 },
  ]
  const { tokens } = await heldByDeadOwner(fleet, payloads)
  const token = tokens.get('a0') ?? ''
  await fleet.link.client.xdel(keys.commands, token.slice(1))
  await using _worker = await fleet.worker()
  await until('the other to run', async () => calls.length === 1 && (await pending(fleet)) === 0)
  expect(calls.map(({ name }) => name)).toEqual(['a1'])
  expect(fleet.telemetry.of('alarm.raised').map(({ alarm }) => alarm)).toEqual(['entries-lost'])
  expect((await fleet.status({ stream: 'line', partition: 0, token })).state).toBe('lost')
})

test('a partition that is asked for changes hands only when what runs in it has ended', async () => {
  const pair = defineStream({ name: 'pair', ordering: 'key', partitions: 2 })
  const payload = z.object({ key: z.string() })
  const Hold = defineCommand({ type: 'pair.hold', payload, stream: pair, key: ({ key }) => key })
  const gate = Promise.withResolvers<void>()
  const started: string[] = []
  const hold = defineHandler(Hold, async ({ key }) => {
    started.push(key)
    await gate.promise
    return done()
  })
  const fleet = await testFleet(redis, [pair, Hold, hold])
  const both = [partitionKeys('pair', 0, 'key'), partitionKeys('pair', 1, 'key')]
  const leases = async () => (await sampleLeases(fleet.link, both)).leases
  await using first = await fleet.worker()
  const isFirst = ({ owner }: { owner: string }): boolean => owner === first.consumer
  await until('the first to own both', async () => (await leases()).every(isFirst))
  const names = ['a', 'b', 'c', 'd', 'e', 'f']
  await fleet.append(
    Hold,
    names.map((key) => ({ key })),
  )
  await until('all to run', () => started.length === names.length)
  await using second = await fleet.worker()
  await until('the second to ask', async () =>
    (await leases()).some(({ wanted }) => wanted === second.consumer),
  )
  // Long enough for the owner to have seen it; should it not be, this test sees less.
  await Bun.sleep(1000)
  const held = (await leases()).every(isFirst)
  gate.resolve()
  expect(held).toBe(true)
  await until('the second to own one', async () =>
    (await leases()).some(({ owner }) => owner === second.consumer),
  )
  expect(started.sort()).toEqual(names)
  expect(fleet.telemetry.of('settlements.refused')).toEqual([])
})
