/** Sending by the client, against a `fetch` of the test's and on a clock of the test's: batches, bounds, tries, and the end of them. */
import { expect, test } from 'bun:test'
import { FakeClock } from 'millrace/testing'
import type { Client, SendAnswer } from '../src/client/client.ts'
import { type ClientError, type ClientErrorCode, clientErrorCode } from '../src/client/client-error.ts'
import type { ClientOptions } from '../src/client/client-options.ts'
import { openHttpClient } from '../src/client/create-client.ts'
import {
  type Answering,
  type AskedLine,
  accept,
  cut,
  FakeApi,
  json,
  problem,
  REDUCED,
  refuse,
  results,
  silence,
} from './support/fake-api.ts'

interface World {
  readonly api: FakeApi
  readonly clock: FakeClock
  readonly client: Client
}

function open(answer: Answering = accept, options: Partial<ClientOptions> = {}, random = 0.5): World {
  const api = new FakeApi(answer)
  const clock = new FakeClock({ random: () => random })
  const client = openHttpClient({ url: 'http://api.test', fetch: api.fetch, ...options }, clock)
  return { api, clock, client }
}

/** Keeps a rejection from being unhandled while time is moved. */
function told(work: Promise<SendAnswer>): Promise<SendAnswer | ClientError> {
  return work.catch((error: unknown) => {
    if (clientErrorCode(error) === undefined) throw error
    return error as ClientError
  })
}

const codes = async (all: readonly Promise<SendAnswer | ClientError>[]): Promise<(string | undefined)[]> =>
  (await Promise.all(all)).map(clientErrorCode)

const send = (client: Client, count: number): Promise<SendAnswer | ClientError>[] =>
  Array.from({ length: count }, (_, n) => told(client.send('note.add', { n })))

const keysOf = (lines: readonly AskedLine[]): (string | undefined)[] =>
  lines.map(({ idempotencyKey }) => idempotencyKey)

test('what is sent in one turn travels in one request, each command under a key of its own', async () => {
  const { api, clock, client } = open()
  const sent = send(client, 3)
  await clock.advance(0)
  expect(await Promise.all(sent)).toMatchObject([
    { type: 'note.add', status: 'accepted', durability: 'everysec', deduplicated: false },
    {},
    {},
  ])
  expect(api.asked).toHaveLength(1)
  const [{ method, path, lines } = api.asked[0] as never] = api.asked
  expect([method, path]).toEqual(['POST', '/v1/commands'])
  expect(lines.map(({ payload }) => payload)).toEqual([{ n: 0 }, { n: 1 }, { n: 2 }])
  expect(new Set(keysOf(lines)).size).toBe(3)
  for (const key of keysOf(lines)) expect(key).toMatch(/^[0-9a-f]{24}$/)
})

test('options of a command, a key of the caller and no key at all are in its line', async () => {
  const { api, clock, client } = open()
  const deliverAt = new Date('2030-01-31T08:00:00Z')
  void client.send('note.add', 1, { idempotencyKey: 'cart-7', deliverAt, expiresInMs: 10 })
  void client.send('note.add', undefined, { idempotencyKey: false })
  await clock.advance(0)
  const [first, second] = api.asked[0]?.body.trim().split('\n') ?? []
  expect(JSON.parse(first ?? '')).toEqual({
    ...{ type: 'note.add', payload: 1, idempotencyKey: 'cart-7' },
    ...{ deliverAt: '2030-01-31T08:00:00.000Z', expiresInMs: 10 },
  })
  expect(second).toBe('{"type":"note.add"}')
})

