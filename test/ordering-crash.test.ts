/** A crasher in an ordered stream: three crashes and a dead letter, its key goes on after it, nobody else is charged. */
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { Dig, Dug, dig, mined } from './fixtures/ordered-crasher/ordered-crasher.ts'
import { testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const ROOT = join(import.meta.dir, '..')
const KEYS = [0, 1].map((partition) => partitionKeys('mined', partition, 'key'))

function startWorker(redisUrl: string): Subprocess {
  const options = ['--redis-url', redisUrl, '--admin-port', '0', '--log-level', 'silent']
  return Bun.spawn(['bun', join(ROOT, 'src/cli/main.ts'), 'start', 'work', ...options], {
    cwd: ROOT,
    env: { ...Bun.env, MILLRACE_WORKERS_DIR: join(ROOT, 'test/fixtures/ordered-crasher') },
    stdio: ['ignore', 'ignore', 'ignore'],
  })
}

test('a crasher dies after three crashes, what follows it in its key runs, and nobody else is charged', async () => {
  await using redis = await startTestRedis(['--appendfsync', 'everysec'])
  const fleet = await testFleet(redis, [mined, Dig, Dug, dig])
  const payloads = [0, 1, 2, 3].flatMap((n) => Array.from({ length: 60 }, (_, k) => ({ key: `k${k}`, n })))
  await fleet.append(Dig, payloads)
  let crashes = 0
  let isStopping = false
  const workers = new Set<Subprocess>()
  const keep = () => {
    const worker = startWorker(redis.url)
    workers.add(worker)
    void worker.exited.then(() => {
      workers.delete(worker)
      if (isStopping || crashes > 20) return
      crashes += 1
      keep()
    })
  }
  keep()
  keep()
  const events = async () => (await Promise.all([0, 1].map((p) => fleet.events('mined', p)))).flat()
  const dead = async () => (await Promise.all([0, 1].map((p) => fleet.deadLetters('mined', p)))).flat()
  try {
    await until('239 events', async () => (await events()).length >= 239, 40_000)
    await until('a dead letter', async () => (await dead()).length > 0)
  } finally {
    isStopping = true
    for (const worker of workers) worker.kill('SIGTERM')
    await Promise.all([...workers].map((worker) => worker.exited))
  }
  expect((await dead()).map(({ entry }) => unpackPayloadOf(entry))).toEqual([{ key: 'k13', n: 1 }])
  expect(crashes).toBe(3)
  const seen = (await events()).map(
    ({ entry }) => unpackPayloadOf(entry) as { key: string; n: number; attempt: number },
  )
  expect(seen).toHaveLength(239)
  expect(new Set(seen.map(({ key, n }) => `${key} ${n}`)).size).toBe(239)
  expect(new Set(seen.map(({ attempt }) => attempt))).toEqual(new Set([1]))
  expect(seen.filter(({ key }) => key === 'k13').map(({ n }) => n)).toEqual([0, 2, 3])
  const { client } = fleet.link
  for (const keys of KEYS) expect(await client.exists(keys.crashes, keys.held)).toBe(0)
  expect(await client.keys('*running*')).toEqual([])
}, 60_000)
