/** A link that goes silent without being closed is noticed by whoever waits on it, and dialled again. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { RedisProxy } from '../scripts/faults/proxy.ts'
import { freePorts } from '../scripts/fleet/free-ports.ts'
import { RedisServer } from '../scripts/fleet/redis-server.ts'
import { errorCode } from '../src/contracts/errors.ts'
import { RedisLinks } from '../src/redis/connection.ts'
import { rejection } from './support/rejection.ts'
import { SILENT_TELEMETRY } from './support/telemetry.ts'

setDefaultTimeout(60_000)

const BLOCK_MS = 100
const GRACE_MS = 1500

const folder = mkdtempSync(join(tmpdir(), 'millrace-silent-'))
const { signal } = new AbortController()
let redis: RedisServer
let proxy: RedisProxy

beforeAll(async () => {
  const [port = 0] = await freePorts(1)
  redis = new RedisServer({ folder, port, fsync: 'everysec', signal })
  await redis.start()
  proxy = await RedisProxy.open(port)
})
afterAll(async () => {
  await proxy.close()
  await redis.end()
  rmSync(folder, { recursive: true, force: true })
})

test.each(['reader', 'command', 'ingest'] as const)('a silent %s link comes back by itself', async (role) => {
  const links = new RedisLinks({
    address: { url: proxy.url },
    telemetry: SILENT_TELEMETRY,
    random: Math.random,
    blockMs: BLOCK_MS,
    commandTimeoutMs: 60_000,
  })
  try {
    const link = links.open(role)
    await link.whenReady(10_000)
    const { generation } = link
    expect(proxy.blackHole(role)).toHaveLength(1)
    const startedMs = performance.now()
    const error = await rejection(link.use('PING', (client) => client.ping()))
    expect(performance.now() - startedMs).toBeGreaterThanOrEqual(BLOCK_MS + GRACE_MS - 50)
    expect(errorCode(error)).toBe('redis.unknown')
    await link.whenReady(10_000)
    expect(link.generation).toBe(generation + 1)
    expect(await link.use('PING', (client) => client.ping())).toBe('PONG')
  } finally {
    links.closeAll()
  }
})
