/**
 * Loss that can be detected is told, and ids do not repeat: a real server is killed and started again without the end of its
 * append-only file, as a machine crash leaves it, or as a replica that lagged behind.
 */
import { afterAll, afterEach, beforeEach, expect, test } from 'bun:test'
import { compareEntryIds } from '../src/redis/bytes.ts'
import { appendKeyed, appendPlain, cancelCommand, readStatus } from '../src/redis/command-log.ts'
import { type RedisLink, RedisLinks } from '../src/redis/connection.ts'
import { ensureGroup, readNew } from '../src/redis/consumer-group.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { LossWatch } from '../src/redis/loss-watch.ts'
import { sharedMembership } from '../src/redis/membership.ts'
import { appendOnce, readOutbox } from '../src/redis/outbox.ts'
import { trimCommands } from '../src/redis/partition-care.ts'
import { packPayload } from '../src/redis/payload-codec.ts'
import { settle } from '../src/redis/settlements.ts'
import { lyingEntry } from './support/lying-entries.ts'
import { type Balance, balances, World } from './support/projections.ts'
import { startTestRedis } from './support/redis-server.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { logBytes, tearLog } from './support/torn-log.ts'
import { until } from './support/until.ts'

const redis = await startTestRedis()
afterAll(() => redis[Symbol.asyncDispose]())

const keys = partitionKeys('orders', 0)
const streams = [{ name: 'orders', partitions: 2 }]
const blob = Buffer.from('a command')

let link: RedisLink
let links: RedisLinks
let telemetry: RecordedTelemetry
let looks = 0

/** A process of its own: what it was told of is known to nobody else. */
beforeEach(async () => {
  const clean = await redis.open()
  await clean.client.flushall()
  telemetry = new RecordedTelemetry()
  links = new RedisLinks(redis.links.options)
  link = links.open('command')
  await link.whenReady(5000)
  await new LossWatch({ telemetry, streams }).watch(link)
  looks = 0
})
afterEach(() => links.closeAll())

const alarms = (): { alarm: string; range: string[] }[] =>
  telemetry.of('alarm.raised').map(({ alarm, detail }) => ({
    alarm,
    range: [...detail.matchAll(/\d+-\d+/g)].map(([id]) => id),
  }))

/** The server crashes and comes back with only so much of its file, or all. */
async function crash(bytes?: number): Promise<void> {
  await redis.kill()
  if (bytes !== undefined) await tearLog(redis.directory, bytes)
  await redis.restart()
  await looked(link)
}

/** Resolves when what was sent on connecting has been answered. */
async function looked(by: RedisLink): Promise<void> {
  await by.whenReady(5000)
  // Of outboxes it asks twice.
  for (let i = 0; i < 3; i++) await by.use('a command behind it', (client) => client.ping())
  looks += 1
}

async function lastId(key: string): Promise<string> {
  const info = (await link.client.call('XINFO', 'STREAM', key)) as unknown[]
  return String(info[info.indexOf('last-generated-id') + 1])
}

async function append(count: number): Promise<string[]> {
  const tokens: string[] = []
  for (let i = 0; i < count; i++) tokens.push(...(await appendPlain(link, keys, [lyingEntry(blob)])))
  return tokens.map((token) => token.slice(1))
}

test('a crash that lost nothing raises nothing', async () => {
  await append(10)
  await crash()
  await crash()
  expect(looks).toBe(2)
  expect(alarms()).toEqual([])
})

test('lost commands are an alarm with the range, once; new ids come after the lost ones', async () => {
  const kept = await append(10)
  const bytes = await logBytes(redis.directory)
  const lost = await append(10)
  await crash(bytes)
  expect(alarms()).toEqual([{ alarm: 'commands-lost', range: [kept.at(-1) ?? '', lost.at(-1) ?? ''] }])
  expect(await lastId(keys.commands)).toBe(lost.at(-1) ?? '')
  const [next = ''] = await append(1)
  expect(compareEntryIds(next, lost.at(-1) ?? '')).toBeGreaterThan(0)
  await crash()
  expect(alarms()).toHaveLength(1)
})

