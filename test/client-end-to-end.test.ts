/**
 * The client against real Millrace processes and a real Redis: over HTTP, and in process. What is written for one face runs on
 * both, so most tests here do.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test'
import {
  defineCommand,
  defineEvent,
  defineHandler,
  defineProjection,
  done,
  inProcessClient,
  type Millrace,
  reject,
  startMillrace,
} from 'millrace'
import {
  type Client,
  type ClientError,
  type CommandsOf,
  clientErrorCode,
  createClient,
} from 'millrace/client'
import { z } from 'zod'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { startReplyCutter } from './support/reply-cutter.ts'

setDefaultTimeout(60_000)

const note = z.object({ author: z.string(), n: z.number().default(1) })
const writeNote = defineCommand({ type: 'note.write', payload: note, key: ({ author }) => author })
const burnNote = defineCommand({ type: 'note.burn', payload: z.object({ author: z.string() }) })
const noteWritten = defineEvent({ type: 'note.written', payload: note })
const onWriteNote = defineHandler(writeNote, (command) => {
  command.emit(noteWritten, command.payload)
  return done({ kept: command.payload.n })
})
/** Held up until a test lets it go. */
const pondering = defineCommand({ type: 'note.ponder', payload: z.object({ author: z.string() }) })
let release = Promise.withResolvers<void>()
const onPonder = defineHandler(pondering, async () => {
  await release.promise
  return done('wise')
})
const onBurnNote = defineHandler(burnNote, () => reject('notes do not burn'))
const notesByAuthor = defineProjection({ name: 'notes-by-author', initial: () => ({ count: 0 }) }).on(
  noteWritten,
  (event) => event.payload.author,
  (view) => ({ count: view.count + 1 }),
)
const definitions = [
  writeNote,
  burnNote,
  pondering,
  onPonder,
  noteWritten,
  onWriteNote,
  onBurnNote,
  notesByAuthor,
]
type Commands = CommandsOf<{ readonly writeNote: typeof writeNote; readonly burnNote: typeof burnNote }>

let redis: TestRedis
let millrace: Millrace
let url: string
beforeAll(async () => {
  redis = await startTestRedis(['--appendfsync', 'everysec'])
  millrace = await startMillrace({ definitions, redisUrl: redis.url, port: 0, adminPort: 0 })
  url = millrace.urls.public ?? ''
})
afterAll(async () => {
  await millrace.stop()
  await redis[Symbol.asyncDispose]()
})

async function failure(work: Promise<unknown>): Promise<ClientError> {
  const error: unknown = await work.then(
    () => new TypeError('it was expected to reject'),
    (thrown: unknown) => thrown,
  )
  if (clientErrorCode(error) === undefined) throw error
  return error as ClientError
}

const kinds: [string, () => Promise<Client<Commands>>][] = [
  ['over HTTP', async () => createClient<{ w: typeof writeNote; b: typeof burnNote }>({ url })],
  [
    'in process',
    () => inProcessClient<{ w: typeof writeNote; b: typeof burnNote }>({ definitions, redisUrl: redis.url }),
  ],
]

