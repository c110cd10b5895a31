/** Prefer (RFC 7240): who would rather have the end of a command than its acceptance, an answer at once, or no body. */
import { afterAll, beforeAll, describe, expect, spyOn, test } from 'bun:test'
import fc from 'fast-check'
import { z } from 'zod'
import { readPreferences } from '../src/http/preferences.ts'
import { defineCommand, defineHandler, defineStream, done, reject, retry } from '../src/index.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { makeProject } from './support/project.ts'
import { type PublicServer, startPublicServer } from './support/public-server.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const stream = defineStream({ name: 'work', partitions: 2 })
const ordered = defineStream({ name: 'in-order', partitions: 1, ordering: 'key' })
const payload = z.object({ fate: z.string(), key: z.string().default('k') })
const run = defineCommand({ type: 'work.run', stream, payload, key: ({ key }) => key })
const runOrdered = defineCommand({ type: 'work.order', stream: ordered, payload, key: ({ key }) => key })
const later = defineCommand({ type: 'work.later', stream, payload })
const idle = defineCommand({ type: 'work.idle', stream: 'idle', payload })

let gate = Promise.withResolvers<void>()
const fateOf = async ({ fate }: { fate: string }, attempt: number) => {
  if (fate === 'gate') await gate.promise
  if (fate === 'no') return reject('it may not be')
  if (fate.startsWith('again') && attempt === 1) return retry('not yet')
  if (fate === 'again and gate') await gate.promise
  return done({ fate })
}
const options = { backoffBaseMs: 10 }
const onRun = defineHandler(run, (command) => fateOf(command.payload, command.attempt), options)
const onLater = defineHandler(later, () => retry('not for long'), { backoffBaseMs: 60_000 })
const onOrder = defineHandler(runOrdered, (command) => fateOf(command.payload, command.attempt), options)

let redis: TestRedis
let fleet: TestFleet
let api: PublicServer
let stopWorker: () => Promise<void>

beforeAll(async () => {
  redis = await startTestRedis()
  fleet = await testFleet(redis, [stream, ordered, run, runOrdered, later, idle, onRun, onOrder, onLater])
  const worker = await fleet.worker()
  stopWorker = () => worker.stop()
  api = await startPublicServer(redis, fleet.catalogue)
})
afterAll(async () => {
  gate.resolve()
  await api[Symbol.asyncDispose]()
  await stopWorker()
  await redis[Symbol.asyncDispose]()
})

interface Report {
  readonly id: string
  readonly status: string
  readonly result?: unknown
  readonly problem?: { readonly type: string }
}

const send = (fate: string, headers: Record<string, string>, type = 'work.run', query = '') =>
  api.post(`/v1/commands/${type}${query}`, { fate }, headers)

const read = async (response: Response): Promise<Report> => (await response.json()) as Report