test('a linger gathers what is sent within it, and a full request does not wait for it', async () => {
  const { api, clock, client } = open(accept, { lingerMs: 20, batchCountMax: 3 })
  void send(client, 1)
  await clock.advance(19)
  void send(client, 1)
  expect(api.asked).toHaveLength(0)
  await clock.advance(1)
  expect(api.asked.map(({ lines }) => lines.length)).toEqual([2])
  void send(client, 4)
  await clock.advance(0)
  expect(api.asked.map(({ lines }) => lines.length)).toEqual([2, 3])
  await clock.advance(20)
  expect(api.asked.map(({ lines }) => lines.length)).toEqual([2, 3, 1])
})

test('a request holds so many commands, so many bytes, and only so many are under way', async () => {
  const release: (() => void)[] = []
  const held: Answering = async (asked) => {
    await new Promise<void>((resolve) => release.push(resolve))
    return accept(asked)
  }
  const { api, clock, client } = open(held, { batchCountMax: 2, requestsInFlightMax: 3 })
  const sent = send(client, 20)
  await clock.advance(1000)
  expect(api.asked.map(({ lines }) => lines.length)).toEqual([2, 2, 2])
  while (release.length > 0) {
    release.pop()?.()
    await clock.advance(0)
  }
  expect(await codes(sent)).toEqual(Array(20).fill(undefined))
  expect(api.inFlightMost).toBe(3)
  expect(api.asked).toHaveLength(10)

  const small = open(accept, { batchBytesMax: 1024 })
  for (let n = 0; n < 3; n++) void small.client.send('note.add', 'x'.repeat(500))
  void small.client.send('note.add', 'é'.repeat(2000))
  await small.clock.advance(0)
  expect(small.api.asked.map(({ lines }) => lines.length)).toEqual([1, 1, 1, 1])
})

test('the queue is bounded in commands and in bytes; sendMany waits for room instead', async () => {
  const { api, clock, client } = open(silence, { queueCountMax: 3 })
  const sent = send(client, 4)
  await clock.advance(1)
  expect(await sent[3]).toMatchObject({ code: 'queue-full', idempotencyKey: expect.any(String) })
  api.answer = accept
  await clock.advance(60_000)

  const bytes = open(silence, { queueBytesMax: 1024 })
  const fits = told(bytes.client.send('note.add', 'x'.repeat(900)))
  expect(await told(bytes.client.send('note.add', 'x'.repeat(200)))).toMatchObject({ code: 'queue-full' })
  await bytes.clock.advance(60_000)
  expect(clientErrorCode(await fits)).toBe('outcome-unknown')

  const many = open(accept, { queueCountMax: 3, batchCountMax: 2 })
  const sendings = Array.from({ length: 50 }, (_, n) => ({ command: 'note.add', payload: { n } }))
  const outcomes = many.client.sendMany(sendings)
  for (let turn = 0; turn < 60; turn++) await many.clock.advance(1)
  expect((await outcomes).every(({ accepted }) => accepted !== undefined)).toBe(true)
  expect(many.api.asked.flatMap(({ lines }) => lines.map((line) => line.payload))).toEqual(
    sendings.map(({ payload }) => payload),
  )
})

test('sendMany waits for room in bytes too, and what can not go fails alone', async () => {
  const { api, clock, client } = open(accept, { queueBytesMax: 4096, batchBytesMax: 1024 })
  const sendings = Array.from({ length: 30 }, (_, n) => ({
    command: 'note.add',
    payload: n === 7 ? 1n : { n, text: 'x'.repeat(900) },
  }))
  const outcomes = client.sendMany(sendings)
  for (let turn = 0; turn < 40; turn++) await clock.advance(1)
  const failed = (await outcomes).map((each) => (each.accepted === undefined ? each.error.code : undefined))
  expect(failed).toEqual(sendings.map((_, n) => (n === 7 ? 'invalid' : undefined)))
  expect(api.asked).toHaveLength(29)
})

