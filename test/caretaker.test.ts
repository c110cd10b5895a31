/** What the caretaker tells people about: a projection that keeps events from being trimmed, long past their retention. */
import { expect, test } from 'bun:test'
import { defineStream } from '../src/index.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { Caretaker } from '../src/runtime/caretaker.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { startTestRedis } from './support/redis-server.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { until } from './support/until.ts'

const HOUR_MS = 3_600_000
const stream = defineStream({ name: 'main', retention: { eventsMs: 48 * HOUR_MS } })
const keys = partitionKeys('main', 0)

test('a reader that left events unread for the retention and a day is an alarm, once; one that has read all is none', async () => {
  await using redis = await startTestRedis()
  const link = await redis.open()
  const telemetry = new RecordedTelemetry()
  const atHours = (hours: number) => `${Date.now() - hours * HOUR_MS}-0`
  const [first, second, third] = [atHours(200), atHours(73), atHours(71)]
  for (const id of [first, second, third]) await link.client.xadd(keys.events, id, 'e1-0', 'x')
  await link.client.hset(keys.readers, 'retired@1', first, 'present@2', third)
  await using caretaker = new Caretaker({
    ...{ link, keys, stream, telemetry },
    clock: SYSTEM_CLOCK,
    trimEveryMs: 2,
    isPressed: () => false,
  })
  await caretaker.start()
  await telemetry.until('alarm.raised')
  await moreRounds(link)
  const alarms = telemetry.of('alarm.raised')
  expect(alarms).toHaveLength(1)
  expect(alarms[0]).toMatchObject({ alarm: 'reader-pins-events', stream: 'main' })
  expect(alarms[0]?.detail).toContain('retired@1 has not read the events of main.0 for 73 h')

  await link.client.hset(keys.readers, 'retired@1', second)
  await moreRounds(link)
  expect(telemetry.of('alarm.raised')).toHaveLength(1)
  await link.client.hset(keys.readers, 'retired@1', first)
  await until('the alarm again', () => telemetry.of('alarm.raised').length === 2)
  await link.client.hset(keys.readers, 'retired@1', third)
  await link.client.hset(keys.readers, 'present@2', third)
  await moreRounds(link)
  expect(telemetry.of('alarm.raised')).toHaveLength(2)
})

/** Waits until the caretaker has looked at the events three times more; only that asks for their memory usage. */
async function moreRounds(link: RedisLink): Promise<void> {
  const rounds = async () => {
    const stats = await link.client.info('commandstats')
    return Number(/^cmdstat_memory\|usage:calls=(\d+)/m.exec(stats)?.[1] ?? 0)
  }
  const before = await rounds()
  await until('three more rounds', async () => (await rounds()) >= before + 3)
}
