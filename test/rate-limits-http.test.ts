/** Rate limits as a client sees them: what is told, what is refused, and that a retry after the told time succeeds. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { z } from 'zod'
import { defineCommand } from '../src/contracts/command.ts'
import { ANYBODY, type Principal } from '../src/contracts/principal.ts'
import { defineStream } from '../src/contracts/stream.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { type PublicServerOptions, startPublicServer } from './support/public-server.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { rejection } from './support/rejection.ts'

const payload = z.object({ n: z.number() })
const catalogue = buildCatalogue([
  defineStream({ name: 'main' }),
  defineCommand({ type: 'note.write', payload }),
  defineCommand({ type: 'note.erase', payload }),
])
const EXCEEDED = 'https://iana.org/assignments/http-problem-types#quota-exceeded'

let redis: TestRedis
let rules = 0

beforeAll(async () => {
  redis = await startTestRedis()
})
afterAll(async () => {
  await redis[Symbol.asyncDispose]()
})

/** `$` in a rule is a name that no other test has. */
const server = (rateLimits: string, options: Partial<PublicServerOptions> = {}) =>
  startPublicServer(redis, catalogue, {
    rateLimits: rateLimits.replaceAll('$', `r${rules++}`),
    ...options,
  })

const note = (n: number) => ({ type: 'note.write', payload: { n } })
const toldOf = ({ headers }: Response) =>
  ['ratelimit-policy', 'ratelimit', 'retry-after'].map((name) => headers.get(name))

test('every answer of a limited route tells the policy and what is left; health is exempt', async () => {
  await using api = await server('burst: 3 in 60s; wide: 50/s burst 1000')
  const policy = '"burst";q=3;w=60, "wide";q=1000;w=20'
  const first = await api.post('/v1/commands/note.write', { n: 1 })
  expect(first.status).toBe(202)
  expect(first.headers.get('ratelimit-policy')).toBe(policy)
  expect(first.headers.get('ratelimit')).toMatch(/^"burst";r=2;t=(60|61), "wide";r=99\d;t=1$/)
  const invalid = await api.post('/v1/commands/note.write', { n: 'x' })
  expect(invalid.status).toBe(422)
  expect(invalid.headers.get('ratelimit')).toMatch(/^"burst";r=1;/)
  const missing = await api.fetch('/v1/commands/nothing')
  expect(missing.status).toBe(400)
  expect(missing.headers.get('ratelimit')).toMatch(/^"burst";r=0;/)
  const refused = await api.post('/v1/commands/note.write', { n: 2 })
  expect(refused.status).toBe(429)
  for (let i = 0; i < 5; i++) {
    const health = await api.fetch('/livez')
    expect(health.status).toBe(200)
    expect(toldOf(health)).toEqual([null, null, null])
  }
})

test('what is too much is 429 with the policy by name, and whoever comes again after Retry-After is let in', async () => {
  await using api = await server('$: 2 in 1s')
  const name = `r${rules - 1}`
  const statuses: number[] = []
  for (let i = 0; i < 3; i++) statuses.push((await api.post('/v1/commands/note.write', { n: i })).status)
  expect(statuses).toEqual([202, 202, 429])
  const refused = await api.post('/v1/commands/note.write', { n: 9 })
  expect(refused.headers.get('content-type')).toBe('application/problem+json')
  expect(await refused.json()).toMatchObject({
    ...{ type: EXCEEDED, status: 429, 'violated-policies': [name], instance: '/v1/commands/note.write' },
    detail: expect.stringMatching(/allows 2 in 1 s\. Try again in 1 s\./),
  })
  expect(toldOf(refused)).toEqual([`"${name}";q=2;w=1`, `"${name}";r=0;t=1`, expect.stringMatching(/^[12]$/)])
  await Bun.sleep(Number(refused.headers.get('retry-after')) * 1000)
  expect((await api.post('/v1/commands/note.write', { n: 3 })).status).toBe(202)
  expect(api.telemetry.of('rate-limit.refused')).toEqual([{ policy: name, count: 1 }])
})