test('a token or a fetch that never comes back holds a request no longer than any other', async () => {
  const never = { token: () => new Promise<string>(() => undefined) }
  const deaf = { fetch: () => new Promise<Response>(() => undefined) }
  for (const options of [never, deaf]) {
    const bounds = { requestsInFlightMax: 1, batchCountMax: 1, requestTimeoutMs: 100, attemptsMax: 1 }
    const { clock, client } = open(accept, { ...options, ...bounds })
    const sent = send(client, 3)
    await clock.advance(300)
    expect(await codes(sent)).toEqual(Array(3).fill('outcome-unknown'))
  }
})

test('a cut connection is tried again with the same bytes, so with the same key', async () => {
  const { api, clock, client } = open((asked, nth) => (nth < 4 ? cut() : accept(asked)))
  const sent = send(client, 2)
  await clock.advance(5000)
  expect(await codes(sent)).toEqual([undefined, undefined])
  expect(api.asked).toHaveLength(4)
  expect(new Set(api.asked.map(({ body }) => body)).size).toBe(1)
})

test('pauses double up to the longest, are drawn from nothing up, and end with the tries', async () => {
  const pausesWith = async (random: number): Promise<number[]> => {
    const times: number[] = []
    const bounds = { attemptsMax: 6, backoffMinMs: 100, backoffMaxMs: 1000 }
    const answer = (): never => {
      times.push(clock.monotonicMs())
      return cut()
    }
    const { clock, client } = open(answer, bounds, random)
    const sent = told(client.send('note.add', 1))
    await clock.advance(29_000)
    const error = await sent
    expect(error).toMatchObject({
      code: 'outcome-unknown',
      idempotencyKey: expect.stringMatching(/^\w{24}$/),
    })
    expect((error as ClientError).cause).toMatchObject({ code: 'network' })
    return times.slice(1).map((at, index) => at - (times[index] ?? 0))
  }
  expect(await pausesWith(1)).toEqual([100, 200, 400, 800, 1000])
  expect(await pausesWith(0.5)).toEqual([50, 100, 200, 400, 500])
  expect(await pausesWith(0)).toEqual([0, 0, 0, 0, 0])
})

test('no try comes before Retry-After, be it seconds or a date by the clock of the server', async () => {
  const cases: [Record<string, string>, number][] = [
    [{ 'retry-after': '7' }, 7000],
    [{ 'retry-after': 'Sat, 01 Jan 2000 00:00:10 GMT', date: 'Sat, 01 Jan 2000 00:00:01 GMT' }, 9000],
    // Without the server's clock the client's own counts; it stands at 1970 here.
    [{ 'retry-after': 'Thu, 01 Jan 1970 00:00:04 GMT' }, 4000],
    [{ 'retry-after': 'soon' }, 50],
  ]
  for (const [headers, waitMs] of cases) {
    const { api, clock, client } = open((asked, nth) =>
      nth === 1 ? refuse(REDUCED, 503, headers) : accept(asked),
    )
    const sent = send(client, 1)
    await clock.advance(waitMs - 1)
    expect(api.asked).toHaveLength(1)
    await clock.advance(51)
    expect(api.asked).toHaveLength(2)
    expect(await codes(sent)).toEqual([undefined])
  }
})

test('a Retry-After beyond the deadline is not waited for, and told', async () => {
  const { api, clock, client } = open(() => refuse(REDUCED, 503, { 'retry-after': '60' }))
  const sent = send(client, 1)
  await clock.advance(0)
  expect(await sent[0]).toMatchObject({ code: 'overloaded', status: 503, retryAfterS: 60 })
  expect(api.asked).toHaveLength(1)
})

test('a refusal is not tried again, and has the code of its status', async () => {
  const cases: [number, ClientErrorCode][] = [
    ...([400, 413, 415, 422] as const).map((status): [number, ClientErrorCode] => [status, 'invalid']),
    ...([402, 405, 408, 409, 410, 418] as const).map((status): [number, ClientErrorCode] => [
      status,
      'refused',
    ]),
    ...([301, 307] as const).map((status): [number, ClientErrorCode] => [status, 'refused']),
    [401, 'unauthorized'],
    [403, 'forbidden'],
    [404, 'not-found'],
  ]
  for (const [status, code] of cases) {
    const { api, clock, client } = open(() => refuse('no', status))
    const sent = send(client, 2)
    await clock.advance(60_000)
    expect([status, ...(await codes(sent))]).toEqual([status, code, code])
    expect([status, api.asked.length]).toEqual([status, 1])
  }
})

