/** Tier `replicated` over HTTP: a 202 means that the replicas have it; where they don't say so, the producer hears that. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { defineCommand } from '../src/contracts/command.ts'
import { errorCode } from '../src/contracts/errors.ts'
import { defineStream } from '../src/contracts/stream.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { partitionOf } from '../src/policies/partition.ts'
import { decodeEntry, unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { ReplicaQuorum } from '../src/redis/replica-quorum.ts'
import { chooseConfirmation, confirmationCommand, isConfirmed } from '../src/redis/replication.ts'
import { checkReplicas } from '../src/redis/server-check.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { OutboxRelay } from '../src/runtime/outbox-relay.ts'
import { type PublicServer, startPublicServer } from './support/public-server.ts'
import { type ReplicatedRedis, startReplicatedRedis, type TestServer } from './support/replicated-redis.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { until } from './support/until.ts'

const stream = defineStream({ name: 'orders', partitions: 2 })
const place = defineCommand({
  type: 'order.place',
  stream,
  payload: z.object({ orderId: z.string(), n: z.number().default(0) }),
  key: (payload) => payload.orderId,
})
const catalogue = buildCatalogue([stream, place])
const rule = { replicas: 1, waitMs: 500 }

let redis: ReplicatedRedis
let api: PublicServer
let primary: TestServer
let replica: TestServer

beforeAll(async () => {
  redis = await startReplicatedRedis()
  const [first, second] = redis.servers
  if (first === undefined || second === undefined) throw new Error('two servers were started')
  primary = first
  replica = second
  api = await startApi()
})
afterAll(async () => {
  await api[Symbol.asyncDispose]()
  await redis[Symbol.asyncDispose]()
})
beforeEach(async () => {
  replica.resume()
  await redis.untilFollowing(1)
  await until('the door to be open', () => api.bus.health().ready)
})

async function startApi(): Promise<PublicServer> {
  const quorum = new ReplicaQuorum({ links: redis.links, rule, confirmation: 'WAIT' })
  await quorum.whenReady(5000)
  return startPublicServer(redis, catalogue, { quorum, bus: { durability: 'replicated' } })
}

async function calls(command: string): Promise<number> {
  const text = String(await redis.ask(primary, 'INFO', 'commandstats'))
  return Number(new RegExp(`^cmdstat_${command}:calls=(\\d+)`, 'm').exec(text)?.[1] ?? 0)
}

async function stored(): Promise<number> {
  let count = 0
  for (const partition of [0, 1]) {
    count += Number(await redis.ask(primary, 'XLEN', partitionKeys('orders', partition).commands))
  }
  return count
}

interface Told {
  readonly status: number
  readonly retryAfter: string | null
  readonly body: {
    readonly id?: string
    readonly type?: string
    readonly durability?: string
    readonly deduplicated?: boolean
    readonly results?: readonly { readonly id?: string; readonly problem?: { readonly type: string } }[]
  }
}

async function told(response: Promise<Response>): Promise<Told> {
  const { status, headers, ...rest } = await response.then(async (answer) => ({
    status: answer.status,
    headers: answer.headers,
    body: (await answer.json()) as Told['body'],
  }))
  return { status, retryAfter: headers.get('retry-after'), body: rest.body }
}

const send = (orderId: string, key?: string): Promise<Told> =>
  told(
    api.post(
      '/v1/commands/order.place',
      { orderId },
      key === undefined ? {} : { 'idempotency-key': `"${key}"` },
    ),
  )

describe('while the replicas follow', () => {
  test('a command is accepted, and the answer names the tier', async () => {
    const { status, body } = await send('a')
    expect(status).toBe(202)
    expect(body.durability).toBe('replicated')
  })

  test('one WAIT covers many commands', async () => {
    await send('warm')
    await redis.ask(primary, 'CONFIG', 'RESETSTAT')
    const submissions = Array.from({ length: 1000 }, (_, n) => ({
      type: 'order.place',
      payload: { orderId: String(n) },
    }))
    const outcomes = await api.bus.submitMany(submissions)
    expect(outcomes.every(({ accepted }) => accepted !== undefined)).toBe(true)
    const [scripts, waits] = [await calls('evalsha'), await calls('wait')]
    expect(scripts).toBeGreaterThanOrEqual(4)
    expect(waits).toBeGreaterThanOrEqual(1)
    expect(waits).toBeLessThan(scripts)
  })

  test('many producers share WAITs too', async () => {
    await redis.ask(primary, 'CONFIG', 'RESETSTAT')
    const sent = Array.from({ length: 200 }, (_, n) => api.bus.submit('order.place', { orderId: String(n) }))
    await Promise.all(sent)
    expect(await calls('wait')).toBeLessThanOrEqual(10)
  })
})

describe('while the replica is paused', () => {
  test('what is stored is told as unconfirmed, and its key gives the same id once the replica is back', async () => {
    const before = await stored()
    replica.pause()
    const first = await send('b', 'b-1')
    expect(first).toMatchObject({
      status: 503,
      retryAfter: '1',
      body: { type: '/problems/stored-unconfirmed' },
    })
    const again = await send('b', 'b-1')
    expect(again).toMatchObject({ status: 503, body: { type: '/problems/stored-unconfirmed' } })
    expect(await stored()).toBe(before + 1)
    replica.resume()
    const third = await send('b', 'b-1')
    expect(third).toMatchObject({ status: 202, body: { deduplicated: true } })
    const status = await api.fetch(`/v1/commands/${third.body.id}`)
    expect(await status.json()).toMatchObject({ status: 'accepted' })
    expect(await stored()).toBe(before + 1)
  })

  test('another process that is asked for a known key waits for the replica as well', async () => {
    await using other = await startApi()
    replica.pause()
    await send('c', 'c-1')
    const elsewhere = await told(
      other.post('/v1/commands/order.place', { orderId: 'c' }, { 'idempotency-key': '"c-1"' }),
    )
    expect(elsewhere).toMatchObject({ status: 503, body: { type: '/problems/stored-unconfirmed' } })
  })

  test('each item of a bulk request hears it; another body under a known key is still a conflict', async () => {
    await send('d', 'bulk/1')
    replica.pause()
    const { status, body } = await told(
      api.post('/v1/commands', [
        { type: 'order.place', payload: { orderId: 'd1' } },
        { type: 'order.place', payload: { orderId: 'other' }, idempotencyKey: 'bulk/1' },
        { type: 'order.place', payload: { orderId: 7 } },
      ]),
    )
    expect(status).toBe(503)
    expect(body.results?.map(({ problem }) => problem?.type)).toEqual([
      '/problems/stored-unconfirmed',
      '/problems/idempotency-key-reused',
      '/problems/invalid-command',
    ])
  })

  test('an all-or-none request is unconfirmed as a whole, and by its key known as a whole', async () => {
    const items = [1, 2, 3].map((n) => ({ type: 'order.place', payload: { orderId: 'same', n } }))
    const atomic = () => told(api.post('/v1/commands?atomic=true', items, { 'idempotency-key': '"all"' }))
    const before = await stored()
    replica.pause()
    const first = await atomic()
    expect(first.status).toBe(503)
    expect(first.body.results?.every(({ problem }) => problem?.type === '/problems/stored-unconfirmed')).toBe(
      true,
    )
    replica.resume()
    expect((await atomic()).status).toBe(202)
    expect(await stored()).toBe(before + 3)
  })

  test('a command can be cancelled, and that is unconfirmed too until the replica is back', async () => {
    const { body } = await send('e')
    replica.pause()
    const cancel = () => told(api.fetch(`/v1/commands/${body.id}`, { method: 'DELETE' }))
    expect(await cancel()).toMatchObject({ status: 503, body: { type: '/problems/stored-unconfirmed' } })
    replica.resume()
    expect((await cancel()).status).toBe(202)
  })

  test('appends go on while earlier ones wait for the replica, in the order of their arrival', async () => {
    const keys = partitionKeys('orders', 0)
    const orderId = ['x', 'y', 'z', 'w', 'v', 'u'].find((key) => partitionOf(key, 2) === 0) ?? ''
    await redis.ask(primary, 'XTRIM', keys.commands, 'MAXLEN', '0')
    replica.pause()
    const fates: Promise<string | undefined>[] = []
    for (let n = 0; n < 60; n++) {
      fates.push(api.bus.submit('order.place', { orderId, n }).then(() => 'accepted', errorCode))
      if (n % 20 === 19) await new Promise((resolve) => setImmediate(resolve))
    }
    let isAnyTold = false
    void Promise.race(fates).then(() => {
      isAnyTold = true
    })
    await until(
      'all to be stored',
      async () => Number(await redis.ask(primary, 'XLEN', keys.commands)) === 60,
    )
    expect(isAnyTold).toBe(false)
    expect(new Set(await Promise.all(fates))).toEqual(new Set(['durability.unconfirmed']))
    const rows = await (await redis.open()).client.xrangeBuffer(keys.commands, '-', '+')
    const order = rows.map(([, fields]) => {
      const { n } = unpackPayloadOf(decodeEntry(fields[1] ?? Buffer.alloc(0))) as { n: number }
      return n
    })
    expect(order).toEqual(Array.from({ length: 60 }, (_, n) => n))
  })
})

test('follow-ups to other partitions wait until the replica has their source', async () => {
  const source = partitionKeys('orders', 0)
  const target = partitionKeys('orders', 1)
  const [link, own] = [await redis.open(), await redis.open()]
  const telemetry = new RecordedTelemetry()
  await using relay = new OutboxRelay({
    ...{ link, keys: source, clock: SYSTEM_CLOCK, telemetry, pauseMaxMs: 20 },
    confirmed: { link: own, rule },
  })
  const before = await link.client.xlen(target.commands)
  replica.pause()
  await link.client.xadd(source.outbox, '*', 't', 'orders.1', 'p', '0-0', 'd', '-1', 'b', 'a follow-up')
  await relay.start()
  await telemetry.until('alarm.raised', (alarms) =>
    alarms.some(({ alarm }) => alarm === 'outbox-unconfirmed'),
  )
  expect(await link.client.xlen(target.commands)).toBe(before)
  replica.resume()
  await telemetry.until('commands.relayed')
  expect(await link.client.xlen(target.commands)).toBe(before + 1)
  expect(telemetry.of('alarm.raised')).toHaveLength(1)
})

test('without its replica the door closes and the process is not ready; with it, it opens again', async () => {
  await replica.kill()
  await until('the door to close', () => !api.bus.health().ready)
  expect(api.bus.health().detail).toBe('0 of 1 replica follows the primary')
  expect(await send('f')).toMatchObject({ status: 503, retryAfter: '1' })
  expect((await api.fetch('/readyz')).status).toBe(503)
  expect(api.telemetry.of('alarm.raised').filter(({ alarm }) => alarm === 'replicas-missing')).toHaveLength(1)
  replica.restart()
  await until('the door to open', () => api.bus.health().ready)
  // A replica that has just come back may take longer than the wait of one request.
  await until('a command to be confirmed', async () => (await send('f')).status === 202)
})

test('too few replicas are refused at start, after a while, unless that is allowed by name', async () => {
  const link = await redis.open()
  let pauses = 0
  const check = (...tolerated: string[]) =>
    checkReplicas(link, { replicas: 2, waitMs: 100 }, new Set(tolerated), async () => pauses++ < 3)
  const refusal: unknown = await check().catch((error: unknown) => error)
  expect(String(refusal)).toMatch(
    /MILLRACE_REPLICAS=2, and the primary has 1 .*ALLOW_UNSAFE=missing-replicas/,
  )
  expect(pauses).toBe(4)
  await check('missing-replicas')
  await checkReplicas(link, rule, new Set(), async () => false)
})

describe('how appends are confirmed', () => {
  const server = { hasWaitAof: true, appendOnly: true, appendfsync: 'always' }

  test('by the append-only files where they are written through, else by memory', () => {
    expect(chooseConfirmation(server)).toBe('WAITAOF')
    expect(chooseConfirmation({ ...server, appendfsync: 'everysec' })).toBe('WAIT')
    expect(chooseConfirmation({ ...server, appendfsync: undefined })).toBe('WAIT')
    expect(chooseConfirmation({ ...server, appendOnly: false })).toBe('WAIT')
    expect(chooseConfirmation({ ...server, hasWaitAof: false })).toBe('WAIT')
    expect(confirmationCommand('WAITAOF', { replicas: 2, waitMs: 500 })).toEqual(['WAITAOF', 1, 2, 500])
    expect(confirmationCommand('WAIT', { replicas: 2, waitMs: 500 })).toEqual(['WAIT', 2, 500])
  })

  test('only by as many as declared, the primary itself included for files', () => {
    const two = { replicas: 2, waitMs: 500 }
    expect([0, 1, 2, 3].map((count) => isConfirmed(count, two))).toEqual([false, false, true, true])
    expect(
      [
        [1, 2],
        [1, 1],
        [0, 2],
      ].map((counts) => isConfirmed(counts, two)),
    ).toEqual([true, false, false])
    expect(isConfirmed(null, two)).toBe(false)
  })
})