describe('wait', () => {
  test.each([['work.run'], ['work.order']])(
    '%s: 200 with what a GET tells, and the wait that was applied',
    async (type) => {
      const response = await send('yes', { prefer: 'wait=10' }, type)
      expect(response.status).toBe(200)
      expect(response.headers.get('preference-applied')).toBe('wait=10')
      const report = await read(response)
      expect(report).toMatchObject({ status: 'done', result: { fate: 'yes' } })
      expect(response.headers.get('location')).toBe(`/v1/commands/${report.id}`)
      expect(await read(await api.fetch(`/v1/commands/${report.id}`))).toEqual(report)
    },
  )

  test.each([['work.run'], ['work.order']])('%s: a retry is waited out', async (type) => {
    const response = await send('again', { prefer: 'wait=10' }, type)
    expect([response.status, (await read(response)).status]).toEqual([200, 'done'])
  })

  test('200 whatever became of it: dead, expired, cancelled', async () => {
    const dead = await send('no', { prefer: 'wait=10' })
    expect(dead.status).toBe(200)
    expect(await read(dead)).toMatchObject({ status: 'dead', problem: { type: '/problems/command-failed' } })
    const late = await send('yes', { prefer: 'wait=10' }, 'work.run', '?expiresAt=2020-01-01T00:00:00Z')
    expect(late.status).toBe(200)
    expect(await read(late)).toMatchObject({ status: 'dead', problem: { type: '/problems/command-expired' } })

    const key = { 'idempotency-key': 'to-be-cancelled' }
    const { id } = await read(await send('x', key, 'work.idle'))
    const waiting = send('x', { ...key, prefer: 'wait=10' }, 'work.idle')
    await until('somebody to wait', () => api.ends.waiterCount === 1)
    expect((await api.fetch(`/v1/commands/${id}`, { method: 'DELETE' })).status).toBe(202)
    const cancelled = await waiting
    expect([cancelled.status, (await read(cancelled)).status]).toEqual([200, 'cancelled'])
  })

  test('a delayed command is waited for too', async () => {
    const response = await send('yes', { prefer: 'wait=10' }, 'work.run', '?delayMs=50')
    expect([response.status, (await read(response)).status]).toEqual([200, 'done'])
  })

  test('202 as usual when the time is over', async () => {
    const response = await send('x', { prefer: 'wait=1' }, 'work.idle')
    expect(response.status).toBe(202)
    expect(response.headers.get('preference-applied')).toBe('wait=1')
    expect(await read(response)).toMatchObject({ type: 'work.idle', status: 'accepted', deduplicated: false })
    expect(api.ends.waiterCount).toBe(0)
  })

  test('a replay of a key waits for the first one', async () => {
    const headers = { 'idempotency-key': 'once', prefer: 'wait=10' }
    gate = Promise.withResolvers()
    const first = send('gate', headers)
    await until('the first to wait', () => api.ends.waiterCount === 1)
    const second = send('gate', headers)
    await until('both to wait', () => api.ends.waiterCount === 2)
    gate.resolve()
    const answers = await Promise.all([first, second])
    expect(answers.map(({ status }) => status)).toEqual([200, 200])
    expect(answers.map(({ headers }) => headers.get('idempotent-replayed'))).toEqual([null, 'true'])
    const [one, two] = await Promise.all(answers.map(read))
    expect(one).toEqual(two as Report)
  })

  test('a GET waits too, and tells when there is nothing to wait for', async () => {
    gate = Promise.withResolvers()
    const { id } = await read(await send('gate', {}))
    const path = `/v1/commands/${id}`
    const waiting = api.fetch(path, { headers: { prefer: 'wait=10' } })
    await until('somebody to wait', () => api.ends.waiterCount === 1)
    gate.resolve()
    const ended = await waiting
    expect(ended.headers.get('preference-applied')).toBe('wait=10')
    expect(await read(ended)).toMatchObject({ status: 'done' })
    const etag = ended.headers.get('etag') ?? ''
    const same = await api.fetch(path, { headers: { prefer: 'wait=10', 'if-none-match': etag } })
    expect(same.status).toBe(304)
    const timedOut = await read(await send('x', {}, 'work.idle'))
    const open = await api.fetch(`/v1/commands/${timedOut.id}`, { headers: { prefer: 'wait=1' } })
    expect([open.status, (await read(open)).status]).toEqual([200, 'accepted'])
    expect(Number(open.headers.get('retry-after'))).toBeGreaterThan(0)
  })

  test('more than the most is granted as the most', async () => {
    await using short = await startPublicServer(redis, fleet.catalogue, { app: { commandWaitMaxMs: 1999 } })
    const response = await short.post('/v1/commands/work.idle', { fate: 'x' }, { prefer: 'wait=3600' })
    expect([response.status, response.headers.get('preference-applied')]).toEqual([202, 'wait=1'])
  })

  test('beyond the most that may wait the answer comes at once', async () => {
    await using crowded = await startPublicServer(redis, fleet.catalogue, { ends: { waitersMax: 1 } })
    const post = () => crowded.post('/v1/commands/work.idle', { fate: 'x' }, { prefer: 'wait=20' })
    const first = post()
    await until('the first to wait', () => crowded.ends.waiterCount === 1)
    const second = await post()
    expect([second.status, second.headers.get('preference-applied')]).toEqual([202, null])
    await crowded.ends.stop()
    expect((await first).status).toBe(202)
  })

  test('who waits holds no place for a body, and is let go when the client leaves', async () => {
    await using narrow = await startPublicServer(redis, fleet.catalogue, { app: { requestsMax: 1 } })
    const gone = new AbortController()
    const waiting = fetch(`${narrow.url}/v1/commands/work.idle`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', prefer: 'wait=20' },
      body: '{"fate":"x"}',
      signal: gone.signal,
    }).catch(() => 'left')
    await until('somebody to wait', () => narrow.ends.waiterCount === 1)
    expect((await narrow.post('/v1/commands/work.idle', { fate: 'x' })).status).toBe(202)
    gone.abort()
    expect(await waiting).toBe('left')
    await until('nobody to wait', () => narrow.ends.waiterCount === 0)
  })

  test('a stop answers who waits at once, and nobody waits any more', async () => {
    await using draining = await startPublicServer(redis, fleet.catalogue)
    const post = () => draining.post('/v1/commands/work.idle', { fate: 'x' }, { prefer: 'wait=20' })
    const waiting = [post(), post()]
    await until('both to wait', () => draining.ends.waiterCount === 2)
    await draining.ends.stop()
    expect((await Promise.all(waiting)).map(({ status }) => status)).toEqual([202, 202])
    expect((await post()).status).toBe(202)
  })

  test('many who wait for one partition share a few looks', async () => {
    gate = Promise.withResolvers()
    const answers = Array.from({ length: 200 }, () => send('gate', { prefer: 'wait=20' }))
    await until('all to wait', () => api.ends.waiterCount === 200)
    await fleet.link.client.config('RESETSTAT')
    await Bun.sleep(500)
    const stats = await fleet.link.client.info('commandstats')
    const looks = Number(/cmdstat_hget:calls=(\d+)/.exec(stats)?.[1])
    gate.resolve()
    expect((await Promise.all(answers)).every(({ status }) => status === 200)).toBe(true)
    const xinfo = Number(/cmdstat_xinfo\|groups:calls=(\d+)/.exec(stats)?.[1])
    expect(looks).toBeGreaterThan(200)
    expect(xinfo).toBeLessThan(200)
  })

  test('what waits for its time, for a retry or as one is looked at, not asked for its status', async () => {
    gate = Promise.withResolvers()
    const ids = [
      (await read(await send('x', {}, 'work.run', '?delayMs=60000'))).id,
      (await read(await send('x', {}, 'work.later'))).id,
      (await read(await send('again and gate', {}))).id,
    ]
    const states = async () => {
      const reports = await Promise.all(ids.map((id) => api.bus.status(id)))
      return reports.map(({ status, attempt }) => `${status} ${attempt ?? ''}`)
    }
    const wanted = ['scheduled ', 'retrying 1', 'processing 2']
    await until('each to be so far', async () => Bun.deepEquals(await states(), wanted))
    using asked = spyOn(api.bus, 'status')
    const wait = (id: string) => api.fetch(`/v1/commands/${id}`, { headers: { prefer: 'wait=1' } })
    const reports = await Promise.all((await Promise.all(ids.map(wait))).map(read))
    expect(reports.map(({ status }) => status)).toEqual(['scheduled', 'retrying', 'processing'])
    expect(asked.mock.calls.length).toBe(2 * ids.length)
    gate.resolve()
  })

  test('a repetition of a command whose result is no longer kept was accepted all the same', async () => {
    const headers = { 'idempotency-key': 'forgotten', prefer: 'wait=10' }
    expect((await send('yes', headers, 'work.order')).status).toBe(200)
    const { floors, records } = partitionKeys('in-order', 0)
    await fleet.link.client.del(records)
    await fleet.link.client.hset(floors, 'records', Date.now() + 60_000)
    const again = await send('yes', headers, 'work.order')
    expect([again.status, again.headers.get('idempotent-replayed')]).toEqual([202, 'true'])
    await fleet.link.client.hdel(floors, 'records')
  })

  test('Redis away while somebody waits: the command was accepted, so the answer is 202', async () => {
    await using other = await startTestRedis()
    await using lone = await startPublicServer(other, fleet.catalogue)
    const waiting = lone.post('/v1/commands/work.idle', { fate: 'x' }, { prefer: 'wait=1' })
    await until('somebody to wait', () => lone.ends.waiterCount === 1)
    await other.kill()
    expect((await waiting).status).toBe(202)
  })
})