test('429, 503 and what gateways say are tried again; the last error is told when nothing can be stored, else that it is unknown', async () => {
  const cases: [Answering, ClientErrorCode][] = [
    [() => refuse('quota', 429), 'rate-limited'],
    [() => refuse(REDUCED, 503), 'overloaded'],
    [() => refuse('idempotency-keys-full', 503), 'overloaded'],
    [() => refuse('outcome-unknown', 503), 'outcome-unknown'],
    [() => refuse('stored-unconfirmed', 503), 'outcome-unknown'],
    [() => new Response('<html>bad gateway', { status: 502 }), 'outcome-unknown'],
    [() => new Response('no upstream', { status: 503 }), 'outcome-unknown'],
    [() => refuse('internal-error', 500), 'outcome-unknown'],
    [() => new Response('<html>log in to this network'), 'outcome-unknown'],
    [() => json({ hello: 'world' }, 202), 'outcome-unknown'],
    // Perhaps the first try was stored, so the second's refusal is not the whole truth.
    [(_, nth) => (nth === 1 ? cut() : refuse(REDUCED, 503)), 'outcome-unknown'],
    [(_, nth) => (nth === 1 ? cut() : refuse('no', 401)), 'outcome-unknown'],
    // But what its content forbids was never stored.
    [(_, nth) => (nth === 1 ? cut() : refuse('invalid-command', 422)), 'invalid'],
  ]
  for (const [index, [answer, code]] of cases.entries()) {
    const { api, clock, client } = open(answer, { attemptsMax: 3 })
    const sent = send(client, 1)
    await clock.advance(29_000)
    expect([index, ...(await codes(sent))]).toEqual([index, code])
    expect(api.asked.length).toBeGreaterThan(1)
  }
})

test('a problem of one item is told to its sender; one that may go better is tried again alone', async () => {
  const { api, clock, client } = open((asked, nth) => {
    if (nth > 1) return accept(asked)
    return results([
      { index: 0, id: 'first' },
      { index: 1, problem: problem('invalid-command', 422, { errors: [{ pointer: '#/n', detail: 'no' }] }) },
      { index: 2, problem: problem(REDUCED, 503) },
      { index: 3, id: 'last', status: 'scheduled', deduplicated: true },
      { index: 4, problem: problem('quota', 429) },
    ])
  })
  const sent = send(client, 5)
  await clock.advance(5000)
  expect(await Promise.all(sent)).toMatchObject([
    { id: 'first' },
    { code: 'invalid', status: 422, problem: { errors: [{ pointer: '#/n', detail: 'no' }] } },
    { type: 'note.add', deduplicated: false },
    { id: 'last', status: 'scheduled', deduplicated: true },
    { type: 'note.add', deduplicated: false },
  ])
  expect(api.asked.map(({ lines }) => lines.map((line) => line.payload))).toEqual([
    [0, 1, 2, 3, 4].map((n) => ({ n })),
    [{ n: 2 }, { n: 4 }],
  ])
  expect(keysOf(api.asked[1]?.lines ?? [])).toEqual([2, 4].map((n) => keysOf(api.asked[0]?.lines ?? [])[n]))
})