test('a token bucket says when the next token comes, and it is there then', async () => {
  await using api = await server('$: 0.8/s burst 1')
  expect((await api.post('/v1/commands/note.write', { n: 1 })).status).toBe(202)
  const refused = await api.post('/v1/commands/note.write', { n: 2 })
  expect(refused.status).toBe(429)
  expect(refused.headers.get('retry-after')).toBe('2')
  await Bun.sleep(2000)
  expect((await api.post('/v1/commands/note.write', { n: 2 })).status).toBe(202)
})

describe('a bulk request', () => {
  test('takes a token for each command; those beyond the limit are refused one by one', async () => {
    await using api = await server('$: 5 in 60s')
    const first = await api.post('/v1/commands', [note(1), note(2), note(3)])
    expect(first.headers.get('ratelimit')).toMatch(/;r=2;/)
    const second = await api.post('/v1/commands', [17, note(4), note(5)])
    expect(second.status).toBe(202)
    expect(await second.json(), 'what can not be read has its own problem').toMatchObject({
      ...{ accepted: 1, rejected: 2 },
      results: [
        { index: 0, problem: { status: 422 } },
        { index: 1, id: expect.any(String) },
        { index: 2, problem: { type: EXCEEDED, status: 429, 'violated-policies': [`r${rules - 1}`] } },
      ],
    })
    const third = await api.post('/v1/commands', [note(6)])
    expect(third.status).toBe(429)
    expect(Number(third.headers.get('retry-after'))).toBeGreaterThan(50)
  })

  test('of which nothing fits is 429 as a whole, with the fate of each command', async () => {
    await using api = await server('$: 1 in 60s for note.write')
    expect((await api.post('/v1/commands', [note(1)])).status).toBe(202)
    const refused = await api.post('/v1/commands', [note(2), note(3)])
    expect(refused.status).toBe(429)
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(50)
    expect(await refused.json()).toMatchObject({
      ...{ type: EXCEEDED, accepted: 0, rejected: 2, 'violated-policies': [`r${rules - 1}`] },
      results: [
        { index: 0, problem: { status: 429 } },
        { index: 1, problem: { status: 429 } },
      ],
    })
    const other = await api.post('/v1/commands', [note(4), { type: 'note.erase', payload: { n: 1 } }])
    expect(await other.json(), 'a limit on one type leaves the other alone').toMatchObject({ accepted: 1 })
  })

  test('that is atomic takes all or none', async () => {
    await using api = await server('$: 5 in 60s')
    const notes = (count: number) => Array.from({ length: count }, (_, n) => note(n))
    expect((await api.post('/v1/commands?atomic=true', notes(3))).status).toBe(202)
    const refused = await api.post('/v1/commands?atomic=true', notes(3))
    expect(refused.status).toBe(429)
    expect(await refused.json()).toMatchObject({ type: EXCEEDED, 'violated-policies': [`r${rules - 1}`] })
    expect((await api.post('/v1/commands?atomic=true', notes(2))).status, 'nothing was taken').toBe(202)
  })

  test('counts once where nothing in it could be counted', async () => {
    await using api = await server('$: 3 in 60s')
    expect((await api.post('/v1/commands', 'no json')).headers.get('ratelimit')).toMatch(/;r=2;/)
    const atomic = await api.post('/v1/commands?atomic=true', [note(1), 17])
    expect(atomic.status).toBe(422)
    expect(atomic.headers.get('ratelimit')).toMatch(/;r=1;/)
  })

  test('that could never be taken as a whole says so', async () => {
    await using api = await server('$: 2 in 60s')
    const refused = await api.post('/v1/commands?atomic=true', [note(1), note(2), note(3)])
    expect(refused.status).toBe(413)
    expect(await refused.json()).toMatchObject({
      detail: expect.stringMatching(/can never be taken: rate limit "r\d+" allows 2 at once/),
    })
  })
})

test('a CloudEvent takes one token, and is refused as one command is', async () => {
  await using api = await server('$: 2 in 60s by type')
  const event = (n: number) =>
    api.post(
      '/v1/commands',
      { specversion: '1.0', id: String(n), source: '/test', type: 'note.write', data: { n } },
      { 'content-type': 'application/cloudevents+json' },
    )
  expect([(await event(1)).status, (await event(2)).status]).toEqual([202, 202])
  const refused = await event(3)
  expect(refused.status).toBe(429)
  expect(await refused.json()).toMatchObject({ type: EXCEEDED })
  expect(toldOf(refused).every((told) => told !== null)).toBe(true)
})

