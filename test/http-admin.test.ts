/** The admin app: metrics in both formats, streams, schedules, health; against a real Redis and a real listener. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { CommandBus } from '../src/commands/command-bus.ts'
import { defineCommand } from '../src/contracts/command.ts'
import { defineSchedule } from '../src/contracts/schedule.ts'
import { defineStream } from '../src/contracts/stream.ts'
import { Schedules } from '../src/cron/schedules.ts'
import { DeadLetters } from '../src/dead-letters/dead-letters.ts'
import { createAdminApp } from '../src/http/admin-app.ts'
import { Metrics } from '../src/http/metrics.ts'
import { HttpServer } from '../src/http/server.ts'
import { readOverviews } from '../src/http/stream-routes.ts'
import { ApiKeys } from '../src/identity/api-keys.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { joinFleet } from '../src/redis/fleet.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { TelemetryHub } from '../src/runtime/telemetry-hub.ts'
import { rawExchange } from './support/raw-http.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'

const stream = defineStream({ name: 'orders', partitions: 2 })
const place = defineCommand({
  type: 'order.place',
  stream,
  payload: z.object({ orderId: z.string() }),
  key: (p) => p.orderId,
})
const nightly = defineSchedule({
  name: 'nightly',
  command: place,
  payload: { orderId: 'night' },
  cron: '0 3 * * *',
})
const catalogue = buildCatalogue([stream, place, nightly])

let redis: TestRedis
let command: RedisLink
let bus: CommandBus
let metrics: Metrics
let server: HttpServer
const telemetry = new TelemetryHub()
let ready = true

beforeAll(async () => {
  redis = await startTestRedis()
  command = await redis.open()
  const ids = await joinFleet(command, catalogue.streams.values())
  const clock = SYSTEM_CLOCK
  bus = new CommandBus({ link: await redis.open('ingest'), catalogue, ids, clock, telemetry })
  await bus.start()
  metrics = new Metrics({ catalogue, telemetry, streams: () => readOverviews(command, catalogue.streams) })
  metrics.watchWaiting(bus)
  const { app } = createAdminApp({
    ...{ command, catalogue, metrics, telemetry },
    schedules: new Schedules({ command, catalogue, ids }),
    deadLetters: new DeadLetters({ command, catalogue, ids, clock, telemetry }),
    keys: new ApiKeys({
      ...{ command, clock, telemetry, names: { streams: [], projections: [] } },
      onChange: async () => undefined,
    }),
    health: () => [{ name: 'part', health: () => ({ ready, detail: ready ? 'fine' : 'stuck' }) }],
    started: () => true,
    draining: () => false,
    isLocal: true,
  })
  server = new HttpServer({ name: 'admin', app, host: '127.0.0.1', port: 0, clock, telemetry })
  await server.start()
})
afterAll(async () => {
  await server.stop()
  await bus.stop()
  metrics.close()
  await redis[Symbol.asyncDispose]()
})

const get = (path: string, init?: RequestInit): Promise<Response> => fetch(`${server.url}${path}`, init)
const json = async (path: string, init?: RequestInit): Promise<Record<string, unknown>> =>
  (await (await get(path, init)).json()) as Record<string, unknown>

/** Value of a sample in the text format. */
function sample(text: string, name: string): number | undefined {
  const line = text.split('\n').find((each) => each.startsWith(`${name} `))
  return line === undefined ? undefined : Number(line.slice(name.length + 1))
}