test('many processes may look at once: each tells of what it knew, ids only move forward', async () => {
  const others: RedisLink[] = []
  const heard: RecordedTelemetry[] = []
  const kept = await append(1)
  const bytes = await logBytes(redis.directory)
  for (let i = 0; i < 4; i++) {
    const own = new RedisLinks(redis.links.options)
    const other = own.open('ingest')
    others.push(other)
    await other.whenReady(5000)
    const record = new RecordedTelemetry()
    heard.push(record)
    await new LossWatch({ telemetry: record, streams }).watch(other)
    await appendPlain(other, keys, [lyingEntry(blob)])
  }
  const [last = ''] = await append(1)
  await crash(bytes)
  await Promise.all(others.map(looked))
  expect(await lastId(keys.commands)).toBe(last)
  for (const record of [telemetry, ...heard]) {
    const told = record.of('alarm.raised')
    expect(told.map(({ alarm }) => alarm)).toEqual(['commands-lost'])
  }
  expect(alarms()[0]?.range.at(-1)).toBe(last)
  expect(kept).toHaveLength(1)
  for (const other of others) other.close()
})

test('who comes back after others have appended again still tells of the loss', async () => {
  const kept = await append(3)
  const bytes = await logBytes(redis.directory)
  const lost = await append(3)
  await redis.kill()
  await tearLog(redis.directory, bytes)
  // Somebody else appends before this process has looked.
  links.closeAll()
  await redis.restart()
  const other = await redis.open('ingest')
  await Bun.sleep(2)
  await appendPlain(other, keys, [lyingEntry(blob)])
  const marks = [...link.marks.entries()]
  link = links.open('command')
  await link.whenReady(5000)
  expect(marks).toEqual([...link.marks.entries()])
  await new LossWatch({ telemetry, streams }).watch(link)
  expect(alarms()).toEqual([{ alarm: 'commands-lost', range: [kept.at(-1) ?? '', lost.at(-1) ?? ''] }])
})

test('what was trimmed or cancelled in good order is no loss', async () => {
  await ensureGroup(link, keys)
  const ids = await append(250)
  const read = await readNew(link, sharedMembership(keys, 'me'), 1000, 10)
  expect(read).toHaveLength(250)
  await link.client.xack(keys.commands, 'workers', ...ids)
  await link.client.xgroup('SETID', keys.commands, 'workers', ids.at(-1) ?? '')
  await append(1)
  await readNew(link, sharedMembership(keys, 'me'), 1000, 10)
  await trimCommands(link, keys)
  const [cancelled = ''] = await append(1)
  expect(await cancelCommand(link, keys, `e${cancelled}`, packPayload({ atMs: 1 }))).toBe(true)
  await crash()
  // A stream that was emptied behind its floor.
  await link.client.xtrim(keys.commands, 'MAXLEN', 0)
  await link.client.hset(keys.floors, 'commands', cancelled)
  await crash()
  expect(looks).toBe(2)
  expect(alarms()).toEqual([])
})

test('a key that is known again is remembered as well, and lost ready commands and events are told', async () => {
  await ensureGroup(link, keys)
  const bytes = await logBytes(redis.directory)
  const mark = { digest: Buffer.alloc(16, 7), fingerprint: Buffer.alloc(8, 7) }
  const limits = { windowMs: 86_400_000, recordsMax: 1000 }
  const command = { entry: lyingEntry(blob), mark, deliver: undefined }
  const [stored] = await appendKeyed(link, keys, [command], limits, Date.now())
  expect(stored?.kind).toBe('stored')
  await link.client.xadd(keys.ready, '*', 'x1', blob)
  const [ready, first] = await readNew(link, sharedMembership(keys, 'me'), 10, 10)
  const ref = {
    source: 'commands',
    entryId: first?.entryId ?? '',
    token: first?.token ?? '',
    level: 0,
  } as const
  const effects = { followUps: [], append: undefined, record: '' } as const
  await settle(link, sharedMembership(keys, 'me'), {
    plain: [],
    successes: [{ ref, events: [blob], ...effects }],
    failures: [],
  })
  const event = await lastId(keys.events)
  await crash(bytes)
  expect(alarms()).toEqual([
    { alarm: 'commands-lost', range: ['0-0', first?.entryId ?? ''] },
    { alarm: 'ready-lost', range: ['0-0', ready?.entryId ?? ''] },
    { alarm: 'events-lost', range: ['0-0', event] },
  ])
  expect(await lastId(keys.events)).toBe(event)
})

