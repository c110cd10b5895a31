/** Waiting and reading by the client, against a `fetch` of the test's: ends of commands, views, pages, and how long each may take. */
import { expect, test } from 'bun:test'
import { FakeClock } from 'millrace/testing'
import type { Client } from '../src/client/client.ts'
import { type ClientError, clientErrorCode } from '../src/client/client-error.ts'
import type { ClientOptions } from '../src/client/client-options.ts'
import { openHttpClient } from '../src/client/create-client.ts'
import {
  type Answering,
  accept,
  cut,
  FakeApi,
  json,
  problem,
  REDUCED,
  refuse,
  silence,
} from './support/fake-api.ts'

interface World {
  readonly api: FakeApi
  readonly clock: FakeClock
  readonly client: Client
}

function open(answer: Answering, options: Partial<ClientOptions> = {}): World {
  const api = new FakeApi(answer)
  const clock = new FakeClock()
  return {
    api,
    clock,
    client: openHttpClient({ url: 'http://api.test/base/', fetch: api.fetch, ...options }, clock),
  }
}

function told<Value>(work: Promise<Value>): Promise<Value | ClientError> {
  return work.catch((error: unknown) => {
    if (clientErrorCode(error) === undefined) throw error
    return error as ClientError
  })
}

const standing = (status: string, members: object = {}): object => ({
  id: 'c-1',
  stream: 'notes',
  status,
  ...members,
})
const openState = (status: string, retryAfterS = 1): Response =>
  json(standing(status), 200, { etag: `"${status}"`, 'retry-after': String(retryAfterS) })

test('a result is waited for by looks that let the server wait, know the last answer, and keep to Retry-After', async () => {
  const script = [
    () => openState('accepted', 3),
    () => new Response(null, { status: 304, headers: { etag: '"accepted"', 'retry-after': '2' } }),
    () => cut(),
    () => openState('processing'),
    () => json(standing('done', { result: { kept: true }, attempt: 2 })),
  ]
  const times: number[] = []
  const { api, clock, client } = open((_, nth) => {
    times.push(clock.monotonicMs())
    return script[nth - 1]?.() ?? cut()
  })
  const result = client.result('c-1', { timeoutMs: 10_000 })
  await clock.advance(10_000)
  expect(await result).toEqual({
    ...{ id: 'c-1', stream: 'notes', status: 'done', attempt: 2, result: { kept: true } },
    ...{ error: undefined, reason: undefined, dueAtMs: undefined, deadLetterId: undefined },
  })
  expect(times).toEqual([0, 3000, 5000, 5050, 6050])
  expect(api.asked.map(({ path }) => path)).toEqual(Array(5).fill('/base/v1/commands/c-1'))
  const header = (name: string) => api.asked.map(({ headers }) => headers.get(name))
  expect(header('if-none-match')).toEqual([null, ...Array(3).fill('"accepted"'), '"processing"'])
  expect(header('prefer')).toEqual(['wait=10', 'wait=7', 'wait=5', 'wait=4', 'wait=3'])
})

test('a server that waited itself is asked again at once, and never for longer than it may', async () => {
  const { api, clock, client } = open(async () => {
    await clock.sleep(30_000)
    return openState('processing')
  })
  const result = told(client.result('c-1', { timeoutMs: 70_000 }))
  await clock.advance(69_999)
  expect(api.asked.map(({ headers }) => headers.get('prefer'))).toEqual(['wait=30', 'wait=30', 'wait=10'])
  await clock.advance(40_000)
  expect(await result).toMatchObject({ code: 'timeout', id: 'c-1' })
})

