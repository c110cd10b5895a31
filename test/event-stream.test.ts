/** Event tails over HTTP: what is sent, how a reader resumes, and what becomes of readers that leave, stall or are too many. */
import { afterAll, expect, setDefaultTimeout, test } from 'bun:test'
import { connect, type Socket } from 'node:net'
import { z } from 'zod'
import { defineEvent, defineStream } from '../src/index.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { EventSource, eventBlob } from './support/event-source.ts'
import { type PublicServer, type PublicServerOptions, startPublicServer } from './support/public-server.ts'
import { startTestRedis } from './support/redis-server.ts'
import { type Block, TailClient } from './support/tail-client.ts'
import { until } from './support/until.ts'

const redis = await startTestRedis()
setDefaultTimeout(30_000)
afterAll(() => redis[Symbol.asyncDispose]())

const noted = defineEvent({ type: 'note.taken', payload: z.object({ n: z.number() }) })
const PARTITIONS = 3
const catalogue = buildCatalogue([noted, defineStream({ name: 'notes', partitions: PARTITIONS })])

interface Scene extends AsyncDisposable {
  readonly server: PublicServer
  readonly link: RedisLink
  readonly source: EventSource
  readonly url: string
  /** One event; equal keys go to equal partitions. */
  note(n: number, key?: string, type?: string): Promise<void>
}