test('a lost command stays lost in its status, also when newer ones are done; numbers of delayed ones do not repeat', async () => {
  await ensureGroup(link, keys)
  const limits = { windowMs: 86_400_000, recordsMax: 1000 }
  const delayed = { entry: lyingEntry(blob), mark: undefined, deliver: { delayMs: 60_000 } }
  const [, second] = await appendKeyed(link, keys, [delayed, delayed], limits, Date.now())
  const [kept = ''] = await append(1)
  const bytes = await logBytes(redis.directory)
  const lost = await append(3)
  const [third] = await appendKeyed(link, keys, [delayed], limits, Date.now())
  expect([second, third]).toEqual([
    { kind: 'stored', token: 'x2' },
    { kind: 'stored', token: 'x3' },
  ])
  await crash(bytes)
  expect(telemetry.of('alarm.raised').map(({ alarm }) => alarm)).toEqual(['commands-lost', 'delayed-lost'])
  const [next = ''] = await append(1)
  const read = await readNew(link, sharedMembership(keys, 'me'), 10, 10)
  expect(read.map(({ entryId }) => entryId)).toEqual([kept, next])
  await link.client.xack(keys.commands, 'workers', kept, next)
  const stateOf = async (token: string) => (await readStatus(link, keys, token)).state
  expect(await stateOf(`e${kept}`)).toBe('done')
  expect(await stateOf(`e${next}`)).toBe('done')
  for (const id of lost) expect(await stateOf(`e${id}`)).toBe('lost')
  expect(await stateOf('x3')).toBe('lost')
  const [fourth] = await appendKeyed(link, keys, [delayed], limits, Date.now())
  expect(fourth).toEqual({ kind: 'stored', token: 'x4' })
})

test('a stream that vanished goes on after its newest id', async () => {
  const ids = await append(3)
  await link.client.del(keys.commands)
  await crash()
  expect(alarms()).toEqual([{ alarm: 'commands-lost', range: ['0-0', ids.at(-1) ?? ''] }])
  const [next = ''] = await append(1)
  expect(compareEntryIds(next, ids.at(-1) ?? '')).toBeGreaterThan(0)
})

test('an outbox that ends before what others took over goes on after it, and nothing new is taken for old', async () => {
  const target = partitionKeys('orders', 1)
  const fields = ['t', 'orders.1', 'p', '0-0', 'd', '-1', 'b', blob] as const
  const future = `${Date.now() + 60_000}`
  await link.client.xadd(keys.outbox, `${future}-1`, ...fields)
  expect((await appendOnce(link, keys, 'orders.1', await readOutbox(link, keys, 10, ''))).appended).toBe(1)
  await link.client.del(keys.outbox)
  await crash()
  await telemetry.until('alarm.raised')
  expect(alarms()).toEqual([{ alarm: 'outbox-lost', range: ['0-0', `${future}-1`] }])
  await link.client.xadd(keys.outbox, '*', ...fields)
  expect((await appendOnce(link, keys, 'orders.1', await readOutbox(link, keys, 10, ''))).appended).toBe(1)
  expect(await link.client.xlen(target.commands)).toBe(2)
  await crash()
  expect(alarms()).toHaveLength(1)
})

test('views equal the fold of the events that are left, after a crash under running projectors', async () => {
  const projection = balances()
  const world = await World.create(redis, { partitions: 2, projections: [projection] })
  await using set = world.set({}, telemetry)
  await set.start()
  const log = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) await world.change(`acc${i % 7}`, i)
  }
  await log(200)
  await world.caughtUp(projection)
  // Cut in the middle of what the projectors go on to fold.
  const bytes = await logBytes(redis.directory)
  await log(200)
  await world.caughtUp(projection)
  const more = (await logBytes(redis.directory)) - bytes
  await redis.kill()
  await tearLog(redis.directory, bytes + Math.floor(more / 2))
  await redis.restart()
  await world.link.whenReady(5000)
  await log(50)
  await until('the views to be caught up', () => world.caughtUp(projection).then(() => true))
  const folded = new Map<string, number>()
  for (let partition = 0; partition < 2; partition++) {
    const rows = await world.link.client.xrangeBuffer(partitionKeys('accounts', partition).events, '-', '+')
    for (const [id] of rows) folded.set(`${partition}:${id.toString()}`, 0)
  }
  const seen = new Map<string, number>()
  for (const [partition, views] of (await world.stored(projection)).entries()) {
    for (const view of views.values()) {
      for (const position of (view as Balance).seen) seen.set(`${partition}:${position.split('/')[0]}`, 0)
    }
  }
  expect([...seen.keys()].sort()).toEqual([...folded.keys()].sort())
  expect(folded.size).toBeGreaterThan(250)
  expect(folded.size).toBeLessThan(450)
})
