/**
 * A whole fleet behind Sentinel: API, two workers and a projection as processes of their own, by one address. The primary is
 * killed under load; each command is retried under its key until it is accepted, and in the end each counts once in the views.
 */
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { DEFAULT_STREAM } from '../src/contracts/stream.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { makeProject } from './support/project.ts'
import { isBuiltWithTls, startReplicatedRedis } from './support/replicated-redis.ts'
import { until } from './support/until.ts'

const AUTHORS = 20
const TLS = join(import.meta.dir, 'fixtures/tls')

test('through a failover each accepted command has its effect once, and the views tell so', async () => {
  await using redis = await startReplicatedRedis({ replicas: 2, sentinels: 3 })
  await using project = await makeProject()
  const [first] = redis.servers
  const env = { REDIS_URL: redis.url, MILLRACE_DURABILITY: 'replicated', MILLRACE_REPLICAS: '1' }
  const roles = ['api', 'work', 'work', 'project'].map((role) => project.start([role], env))
  await Promise.all(roles.map((each) => each.untilReady()))
  const api = roles[0]
  const base = api?.line('public') ?? ''
  expect(api?.line('redis')).toContain(redis.url)

  const counts = { accepted: 0, replayed: 0, refused: 0 }
  const problems = new Set<string>()
  let stopped = false
  let next = 0
  const produce = async (): Promise<void> => {
    while (!stopped) {
      const n = next++
      for (;;) {
        const answer = await fetch(`${base}/v1/commands/note.write`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', 'idempotency-key': `"note-${n}"` },
          body: JSON.stringify({ author: `author-${n % AUTHORS}`, text: String(n) }),
        })
        const body = (await answer.json()) as { deduplicated?: boolean; type?: string; durability?: string }
        if (answer.status === 202) {
          expect(body.durability).toBe('replicated')
          counts.accepted += 1
          if (body.deduplicated === true) counts.replayed += 1
          break
        }
        expect(answer.status).toBe(503)
        counts.refused += 1
        problems.add(body.type ?? '')
        await Bun.sleep(20)
      }
    }
  }
  const producers = Array.from({ length: 8 }, produce)
  await until('load', () => counts.accepted > 500)
  await first?.kill()
  const killed = counts.accepted
  await until('commands to be accepted again', () => counts.accepted > killed + 500)
  stopped = true
  await Promise.all(producers)
  console.log(`${JSON.stringify(counts)} ${[...problems].join(' ')}`)

  const total = async (): Promise<number> => {
    let sum = 0
    for (let author = 0; author < AUTHORS; author++) {
      const view = await fetch(`${base}/v1/views/notes-by-author/author-${author}`)
      if (view.ok) sum += ((await view.json()) as { count: number }).count
    }
    return sum
  }
  await until('every command to count', async () => (await total()) >= counts.accepted)
  expect(await total()).toBe(counts.accepted)
  const link = await redis.open()
  await until('nothing to be pending', async () => {
    const [pending] = await link.client.xpending(partitionKeys(DEFAULT_STREAM, 0).commands, 'workers')
    return Number(pending) === 0
  })
  const readiness = await fetch(`${base}/readyz?verbose`)
  expect([readiness.status, await readiness.text()]).toEqual([200, expect.anything()])
  const metrics = await (await fetch(`${api?.line('admin')}/metrics`)).text()
  expect(metrics).toMatch(/^millrace_replicas_following 1$/m)
  expect(metrics).toMatch(/^millrace_replicas_needed 1$/m)
  expect(await Promise.all(roles.map((each) => each.stop()))).toEqual([0, 0, 0, 0])
}, 90_000)

test.skipIf(!isBuiltWithTls())(
  'TLS and passwords, for servers and Sentinels; none is shown',
  async () => {
    const secured = {
      certificate: join(TLS, 'certificate.pem'),
      key: join(TLS, 'key.pem'),
      password: 'hunter2',
    }
    await using redis = await startReplicatedRedis({ replicas: 1, sentinels: 3, secured })
    await using project = await makeProject()
    const running = project.start(['all'], {
      ...{ REDIS_URL: redis.url, NODE_EXTRA_CA_CERTS: secured.certificate, LOG_LEVEL: 'debug' },
    })
    await running.untilReady()
    expect(running.line('redis')).toContain('rediss+sentinel://127.0.0.1:')
    const send = (text: string) =>
      fetch(`${running.line('public')}/v1/commands/note.write`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ author: 'ada', text }),
      })
    expect((await send('before')).status).toBe(202)
    await redis.servers[0]?.kill()
    await until(
      'commands to be accepted by the new primary',
      async () => (await send('after')).status === 202,
    )
    expect(`${running.lines}${running.log}`).not.toContain(secured.password)
    expect(await running.stop()).toBe(0)
  },
  60_000,
)

test('a name that no Sentinel knows is told, and so is a Sentinel given as a server', async () => {
  await using redis = await startReplicatedRedis({ replicas: 1, sentinels: 3 })
  await using project = await makeProject()
  const wait = { MILLRACE_REDIS_WAIT_MS: '1000' }
  const misnamed = project.start(['work'], { ...wait, REDIS_URL: `${redis.url}x` })
  expect(await misnamed.ended()).toBe(69)
  expect(misnamed.lines).toContain('No such master with that name')
  const direct = project.start(['work'], {
    ...wait,
    REDIS_URL: `redis://127.0.0.1:${redis.sentinels[0]?.port}`,
  })
  expect(await direct.ended()).toBe(78)
  expect(direct.lines).toContain('redis+sentinel://host1:26379')
}, 60_000)

test('tier replicated does not start where too few replicas follow, but a worker does', async () => {
  await using redis = await startReplicatedRedis({ replicas: 1 })
  await using project = await makeProject()
  const env = { REDIS_URL: redis.url, MILLRACE_DURABILITY: 'replicated', MILLRACE_REPLICAS: '2' }
  const api = project.start(['api'], { ...env, MILLRACE_REDIS_WAIT_MS: '500' })
  expect(await api.ended()).toBe(78)
  expect(api.lines).toMatch(/MILLRACE_REPLICAS=2, and the primary has 1 .*ALLOW_UNSAFE=missing-replicas/)
  const worker = project.start(['work'], env)
  await worker.untilReady()
  expect(await worker.stop()).toBe(0)
}, 60_000)