describe.each(kinds)('a client %s', (kind, open) => {
  const author = (name: string): string => `${name}-${kind.replace(/\W/g, '-')}`

  test('sends, waits for the result and reads its own write', async () => {
    await using client = await open()
    const sent = await client.send('note.write', { author: author('ada'), n: 7 })
    expect(sent).toMatchObject({
      type: 'note.write',
      status: 'accepted',
      durability: 'everysec',
      ended: undefined,
    })
    expect(await client.result(sent.id, { timeoutMs: 20_000 })).toMatchObject({
      ...{ id: sent.id, stream: 'main', status: 'done', result: { kept: 7 } },
    })
    const again = await client.send(writeNote, { author: author('ada') })
    const view = await client.view<{ count: number }>('notes-by-author', author('ada'), { after: again.id })
    expect(view).toMatchObject({ value: { count: 2 }, unchanged: false, afterStatus: 'done' })
    expect(view.position).toMatch(/^0:/)
    const same = await client.view('notes-by-author', author('ada'), { ifNoneMatch: view.etag })
    expect(same).toMatchObject({ unchanged: true, value: undefined, etag: view.etag })
    expect(await client.view('notes-by-author', author('nobody'))).toMatchObject({
      value: undefined,
      unchanged: false,
    })
  })

  test('send with a wait answers with the end', async () => {
    await using client = await open()
    const { id, ended } = await client.send('note.write', { author: author('bob'), n: 3 }, { waitMs: 20_000 })
    expect(ended).toMatchObject({ id, status: 'done', result: { kept: 3 } })
    const dead = await failure(client.send('note.burn', { author: author('bob') }, { waitMs: 20_000 }))
    expect(dead).toMatchObject({ code: 'command-dead', problem: { type: '/problems/command-failed' } })
    expect(dead.message).toContain('notes do not burn')
    expect(await client.status(dead.id ?? '')).toMatchObject({ status: 'dead', reason: 'rejected' })
  })

  test('a command that takes its time is waited for', async () => {
    release = Promise.withResolvers()
    await using client = await open()
    const waiting = client.send(pondering, { author: author('eli') }, { waitMs: 20_000 })
    const { id } = await client.send(pondering, { author: author('eli') })
    const early = await failure(client.result(id, { timeoutMs: 100 }))
    expect(early).toMatchObject({ code: 'timeout', id })
    release.resolve()
    expect(await waiting).toMatchObject({ ended: { status: 'done', result: 'wise' } })
    expect(await client.result(id, { timeoutMs: 20_000 })).toMatchObject({ result: 'wise' })
  })

  test('many at once, each with its own fate; a key sends once', async () => {
    await using client = await open()
    const idempotencyKey = author('many')
    const outcomes = await client.sendMany([
      { command: 'note.write', payload: { author: author('cyd') }, idempotencyKey },
      { command: 'note.write', payload: { author: 7 as never } },
      { command: 'note.shred' as 'note.burn', payload: { author: author('cyd') } },
      { command: 'note.write', payload: { author: author('cyd') }, idempotencyKey: `${idempotencyKey}-2` },
    ])
    const [first, invalid, unknown] = outcomes
    expect(outcomes.map(({ accepted }) => accepted?.type)).toEqual([
      'note.write',
      undefined,
      undefined,
      'note.write',
    ])
    expect(invalid).toMatchObject({
      error: { code: 'invalid', status: 422, problem: { errors: [{ pointer: '#/author' }] } },
    })
    expect(unknown).toMatchObject({ error: { code: 'not-found', status: 404 } })
    const repeated = await client.send('note.write', { author: author('cyd') }, { idempotencyKey })
    expect(repeated).toMatchObject({ id: first?.accepted?.id ?? 'none', deduplicated: true })
    const other = await failure(client.send('note.write', { author: 'else' }, { idempotencyKey }))
    expect(other).toMatchObject({ code: 'invalid', problem: { type: '/problems/idempotency-key-reused' } })
  })

  test('a delayed command is scheduled, can be cancelled twice, and waiting for it ends', async () => {
    await using client = await open()
    const { id, status } = await client.send('note.write', { author: author('dan') }, { delayMs: 3_600_000 })
    expect(status).toBe('scheduled')
    expect(await failure(client.result(id, { timeoutMs: 50 }))).toMatchObject({ code: 'timeout', id })
    await client.cancel(id)
    await client.cancel(id)
    expect(await failure(client.result(id))).toMatchObject({ code: 'command-cancelled', id })
    const { id: ran } = await client.send('note.write', { author: author('dan') }, { waitMs: 20_000 })
    expect(await failure(client.cancel(ran))).toMatchObject({ code: 'refused', status: 409 })
  })

  test('pages of views come one after another', async () => {
    await using client = await open()
    const keys = ['p1', 'p2', 'p3', 'p4', 'p5'].map((name) => `${author('page')}-${name}`)
    const sent = await Promise.all(keys.map((each) => client.send('note.write', { author: each })))
    for (const { id } of sent) await client.view('notes-by-author', 'x', { after: id })
    const pages: string[][] = []
    for await (const { views } of client.views('notes-by-author', { limit: 2, prefix: author('page') }))
      pages.push(views.map(({ key }) => key))
    expect(pages.flat()).toEqual(keys)
    expect(pages[0]).toHaveLength(2)
  })

  test('mistakes have the same codes on both ways', async () => {
    await using client = await open()
    const { id } = await client.send('note.write', { author: author('eve') })
    const invented = `${id.slice(0, -1)}${id.endsWith('a') ? 'b' : 'a'}`
    const calls: [() => Promise<unknown>, string, number][] = [
      [() => client.send('note.wriet' as 'note.write', { author: 'a' }), 'not-found', 404],
      [() => client.status(invented), 'not-found', 404],
      [() => client.result('nonsense'), 'invalid', 400],
      [() => client.view('no-such', 'a'), 'not-found', 404],
      [() => client.view('notes-by-author', 'a', { after: invented }), 'invalid', 400],
      [() => client.views('notes-by-author', { limit: 501 }).next(), 'invalid', 400],
      [() => client.views('notes-by-author', { cursor: 'nonsense' }).next(), 'invalid', 400],
      [() => client.send('note.write', { author: 'a' }, { delayMs: -1 }), 'invalid', 422],
    ]
    for (const [call, code, status] of calls) expect(await failure(call())).toMatchObject({ code, status })
    await client.close()
    expect(await failure(client.status('x'))).toMatchObject({ code: 'closed' })
  })
})