async function scene(options: PublicServerOptions = {}): Promise<Scene> {
  const link = await redis.open()
  await link.use('a clean server', (client) => client.flushall())
  const server = await startPublicServer(redis, catalogue, options)
  const source = new EventSource(link, 'notes', PARTITIONS)
  return {
    ...{ server, link, source, url: `${server.url}/v1/events/notes` },
    note: async (n, key = `key${n}`, type = 'note.taken') => {
      await source.log([{ type, key, payload: { n } }])
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
}

const numbers = (blocks: readonly Block[]): number[] =>
  blocks.map(({ data }) => (data as { payload: { n: number } }).payload.n)
const sorted = (found: readonly number[]): number[] => found.toSorted((a, b) => a - b)
const upTo = (count: number, from = 0): number[] => Array.from({ length: count }, (_, n) => n + from)

test('an event comes as its type, one line of JSON, and an id; before the first one the reader knows its place', async () => {
  await using world = await scene()
  await world.note(1)
  await using reader = await TailClient.open(world.url, { accept: 'application/json' })
  expect(reader.response.status).toBe(200)
  const { headers } = reader.response
  expect(headers.get('content-type')).toBe('text/event-stream')
  expect(headers.get('cache-control')).toBe('no-store')
  expect(headers.get('x-accel-buffering')).toBe('no')
  await reader.until('the greeting', () => reader.blocks.length > 0)
  expect(reader.blocks[0]).toMatchObject({ event: undefined, data: undefined })
  expect(reader.blocks[0]?.retryMs).toBeGreaterThan(1000)
  const before = reader.lastId
  expect(before).toMatch(/^[\w-]+$/)
  await world.note(2, 'ada')
  await reader.until('the event', () => reader.events.length > 0)
  const [block] = reader.events
  expect(block?.event).toBe('note.taken')
  expect(block?.id).not.toBe(before)
  const data = block?.data as Record<string, string | number>
  expect(data).toMatchObject({
    ...{ type: 'note.taken', version: 1, key: 'ada', payload: { n: 2 } },
    ...{ emittedAt: '2023-11-14T22:13:20.000Z', partition: world.source.partition('ada') },
  })
  expect(data['position']).toMatch(/^\d+-\d+\/0$/)
  expect(world.server.ids.parse(String(data['commandId']))).toMatchObject({ stream: 'notes' })
  await using back = await TailClient.open(world.url, { 'last-event-id': before })
  await back.until('the event again', () => back.events.length > 0)
  expect(back.events).toEqual([block as Block])
})

test('from the start, after a cursor by header or by query; the header goes first', async () => {
  await using world = await scene()
  for (const n of upTo(20)) await world.note(n)
  await using all = await TailClient.open(`${world.url}?from=start`)
  await all.until('all events', () => all.events.length === 20)
  expect(sorted(numbers(all.events))).toEqual(upTo(20))
  for (const taken of [0, 7, 19]) {
    const cursor = all.events[taken]?.id ?? ''
    const rest = all.events.slice(taken + 1, 20)
    const ways = [
      TailClient.open(`${world.url}?after=${cursor}`),
      TailClient.open(`${world.url}?from=start`, { 'last-event-id': cursor }),
      TailClient.open(`${world.url}?after=${all.events[3]?.id}`, { 'last-event-id': cursor }),
    ]
    await world.note(100 + taken, 'later')
    for (const way of ways) {
      await using reader = await way
      const found = () => numbers(reader.events).filter((n) => n < 100)
      const isThere = () => numbers(reader.events).includes(100 + taken)
      await reader.until('all', () => isThere() && found().length >= rest.length)
      expect(sorted(found())).toEqual(sorted(numbers(rest)))
    }
  }
})

test('an entry of many events is resumed inside of it', async () => {
  await using world = await scene({ tails: { bytesMax: 256 } })
  const events = upTo(50).map((n) => ({ type: 'note.taken', key: 'one', payload: { n } }))
  await world.source.log(events, 1)
  await world.note(50, 'other')
  let cursor = ''
  const found: number[] = []
  while (found.length < 51) {
    const from = cursor === '' ? '?from=start' : `?after=${cursor}`
    await using reader = await TailClient.open(world.url + from)
    const want = Math.min(7, 51 - found.length)
    await reader.until('some events', () => reader.events.length >= want)
    const some = reader.events.slice(0, want)
    found.push(...numbers(some))
    cursor = some.at(-1)?.id ?? ''
  }
  expect(sorted(found)).toEqual(upTo(51))
})

test('filters by type and by key, and a heartbeat moves the place on past what is hidden', async () => {
  await using world = await scene({ app: { heartbeatMs: 100 } })
  await using byType = await TailClient.open(`${world.url}?type=a.b&type=c.d`)
  await using byKey = await TailClient.open(`${world.url}?key=ada`)
  await world.note(1, 'ada', 'a.b')
  await world.note(2, 'bob', 'c.d')
  await world.note(3, 'ada', 'e.f')
  await byType.until('two', () => byType.events.length === 2)
  await byKey.until('two', () => byKey.events.length === 2)
  expect(sorted(numbers(byType.events))).toEqual([1, 2])
  expect(numbers(byKey.events)).toEqual([1, 3])
  const place = byType.lastId
  for (const n of upTo(5)) await world.note(n, 'ada', 'e.f')
  await byType.until('a heartbeat after them', () => byType.lastId !== place)
  expect(byType.blocks.at(-1)).toMatchObject({ comment: 'heartbeat', data: undefined })
})

test('whole numbers beyond 2^53 come as text, bytes as base64; what can not be read says so', async () => {
  await using world = await scene()
  await using reader = await TailClient.open(world.url)
  await using filtered = await TailClient.open(`${world.url}?type=note.taken`)
  const payload = { big: 2n ** 60n, bytes: Buffer.from('ab'), text: 'a\r\nid: 1\n\nb' }
  const blob = eventBlob({ type: 'note.taken', key: 'k', payload })
  const broken = Buffer.from([9, 9, 9, 9])
  const { events } = world.source.keys(0)
  await world.link.use('events', (client) => client.xadd(events, '*', 'e1-0', broken, 'e1-0', blob))
  await reader.until('both', () => reader.events.length === 2)
  expect(reader.events[0]).toMatchObject({ event: 'unreadable', data: { partition: 0 } })
  expect(reader.events[1]?.data).toMatchObject({
    payload: { big: String(2n ** 60n), bytes: 'YWI=', text: payload.text },
  })
  await filtered.until('the readable one', () => filtered.events.length === 1)
  expect(filtered.events[0]?.event).toBe('note.taken')
})

test('mistakes are told: unknown stream, malformed or foreign cursor, query, method; HEAD leaves nothing open', async () => {
  await using world = await scene()
  const status = async (path: string, init?: RequestInit) => {
    const answer = await world.server.fetch(`/v1/events/${path}`, init)
    const isProblem = answer.headers.get('content-type')?.includes('problem') === true
    const text = isProblem ? await answer.text() : ''
    const detail = text === '' ? '' : String((JSON.parse(text) as { detail: string }).detail)
    return { status: answer.status, detail, headers: answer.headers }
  }
  expect(await status('ntes')).toMatchObject({ status: 404, detail: expect.stringContaining('Did you mean') })
  for (const cursor of ['x', '1-0', 'AQAAAAAAAAAAAAAA', 'a'.repeat(3000)]) {
    expect((await status(`notes?after=${cursor}`)).status).toBe(400)
    const headed = await status('notes', { headers: { 'last-event-id': cursor } })
    expect([headed.status, headed.detail]).toEqual([400, expect.stringContaining('no cursor of the events')])
  }
  expect((await status('notes?after=')).status).toBe(400)
  expect((await status('notes?from=start&after=x')).status).toBe(400)
  expect((await status('notes?from=yesterday')).status).toBe(400)
  expect((await status('notes?typ=a')).detail).toContain('Did you mean "type"?')
  expect((await status('notes?type=')).status).toBe(400)
  expect((await status('notes?key=a&key=b')).status).toBe(400)
  const posted = await status('notes', { method: 'POST', body: '{}' })
  expect(posted.status).toBe(405)
  expect(posted.headers.get('allow')).toBe('GET, HEAD')
  const head = await status('notes', { method: 'HEAD' })
  expect([head.status, head.headers.get('content-type')]).toEqual([200, 'text/event-stream'])
  expect((await status('nots', { method: 'HEAD' })).status).toBe(404)
  await until('nothing to be open', () => world.server.tails.count === 0)
})

test('beyond the bound on tails: 503 with Retry-After; one that leaves makes room', async () => {
  await using world = await scene({ tails: { tailsMax: 2 } })
  await using _first = await TailClient.open(world.url)
  const second = await TailClient.open(world.url)
  const refused = await world.server.fetch('/v1/events/notes')
  expect(refused.status).toBe(503)
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
  expect(await refused.text()).toContain('#temporary-reduced-capacity')
  await second[Symbol.asyncDispose]()
  await until('room', () => world.server.tails.count === 1)
  await using third = await TailClient.open(world.url)
  expect(third.response.status).toBe(200)
})

test('a silent tail outlives the idle limit of the server by its heartbeats, and without any', async () => {
  await using world = await scene({ app: { heartbeatMs: 2500 }, idleTimeoutS: 1 })
  await using reader = await TailClient.open(world.url)
  const beats = () => reader.blocks.filter(({ comment }) => comment === 'heartbeat').length
  await reader.until('two heartbeats', () => beats() === 2)
  await world.note(1)
  await reader.until('an event', () => reader.events.length === 1)
  expect(reader.ended).toBe(false)
})

test('whoever leaves is forgotten at once, and the shared reader ends when nobody is left', async () => {
  await using world = await scene()
  const readers = await Promise.all(upTo(20).map(() => TailClient.open(world.url)))
  await until('the shared reader', () => world.server.tails.reads)
  for (const reader of readers) await reader.until('the greeting', () => reader.blocks.length > 0)
  expect(world.server.tails.count).toBe(20)
  const started = performance.now()
  await Promise.all(readers.map((reader) => reader[Symbol.asyncDispose]()))
  await until('all forgotten', () => world.server.tails.count === 0)
  expect(performance.now() - started).toBeLessThan(1000)
  await until('no reader', () => !world.server.tails.reads)
  expect(world.server.telemetry.of('tail.closed')).toEqual(
    upTo(20).map(() => ({ stream: 'notes', end: 'client' })),
  )
})

test('a process that drains sends its readers away with their place, and does not wait for them', async () => {
  await using world = await scene()
  await using reader = await TailClient.open(world.url)
  await world.note(1)
  await reader.until('the event', () => reader.events.length === 1)
  const started = performance.now()
  await world.server.tails.stop()
  await reader.untilEnded()
  expect(reader.blocks.at(-1)).toMatchObject({ comment: 'draining', id: reader.events[0]?.id })
  expect(reader.blocks.at(-1)?.retryMs).toBeLessThan(1100)
  const refused = await world.server.fetch('/v1/events/notes')
  expect(refused.status).toBe(503)
  await world.server.server.stop()
  expect(performance.now() - started).toBeLessThan(1500)
})

/** A client that sends its request and never reads. */
async function mute(url: string): Promise<Socket> {
  const { hostname, port, pathname, search } = new URL(url)
  const socket = connect(Number(port), hostname)
  socket.on('error', () => undefined)
  await new Promise<void>((resolve) => socket.once('connect', () => resolve()))
  socket.pause()
  socket.write(`GET ${pathname}${search} HTTP/1.1\r\nhost: x\r\n\r\n`)
  return socket
}

test('a reader that takes nothing is told so and closed; others never noticed', async () => {
  await using world = await scene({ tails: { stallMs: 1000, keptBytesMax: 256 * 1024 } })
  const text = 'x'.repeat(20_000)
  const write = async (from: number) =>
    await world.source.log(
      upTo(50, from).map((n) => ({ type: 'note.taken', key: `k${n}`, payload: { n, text } })),
    )
  await using other = await TailClient.open(world.url)
  const stuck = await Promise.all(upTo(5).map(() => mute(world.url)))
  await until('all tails', () => world.server.tails.count === 6)
  let written = 0
  const slow = () => world.server.telemetry.of('tail.closed').filter(({ end }) => end === 'slow').length
  while (slow() < 5 && written < 100_000) {
    await write(written)
    written += 50
    await other.until('all of it', () => other.events.length >= written)
    other.blocks.splice(0, 0)
  }
  expect(slow()).toBe(5)
  expect(world.server.tails.count).toBe(1)
  expect(sorted(numbers(other.events))).toEqual(upTo(written))
  expect(world.server.telemetry.of('tail.gap-told').filter(({ reason }) => reason === 'slow').length).toBe(5)
  const first = stuck[0]
  let said = ''
  first?.on('data', (bytes) => {
    said = (said + bytes.toString('latin1')).slice(-2000)
  })
  first?.resume()
  await until('the first to be told', () => /event: gap\ndata: {"reason":"slow"/.test(said))
  const cursor = /id: (\S+)\nevent: gap/.exec(said)?.[1]
  await using back = await TailClient.open(`${world.url}?after=${cursor}`)
  await back.until('the rest', () => numbers(back.events).includes(written - 1))
  for (const socket of stuck) socket.destroy()
})

test('a reader that takes nothing does not hold up a stop', async () => {
  await using world = await scene()
  const stuck = await mute(world.url)
  await using other = await TailClient.open(world.url)
  await until('both', () => world.server.tails.count === 2)
  const text = 'x'.repeat(20_000)
  for (let from = 0; from < 600; from += 50) {
    const some = upTo(50, from).map((n) => ({ type: 'note.taken', key: `k${n}`, payload: { n, text } }))
    await world.source.log(some)
  }
  await other.until('all of it', () => other.events.length === 600)
  const sent = () => world.server.telemetry.of('tail.sent').reduce((sum, { count }) => sum + count, 0)
  expect(sent()).toBeLessThan(1200)
  const started = performance.now()
  await world.server.tails.stop()
  await world.server.server.stop()
  // Without an end to its patience the listener would wait for 5 s.
  expect(performance.now() - started).toBeLessThan(4500)
  stuck.destroy()
})