describe('metrics', () => {
  test('count what telemetry told, by declared names only', async () => {
    await bus.submitMany(
      Array.from({ length: 7 }, () => ({ type: 'order.place', payload: { orderId: 'x' } })),
    )
    await bus.submit('order.place', { orderId: 'x' }, { idempotencyKey: 'm' })
    await bus.submit('order.place', { orderId: 'x' }, { idempotencyKey: 'm' })
    telemetry.emit('commands.accepted', { stream: 'somebody-elses', partition: 0, count: 3, deduplicated: 0 })
    telemetry.emit('batch.handled', {
      stream: 'orders',
      type: 'order.place',
      count: 5,
      durationMs: 20,
      failed: false,
    })
    const response = await get('/metrics')
    expect(response.headers.get('content-type')).toContain('text/plain; version=0.0.4')
    const text = await response.text()
    expect(sample(text, 'millrace_commands_accepted_total{stream="orders"}')).toBe(8)
    expect(sample(text, 'millrace_commands_deduplicated_total{stream="orders"}')).toBe(1)
    expect(sample(text, 'millrace_commands_accepted_total{stream="other"}')).toBe(3)
    expect(sample(text, 'millrace_batch_handling_seconds_count{stream="orders",type="order.place"}')).toBe(1)
    expect(sample(text, 'millrace_batch_handling_seconds_sum{stream="orders",type="order.place"}')).toBe(0.02)
    expect(text).not.toContain('somebody-elses')
  })

  test('every series is ours, in base units, and the process is among them', async () => {
    const text = await (await get('/metrics')).text()
    const names = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
    expect(names.length).toBeGreaterThan(20)
    expect(names.filter((line) => !line.startsWith('millrace_'))).toEqual([])
    expect(text).not.toMatch(/_(ms|milliseconds|kb)\b/)
    expect(sample(text, 'millrace_process_resident_memory_bytes')).toBeGreaterThan(10_000_000)
    expect(sample(text, 'millrace_stream_entries{stream="orders"}')).toBe(8)
    expect(sample(text, 'millrace_bus_waiting_commands')).toBe(0)
  })

  test('OpenMetrics for who accepts it', async () => {
    const response = await get('/metrics', {
      headers: { accept: 'application/openmetrics-text; version=1.0.0' },
    })
    expect(response.headers.get('content-type')).toContain('application/openmetrics-text; version=1.0.0')
    const text = await response.text()
    expect(text.trimEnd()).toEndWith('# EOF')
    expect(text).toContain('# TYPE millrace_commands_accepted counter')
    expect(sample(text, 'millrace_commands_accepted_total{stream="orders"}')).toBe(8)
  })

  test('answers are counted by route and status', async () => {
    await get('/nothing')
    await get('/livez')
    const text = await (await get('/metrics')).text()
    expect(
      sample(text, 'millrace_http_responses_total{listener="admin",route="unmatched",status="404"}'),
    ).toBe(1)
    expect(
      sample(text, 'millrace_http_responses_total{listener="admin",route="health.live",status="200"}'),
    ).toBe(1)
  })
})

describe('streams', () => {
  test('tell depth, lag, pending, age and consumers, summed and by partition', async () => {
    const keys = partitionKeys('orders', 1)
    await command.use('XADD', (client) => client.xadd(keys.commands, '1000-0', '-', 'old'))
    await command.use('XADD', (client) => client.xadd(keys.commands, '*', '-', 'new'))
    await command.use('XGROUP', (client) => client.xgroup('CREATE', keys.commands, 'workers', '0'))
    await command.use('XREADGROUP', (client) =>
      client.xreadgroup('GROUP', 'workers', 'me', 'COUNT', 1, 'STREAMS', keys.commands, '>'),
    )
    const list = await json('/v1/streams')
    const [orders] = list['data'] as Record<string, unknown>[]
    expect(orders).toMatchObject({
      name: 'orders',
      partitionCount: 2,
      pending: 1,
      consumerCount: 1,
      groups: ['workers'],
    })
    expect(orders?.['oldestAgeMs']).toBeGreaterThan(1_000_000)
    const one = await json('/v1/streams/orders')
    const partitions = one['partitions'] as Record<string, unknown>[]
    expect(partitions[1]).toMatchObject({ partition: 1, pending: 1, consumers: [{ name: 'me', pending: 1 }] })
    expect(partitions[1]?.['depth']).toBe(Number(partitions[1]?.['lag']) + 1)
  })

  test('a lag that Redis has lost is an upper bound, and says so', async () => {
    const keys = partitionKeys('orders', 1)
    const last = await command.use('XREVRANGE', (client) =>
      client.xrevrange(keys.commands, '+', '-', 'COUNT', 1),
    )
    await command.use('XADD', (client) => client.xadd(keys.commands, '*', '-', 'newer'))
    await command.use('XDEL', (client) => client.xdel(keys.commands, last[0]?.[0] ?? ''))
    const one = await json('/v1/streams/orders')
    const [, partition] = one['partitions'] as { lag: number; lagIsExact: boolean; depth: number }[]
    expect(partition?.lagIsExact).toBe(false)
    expect(partition?.lag).toBe((partition?.depth ?? 0) - 1)
  })

  test('an unknown one is 404 with a hint', async () => {
    const response = await get('/v1/streams/order')
    expect(response.status).toBe(404)
    expect(await response.json()).toMatchObject({ detail: expect.stringContaining('Did you mean "orders"?') })
  })
})