test('the last look comes at the end of the wait, however long the server said to pause', async () => {
  const { api, clock, client } = open((_, nth) =>
    nth === 1 ? openState('accepted') : json(standing('done')),
  )
  const result = client.result('c-1', { timeoutMs: 300 })
  await clock.advance(300)
  expect(await result).toMatchObject({ status: 'done' })
  expect(api.asked).toHaveLength(2)

  const slow = open(() => openState('accepted'))
  const late = told(slow.client.result('c-1', { timeoutMs: 300 }))
  await slow.clock.advance(300)
  expect(await late).toMatchObject({ code: 'timeout', id: 'c-1' })
})

test('another end than done is an error with a code and the reason', async () => {
  const dead = problem('command-failed', 500, { detail: 'no such order' })
  const cases: [object, string, string][] = [
    [
      standing('dead', { problem: dead, reason: 'rejected', deadLetterId: 'd' }),
      'command-dead',
      'no such order',
    ],
    [standing('lost', { problem: problem('command-lost', 500) }), 'command-dead', 'command-lost'],
    [standing('cancelled'), 'command-cancelled', 'cancelled'],
  ]
  for (const [body, code, text] of cases) {
    const { client } = open(() => json(body))
    const error = await told(client.result('c-1'))
    expect(error).toMatchObject({ code, id: 'c-1' })
    expect((error as ClientError).message).toContain(text)
  }
  const { client } = open(() => refuse('status-expired', 404))
  expect(await told(client.result('c-1'))).toMatchObject({ code: 'not-found', id: 'c-1', status: 404 })
})

test('send with a wait goes alone, prefers the end, and uses it', async () => {
  const { api, client } = open(() =>
    json(standing('done', { result: 7 }), 200, {
      'idempotent-replayed': 'true',
      location: '/v1/commands/c-1',
    }),
  )
  const options = { waitMs: 5500, idempotencyKey: 'say "hi"', delayMs: 10, traceparent: '00-a-b-01' }
  const answer = await client.send('note.add', { n: 1 }, options)
  expect(answer).toMatchObject({
    ...{ id: 'c-1', type: 'note.add', durability: undefined, deduplicated: true },
    ended: { status: 'done', result: 7 },
  })
  const [asked] = api.asked
  expect([asked?.path, asked?.body]).toEqual(['/base/v1/commands/note.add?delayMs=10', '{"n":1}'])
  const header = (name: string) => asked?.headers.get(name)
  expect([
    header('prefer'),
    header('idempotency-key'),
    header('traceparent'),
    header('content-type'),
  ]).toEqual([...['wait=5', '"say \\"hi\\""', '00-a-b-01', 'application/json']])
})

test('where the server does not wait, or not so long, the client goes on looking; an end that is none is an error', async () => {
  const accepted = {
    id: 'c-1',
    type: 'note.add',
    status: 'accepted',
    durability: 'fsync',
    deduplicated: false,
  }
  const { api, clock, client } = open(
    (_, nth) =>
      [json(accepted, 202), openState('processing'), json(standing('done', { result: 1 }))][nth - 1] ?? cut(),
  )
  const answer = client.send('note.add', 1, { waitMs: 9000 })
  await clock.advance(9000)
  expect(await answer).toMatchObject({ durability: 'fsync', ended: { status: 'done', result: 1 } })
  expect(api.asked.map(({ method }) => method)).toEqual(['POST', 'GET', 'GET'])

  const dead = open(() => json(standing('dead', { problem: problem('command-failed', 500) })))
  expect(await told(dead.client.send('note.add', 1, { waitMs: 9000 }))).toMatchObject({
    code: 'command-dead',
    id: 'c-1',
  })

  // Stored for sure, so the error has the id to go on with.
  const late = open(({ method }) => (method === 'POST' ? json(accepted, 202) : cut()))
  const error = told(late.client.send('note.add', 1, { waitMs: 2000 }))
  await late.clock.advance(60_000)
  expect(await error).toMatchObject({ code: 'network', id: 'c-1' })
})

