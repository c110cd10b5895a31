/** An owner that was paused, lost its partitions meanwhile and wakes: it starts nothing of what its next owner is past already. */
import { expect, test } from 'bun:test'
import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { partitionKeys } from '../src/redis/keys.ts'
import { sampleLeases } from '../src/redis/partition-lease.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { PauseWatch } from '../src/runtime/pause-watch.ts'
import { doStep, orderViolations, parseLedger, Step, Stepped, steps } from './fixtures/ordered/ordered.ts'
import { testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

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
    expect(orderViolations(calls())).toEqual([])
  } finally {
    for (const worker of workers) worker.kill('SIGKILL')
    await Promise.all(workers.map((worker) => worker.exited))
    rmSync(folder, { recursive: true, force: true })
  }
}, 60_000)

test('a pause is known before any timer has told of it', () => {
  let nowMs = 1000
  const watch = new PauseWatch({ ...SYSTEM_CLOCK, monotonicMs: () => nowMs }, 300)
  nowMs += 299
  expect(watch.count).toBe(0)
  watch.tick()
  nowMs += 300
  expect(watch.count).toBe(1)
  expect(watch.count).toBe(1)
  nowMs += 400
  watch.tick()
  expect(watch.count).toBe(2)
})