describe('schedules', () => {
  test('are listed, run, paused and resumed', async () => {
    const list = await json('/v1/schedules')
    expect(list['data']).toMatchObject([{ name: 'nightly', command: 'order.place', state: 'unregistered' }])
    const run = await get('/v1/schedules/nightly/run', { method: 'POST' })
    expect(run.status).toBe(202)
    expect(await run.json()).toMatchObject({
      id: expect.stringMatching(/^orders\./),
      tick: expect.stringContaining('T'),
    })
    const pause = { method: 'POST' }
    expect(await json('/v1/schedules/nightly/pause', pause)).toEqual({
      name: 'nightly',
      paused: true,
      changed: true,
    })
    expect(await json('/v1/schedules/nightly/pause', pause)).toMatchObject({ changed: false })
    expect(await json('/v1/schedules/nightly')).toMatchObject({
      paused: true,
      lastRuns: [{ id: expect.any(String) }],
    })
    expect(await json('/v1/schedules/nightly/resume', pause)).toEqual({
      name: 'nightly',
      paused: false,
      changed: true,
    })
    const keys = partitionKeys('orders', 0)
    await command.client.hset(keys.schedule('nightly'), 'missed-ranges', '86400000-172800000*2 0-0*1')
    expect(await json('/v1/schedules/nightly')).toMatchObject({
      missed: [
        { first: '1970-01-02T00:00:00.000Z', last: '1970-01-03T00:00:00.000Z', count: 2 },
        { first: '1970-01-01T00:00:00.000Z', last: '1970-01-01T00:00:00.000Z', count: 1 },
      ],
      overlapped: [],
    })
    expect((await get('/v1/schedules/nightl/run', { method: 'POST' })).status).toBe(404)
    expect((await get('/v1/schedules/nightly/run')).status).toBe(405)
  })
})

describe('health', () => {
  test('ready follows the services of the role', async () => {
    expect((await get('/readyz')).status).toBe(200)
    ready = false
    const response = await get('/readyz?verbose')
    ready = true
    expect(response.status).toBe(503)
    expect(await response.json()).toMatchObject({
      ok: false,
      checks: [{ name: 'process' }, { name: 'part', detail: 'stuck' }],
    })
  })
})

describe('pages of other sites', () => {
  const ask = async (headers: Record<string, string>): Promise<number> => {
    const given = Object.entries({ Host: `127.0.0.1:${server.port}`, ...headers })
    const head = given.map(([name, value]) => `${name}: ${value}\r\n`).join('')
    const text = `POST /v1/schedules/nightly/pause HTTP/1.1\r\n${head}Content-Length: 0\r\n\r\n`
    return (await rawExchange(server.port, text))?.status ?? 0
  }

  test('can not act for whoever looks at them, nor under a name that was pointed here', async () => {
    expect(await ask({ 'Sec-Fetch-Site': 'cross-site' })).toBe(403)
    expect(await ask({ 'Sec-Fetch-Site': 'same-site' })).toBe(403)
    expect(await ask({ Origin: 'https://evil.example' })).toBe(403)
    expect(await ask({ Origin: 'null' })).toBe(403)
    expect(await ask({ Host: 'evil.example' })).toBe(403)
    expect(await ask({ Host: '127.0.0.1.evil.example' })).toBe(403)
  })

  test('programs, people and own pages can', async () => {
    expect(await ask({})).toBe(200)
    expect(await ask({ Host: 'localhost' })).toBe(200)
    expect(await ask({ Host: '[::1]:9090' })).toBe(200)
    expect(await ask({ 'Sec-Fetch-Site': 'none' })).toBe(200)
    const origin = `http://127.0.0.1:${server.port}`
    expect(await ask({ 'Sec-Fetch-Site': 'same-origin', Origin: origin })).toBe(200)
  })
})