test('also when none was accepted each has its own fate, and Retry-After is for those that may go better', async () => {
  for (const status of [422, 503]) {
    const { api, clock, client } = open((asked, nth) => {
      if (nth > 1) return accept(asked)
      const list = [
        { index: 0, problem: problem('invalid-command', 422) },
        { index: 1, problem: problem('outcome-unknown', 503) },
      ]
      return json({ ...problem('nothing-accepted', status), results: list }, status, { 'retry-after': '2' })
    })
    const sent = send(client, 2)
    await clock.advance(1999)
    expect(api.asked).toHaveLength(1)
    await clock.advance(100)
    expect(await codes(sent)).toEqual(['invalid', undefined])
    expect(api.asked.map(({ lines }) => lines.length)).toEqual([2, 1])
  }
})

test('an answer that forgets an item leaves that one unknown, and it is asked again', async () => {
  const { api, clock, client } = open((asked, nth) =>
    nth === 1
      ? results([
          { index: 1, id: 'b' },
          { index: 7, id: 'x' },
        ])
      : accept(asked),
  )
  const sent = send(client, 2)
  await clock.advance(1000)
  expect(await codes(sent)).toEqual([undefined, undefined])
  expect(api.asked[1]?.lines.map(({ payload }) => payload)).toEqual([{ n: 0 }])
})

test('without a key an unknown result is not tried again, a known refusal is', async () => {
  const unknown = open(cut)
  const lost = told(unknown.client.send('note.add', 1, { idempotencyKey: false }))
  await unknown.clock.advance(20_000)
  expect(await lost).toMatchObject({ code: 'outcome-unknown', idempotencyKey: undefined })
  expect(unknown.api.asked).toHaveLength(1)

  const refused = open((asked, nth) => (nth === 1 ? refuse(REDUCED, 503) : accept(asked)))
  const sent = told(refused.client.send('note.add', 1, { idempotencyKey: false }))
  await refused.clock.advance(1000)
  expect(clientErrorCode(await sent)).toBeUndefined()
})

test('a try that takes too long is cut off and repeated; the deadline ends it all, and a late answer changes nothing', async () => {
  const { api, clock, client } = open(silence, { requestTimeoutMs: 1000, deadlineMs: 2500, backoffMinMs: 10 })
  const sent = send(client, 2)
  await clock.advance(999)
  expect(api.asked).toHaveLength(1)
  await clock.advance(11)
  expect(api.asked).toHaveLength(2)
  expect(api.asked[0]?.signal.aborted).toBe(true)
  await clock.advance(1489)
  expect(api.asked).toHaveLength(3)
  expect(api.asked[2]?.signal.aborted).toBe(false)
  await clock.advance(1)
  expect(await codes(sent)).toEqual(['outcome-unknown', 'outcome-unknown'])
  // Nobody waits for the third request any more.
  expect(api.asked[2]?.signal.aborted).toBe(true)
  await clock.advance(60_000)
  expect(api.asked).toHaveLength(3)
})

test('a command whose turn does not come within the deadline was not sent, and says so', async () => {
  const bounds = { requestsInFlightMax: 1, batchCountMax: 1, requestTimeoutMs: 5000, deadlineMs: 1000 }
  const { api, clock, client } = open(silence, bounds)
  const sent = send(client, 2)
  await clock.advance(1000)
  expect(await codes(sent)).toEqual(['outcome-unknown', 'queue-full'])
  expect(api.asked).toHaveLength(1)
})

test('a signal takes back what was not sent; what is under way is told as unknown, and its neighbours go on', async () => {
  const held = Promise.withResolvers<void>()
  const { api, clock, client } = open(async (asked) => {
    await held.promise
    return accept(asked)
  })
  const [early, late] = [new AbortController(), new AbortController()]
  const never = told(client.send('note.add', 0, { signal: AbortSignal.abort('why') }))
  const first = told(client.send('note.add', 1, { signal: early.signal }))
  early.abort('changed my mind')
  const second = told(client.send('note.add', 2, { signal: late.signal }))
  const third = told(client.send('note.add', 3))
  await clock.advance(0)
  late.abort()
  held.resolve()
  await clock.advance(0)
  expect(await never).toMatchObject({ code: 'aborted', cause: 'why' })
  expect(await first).toMatchObject({ code: 'aborted', cause: 'changed my mind' })
  expect(await second).toMatchObject({ code: 'outcome-unknown', cause: { code: 'aborted' } })
  expect(clientErrorCode(await third)).toBeUndefined()
  expect(api.asked.map(({ lines }) => lines.map((line) => line.payload))).toEqual([[2, 3]])
  expect(api.asked[0]?.signal.aborted).toBe(false)
})

