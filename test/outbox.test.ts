/** The outbox and its targets: each entry is taken over once, in order, and never past one that is missing. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import type { RedisLink } from '../src/redis/connection.ts'
import { type PartitionKeys, partitionKeys } from '../src/redis/keys.ts'
import { appendOnce, type OutboxEntry, readOutbox, trimOutbox } from '../src/redis/outbox.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { OutboxRelay } from '../src/runtime/outbox-relay.ts'
import { FlakyLink } from './support/flaky-link.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { until } from './support/until.ts'

let redis: TestRedis
let link: RedisLink
let source: PartitionKeys
let target: PartitionKeys
let made = 0

beforeAll(async () => {
  redis = await startTestRedis()
  link = await redis.open()
})
afterAll(() => redis[Symbol.asyncDispose]())
beforeEach(() => {
  made += 1
  source = partitionKeys(`from${made}`, 0)
  target = partitionKeys(`to${made}`, 0)
})

/** A chain of entries for one target, as a settlement writes them. */
function chain(count: number): OutboxEntry[] {
  return Array.from({ length: count }, (_, i) => ({
    id: `${i + 1}-0`,
    target: `to${made}.0`,
    previousId: i === 0 ? '0-0' : `${i}-0`,
    delayMs: -1,
    blob: Buffer.from(`blob ${i + 1}`),
  }))
}

const relay = (entries: readonly OutboxEntry[]) => appendOnce(link, source, `to${made}.0`, entries)

async function arrived(): Promise<string[]> {
  const entries = await link.client.xrange(target.commands, '-', '+')
  return entries.map(([, fields]) => fields[1] ?? '')
}

test('what is relayed twice, in part, or by two at once arrives once and in order', async () => {
  const entries = chain(6)
  expect(await relay(entries.slice(0, 3))).toEqual({ appended: 3, gap: false })
  expect(await relay(entries.slice(0, 3))).toEqual({ appended: 0, gap: false })
  expect(await relay(entries.slice(1, 5))).toEqual({ appended: 2, gap: false })
  const both = await Promise.all([relay(entries), relay(entries)])
  expect(both.reduce((sum, { appended }) => sum + appended, 0)).toBe(1)
  expect(await arrived()).toEqual(entries.map(({ blob }) => blob.toString()))
})

test('a delayed one that is relayed twice is scheduled once', async () => {
  const [entry] = chain(1)
  if (entry === undefined) throw new Error('no entry')
  const delayed = { ...entry, delayMs: 60_000 }
  await relay([delayed])
  expect((await relay([delayed])).appended).toBe(0)
  expect(await link.client.zcard(target.due)).toBe(1)
})

test('past a missing one nothing is taken; once it has come, the rest follows', async () => {
  const entries = chain(5)
  expect(await relay([...entries.slice(0, 2), ...entries.slice(3)])).toEqual({ appended: 2, gap: true })
  expect(await relay(entries.slice(4))).toEqual({ appended: 0, gap: true })
  expect(await arrived()).toEqual(['blob 1', 'blob 2'])
  expect(await relay(entries.slice(2))).toEqual({ appended: 3, gap: false })
  expect(await arrived()).toEqual(entries.map(({ blob }) => blob.toString()))
})

test('sources do not disturb each other, and a trimmed outbox keeps what comes after', async () => {
  await relay(chain(2))
  const other = partitionKeys(`from${made}`, 1)
  expect(await appendOnce(link, other, `to${made}.0`, chain(2))).toEqual({ appended: 2, gap: false })
  for (const id of ['1-0', '2-0', '3-0']) {
    await link.client.xadd(source.outbox, id, 't', 'x.0', 'p', '0-0', 'd', '-1', 'b', 'blob')
  }
  await trimOutbox(link, source, '2-0')
  expect((await readOutbox(link, source, 10, '')).map(({ id }) => id)).toEqual(['3-0'])
})

/** Writes these entries to the outbox, as a settlement does. */
async function fill(entries: readonly OutboxEntry[]): Promise<void> {
  for (const { id, target: to, previousId, delayMs, blob } of entries) {
    await link.client.xadd(source.outbox, id, 't', to, 'p', previousId, 'd', delayMs, 'b', blob)
  }
}

test('an entry leaves the outbox only after its target has answered', async () => {
  const flaky = new FlakyLink(redis.links.options, 1, [])
  await flaky.whenReady(5000)
  flaky.swallow = 'append-once'
  await fill(chain(3))
  const telemetry = new RecordedTelemetry()
  await using relay = new OutboxRelay({
    confirmed: undefined,
    ...{ link: flaky, keys: source, clock: SYSTEM_CLOCK, telemetry, pauseMaxMs: 20 },
  })
  await relay.start()
  await until('the relay to send', () => flaky.swallowed > 0)
  const kept = await link.client.xlen(source.outbox)
  flaky.release()
  expect(kept).toBe(3)
  await until('an empty outbox', async () => (await link.client.xlen(source.outbox)) === 0)
  expect(await arrived()).toEqual(['blob 1', 'blob 2', 'blob 3'])
  await relay.stop()
  flaky.close()
})

test('what a gap keeps from its target stays in the outbox, with an alarm', async () => {
  await fill(chain(3).slice(1))
  const telemetry = new RecordedTelemetry()
  await using relay = new OutboxRelay({
    confirmed: undefined,
    ...{ link, keys: source, clock: SYSTEM_CLOCK, telemetry, pauseMaxMs: 5 },
  })
  await relay.start()
  await telemetry.until('alarm.raised')
  expect(telemetry.of('alarm.raised').map(({ alarm }) => alarm)).toEqual(['outbox-gap'])
  // What was missing comes after all, as from a restored server: the rest has been kept for it.
  await appendOnce(link, source, `to${made}.0`, chain(1))
  await until('all to arrive', async () => (await arrived()).length === 3, 5000)
  await until('an empty outbox', async () => (await link.client.xlen(source.outbox)) === 0)
})