test('a wait tries the sending again with the same key and what is left of the time', async () => {
  const { api, clock, client } = open((_, nth) => (nth === 1 ? silence() : json(standing('done'))), {
    requestTimeoutMs: 1000,
  })
  const answer = client.send('note.add', 1, { waitMs: 9000 })
  await clock.advance(10_100)
  expect(await answer).toMatchObject({ ended: { status: 'done' } })
  const header = (name: string) => api.asked.map(({ headers }) => headers.get(name))
  expect(new Set(header('idempotency-key')).size).toBe(1)
  expect(header('prefer')).toEqual(['wait=9', null])
})

test('sends that wait have bounds of their own and hold up nobody else', async () => {
  const held: Answering = (asked) => (asked.path.endsWith('/v1/commands') ? accept(asked) : silence())
  const { api, clock, client } = open(held, { waitsInFlightMax: 2, requestsInFlightMax: 1 })
  for (let n = 0; n < 5; n++) void told(client.send('note.add', n, { waitMs: 5000 }))
  const plain = client.send('note.add', 9)
  await clock.advance(0)
  expect(await plain).toMatchObject({ type: 'note.add' })
  expect(api.inFlightMost).toBe(3)
  await clock.advance(100_000)
})

test('status, cancel and their mistakes', async () => {
  const { api, client } = open(() =>
    json(standing('retrying', { dueAt: '2030-01-01T00:00:00.000Z', attempt: 3 })),
  )
  expect(await client.status('a/b')).toMatchObject({
    status: 'retrying',
    attempt: 3,
    dueAtMs: Date.UTC(2030, 0),
  })
  expect(api.asked[0]?.path).toBe('/base/v1/commands/a%2Fb')
  expect(api.asked[0]?.headers.get('prefer')).toBeNull()

  const cancel = open((_, nth) => (nth === 1 ? cut() : json({ id: 'c-1', status: 'cancelled' }, 202)))
  const done = cancel.client.cancel('c-1')
  await cancel.clock.advance(1000)
  await done
  expect(cancel.api.asked.map(({ method }) => method)).toEqual(['DELETE', 'DELETE'])
  cancel.api.answer = () => refuse('cancel-too-late', 409)
  expect(await told(cancel.client.cancel('c-1'))).toMatchObject({ code: 'refused', status: 409, id: 'c-1' })
  for (const id of ['', '.', '..', '\ud800'])
    expect(await told(cancel.client.status(id))).toMatchObject({ code: 'invalid' })
})

test('a view: there, unchanged, missing, or of no projection', async () => {
  const headers = { etag: '"v7"', 'millrace-position': '0:1-0', 'millrace-after-status': 'done' }
  const { api, client } = open(() => json({ count: 1 }, 200, headers))
  expect(await client.view('notes', 'a b/ä', { after: 'c-1' })).toEqual({
    ...{ value: { count: 1 }, unchanged: false, etag: '"v7"', position: '0:1-0', afterStatus: 'done' },
  })
  expect(api.asked[0]?.path).toBe('/base/v1/views/notes/a%20b%2F%C3%A4')
  expect(api.asked[0]?.headers.get('millrace-after')).toBe('c-1')

  api.answer = () => new Response(null, { status: 304, headers })
  const same = await client.view('notes', 'a', { ifNoneMatch: '"v7"' })
  expect(same).toMatchObject({ value: undefined, unchanged: true, etag: '"v7"' })
  expect(api.asked[1]?.headers.get('if-none-match')).toBe('"v7"')

  api.answer = () => refuse('not-found', 404, { 'millrace-position': '0:1-0' })
  const missing = await client.view('notes', 'a')
  expect(missing).toMatchObject({ value: undefined, unchanged: false, etag: undefined, position: '0:1-0' })
  api.answer = () => refuse('unknown-projection', 404)
  expect(await told(client.view('notes', 'a'))).toMatchObject({ code: 'not-found' })
  api.answer = () => new Response('no such page', { status: 404 })
  expect(await told(client.view('notes', 'a'))).toMatchObject({ code: 'not-found' })
})