test('closing sends what lingers, waits for its fate and takes nothing more in', async () => {
  const { api, clock, client } = open((asked, nth) => (nth === 1 ? cut() : accept(asked)), { lingerMs: 1000 })
  const sent = send(client, 2)
  let isClosed = false
  const closing = client.close().then(() => {
    isClosed = true
  })
  await clock.advance(0)
  expect(api.asked).toHaveLength(1)
  expect(clientErrorCode(await told(client.send('note.add', 1)))).toBe('closed')
  expect(isClosed).toBe(false)
  await clock.advance(100)
  await closing
  expect(await codes(sent)).toEqual([undefined, undefined])
  await client.close()
  await client[Symbol.asyncDispose]()
  expect((await client.sendMany([{ command: 'note.add', payload: 1 }]))[0]).toMatchObject({
    error: { code: 'closed' },
  })
})

test('a token goes along, from a function anew each time; nothing is sent when there is none', async () => {
  const { api, clock, client } = open(accept, { token: 'mr_secret' })
  void send(client, 1)
  await clock.advance(0)
  expect(api.asked[0]?.headers.get('authorization')).toBe('Bearer mr_secret')

  let turn = 0
  const changing = open((asked, nth) => (nth === 1 ? cut() : accept(asked)), {
    token: async () => `t${++turn}`,
  })
  const sent = send(changing.client, 1)
  await changing.clock.advance(1000)
  expect(await codes(sent)).toEqual([undefined])
  expect(changing.api.asked.map(({ headers }) => headers.get('authorization'))).toEqual([
    'Bearer t1',
    'Bearer t2',
  ])

  for (const token of ['two\nlines', new Error('vault is shut')]) {
    const without = open(accept, {
      token: () => {
        if (typeof token === 'string') return token
        throw token
      },
    })
    const refused = told(without.client.send('note.add', 1))
    await without.clock.advance(1000)
    expect(['invalid', 'unauthorized']).toContain(clientErrorCode(await refused) ?? '')
    expect(JSON.stringify(await refused)).not.toContain('lines')
    expect(without.api.asked).toHaveLength(0)
  }
})

test('what can not be sent is refused at once: payloads that are no JSON, keys, options and bounds out of range', async () => {
  const { api, client } = open()
  const circle: { self?: unknown } = {}
  circle.self = circle
  const refused = [
    client.send('note.add', circle),
    client.send('note.add', 1n),
    client.send('note.add', 1, { idempotencyKey: '' }),
    client.send('note.add', 1, { idempotencyKey: 'ключ' }),
    client.send('note.add', 1, { waitMs: 0 }),
    client.send('note.add', 1, { wait: 5 } as never),
  ].map(told)
  expect(await codes(refused)).toEqual(['invalid', 'invalid', ...Array(4).fill('invalid-option')])
  expect(api.asked).toHaveLength(0)
  const bad: Partial<ClientOptions>[] = [
    { url: 'ftp://x' },
    { url: 'nonsense' },
    { url: 'http://me:pw@x' },
    { url: 'http://x/?a=1' },
    { token: 'a b' },
    { queueCountMax: 0 },
    { batchCountMax: 1.5 },
    { backoffMinMs: 50, backoffMaxMs: 10 },
    { linger: 5 } as never,
  ]
  for (const options of bad) {
    let thrown: unknown
    try {
      open(accept, options)
    } catch (error) {
      thrown = error
    }
    expect([options, clientErrorCode(thrown)]).toEqual([options, 'invalid-option'])
  }
})