test('SIGTERM answers who waits, and the process ends well before the wait does', async () => {
  await using project = await makeProject()
  const process = project.start(['api'])
  await process.untilReady()
  const waiting = fetch(`${process.line('public')}/v1/commands/note.write`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', prefer: 'wait=25' },
    body: JSON.stringify({ author: 'a', text: 'b' }),
  })
  const metrics = `${process.line('admin')}/metrics`
  await until('the command to be stored', async () =>
    (await (await fetch(metrics)).text()).includes('millrace_commands_accepted_total{stream="main"'),
  )
  const code = process.stop()
  expect((await waiting).status).toBe(202)
  expect(await code).toBe(0)
})

describe('the other preferences', () => {
  test('respond-async is answered at once, also beside wait', async () => {
    const response = await send('x', { prefer: 'respond-async, wait=20' }, 'work.idle')
    expect([response.status, response.headers.get('preference-applied')]).toEqual([202, 'respond-async'])
  })

  test('return=minimal has no body, but a Location', async () => {
    const accepted = await send('x', { prefer: 'return=minimal' }, 'work.idle')
    expect([accepted.status, await accepted.text()]).toEqual([202, ''])
    expect(accepted.headers.get('location')).toMatch(/^\/v1\/commands\/idle\.0\./)
    expect(accepted.headers.get('preference-applied')).toBe('return=minimal')
    expect(accepted.headers.get('content-type')).toBeNull()
    const ended = await send('yes', { prefer: 'return=minimal; foo=bar, WAIT = "10"' })
    expect([ended.status, await ended.text()]).toEqual([200, ''])
    expect(ended.headers.get('preference-applied')).toBe('wait=10, return=minimal')
  })

  test('in bulk, return=minimal leaves counts, and nothing is waited for', async () => {
    const items = [{ type: 'work.idle', payload: { fate: 'x' } }, { type: 'nope' }]
    const minimal = await api.post('/v1/commands', items, { prefer: 'wait=20, return=minimal' })
    expect([minimal.status, minimal.headers.get('preference-applied')]).toEqual([202, 'return=minimal'])
    expect(await minimal.json()).toEqual({ accepted: 1, rejected: 1, durability: 'everysec' })
    const whole = await api.post('/v1/commands', items, { prefer: 'wait=20' })
    expect(whole.headers.get('preference-applied')).toBeNull()
    expect(await whole.json()).toMatchObject({ accepted: 1, results: [{ index: 0 }, { index: 1 }] })
  })

  test('what is unknown or malformed is ignored', async () => {
    for (const prefer of [
      'handling=strict',
      'wait=soon',
      'wait',
      'wait=-1',
      '=,;"',
      'return=everything',
      '',
    ]) {
      const response = await send('x', { prefer }, 'work.idle')
      expect([prefer, response.status, response.headers.get('preference-applied')]).toEqual([
        prefer,
        202,
        null,
      ])
    }
  })
})

