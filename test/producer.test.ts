/** A producer in process, against a real Redis: what it stores, what it refuses and how, and how it ends. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { join } from 'node:path'
import {
  type AcceptedCommand,
  defineBatchHandler,
  defineCommand,
  defineStream,
  done,
  errorCode,
  openProducer,
  type Producer,
  type ProducerOptions,
  type SubmitOutcome,
  startMillrace,
} from 'millrace'
import { RecordedTelemetry } from 'millrace/testing'
import { z } from 'zod'
import { partitionKeys } from '../src/redis/keys.ts'
import { root } from './source-files.ts'
import { makeProject } from './support/project.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { rejection } from './support/rejection.ts'
import { until } from './support/until.ts'

const orders = defineStream({ name: 'orders', partitions: 2 })
const place = defineCommand({
  type: 'order.place',
  stream: orders,
  payload: z.object({
    orderId: z.string(),
    text: z.string().optional(),
    quantity: z.int().min(1).default(1),
  }),
  key: ({ orderId }) => orderId,
})
const note = defineCommand({ type: 'note.add', stream: 'notes', payload: z.object({ n: z.number() }) })
const onNote = defineBatchHandler(note, (batch) => batch.map(() => done({ kept: true })))
const definitions = [orders, place, note, onNote]

let redis: TestRedis
beforeAll(async () => {
  redis = await startTestRedis(['--appendfsync', 'everysec'])
})
afterAll(() => redis[Symbol.asyncDispose]())

const open = (options: ProducerOptions = {}): Promise<Producer> =>
  openProducer({ redisUrl: redis.url, definitions, ...options })

async function lengthOf(stream: string, partitions = 1): Promise<number> {
  const link = await redis.open()
  let sum = 0
  for (let partition = 0; partition < partitions; partition++)
    sum += await link.client.xlen(partitionKeys(stream, partition).commands)
  return sum
}

const codes = (outcomes: readonly SubmitOutcome[]): (string | undefined)[] =>
  outcomes.map((outcome) => (outcome.accepted === undefined ? outcome.error.code : undefined))

test('a command is stored once, by its definition, and its id tells what becomes of it', async () => {
  await using producer = await open()
  const before = await lengthOf('orders', 2)
  const sent = await producer.send(place, { orderId: 'o-1' })
  expect(sent).toEqual({
    id: sent.id,
    type: 'order.place',
    status: 'accepted',
    durability: 'everysec',
    deduplicated: false,
  })
  expect(await lengthOf('orders', 2)).toBe(before + 1)
  expect(await producer.status(sent.id)).toMatchObject({ id: sent.id, stream: 'orders', status: 'accepted' })
  expect(Object.keys(await producer.status(sent.id))).not.toContain('lastEventId')
})

test('a repetition under the same idempotency key gets the first id; another payload under it is refused', async () => {
  await using producer = await open()
  const before = await lengthOf('orders', 2)
  const first = await producer.send(place, { orderId: 'o-2' }, { idempotencyKey: 'k 1' })
  const second = await producer.send(place, { orderId: 'o-2' }, { idempotencyKey: 'k 1' })
  expect(second).toEqual({ ...first, deduplicated: true })
  expect(await lengthOf('orders', 2)).toBe(before + 1)
  const other = await rejection(producer.send(place, { orderId: 'o-3' }, { idempotencyKey: 'k 1' }))
  expect(errorCode(other)).toBe('idempotency.conflict')
})

test('a thousand commands sent in one turn travel in a handful of scripts', async () => {
  await using producer = await open()
  const { client } = await redis.open()
  await client.config('RESETSTAT')
  const sent = await Promise.all(Array.from({ length: 1000 }, (_, n) => producer.send(note, { n })))
  expect(new Set(sent.map(({ id }) => id)).size).toBe(1000)
  const stats = await client.info('commandstats')
  const calls = (name: string): number =>
    Number(new RegExp(`^cmdstat_${name}:calls=(\\d+)`, 'm').exec(stats)?.[1] ?? 0)
  expect(calls('xadd')).toBe(1000)
  // Four of commands; samples of the load are scripts too.
  expect(calls('evalsha') + calls('eval')).toBeLessThanOrEqual(12)
})

test('what a worker answers is what the status tells', async () => {
  await using _worker = await startMillrace({
    role: 'work',
    definitions,
    redisUrl: redis.url,
    adminPort: 0,
  })
  await using producer = await open()
  const { id } = await producer.send(note, { n: 1 })
  await until('the result', async () => (await producer.status(id)).status === 'done')
  expect((await producer.status(id)).result).toEqual({ kept: true })
  expect(errorCode(await rejection(producer.cancel(id)))).toBe('cancel.too-late')
})

test('a delayed command is scheduled, and can be cancelled twice', async () => {
  await using producer = await open()
  const deliverAt = new Date(Date.now() + 3_600_000)
  const { id, status } = await producer.send(note, { n: 1 }, { deliverAt })
  expect(status).toBe('scheduled')
  expect(await producer.status(id)).toMatchObject({ status: 'scheduled', dueAtMs: deliverAt.getTime() })
  await producer.cancel(id)
  await producer.cancel(id)
  expect((await producer.status(id)).status).toBe('cancelled')
})

test('a refusal says why, by its code, and stores nothing', async () => {
  await using producer = await open()
  const before = (await lengthOf('orders', 2)) + (await lengthOf('notes'))
  const other = defineCommand({ type: 'order.plase', payload: z.object({}) })
  const newer = defineCommand({ type: 'note.add', version: 2, stream: 'notes', payload: z.object({}) })
  const deep = Array.from({ length: 40 }).reduce<unknown>((inner) => [inner], 0)
  const untyped = (value: unknown): never => value as never
  const cases: readonly (readonly [string, () => Promise<AcceptedCommand>, RegExp])[] = [
    ['command.invalid', () => producer.send(place, { orderId: 'o', quantity: 0 }), /quantity/],
    ['command.invalid', () => producer.send(place, untyped({ orderId: 7 })), /orderId/],
    ['command.invalid', () => producer.send(note, untyped({ n: 1, deep })), /deeper than 32/],
    [
      'command.invalid',
      () => producer.send(note, untyped(JSON.parse('{"n":1,"__proto__":1}'))),
      /not allowed/,
    ],
    ['command.invalid', () => producer.send(note, { n: 1 }, { idempotencyKey: '' }), /1-255/],
    [
      'command.invalid',
      () => producer.send(note, { n: 1 }, { delayMs: 1, deliverAt: '2030-01-01' }),
      /not both/,
    ],
    ['command.invalid', () => producer.send(note, { n: 1 }, { expiresAt: new Date(Number.NaN) }), /RFC 3339/],
    [
      'command.invalid',
      () => producer.send(note, { n: 1 }, { delayMs: 50, expiresInMs: 40 }),
      /expire before/,
    ],
    ['command.too-large', () => producer.send(place, { orderId: 'o', text: 'x'.repeat(300_000) }), /bytes/],
    ['command.unknown-type', () => producer.send(other, {}), /Did you mean "order.place"/],
    ['command.unknown-type', () => producer.send(newer, {}), /opened with version 1/],
    ['config.unknown-option', () => producer.send(note, { n: 1 }, untyped({ delayMS: 1 })), /"delayMs"/],
  ]
  for (const [code, send, words] of cases) {
    const error = await rejection(send())
    expect(`${errorCode(error)}: ${error.message}`).toMatch(new RegExp(`^${code}.*${words.source}`))
  }
  expect((await lengthOf('orders', 2)) + (await lengthOf('notes'))).toBe(before)
})

test('of many commands each has its own fate, in its place', async () => {
  await using producer = await open()
  const outcomes = await producer.sendMany([
    { command: note, payload: { n: 1 } },
    { command: place, payload: { orderId: 'm-1', quantity: -1 } },
    { command: place, payload: { orderId: 'm-1' }, idempotencyKey: 'ü' },
    { command: place, payload: { orderId: 'm-1', quantity: 3 }, expiresInMs: 60_000 },
    { command: note, payload: { n: 1 }, delayMS: 5 } as { command: typeof note; payload: { n: number } },
  ])
  const [invalid, unknown] = ['command.invalid', 'config.unknown-option']
  expect(codes(outcomes)).toEqual([undefined, invalid, invalid, undefined, unknown])
  expect(await producer.sendMany([])).toEqual([])
})

test('all or none: one refusal holds everything back, also one of a single command', async () => {
  await using producer = await open()
  const before = await lengthOf('orders', 2)
  const good = { command: place, payload: { orderId: 'a-1' } }
  const bad = { command: place, payload: { orderId: 'a-1' }, delayMs: -1 }
  expect(codes(await producer.sendMany([good, bad], { atomic: true }))).toEqual([
    'command.invalid',
    'command.invalid',
  ])
  expect(await lengthOf('orders', 2)).toBe(before)
  expect(codes(await producer.sendMany([good, good], { atomic: true }))).toEqual([undefined, undefined])
  expect(await lengthOf('orders', 2)).toBe(before + 2)
})

test('while Redis is away nothing waits: commands are refused, and taken again when it is back', async () => {
  await using own = await startTestRedis(['--appendfsync', 'everysec'])
  await using producer = await openProducer({ redisUrl: own.url, definitions })
  await producer.send(note, { n: 1 })
  await own.kill()
  await until('the refusal', async () => {
    const error = await rejection(producer.send(note, { n: 2 }))
    return errorCode(error) === 'redis.unavailable'
  })
  expect(errorCode(await rejection(producer.sendMany([{ command: note, payload: { n: 3 } }])))).toBe(
    'redis.unavailable',
  )
  await own.restart()
  await until('acceptance', () =>
    producer.send(note, { n: 4 }).then(
      () => true,
      () => false,
    ),
  )
})

test('a Redis that is not there is told within the wait', async () => {
  const away = openProducer({ redisUrl: `unix://${redis.directory}/none.sock`, definitions, redisWaitMs: 50 })
  expect(errorCode(await rejection(away))).toBe('redis.unavailable')
})

test('stop waits for what is under way, takes nothing more, and leaves no connection', async () => {
  const telemetry = new RecordedTelemetry()
  await using own = await startTestRedis(['--appendfsync', 'everysec'])
  const producer = await openProducer({ redisUrl: own.url, definitions, onTelemetry: telemetry.listener })
  const sent = Array.from({ length: 3000 }, (_, n) => producer.send(note, { n }))
  const stopped = producer.stop()
  expect(errorCode(await rejection(producer.send(note, { n: -1 })))).toBe('admission.draining')
  const ids = await Promise.all(sent)
  await stopped
  await producer.stop()
  expect(ids.length).toBe(3000)
  expect(telemetry.of('alarm.raised')).toEqual([])
  const { client } = await own.open()
  expect(await client.xlen(partitionKeys('notes', 0).commands)).toBe(3000)
  await until(
    'no connection of the producer',
    async () => !String(await client.client('LIST')).includes('millrace-ingest'),
  )
})

test('an unknown option is named with its nearest known one; settings of listeners are none of a producer', async () => {
  const options = { redisUrl: redis.url, definitions, redisWaitMS: 5 } as ProducerOptions
  const error = await rejection(openProducer(options))
  expect(errorCode(error)).toBe('config.unknown-option')
  expect(error.message).toContain('Did you mean "redisWaitMs"?')
  expect(errorCode(await rejection(open({ port: 1 } as ProducerOptions)))).toBe('config.unknown-option')
  expect(errorCode(await rejection(open({ durability: 'fsync' })))).toBe('server.unsafe')
  expect(errorCode(await rejection(open({ durability: 'replicated', redisWaitMs: 50 })))).toBe(
    'server.unsafe',
  )
})

test('without definitions the modules of the workers folder are loaded; HOST and PORT of the process are its own', async () => {
  await using project = await makeProject({
    'workers/notes.ts': `
      import { defineCommand } from 'millrace'
      import { z } from 'zod'
      export const add = defineCommand({ type: 'late.add', stream: 'late', payload: z.object({ n: z.number() }) })
    `,
    'send.ts': `
      import { openProducer } from 'millrace'
      import { add } from './workers/notes.ts'
      await using producer = await openProducer()
      console.log(JSON.stringify(await producer.send(add, { n: 1 })))
    `,
  })
  const { folder } = project
  const child = Bun.spawn([process.execPath, join(folder, 'send.ts')], {
    cwd: folder,
    env: { ...Bun.env, REDIS_URL: redis.url, HOST: '0.0.0.0', PORT: 'pipe', LOG_LEVEL: 'verbose' },
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  expect({ err, code }).toEqual({ err: '', code: 0 })
  expect(JSON.parse(out)).toMatchObject({ type: 'late.add', status: 'accepted' })
})

test('the example of docs/producer.md runs as printed', async () => {
  await using own = await startTestRedis(['--appendfsync', 'everysec'])
  const text = await Bun.file(join(root, 'docs/producer.md')).text()
  const example = /^```ts\n([\s\S]*?)^```$/m.exec(text)?.[1] ?? ''
  await using project = await makeProject({ 'send.ts': example })
  const child = Bun.spawn([process.execPath, join(project.folder, 'send.ts')], {
    cwd: project.folder,
    env: { ...Bun.env, REDIS_URL: own.url },
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  expect({ err, code }).toEqual({ err: '', code: 0 })
  const [status, refusal] = out.trim().split('\n')
  expect(status).toBe('accepted')
  expect(refusal).toStartWith('command.invalid The payload of order.place is invalid: #/quantity')
})
