/** A process whose event loop stands still is ended; one that was paused from outside goes on. */
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { partitionKeys } from '../src/redis/keys.ts'
import { CONSUMER } from './fixtures/heartbeat/heartbeat.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const FIXTURE = join(import.meta.dir, 'fixtures/heartbeat/heartbeat.ts')
const { beats } = partitionKeys('main', 0)

function start(redis: TestRedis, mode: string) {
  return Bun.spawn(['bun', FIXTURE, redis.url, mode], { stdout: 'ignore', stderr: 'ignore' })
}

test('a process that was stopped for longer than a handler may take goes on beating', async () => {
  await using redis = await startTestRedis()
  const link = await redis.open()
  const beat = () => link.client.hget(beats, CONSUMER)
  const child = start(redis, 'idle')
  try {
    await until('the first beat', async () => (await beat()) !== null)
    process.kill(child.pid, 'SIGSTOP')
    await Bun.sleep(2500)
    const before = await beat()
    process.kill(child.pid, 'SIGCONT')
    await until('another beat', async () => child.killed || (await beat()) !== before, 5000)
    await Bun.sleep(300)
    expect(child.signalCode).toBeNull()
  } finally {
    child.kill('SIGKILL')
    await child.exited
  }
}, 20_000)

test('a pause in the middle of work is no fault of the event loop either', async () => {
  await using redis = await startTestRedis()
  const link = await redis.open()
  const count = async () => Number((await link.client.hget(beats, CONSUMER))?.split(':')[0] ?? 0)
  const end = join(redis.directory, 'end')
  const child = Bun.spawn(['bun', FIXTURE, redis.url, 'spin', end], { stdout: 'pipe', stderr: 'ignore' })
  try {
    const reader = child.stdout.getReader()
    let said = ''
    while (!said.includes('spinning')) said += Buffer.from((await reader.read()).value ?? []).toString()
    // Long enough for the thread to have seen the last tick of the loop.
    const first = await count()
    await until('two beats', async () => (await count()) > first + 1)
    process.kill(child.pid, 'SIGSTOP')
    await Bun.sleep(2500)
    const before = await count()
    process.kill(child.pid, 'SIGCONT')
    // It is still in the midst of it; the first beat may have been on its way when the pause came.
    await until(
      'more beats, or the end',
      async () => child.signalCode !== null || (await count()) > before + 2,
    )
    await Bun.write(end, '')
    expect(child.signalCode).toBeNull()
  } finally {
    child.kill('SIGKILL')
    await child.exited
  }
}, 20_000)

test('a process whose event loop stands still is ended', async () => {
  await using redis = await startTestRedis()
  const child = start(redis, 'block')
  await Promise.race([child.exited, Bun.sleep(8000)])
  const { signalCode } = child
  child.kill('SIGKILL')
  await child.exited
  expect(signalCode).toBe('SIGKILL')
}, 20_000)