test('replies are lost on the way, and every command is stored once all the same', async () => {
  let [replies, seed] = [0, 7]
  await using cutter = await startReplyCutter(url, () => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff
    replies += 1
    return seed % 3 === 0
  })
  const bounds = { batchCountMax: 5, backoffMinMs: 5, backoffMaxMs: 50, attemptsMax: 50 }
  await using client = createClient({ url: cutter.url, ...bounds })
  const sent = await Promise.all(
    Array.from({ length: 300 }, (_, n) => client.send('note.write', { author: 'lossy', n })),
  )
  expect(cutter.lost).toBeGreaterThan(10)
  expect(sent.filter(({ deduplicated }) => deduplicated).length).toBeGreaterThan(10)
  expect(new Set(sent.map(({ id }) => id)).size).toBe(300)
  for (const { id } of sent) expect(await client.result(id)).toMatchObject({ status: 'done' })
  const last = sent.at(-1)?.id
  expect(await client.view('notes-by-author', 'lossy', { after: last })).toMatchObject({
    value: { count: 300 },
  })

  // And with the wait for the result in the same request.
  const waited = await Promise.all(
    Array.from({ length: 30 }, (_, n) =>
      client.send('note.write', { author: 'waiting', n }, { waitMs: 20_000 }),
    ),
  )
  expect(new Set(waited.map(({ id }) => id)).size).toBe(30)
  const after = waited.at(-1)?.id
  expect(await client.view('notes-by-author', 'waiting', { after })).toMatchObject({ value: { count: 30 } })
  expect(replies).toBeGreaterThan(100)
})

test('connections are kept: so many requests one after another need only one', async () => {
  await using cutter = await startReplyCutter(url, () => false)
  await using client = createClient({ url: cutter.url })
  for (let n = 0; n < 20; n++) {
    const { id } = await client.send('note.write', { author: 'kept' })
    await client.status(id)
    await failure(client.view('no-such', 'a'))
  }
  expect(cutter.opened).toBeLessThanOrEqual(2)
})

test('a server that is away for a while is waited for', async () => {
  let isAway = true
  await using cutter = await startReplyCutter(url, () => isAway)
  await using client = createClient({ url: cutter.url, backoffMinMs: 5, backoffMaxMs: 20, attemptsMax: 100 })
  const sending = client.send('note.write', { author: 'patient' })
  while (cutter.lost < 3) await Bun.sleep(1)
  isAway = false
  const { id } = await sending
  expect(await client.view('notes-by-author', 'patient', { after: id })).toMatchObject({
    value: { count: 1 },
  })
  isAway = true
  const impatient = createClient({ url: cutter.url, backoffMinMs: 5, attemptsMax: 3 })
  const unknown = await failure(impatient.send('note.write', { author: 'patient' }))
  expect(unknown).toMatchObject({ code: 'outcome-unknown' })
  isAway = false
  // It was stored, of course, and the key finds it.
  const found = await client.send(
    'note.write',
    { author: 'patient' },
    { idempotencyKey: unknown.idempotencyKey },
  )
  expect(found.deduplicated).toBe(true)
})

test('in process, what waits is bounded, and closing waits for what was sent', async () => {
  const client = await inProcessClient({ definitions, redisUrl: redis.url, queueCountMax: 3 })
  const sent = Array.from({ length: 4 }, (_, n) => client.send('note.write', { author: 'bounded', n }))
  expect(await failure(sent.pop() ?? Promise.resolve())).toMatchObject({ code: 'queue-full' })
  const sendings = Array.from({ length: 20 }, () => ({
    command: 'note.write',
    payload: { author: 'bounded' },
  }))
  const outcomes = client.sendMany(sendings)
  expect((await outcomes).every(({ accepted }) => accepted !== undefined)).toBe(true)
  const last = client.send('note.write', { author: 'bounded' })
  await client.close()
  expect((await last).type).toBe('note.write')
  expect(await Promise.all(sent)).toHaveLength(3)
})