test('under random faults every command has one fate, an accepted one is stored once, and bounds hold', async () => {
  const seed = Number(Bun.env['CLIENT_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
  console.log(`CLIENT_SEED=${seed}`)
  let state = seed
  const random = (): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
    return state / 0x80000000
  }
  const stored = new Map<string, { id: string; text: string; times: number }>()
  const store = (line: AskedLine): object => {
    const [key = '', text] = [line.idempotencyKey, JSON.stringify(line)]
    const known = stored.get(key)
    if (known !== undefined && known.text !== text) return { problem: problem('idempotency-key-reused', 422) }
    stored.set(key, { id: known?.id ?? `id-${stored.size}`, text, times: (known?.times ?? 0) + 1 })
    return { id: stored.get(key)?.id, ...(known === undefined ? {} : { deduplicated: true }) }
  }
  const unreliable: Answering = async ({ lines }) => {
    const dice = random()
    if (dice < 0.15) return cut()
    const list = lines.map((line, index) => {
      const luck = random()
      if (luck < 0.05) return { index, problem: problem(REDUCED, 503) }
      if (luck < 0.1) store(line)
      return { index, ...(luck < 0.1 ? { problem: problem('outcome-unknown', 503) } : store(line)) }
    })
    if (dice < 0.3) return cut()
    if (dice < 0.35) return silence()
    return results(list)
  }
  const api = new FakeApi(unreliable)
  const clock = new FakeClock({ random })
  const bounds = { batchCountMax: 7, requestsInFlightMax: 3, queueCountMax: 500, requestTimeoutMs: 500 }
  const client = openHttpClient({ url: 'http://api.test', fetch: api.fetch, ...bounds }, clock)
  const sent: Promise<SendAnswer | ClientError>[] = []
  for (let turn = 0; turn < 40; turn++) {
    sent.push(...send(client, Math.floor(random() * 12)))
    await clock.advance(random() * 20)
  }
  await clock.advance(60_000)
  const fates = await Promise.all(sent)
  const byId = new Map([...stored.values()].map((each) => [each.id, each]))
  const accepted = fates.filter((fate): fate is SendAnswer => clientErrorCode(fate) === undefined)
  for (const { id } of accepted) expect(byId.has(id)).toBe(true)
  expect(new Set(accepted.map(({ id }) => id)).size).toBe(accepted.length)
  expect(accepted.length).toBeGreaterThan(fates.length * 0.9)
  expect([...stored.values()].some(({ times }) => times > 1)).toBe(true)
  expect(api.inFlightMost).toBeLessThanOrEqual(3)
  expect(Math.max(...api.asked.map(({ lines }) => lines.length))).toBeLessThanOrEqual(7)
  await client.close()
})

test('a signal that many sends share has one listener, and none when they are through', async () => {
  const listening: string[] = []
  const stop = new AbortController()
  const { signal } = stop
  const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)]
  Object.assign(signal, {
    addEventListener: (...given: Parameters<typeof add>) => {
      listening.push('one')
      add(...given)
    },
    removeEventListener: (...given: Parameters<typeof remove>) => {
      listening.pop()
      remove(...given)
    },
  })
  const { clock, client } = open()
  const sent = Array.from({ length: 100 }, (_, n) => told(client.send('note.add', { n }, { signal })))
  expect(listening).toHaveLength(1)
  await clock.advance(0)
  expect(await codes(sent)).toEqual(Array(100).fill(undefined))
  expect(listening).toHaveLength(0)
  const late = open(silence)
  const others = Array.from({ length: 3 }, (_, n) => told(late.client.send('note.add', { n }, { signal })))
  stop.abort()
  expect(await codes(others)).toEqual(Array(3).fill('aborted'))
})