test('a view that is not there yet is asked for until the time of the caller is over, however often', async () => {
  const early = () => refuse('view-not-there-yet', 425, { 'retry-after': '1' })
  const { api, clock, client } = open((_, nth) => (nth < 8 ? early() : json(1)), { attemptsMax: 2 })
  const view = client.view('notes', 'a', { after: 'c-1', timeoutMs: 20_000 })
  await clock.advance(20_000)
  expect(await view).toMatchObject({ value: 1 })
  expect(api.asked).toHaveLength(8)

  api.answer = early
  const never = told(client.view('notes', 'a', { after: 'c-1', timeoutMs: 3000 }))
  await clock.advance(3000)
  expect(await never).toMatchObject({
    code: 'timeout',
    status: 425,
    problem: { type: '/problems/view-not-there-yet' },
  })
  expect(api.asked).toHaveLength(11)
})

test('reads are tried again like everything else, within tries and time', async () => {
  for (const answer of [
    cut,
    () => refuse(REDUCED, 503),
    () => refuse('internal-error', 500),
    () => refuse('q', 429),
  ]) {
    const { api, clock, client } = open(answer, { attemptsMax: 4 })
    const view = told(client.view('notes', 'a'))
    await clock.advance(29_000)
    expect(['network', 'overloaded', 'fault', 'rate-limited']).toContain(clientErrorCode(await view) ?? '')
    expect(api.asked).toHaveLength(4)
  }
  const { api, clock, client } = open(silence, { requestTimeoutMs: 1000 })
  const view = told(client.view('notes', 'a', { timeoutMs: 2500 }))
  await clock.advance(2500)
  expect(await view).toMatchObject({ code: 'timeout' })
  expect(api.asked).toHaveLength(3)
})

test('pages are asked for one after another, each when it is wanted', async () => {
  const page = (keys: readonly string[], next: string | null): Response =>
    json({ data: keys.map((key) => ({ key, value: 1, etag: 'e' })), page: { next, prev: null } })
  const { api, client } = open((_, nth) => (nth === 1 ? page(['a', 'b'], 'c+1') : page(['c'], null)))
  const seen: string[] = []
  for await (const { views } of client.views('notes', { limit: 2, prefix: 'a&b' })) {
    seen.push(...views.map(({ key }) => key))
    if (seen.length === 2) expect(api.asked).toHaveLength(1)
  }
  expect(seen).toEqual(['a', 'b', 'c'])
  expect(api.asked.map(({ path }) => path)).toEqual([
    '/base/v1/views/notes?limit=2&prefix=a%26b',
    '/base/v1/views/notes?limit=2&prefix=a%26b&cursor=c%2B1',
  ])
})

test('a signal ends every wait with its reason, and so does closing; both leave nothing behind', async () => {
  const early = () => refuse('view-not-there-yet', 425, { 'retry-after': '1' })
  const { api, clock, client } = open(({ path }) =>
    path.includes('views') ? early() : openState('accepted'),
  )
  const cause = new Error('page left')
  const stop = new AbortController()
  const { signal } = stop
  const waits = [
    told(client.result('c-1', { signal })),
    told(client.view('notes', 'a', { signal })),
    told(client.send('note.add', 1, { waitMs: 5000, signal })),
  ]
  await clock.advance(10)
  stop.abort(cause)
  for (const wait of waits.slice(0, 2)) expect(await wait).toMatchObject({ code: 'aborted', cause })
  await waits[2]
  const others = [told(client.result('c-1')), told(client.view('notes', 'a'))]
  await clock.advance(10)
  await client.close()
  for (const wait of others) expect(clientErrorCode(await wait)).toBe('closed')
  expect(clientErrorCode(await told(client.status('c-1')))).toBe('closed')
  const before = api.asked.length
  await clock.advance(60_000)
  expect(api.asked).toHaveLength(before)
})
