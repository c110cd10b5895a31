/** The scripts behind the lease of an ordered partition: who may take it, and what whoever lost it can still do. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import { appendPlain, readStatus } from '../src/redis/command-log.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { readNew } from '../src/redis/consumer-group.ts'
import { encodeEntry } from '../src/redis/entry-codec.ts'
import { type PartitionKeys, partitionKeys } from '../src/redis/keys.ts'
import { leasedMembership } from '../src/redis/membership.ts'
import {
  chargeSuspects,
  membersKey,
  readHeld,
  releasePartition,
  sampleLeases,
  type TakenPartition,
  takePartition,
} from '../src/redis/partition-lease.ts'
import { packPayload } from '../src/redis/payload-codec.ts'
import { settle } from '../src/redis/settlements.ts'
import { lyingEntry } from './support/lying-entries.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { rejection } from './support/rejection.ts'

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
  keys = partitionKeys(`line${made}`, 0, 'key')
})

const NOTHING = { trace: undefined, tickMs: undefined, trail: undefined }
const NONE = { plain: [], successes: [], failures: [] }

/** The lease as it is now, with the heartbeat of its owner. */
async function look(): Promise<Parameters<typeof takePartition>[4]> {
  const { beats, leases } = await sampleLeases(link, [keys])
  const [lease] = leases
  if (lease === undefined) throw new Error('no lease was sampled')
  return { ...lease, beat: beats.get(lease.owner) ?? '' }
}

const take = (me: string, seen: Awaited<ReturnType<typeof look>>): Promise<TakenPartition | undefined> =>
  takePartition(link, keys, membersKey([keys]), me, seen)

async function taken(me: string): Promise<TakenPartition> {
  const partition = await take(me, await look())
  if (partition === undefined) throw new Error(`${me} did not get the partition`)
  return partition
}

const beat = (member: string, value: string): Promise<number> =>
  link.use('HSET', (client) => client.hset(membersKey([keys]), member, value))

async function append(): Promise<string> {
  const blob = encodeEntry({ type: 'put', version: 1, atMs: 1, key: 'a', ...NOTHING }, packPayload({}))
  const [token] = await appendPlain(link, keys, [lyingEntry(blob)])
  return token ?? ''
}

test('of two who saw the same lease one gets the partition', async () => {
  await taken('first')
  const seen = await look()
  const both = await Promise.all([take('second', seen), take('third', seen)])
  expect(both.filter((each) => each !== undefined)).toHaveLength(1)
  expect((await look()).owner).toBe(both[0] === undefined ? 'third' : 'second')
  // Not even its owner takes it again by an old sighting.
  expect(await take('first', seen)).toBeUndefined()
})

test('an owner whose heartbeat moved since it was judged keeps the partition', async () => {
  await beat('first', '1:1')
  const { epoch } = await taken('first')
  const seen = await look()
  await beat('first', '2:1')
  expect(await take('second', seen)).toBeUndefined()
  expect(await look()).toMatchObject({ owner: 'first', epoch: String(epoch) })
  expect((await take('second', await look()))?.epoch ?? 0).toBeGreaterThan(epoch)
})

test('a lease that was given back is free for whoever saw it, and can not be given back twice', async () => {
  await beat('first', '1:1')
  const { epoch } = await taken('first')
  const own = leasedMembership(keys, 'first', epoch)
  expect(await releasePartition(link, own)).toBe(true)
  expect(await releasePartition(link, own)).toBe(false)
  expect((await taken('second')).charge).toBe('')
  expect(await releasePartition(link, own)).toBe(false)
  expect((await look()).owner).toBe('second')
})

test('whoever lost the lease reads nothing, settles nothing and holds nothing back', async () => {
  const token = await append()
  const entryId = token.slice(1)
  const old = leasedMembership(keys, 'first', (await taken('first')).epoch)
  const reader = await redis.open('reader')
  expect((await readNew(reader, old, 1, 10)).map((entry) => entry.token)).toEqual([token])
  const next = leasedMembership(keys, 'second', (await taken('second')).epoch)

  const ref = { source: 'commands', entryId, token, level: 0, turn: 0 } as const
  const event = encodeEntry({ type: 'has-put', version: 1, atMs: 1, key: 'a', ...NOTHING }, packPayload({}))
  const success = { ref, events: [event], followUps: [], append: undefined, record: '' } as const
  const trail = packPayload({ attempts: 1, level: 0, redrives: 0, failures: [] })
  const hold = { ref, move: 'hold', delayMs: 0, blob: trail, record: trail } as const
  for (const request of [
    { ...NONE, plain: [ref] },
    { ...NONE, successes: [success] },
    { ...NONE, failures: [hold] },
  ]) {
    expect((await settle(link, old, request)).isFenced).toBe(true)
  }
  expect((await rejection(readNew(reader, old, 1, 10))).message).toContain('NOGROUP')
  expect(await link.client.exists(keys.events, keys.held)).toBe(0)

  expect((await settle(link, next, { ...NONE, failures: [hold] })).failures).toEqual(['applied'])
  expect([...(await readHeld(link, keys)).keys()]).toEqual([entryId])
  expect(
    (await settle(link, next, { ...NONE, successes: [{ ...success, ref: { ...ref, turn: 1 } }] })).successes,
  ).toEqual(['applied'])
  expect(await link.client.xlen(keys.events)).toBe(1)
  expect(await link.client.exists(keys.held)).toBe(0)
})

