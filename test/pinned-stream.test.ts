/** One old pending entry keeps a stream from being trimmed; beyond a bound, what is finished behind it goes all the same. */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { defineStream } from '../src/index.ts'
import { GROUP, orderedGroup, partitionKeys } from '../src/redis/keys.ts'
import { dropFinished, trimCommands } from '../src/redis/partition-care.ts'
import { Caretaker } from '../src/runtime/caretaker.ts'
import { type Clock, SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { until } from './support/until.ts'

setDefaultTimeout(60_000)

const SEED = Number(Bun.env['MILLRACE_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const stream = defineStream({ name: 'pinned' })
const keys = partitionKeys('pinned', 0)

/** mulberry32 */
function dice(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

test('whatever is pending or not delivered stays, whatever is finished goes, for any pattern', async () => {
  console.info(`seed ${SEED}`)
  const random = dice(SEED)
  await using redis = await startTestRedis()
  const { client } = await redis.open()
  const link = await redis.open()
  for (let round = 0; round < 25; round++) {
    await client.flushall()
    // An ordered partition's group is named by the epoch of its lease.
    const group = round % 3 === 0 ? orderedGroup(1_700_000_000_000 + round) : GROUP
    await client.xgroup('CREATE', keys.commands, group, '0', 'MKSTREAM')
    const total = 1 + Math.floor(random() * 600)
    const ids: string[] = []
    for (let i = 0; i < total; i++) ids.push((await client.xadd(keys.commands, '*', '-', 'x')) ?? '')
    const delivered = Math.floor(random() * (total + 1))
    if (delivered > 0) {
      await client.xreadgroup('GROUP', group, 'w', 'COUNT', delivered, 'STREAMS', keys.commands, '>')
    }
    const share = random() ** 3
    const done = ids.slice(0, delivered).filter(() => random() > share)
    if (done.length > 0) await client.xack(keys.commands, group, ...done)
    const gone = new Set(done)
    const firstPending = ids.slice(0, delivered).find((id) => !gone.has(id))
    let after: string | undefined
    do {
      const drop = await dropFinished(link, keys, 'commands', after, 0)
      after = drop.after
    } while (after !== undefined)
    const left = (await client.xrange(keys.commands, '-', '+')).map(([id]) => id)
    // What lies before the first pending entry is for trimming.
    const isBefore = (id: string) => firstPending !== undefined && ids.indexOf(id) < ids.indexOf(firstPending)
    const kept = ids.filter((id) => !gone.has(id) || firstPending === undefined || isBefore(id))
    expect(left).toEqual(kept)
    const [pending] = await client.xpending(keys.commands, group)
    expect(Number(pending)).toBe(delivered - done.length)
  }
})

test('an entry that stays pending keeps the stream no longer than a few seconds; its status and the others hold', async () => {
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [stream])
  const { client } = fleet.link
  await fleet.link.run('ensure-group', [keys.commands, keys.ready, keys.floors], [GROUP])
  const ids: string[] = []
  for (let i = 0; i < 40_000; i += 1000) {
    const pipeline = client.pipeline()
    for (let j = 0; j < 1000; j++) pipeline.xadd(keys.commands, '*', '-', 'x'.repeat(100))
    for (const [, id] of (await pipeline.exec()) ?? []) ids.push(String(id))
  }
  await client.xreadgroup('GROUP', GROUP, 'w', 'COUNT', 39_000, 'STREAMS', keys.commands, '>')
  const pinned = [ids[0], ids[7000]]
  const finished = ids.slice(0, 39_000).filter((id) => !pinned.includes(id))
  for (let i = 0; i < finished.length; i += 1000) {
    await client.xack(keys.commands, GROUP, ...finished.slice(i, i + 1000))
  }
  const before = Number(await client.call('MEMORY', 'USAGE', keys.commands, 'SAMPLES', '0'))
  expect((await trimCommands(fleet.link, keys)).commands).toBe(0)
  // A clock that runs two hundred times as fast.
  const clock: Clock = {
    ...SYSTEM_CLOCK,
    monotonicMs: () => performance.now() * 200,
    sleep: (ms, signal) => SYSTEM_CLOCK.sleep(ms / 200, signal),
  }
  const telemetry = new RecordedTelemetry()
  await using caretaker = new Caretaker({
    ...{ link: fleet.link, keys, stream, telemetry, clock },
    trimEveryMs: 500,
    isPressed: () => false,
  })
  await caretaker.start()
  await until('what is beyond the bound to go', async () => (await client.xlen(keys.commands)) <= 10_002)
  const after = Number(await client.call('MEMORY', 'USAGE', keys.commands, 'SAMPLES', '0'))
  expect(after).toBeLessThan(before / 3)
  const status = async (id: string | undefined) =>
    (await fleet.status({ stream: 'pinned', partition: 0, token: `e${id}` })).state
  expect(await status(ids[0])).toBe('processing')
  expect(await status(ids[7000])).toBe('processing')
  expect(await status(ids[3000])).toBe('done')
  expect(await status(ids[39_500])).toBe('accepted')
  // The alarm, with the id, comes after ten minutes of that clock.
  await telemetry.until('alarm.raised')
  expect(telemetry.of('alarm.raised')[0]).toMatchObject({ alarm: 'entry-pins-stream' })
  expect(telemetry.of('alarm.raised')[0]?.detail).toContain(String(ids[0]))
})
