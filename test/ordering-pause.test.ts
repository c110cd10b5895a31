/** An owner that was paused, lost its partitions meanwhile and wakes: it starts nothing of what its next owner is past already. */
import { expect, test } from 'bun:test'
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import type { RedisLink } from '../src/redis/connection.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { leasedMembership } from '../src/redis/membership.ts'
import { sampleLeases } from '../src/redis/partition-lease.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { LeaseProof } from '../src/runtime/lease-proof.ts'
import { doStep, orderViolations, parseLedger, Step, Stepped, steps } from './fixtures/ordered/ordered.ts'
import { testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

/** Of the fixture's handler. */
const BATCH_MAX = 50
const ROOT = join(import.meta.dir, '..')
const KEYS = Array.from({ length: 4 }, (_, partition) => partitionKeys('steps', partition, 'key'))

function startWorker(redisUrl: string, ledger: string): Subprocess {
  const options = ['--redis-url', redisUrl, '--admin-port', '0', '--log-level', 'silent']
  return Bun.spawn(['bun', join(ROOT, 'src/cli/main.ts'), 'start', 'work', ...options], {
    cwd: ROOT,
    env: { ...Bun.env, ORDERED_LEDGER: ledger, MILLRACE_WORKERS_DIR: join(ROOT, 'test/fixtures/ordered') },
    stdio: ['ignore', 'ignore', 'ignore'],
  })
}

test('workers that are paused in turn under load, until they lose their partitions, keep every key in order', async () => {
  await using redis = await startTestRedis(['--appendfsync', 'everysec'])
  const folder = mkdtempSync(join(tmpdir(), 'millrace-ordered-'))
  const ledger = join(folder, 'ledger')
  appendFileSync(ledger, '')
  const fleet = await testFleet(redis, [steps, Step, Stepped, doStep])
  const payloads = Array.from({ length: 30 * 800 }, (_, i) => ({ key: `k${i % 30}`, n: Math.floor(i / 30) }))
  await fleet.append(Step, payloads)
  const leases = async () => (await sampleLeases(fleet.link, KEYS)).leases
  const isShared = async () => {
    const owners = Map.groupBy(await leases(), ({ owner }) => owner)
    return !owners.has('') && owners.size === 2 && [...owners.values()].every(({ length }) => length === 2)
  }
  const workers = [startWorker(redis.url, ledger), startWorker(redis.url, ledger)]
  const calls = () => parseLedger(readFileSync(ledger, 'utf8'))
  try {
    for (const worker of [...workers, ...workers]) {
      await until('both to have two', isShared)
      const before = await leases()
      worker.kill('SIGSTOP')
      await until('the other one to own all', async () => {
        const now = await leases()
        return new Set(now.map(({ owner }) => owner)).size === 1 && now[0]?.owner !== ''
      })
      expect((await leases()).some(({ epoch }, i) => epoch !== before[i]?.epoch)).toBe(true)
      // The next owner gets ahead of what the paused one has in hand.
      const count = calls().length
      await until('some progress', () => calls().length > count + 500)
      worker.kill('SIGCONT')
    }
    await until('both to have two', isShared)
    // A pause may fall between the last proof of a lease and the handler's write: then that one batch is written late.
    const { timely, lateBatches } = withoutLate(readFileSync(ledger, 'utf8'))
    expect(orderViolations(parseLedger(timely))).toEqual([])
    expect(lateBatches).toBeLessThanOrEqual(2 * workers.length)
  } finally {
    for (const worker of workers) worker.kill('SIGKILL')
    await Promise.all(workers.map((worker) => worker.exited))
    rmSync(folder, { recursive: true, force: true })
  }
}, 60_000)

/** Lines of an epoch of a key after one of a later epoch are late; those of one epoch next to each other are one batch. */
function withoutLate(ledger: string): { readonly timely: string; readonly lateBatches: number } {
  const epochs = new Map<string, number>()
  const timely: string[] = []
  let lateBatches = 0
  let lateBefore = -1
  let sizeBefore = 0
  for (const line of ledger.split('\n').filter((text) => text !== '')) {
    const [key = '', , , text] = line.split(' ')
    const epoch = Number(text)
    const newest = Math.max(epoch, epochs.get(key) ?? 0)
    epochs.set(key, newest)
    if (epoch === newest) {
      timely.push(line)
      lateBefore = -1
      continue
    }
    sizeBefore = epoch === lateBefore ? sizeBefore + 1 : 1
    if (sizeBefore % BATCH_MAX === 1) lateBatches += 1
    lateBefore = epoch
  }
  return { timely: timely.join('\n'), lateBatches }
}

test('a lease that was proved long ago is asked for again, and an answer that is itself old does not count', async () => {
  await using redis = await startTestRedis()
  const link = await redis.open()
  const [keys] = KEYS
  if (keys === undefined) throw new Error('no partition')
  const membership = leasedMembership(keys, 'me', 7)
  await link.client.hset(keys.lease, 'owner', 'me', 'epoch', 7)
  let nowMs = 1000
  let isSlow = false
  let lost = 0
  const clock = { ...SYSTEM_CLOCK, monotonicMs: () => nowMs }
  const slow: RedisLink = Object.create(link)
  let asked = 0
  slow.use = async (what, work) => {
    asked += 1
    const answer = await link.use(what, work)
    // As if the process had been frozen while the answer lay in its socket.
    if (isSlow && asked < 3) nowMs += 1000
    return answer
  }
  const proof = new LeaseProof({
    ...{ link: slow, membership, clock, sinceMs: nowMs, lookEveryMs: 300, heartbeatEveryMs: 300 },
    onLost: () => {
      lost += 1
    },
  })
  nowMs += 499
  expect(proof.isOurs()).toBe(true)
  nowMs += 1
  expect(await proof.isOurs()).toBe(true)
  expect(asked).toBe(1)
  nowMs += 400
  expect(proof.isOurs()).toBe(true)
  proof.prove(nowMs)
  nowMs += 499
  expect(proof.isOurs()).toBe(true)
  nowMs += 1
  isSlow = true
  expect(await proof.isOurs()).toBe(true)
  expect(asked).toBe(3)
  await link.client.hset(keys.lease, 'epoch', 8)
  nowMs += 500
  expect(await proof.isOurs()).toBe(false)
  expect(lost).toBe(1)
})
