/** `rediss://`: a whole process behind TLS, by name and by address, and what it says when the server can't be trusted. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { join } from 'node:path'
import type { Socket, TCPSocketListener } from 'bun'
import { makeProject } from './support/project.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'

const CERTIFICATE = join(import.meta.dir, 'fixtures/tls/certificate.pem')
const KEY = join(import.meta.dir, 'fixtures/tls/key.pem')

let redis: TestRedis
let secured: TCPSocketListener<{ inner: Promise<Socket> }>

/** TLS in front of a server's own socket: not every redis-server is built with it. */
beforeAll(async () => {
  redis = await startTestRedis(['--appendfsync', 'everysec'])
  secured = Bun.listen<{ inner: Promise<Socket> }>({
    hostname: '127.0.0.1',
    port: 0,
    tls: { cert: Bun.file(CERTIFICATE), key: Bun.file(KEY) },
    socket: {
      open(outer) {
        const inner = Bun.connect({
          unix: redis.url.slice('unix://'.length),
          socket: { data: (_, bytes) => void outer.write(bytes), close: () => void outer.end() },
        })
        outer.data = { inner }
      },
      data: (outer, bytes) => void outer.data.inner.then((inner) => inner.write(bytes)),
      close: (outer) => void outer.data.inner.then((inner) => inner.end()),
    },
  })
})
afterAll(async () => {
  secured.stop(true)
  await redis[Symbol.asyncDispose]()
})

for (const host of ['localhost', '127.0.0.1']) {
  test(`a process works behind rediss://${host}`, async () => {
    await using project = await makeProject()
    const REDIS_URL = `rediss://${host}:${secured.port}`
    const running = project.start([], { REDIS_URL, NODE_EXTRA_CA_CERTS: CERTIFICATE })
    await running.untilReady()
    expect(running.line('redis')).toContain(REDIS_URL)
    expect((await fetch(`${running.line('public')}/readyz`)).status).toBe(200)
    expect(await running.stop()).toBe(0)
  })
}

test('a certificate that nobody vouches for is refused, with the reason', async () => {
  await using project = await makeProject()
  const REDIS_URL = `rediss://127.0.0.1:${secured.port}`
  const running = project.start([], { REDIS_URL, MILLRACE_REDIS_WAIT_MS: '300' })
  expect(await running.ended()).toBe(69)
  expect(running.lines).toMatch(/Redis is not reachable: .*self.signed/i)
})