test('a retry in place counts once a turn, however often it is told; what ends it leaves nothing of it behind', async () => {
  const entryId = (await append()).slice(1)
  const own = leasedMembership(keys, 'first', (await taken('first')).epoch)
  await readNew(await redis.open('reader'), own, 1, 10)
  const hold = async (turn: number, delayMs: number, error: string) => {
    const ref = { source: 'commands', entryId, token: `e${entryId}`, level: 0, turn } as const
    const trail = packPayload({ attempts: turn + 1, level: 0, redrives: 0, failures: [] })
    const failure = { ref, move: 'hold', delayMs, blob: trail, record: packPayload({ error }) } as const
    expect((await settle(link, own, { ...NONE, failures: [failure] })).failures).toEqual(['applied'])
    return (await readHeld(link, keys)).get(entryId)
  }
  const first = await hold(0, 60_000, 'first')
  expect(first).toMatchObject({ turn: 1, trail: { attempts: 1 } })
  expect(await hold(0, 0, 'first, told again')).toEqual(first)
  const second = await hold(1, 90_000, 'second')
  expect(second).toMatchObject({ turn: 2, trail: { attempts: 2 } })
  expect(await hold(0, 0, 'first, very late')).toEqual(second)

  const ref = { source: 'commands', entryId, token: `e${entryId}`, level: 0, turn: 2 } as const
  const dead = {
    ref,
    move: 'dead',
    delayMs: 0,
    blob: Buffer.from('letter'),
    record: packPayload({}),
  } as const
  expect((await settle(link, own, { ...NONE, failures: [dead] })).failures).toEqual(['applied'])
  expect(await link.client.exists(keys.held)).toBe(0)
  expect(await link.client.xlen(keys.dead)).toBe(1)
})

test('who died before it charged the suspects of the one before it passes them on', async () => {
  await taken('first')
  expect((await taken('second')).charge).toBe('first')
  // The second dies too, before it has run anything.
  const third = await taken('third')
  expect(third.charge).toBe('first')
  const own = leasedMembership(keys, 'third', third.epoch)
  expect(await chargeSuspects(link, own, 'first', new Map([['e1-0', 1]]))).toBe(true)
  expect((await taken('fourth')).charge).toBe('third')
})

test('who has lost the lease charges nobody', async () => {
  const old = leasedMembership(keys, 'first', (await taken('first')).epoch)
  await taken('second')
  expect(await chargeSuspects(link, old, 'before', new Map([['e1-0', 1]]))).toBe(false)
  expect(await link.client.exists(keys.crashes)).toBe(0)
  expect((await taken('third')).charge).toBe('first')
})

test.each([
  ['deleted', () => link.client.del(keys.commands)],
  ['flushed', () => link.client.flushall()],
])(
  'what a stream that was %s had not finished is lost, and stays so when newer commands are done',
  async (_, lose) => {
    const first = await taken('first')
    const token = await append()
    const reader = await redis.open('reader')
    expect(await readNew(reader, leasedMembership(keys, 'first', first.epoch), 10, 100)).toHaveLength(1)
    await lose()
    const second = await takePartition(link, keys, membersKey([keys]), 'second', await look(), true)
    expect(second?.state).toBe('lost')
    const next = await append()
    const membership = leasedMembership(keys, 'second', second?.epoch ?? 0)
    const [read] = await readNew(reader, membership, 10, 100)
    await settle(link, membership, {
      ...NONE,
      plain: [{ source: 'commands', entryId: read?.entryId ?? '', token: next, level: 0, turn: 0 }],
    })
    expect((await readStatus(link, keys, token)).state).toBe('lost')
    expect((await readStatus(link, keys, next)).state).toBe('done')
  },
)