describe('reading the header', () => {
  const nothing = { waitS: 0, respondAsync: false, minimal: false }
  test.each([
    ['wait=5', { ...nothing, waitS: 5 }],
    ['WAIT=5', { ...nothing, waitS: 5 }],
    ['wait=5, wait=9', { ...nothing, waitS: 5 }],
    ['wait=x, wait=9', nothing],
    ['wait = "7"', { ...nothing, waitS: 7 }],
    ['wait=99', { ...nothing, waitS: 30 }],
    ['wait=0', nothing],
    ['wait=1.5', nothing],
    ['foo="a, wait=3", respond-async', { ...nothing, respondAsync: true }],
    ['foo="a\\", wait=3"; x=y, return=minimal', { ...nothing, minimal: true }],
    ['return=representation, return=minimal', nothing],
    ['respond-async; x, wait=3;y=z', { ...nothing, respondAsync: true, waitS: 3 }],
  ])('%s', (header, wanted) => {
    expect(readPreferences(header, 30)).toEqual(wanted)
  })

  test('any text is read without a fault, and no wait is longer than the most', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom(...'wait=5,";\\ \treturn'), maxLength: 2000 }),
        (text) => {
          expect(readPreferences(text, 30).waitS).toBeLessThanOrEqual(30)
        },
      ),
    )
  })
})
