/** Workers that die for real: a crasher is found, its neighbours are not charged, a killed worker's entries run again soon. */
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { Ran, Run, run } from './fixtures/crasher/crasher.ts'
import { testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const ROOT = join(import.meta.dir, '..')

function startWorker(redisUrl: string): Subprocess {
  return Bun.spawn(
    [
      'bun',
      join(ROOT, 'src/cli/main.ts'),
      'start',
      'work',
      '--redis-url',
      redisUrl,
      '--admin-port',
      '0',
      '--log-level',
      'silent',
    ],
    {
      cwd: ROOT,
      env: { ...Bun.env, MILLRACE_WORKERS_DIR: join(ROOT, 'test/fixtures/crasher') },
      stdout: 'ignore',
      stderr: 'ignore',
    },
  )
}

test('a command that crashes its worker dies after three crashes; its 199 neighbours are done, uncharged', async () => {
  await using redis = await startTestRedis(['--appendfsync', 'everysec'])
  const fleet = await testFleet(redis, [Run, Ran, run])
  await fleet.append(
    Run,
    Array.from({ length: 200 }, (_, n) => ({ n })),
  )
  let crashes = 0
  let stopping = false
  const workers = new Set<Subprocess>()
  const keep = () => {
    const worker = startWorker(redis.url)
    workers.add(worker)
    void worker.exited.then(() => {
      workers.delete(worker)
      if (stopping || crashes > 20) return
      crashes += 1
      keep()
    })
  }
  keep()
  keep()
  try {
    await until(
      '199 events and one dead letter',
      async () => {
        const [events, dead] = await Promise.all([fleet.events('crash'), fleet.deadLetters('crash')])
        return events.length >= 199 && dead.length > 0
      },
      40_000,
    )
  } finally {
    stopping = true
    for (const worker of workers) worker.kill('SIGTERM')
    await Promise.all([...workers].map((worker) => worker.exited))
  }
  const dead = await fleet.deadLetters('crash')
  expect(dead.map(({ entry }) => unpackPayloadOf(entry))).toEqual([{ n: 13 }])
  expect(crashes).toBe(3)
  const events = await fleet.events('crash')
  expect(events).toHaveLength(199)
  expect(new Set(events.map((event) => event.token)).size).toBe(199)
  const attempts = events.map(({ entry }) => (unpackPayloadOf(entry) as { attempt: number }).attempt)
  expect(new Set(attempts)).toEqual(new Set([1]))
  expect(await fleet.pending('crash')).toBe(0)
  expect(await fleet.link.client.hlen(partitionKeys('crash', 0).crashes)).toBe(0)
}, 60_000)
