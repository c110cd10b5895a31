/** An ordered partition whose owner died: who is charged, what is dead, and what a retry still knows under the next owner. */
import { afterEach, beforeEach, expect, test } from 'bun:test'
import { z } from 'zod'
import { defineBatchHandler, defineCommand, defineStream, done } from '../src/index.ts'
import { readNew } from '../src/redis/consumer-group.ts'
import { packPayload } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { leasedMembership, type Membership } from '../src/redis/membership.ts'
import { membersKey, readHeld, takePartition } from '../src/redis/partition-lease.ts'
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