test('one limit that refuses leaves the tokens of the others', async () => {
  await using api = await server('all: 20 in 60s; one: 1 in 60s on command.send')
  for (let i = 0; i < 4; i++) await api.post('/v1/commands/note.write', { n: i })
  const statuses: number[] = []
  for (let i = 0; i < 25; i++) statuses.push((await api.fetch('/v1/views/nothing/x')).status)
  expect(statuses.filter((status) => status === 404)).toHaveLength(19)
  expect(statuses.filter((status) => status === 429)).toHaveLength(6)
})

test('a limit by credential, tenant, route and type counts each of them for itself', async () => {
  const identify = (headers: Headers): Principal => {
    const [tenant = '', credential = ''] = (headers.get('authorization') ?? '').split('/')
    return { ...ANYBODY, tenant, credential }
  }
  const guard = { identify, streamOfType: () => 'main' }
  await using api = await server('$: 1 in 60s by tenant, credential, route, type', { guard })
  const send = (who: string, type: string) =>
    api.post(`/v1/commands/${type}`, { n: 1 }, { authorization: who }).then(({ status }) => status)
  expect(await send('acme/a', 'note.write')).toBe(202)
  expect(await send('acme/a', 'note.write')).toBe(429)
  expect(await send('acme/b', 'note.write')).toBe(202)
  expect(await send('umbrella/a', 'note.write')).toBe(202)
  expect(await send('acme/a', 'note.erase')).toBe(202)
  const read = await api.fetch('/v1/views/nothing/x', { headers: { authorization: 'acme/a' } })
  expect(read.status).toBe(404)
  // Types that clients invent share one count.
  expect(await send('acme/a', 'made.up')).toBe(404)
  expect(await send('acme/a', 'made.up-too')).toBe(429)
})

test('without an identity all share one count, whatever address they claim to have', async () => {
  await using api = await server('$: 1 in 60s by credential')
  const send = (address: string) =>
    api.post('/v1/commands/note.write', { n: 1 }, { 'x-forwarded-for': address })
  expect((await send('192.0.2.1')).status).toBe(202)
  expect((await send('192.0.2.2')).status).toBe(429)
})

test('X-RateLimit headers come when they are asked for, and tell of the limit that is nearest', async () => {
  await using api = await server('wide: 40 in 60s; narrow: 7 in 60s', { limiting: { legacyHeaders: true } })
  const { headers } = await api.post('/v1/commands/note.write', { n: 1 })
  expect(headers.get('x-ratelimit-limit')).toBe('7')
  expect(headers.get('x-ratelimit-remaining')).toBe('6')
  expect(headers.get('x-ratelimit-reset')).toMatch(/^(60|61)$/)
})

test('without rules nothing is told, and a rule that names no route of ours keeps the process from starting', async () => {
  await using api = await startPublicServer(redis, catalogue)
  const { headers } = await api.post('/v1/commands/note.write', { n: 1 })
  expect([...headers.keys()].filter((name) => name.includes('ratelimit'))).toEqual([])
  expect((await rejection(server('a: 1 in 1s on view.raed'))).message).toMatch(/did you mean "view.read"\?/)
  expect((await rejection(server('a: 1 in 1s on health.live'))).message).toMatch(
    /names the route "health.live"/,
  )
  expect((await rejection(server('a: 1 in 1s for note.wirte'))).message).toMatch(
    /did you mean "note.write"\?/,
  )
})

test('while Redis does not answer, requests are let through and go on to their own fate', async () => {
  await using own = await startTestRedis()
  await using api = await startPublicServer(own, catalogue, { rateLimits: 'a: 2 in 60s' })
  expect((await api.post('/v1/commands/note.write', { n: 1 })).status).toBe(202)
  process.kill(own.pid, 'SIGSTOP')
  try {
    const statuses = await Promise.all([1, 2, 3].map(() => api.fetch('/v1/views/nothing/x')))
    expect(statuses.map(({ status }) => status)).toEqual([404, 404, 404])
  } finally {
    process.kill(own.pid, 'SIGCONT')
  }
})
