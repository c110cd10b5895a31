/** Order by key: one after another, retries included, whoever dies, pauses, comes or goes; other keys go on meanwhile. */
import { expect, test } from 'bun:test'
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { z } from 'zod'
import { DeadLetters } from '../src/dead-letters/dead-letters.ts'
import {
  defineBatchHandler,
  defineCommand,
  defineEvent,
  defineHandler,
  defineStream,
  done,
  reject,
  retry,
} from '../src/index.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { cancelCommand } from '../src/redis/command-log.ts'
import { unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { FLEET_META_KEY, partitionKeys, streamMetaKey } from '../src/redis/keys.ts'
import { membersKey, sampleLeases, takePartition } from '../src/redis/partition-lease.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { doStep, orderViolations, parseLedger, Step, Stepped, steps } from './fixtures/ordered/ordered.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const ROOT = join(import.meta.dir, '..')
const STREAM_KEYS = Array.from({ length: 4 }, (_, partition) => partitionKeys('steps', partition, 'key'))

async function pendingOf(fleet: TestFleet): Promise<number> {
  let sum = 0
  for (const keys of STREAM_KEYS) {
    const groups = (await fleet.link.client.xinfo('GROUPS', keys.commands).catch(() => [])) as unknown[][]
    for (const group of groups) sum += Number(group[group.indexOf('pending') + 1])
  }
  return sum
}

async function eventCounts(fleet: TestFleet): Promise<Map<string, number>> {
  const counts = new Map<string, number>()
  for (const { partition } of STREAM_KEYS) {
    for (const { entry } of await fleet.events('steps', partition)) {
      const { key, n } = unpackPayloadOf(entry) as { key: string; n: number }
      counts.set(`${key} ${n}`, (counts.get(`${key} ${n}`) ?? 0) + 1)
    }
  }
  return counts
}

async function owners(redis: TestRedis): Promise<string[]> {
  const { leases } = await sampleLeases(await redis.open(), STREAM_KEYS)
  return leases.map(({ owner }) => owner)
}

/** Steps 0…n of many keys, round by round, so that neighbours in a partition are of different keys. */
function stepsOf(keys: number, from: number, to: number): { key: string; n: number }[] {
  const all: { key: string; n: number }[] = []
  for (let n = from; n < to; n++) for (let k = 0; k < keys; k++) all.push({ key: `k${k}`, n })
  return all
}

test('two workers share the partitions; each key goes step by step, retries included, each step once', async () => {
  await using redis = await startTestRedis()
  const folder = mkdtempSync(join(tmpdir(), 'millrace-ordered-'))
  const ledger = join(folder, 'ledger')
  Bun.env['ORDERED_LEDGER'] = ledger
  try {
    const fleet = await testFleet(redis, [steps, Step, Stepped, doStep])
    await fleet.append(Step, stepsOf(40, 0, 20))
    await using first = await fleet.worker()
    await until('the first to own all', async () =>
      (await owners(redis)).every((owner) => owner === first.consumer),
    )
    await using second = await fleet.worker()
    await fleet.append(Step, stepsOf(40, 20, 30))
    await until('even shares', async () => {
      const list = await owners(redis)
      return list.filter((owner) => owner === second.consumer).length === 2 && !list.includes('')
    })
    await until('all to be done', async () => (await eventCounts(fleet)).size === 1200, 30_000)
    const calls = parseLedger(readFileSync(ledger, 'utf8'))
    expect(orderViolations(calls)).toEqual([])
    const counts = await eventCounts(fleet)
    expect([...counts.values()].every((count) => count === 1)).toBe(true)
    const failures = (n: number): number => (n % 7 === 3 ? 2 : n % 5 === 2 ? 1 : 0)
    const wanted = stepsOf(40, 0, 30).reduce((sum, { n }) => sum + 1 + failures(n), 0)
    expect(calls).toHaveLength(wanted)
    await until('nothing to be pending', async () => (await pendingOf(fleet)) === 0)
    for (const keys of STREAM_KEYS)
      expect(await fleet.link.client.exists(keys.held, keys.crashes, keys.due)).toBe(0)
    expect(fleet.telemetry.of('partition.lost')).toEqual([])
  } finally {
    delete Bun.env['ORDERED_LEDGER']
    rmSync(folder, { recursive: true, force: true })
  }
}, 60_000)

test('a leaving worker gives its partitions back at once; nothing runs twice', async () => {
  await using redis = await startTestRedis()
  const fleet = await testFleet(redis, [steps, Step, Stepped, doStep])
  const first = await fleet.worker()
  await using second = await fleet.worker()
  await until(
    'shares',
    async () => new Set(await owners(redis)).size === 2 && !(await owners(redis)).includes(''),
  )
  await fleet.append(Step, stepsOf(40, 0, 10))
  await first.stop()
  await until('the other to own all', async () =>
    (await owners(redis)).every((owner) => owner === second.consumer),
  )
  await until('all to be done', async () => (await eventCounts(fleet)).size === 400)
  expect([...(await eventCounts(fleet)).values()].every((count) => count === 1)).toBe(true)
  expect(fleet.telemetry.of('entries.redelivered')).toEqual([])
  expect(await fleet.link.client.hkeys(membersKey(STREAM_KEYS))).toEqual([second.consumer])
}, 60_000)

const item = z.object({ key: z.string(), n: z.number() })
const line = defineStream({ name: 'line', ordering: 'key', parkedMax: 100 })
const Put = defineCommand({ type: 'line.put', payload: item, stream: line, key: ({ key }) => key })
const HasPut = defineEvent({ type: 'line.has-put', payload: item })
const LINE = partitionKeys('line', 0, 'key')

test('a key in retry holds up only its own later commands; a rejected one lets them go', async () => {
  await using redis = await startTestRedis()
  const seen: string[] = []
  let open = false
  const handle = defineBatchHandler(
    Put,
    (batch) =>
      batch.map((command) => {
        const { key, n } = command.payload
        seen.push(`${key}${n}`)
        if (key === 'a' && n === 1 && !open) return retry('closed', { delayMs: 20 })
        if (key === 'c' && n === 0) return reject('never')
        command.emit(HasPut, command.payload)
        return done({ n })
      }),
    { attemptsMax: 100 },
  )
  const fleet = await testFleet(redis, [line, Put, HasPut, handle])
  const all = await fleet.append(
    Put,
    [0, 1, 2].flatMap((n) => ['a', 'b', 'c'].map((key) => ({ key, n }))),
  )
  await using _worker = await fleet.worker()
  await until('the others to pass', async () => (await fleet.events('line')).length >= 6)
  expect(seen.filter((name) => name.startsWith('b'))).toEqual(['b0', 'b1', 'b2'])
  expect(seen).not.toContain('a2')
  const [retrying, waiting, rejected] = [all[3], all[6], all[2]]
  if (retrying === undefined || waiting === undefined || rejected === undefined) throw new Error('no command')
  expect(await fleet.status(retrying)).toMatchObject({ state: 'retrying', record: { error: 'closed' } })
  expect((await fleet.status(waiting)).state).toBe('processing')
  expect((await fleet.status(rejected)).state).toBe('dead')
  expect(await cancelCommand(fleet.link, LINE, retrying.token, Buffer.alloc(0))).toBe(false)
  open = true
  await until('the key to go on', async () => (await fleet.events('line')).length === 8)
  expect(seen.filter((name) => name.startsWith('a')).filter((name, i, list) => list[i - 1] !== name)).toEqual(
    ['a0', 'a1', 'a2'],
  )
  expect((await fleet.status(retrying)).state).toBe('done')
  expect(await fleet.link.client.exists(LINE.held)).toBe(0)
})

test('delayed and redriven commands are new arrivals, and are told done when they are', async () => {
  await using redis = await startTestRedis()
  let broken = true
  const Later = defineCommand({ type: 'line.later', payload: item, stream: line, key: ({ key }) => key })
  const handlePut = defineHandler(Put, (command) => {
    if (command.payload.n === 1) command.send(Later, { key: command.key, n: 10 }, { delayMs: 30 })
    return command.payload.n > 1 && broken ? reject('broken') : done()
  })
  const order: number[] = []
  const handleLater = defineHandler(Later, ({ payload }) => {
    order.push(payload.n)
    return done({ late: true })
  })
  const fleet = await testFleet(redis, [line, Put, HasPut, Later, handlePut, handleLater])
  await using _worker = await fleet.worker()
  const [, dead, other] = await fleet.append(
    Put,
    [1, 2, 3].map((n) => ({ key: 'a', n })),
  )
  if (dead === undefined || other === undefined) throw new Error('no command')
  const delayed = { stream: 'line', partition: 0, token: 'x1' }
  await until('the delayed one', async () => (await fleet.status(delayed)).state === 'done')
  expect((await fleet.status(delayed)).record.result).toEqual({ late: true })
  expect(order).toEqual([10])
  await until('the dead letters', async () => (await fleet.status(other)).state === 'dead')
  broken = false
  const { link, catalogue, ids, telemetry } = fleet
  const letters = new DeadLetters({ command: link, catalogue, ids, clock: SYSTEM_CLOCK, telemetry })
  await using _letters = letters
  await letters.start()
  await letters.redrive(ids.format(dead.stream, dead.partition, dead.token))
  // Also by a process that does not declare the stream: it learns from Redis how that is ordered.
  const Other = defineCommand({ type: 'other.do', payload: item })
  const strange = { command: link, catalogue: buildCatalogue([Other]), ids, clock: SYSTEM_CLOCK, telemetry }
  await using stranger = new DeadLetters(strange)
  await stranger.start()
  await stranger.redrive(ids.format(other.stream, other.partition, other.token))
  await until('the first redriven one', async () => (await fleet.status(dead)).state === 'done')
  await until('the other one', async () => (await fleet.status(other)).state === 'done')
  expect((await fleet.status(dead)).record).toMatchObject({ redrives: 1 })
  expect(await link.client.exists(partitionKeys('line', 0).ready)).toBe(0)
})

test('at its bound a partition waits, says so, and goes on', async () => {
  await using redis = await startTestRedis()
  let open = false
  const handled = new Set<string>()
  const handle = defineBatchHandler(
    Put,
    (batch) =>
      batch.map(({ payload }) => {
        if (payload.key === 'a' && !open) return retry('closed', { delayMs: 20 })
        handled.add(`${payload.key}${payload.n}`)
        return done()
      }),
    { attemptsMax: 100, concurrencyMax: 1 },
  )
  const fleet = await testFleet(redis, [line, Put, HasPut, handle])
  await fleet.append(
    Put,
    Array.from({ length: 300 }, (_, n) => ({ key: 'a', n })),
  )
  await fleet.append(Put, [{ key: 'b', n: 0 }])
  await using _worker = await fleet.worker()
  await fleet.telemetry.until('partition.filled', undefined, 5000)
  const [group] = (await fleet.link.client.xinfo('GROUPS', LINE.commands)) as unknown[][]
  expect(Number(group?.[group.indexOf('pending') + 1])).toBeLessThanOrEqual(101)
  expect(handled.has('b0')).toBe(false)
  open = true
  await until('all to be done', () => handled.size === 301)
  await fleet.telemetry.until('partition.freed')
  // Single commands that came and went at the bound are not told one by one.
  expect(fleet.telemetry.of('partition.filled').length).toBeLessThan(60)
})

test('who has lost the lease settles nothing: its answer is refused and counted, the new owner runs the command', async () => {
  await using redis = await startTestRedis()
  const gate = Promise.withResolvers<void>()
  let calls = 0
  const epochs: (number | undefined)[] = []
  const handle = defineHandler(Put, async (command, { epoch }) => {
    calls += 1
    epochs.push(epoch)
    if (calls === 1) await gate.promise
    command.emit(HasPut, command.payload)
    return done()
  })
  const fleet = await testFleet(redis, [line, Put, HasPut, handle])
  await fleet.append(Put, [{ key: 'a', n: 0 }])
  await using worker = await fleet.worker()
  await until('the first call', () => calls === 1)
  // A take by somebody who believes that the owner is dead, as after a long pause of it.
  const { beats, leases } = await sampleLeases(fleet.link, [LINE])
  const [lease] = leases
  if (lease === undefined) throw new Error('no lease')
  let taken: Awaited<ReturnType<typeof takePartition>>
  for (let i = 0; i < 50 && taken === undefined; i++) {
    const { beats: now } = await sampleLeases(fleet.link, [LINE])
    const seen = { ...lease, beat: now.get(lease.owner) ?? '' }
    taken = await takePartition(fleet.link, LINE, membersKey([LINE]), 'thief', seen)
  }
  expect(beats.has(worker.consumer)).toBe(true)
  expect(taken?.epoch).toBeGreaterThan(Number(lease.epoch))
  gate.resolve()
  await fleet.telemetry.until('settlements.refused')
  await fleet.telemetry.until('partition.lost')
  expect(await fleet.events('line')).toEqual([])
  // The thief never beats: it is found dead, and the command runs again under the next epoch.
  await until('the second run', async () => (await fleet.events('line')).length === 1)
  expect(calls).toBe(2)
  expect(epochs[1]).toBeGreaterThan(taken?.epoch ?? Number.POSITIVE_INFINITY)
})

test('a vanished stream is taken again, with an alarm, under an epoch that was never there', async () => {
  await using redis = await startTestRedis()
  const handle = defineHandler(Put, (command) => {
    command.emit(HasPut, command.payload)
    return done()
  })
  const fleet = await testFleet(redis, [line, Put, HasPut, handle])
  await using _worker = await fleet.worker()
  await fleet.append(Put, [{ key: 'a', n: 0 }])
  await until('the first', async () => (await fleet.events('line')).length === 1)
  const before = Number(await fleet.link.client.hget(LINE.lease, 'epoch'))
  await Bun.sleep(2)
  await fleet.link.client.flushall()
  await fleet.telemetry.until('partition.lost')
  await fleet.telemetry.until('alarm.raised', (all) => all.some(({ alarm }) => alarm === 'group-vanished'))
  // Who starts now finds the stream as it was, and knows the ids that were given out.
  await until('the fleet to be restored', async () => {
    const [ordering, secret] = [fleet.link.client.hget(streamMetaKey('line'), 'ordering'), FLEET_META_KEY]
    return (await ordering) === 'key' && (await fleet.link.client.hexists(secret, 'secret')) === 1
  })
  const alarms = fleet.telemetry.of('alarm.raised').filter(({ alarm }) => alarm === 'group-vanished').length
  await fleet.append(Put, [{ key: 'a', n: 1 }])
  await until('the second', async () => (await fleet.events('line')).length === 1)
  expect(Number(await fleet.link.client.hget(LINE.lease, 'epoch'))).toBeGreaterThan(before)
  await fleet.link.client.del(LINE.commands)
  await fleet.telemetry.until(
    'alarm.raised',
    (all) => all.filter(({ alarm }) => alarm === 'group-vanished').length > alarms,
  )
  await fleet.append(Put, [{ key: 'a', n: 2 }])
  await until('the third', async () => (await fleet.events('line')).length === 2)
})

test('what was retried in place when its group, or its stream, vanished is told done or lost, and leaves nothing behind', async () => {
  await using redis = await startTestRedis()
  const attempts: number[] = []
  let isOpen = false
  const handle = defineHandler(
    Put,
    ({ attempt }) => {
      attempts.push(attempt)
      return isOpen ? done() : retry('closed', { delayMs: 60 })
    },
    { attemptsMax: 100 },
  )
  const fleet = await testFleet(redis, [line, Put, HasPut, handle])
  const { client } = fleet.link
  await using _worker = await fleet.worker()
  const [first] = await fleet.append(Put, [{ key: 'a', n: 0 }])
  if (first === undefined) throw new Error('no command')
  const alarms = (name: string) => (all: { alarm: string }[]) => all.some(({ alarm }) => alarm === name)
  await until('the third attempt', () => attempts.includes(3))
  await client.xgroup('DESTROY', LINE.commands, `o${await client.hget(LINE.lease, 'epoch')}`)
  await fleet.telemetry.until('alarm.raised', alarms('group-vanished'))
  const before = Math.max(...attempts)
  isOpen = true
  await until('it to be done', async () => (await fleet.status(first)).state === 'done')
  expect(attempts.at(-1)).toBeGreaterThanOrEqual(before)
  expect(await client.exists(LINE.held)).toBe(0)
  isOpen = false
  const [second] = await fleet.append(Put, [{ key: 'a', n: 1 }])
  if (second === undefined) throw new Error('no command')
  await until('a retry', async () => (await fleet.status(second)).state === 'retrying')
  await client.del(LINE.commands)
  await fleet.telemetry.until('alarm.raised', alarms('entries-lost'))
  expect((await fleet.status(second)).state).toBe('lost')
  expect(await client.exists(LINE.held)).toBe(0)
})

function startWorker(redisUrl: string, ledger: string): Subprocess {
  return Bun.spawn(
    [
      ...['bun', join(ROOT, 'src/cli/main.ts'), 'start', 'work', '--redis-url', redisUrl],
      ...['--admin-port', '0', '--log-level', 'silent'],
    ],
    {
      cwd: ROOT,
      env: { ...Bun.env, ORDERED_LEDGER: ledger, MILLRACE_WORKERS_DIR: join(ROOT, 'test/fixtures/ordered') },
      stdio: ['ignore', 'ignore', 'ignore'],
    },
  )
}

test('order holds while workers are killed and paused at random', async () => {
  const seed = Number(Bun.env['ORDER_SEED'] ?? Math.floor(Math.random() * 1e6))
  console.info(`order under faults: ORDER_SEED=${seed}`)
  let state = seed
  const random = (): number => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    return state / 2_147_483_648
  }
  await using redis = await startTestRedis(['--appendfsync', 'everysec'])
  const folder = mkdtempSync(join(tmpdir(), 'millrace-ordered-'))
  const ledger = join(folder, 'ledger')
  appendFileSync(ledger, '')
  const workers = [1, 2, 3].map(() => startWorker(redis.url, ledger))
  const fleet = await testFleet(redis, [steps, Step, Stepped, doStep])
  let stopped = false
  try {
    const feed = (async () => {
      for (let n = 0; n < 120 && !stopped; n += 4) {
        await fleet.append(Step, stepsOf(30, n, n + 4))
        await Bun.sleep(80)
      }
    })()
    let kills = 0
    let pauses = 0
    const end = performance.now() + 10_000
    while (performance.now() < end) {
      await Bun.sleep(300 + random() * 500)
      const at = Math.floor(random() * workers.length)
      const victim = workers[at]
      if (victim === undefined) continue
      if (random() < 0.5) {
        victim.kill('SIGKILL')
        kills += 1
        workers[at] = startWorker(redis.url, ledger)
      } else {
        victim.kill('SIGSTOP')
        pauses += 1
        void Bun.sleep(random() * 3000).then(() => victim.kill('SIGCONT'))
      }
    }
    await feed
    await until('all to be done', async () => (await eventCounts(fleet)).size === 3600, 40_000)
    await until('nothing to be pending', async () => (await pendingOf(fleet)) === 0)
    expect(kills).toBeGreaterThan(0)
    expect(pauses).toBeGreaterThan(0)
    expect([...(await eventCounts(fleet)).values()].every((count) => count === 1)).toBe(true)
    expect(orderViolations(parseLedger(readFileSync(ledger, 'utf8')))).toEqual([])
  } finally {
    stopped = true
    for (const worker of workers) worker.kill('SIGKILL')
    await Promise.all(workers.map((worker) => worker.exited))
    rmSync(folder, { recursive: true, force: true })
  }
}, 90_000)
