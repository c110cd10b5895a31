/** Reading views: through the cache, after a command, page by page, merged over partitions; never backwards. */
import { afterAll, expect, setDefaultTimeout, test } from 'bun:test'
import { errorCode } from '../src/contracts/errors.ts'
import { defineProjection } from '../src/contracts/projection.ts'
import { defineStream } from '../src/contracts/stream.ts'
import type { ViewReader } from '../src/projections/view-reader.ts'
import type { RedisLinks } from '../src/redis/connection.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { CommandSource } from './support/command-source.ts'
import { type Balance, balances, change, changed, World } from './support/projections.ts'
import { startTestRedis } from './support/redis-server.ts'
import { SlowNoticeLinks } from './support/slow-notices.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { until } from './support/until.ts'

const redis = await startTestRedis()
setDefaultTimeout(30_000)
afterAll(() => redis[Symbol.asyncDispose]())

const NAMES = Array.from({ length: 60 }, (_, i) => `acc${i}`)
const totalOf = (value: unknown): number => (value as Balance | undefined)?.total ?? 0

async function refusal(work: Promise<unknown>): Promise<string | undefined> {
  try {
    await work
    return undefined
  } catch (error) {
    return errorCode(error) ?? String(error)
  }
}

async function startedReader(
  world: World,
  telemetry?: RecordedTelemetry,
  links?: RedisLinks,
): Promise<ViewReader> {
  const reader = world.reader({}, telemetry, links)
  await reader.start()
  await until('trust in the notices', () => reader.health().detail.includes('memory'))
  return reader
}

const sums = (options: { name?: string } = {}) =>
  defineProjection<{ n: number; days: number[] }>({
    name: options.name ?? 'sums',
    stream: 'accounts',
    initial: () => ({ n: 0, days: [] }),
    merge: (a, b) => {
      a.n += b.n
      a.days.push(...b.days)
      return a
    },
  }).on(
    changed,
    (event) => ['everything', `len${event.payload.account.length}`],
    (view, event) => {
      view.n += event.payload.amount
      view.days.push(event.payload.amount)
      return view
    },
  )

test('a second read comes from memory, with the same object, until a commit touches the view', async () => {
  const telemetry = new RecordedTelemetry()
  const world = await World.create(redis, { projections: [balances()] })
  await using set = world.set()
  await set.start()
  await using reader = await startedReader(world, telemetry)
  await world.change('a', 1)
  await world.change('b', 1)
  await world.caughtUp(balances())
  await until('the notices to be in', async () => (await reader.read('balances', 'b')).cached)
  const first = await reader.read('balances', 'a')
  const second = await reader.read('balances', 'a')
  expect([first.cached, second.cached, totalOf(second.value)]).toEqual([false, true, 1])
  expect(second.value).toBe(first.value)
  expect(second.etag).toBe(first.etag ?? 'none')
  await world.change('b', 5)
  await world.caughtUp(balances())
  await until('the notice', async () => (await reader.read('balances', 'a')).position !== first.position)
  expect((await reader.read('balances', 'a')).cached).toBe(true)
  await world.change('a', 5)
  await until('the new view', async () => totalOf((await reader.read('balances', 'a')).value) === 6)
  const last = await reader.read('balances', 'a')
  expect(last.etag).not.toBe(first.etag ?? '')
  expect(last.position).toBe(`0:${await world.checkpoint(balances())}`)
  expect((await reader.read('balances', 'nobody')).value).toBeUndefined()
  expect(await refusal(reader.read('unknown', 'a'))).toBe('view.unknown-projection')
  expect(telemetry.of('view.read').some(({ cached }) => cached)).toBe(true)
})

test('a subscriber that lost its connection serves nothing from memory until it hears again', async () => {
  const world = await World.create(redis, { projections: [balances()] })
  await using set = world.set()
  await set.start()
  await using reader = await startedReader(world)
  await world.change('a', 1)
  await world.caughtUp(balances())
  await until('the cache to fill', async () => (await reader.read('balances', 'a')).cached)
  for (let round = 0; round < 5; round++) {
    expect((await reader.read('balances', 'a')).cached).toBe(true)
    await world.link.use('a lost subscriber', (client) => client.call('CLIENT', 'KILL', 'TYPE', 'pubsub'))
    await world.change('a', 1)
    await world.caughtUp(balances())
    await until(
      'the loss to be seen',
      async () => totalOf((await reader.read('balances', 'a')).value) === round + 2,
      1000,
    )
    await until('trust again', () => reader.health().detail.includes('memory'))
    await until('the cache to fill', async () => (await reader.read('balances', 'a')).cached, 3000)
  }
})

test('within one process a view never goes backwards, whatever way it is read', async () => {
  const world = await World.create(redis, { partitions: 2, projections: [balances(), sums()] })
  await using set = world.set({ batchEventsMax: 5 })
  await set.start()
  const links = new SlowNoticeLinks(redis.links.options)
  links.delayMs = 8
  await using reader = await startedReader(world, undefined, links)
  const commands = new CommandSource(world.link, world.ids, world.source)
  const names = NAMES.slice(0, 6)
  const highest = new Map<string, number>()
  const complaints: string[] = []
  let done = false
  let cachedReads = 0
  const judge = (key: string, before: number, value: number) => {
    if (value < before) complaints.push(`${key}: ${value} after ${before}`)
    highest.set(key, Math.max(highest.get(key) ?? 0, value))
  }
  const readers = Array.from({ length: 6 }, async (_, i) => {
    while (!done) {
      const key = i === 5 ? 'everything' : (names[Math.floor(Math.random() * names.length)] ?? '')
      const before = highest.get(key) ?? 0
      if (i === 4) {
        const befores = new Map(highest)
        const page = await reader.page('balances', { limit: 10 })
        for (const view of page.data) judge(view.key, befores.get(view.key) ?? 0, totalOf(view.value))
      } else {
        const answer = await reader.read(i === 5 ? 'sums' : 'balances', key)
        if (answer.cached) cachedReads += 1
        judge(
          key,
          before,
          i === 5 ? ((answer.value as { n: number } | undefined)?.n ?? 0) : totalOf(answer.value),
        )
      }
      await Bun.sleep(Math.random() < 0.2 ? 1 : 0)
    }
  })
  const sent = new Map<string, number>()
  for (let i = 0; i < 150; i++) {
    const name = names[i % names.length] ?? ''
    const command = await commands.accept(name)
    await commands.deliver(command)
    void Bun.sleep(Math.random() * 4).then(() => commands.finish(command, [change(name, 1)]))
    sent.set(name, (sent.get(name) ?? 0) + 1)
    const before = highest.get(name) ?? 0
    const answer = await reader.read('balances', name, { after: command.id })
    judge(name, Math.max(before, sent.get(name) ?? 0), totalOf(answer.value))
    if (i % 50 === 20)
      await world.link.use('a loss', (client) => client.call('CLIENT', 'KILL', 'TYPE', 'pubsub'))
  }
  done = true
  await Promise.all(readers)
  expect(complaints).toEqual([])
  expect(cachedReads).toBeGreaterThan(10)
  expect([...sent].every(([name, count]) => (highest.get(name) ?? 0) >= count)).toBe(true)
})

test('a cached view that is older than the command, or than a page, is not served while the notice is on its way', async () => {
  const world = await World.create(redis, { projections: [balances()] })
  await using set = world.set()
  await set.start()
  const links = new SlowNoticeLinks(redis.links.options)
  await using reader = await startedReader(world, undefined, links)
  const commands = new CommandSource(world.link, world.ids, world.source)
  await world.source.log([change('a', 1), change('b', 1)])
  await world.caughtUp(balances())
  await until('both to be cached', async () => {
    const answers = [await reader.read('balances', 'a'), await reader.read('balances', 'b')]
    return answers.every(({ cached, value }) => cached && totalOf(value) === 1)
  })
  links.delayMs = 400
  const command = await commands.accept('a')
  await commands.deliver(command)
  await commands.finish(command, [change('a', 1), change('b', 1)])
  expect(totalOf((await reader.read('balances', 'a', { after: command.id })).value)).toBe(2)
  expect(totalOf((await reader.read('balances', 'a')).value)).toBe(2)
  const late = await reader.read('balances', 'b')
  expect([late.cached, totalOf(late.value)]).toEqual([true, 1])
  const page = await reader.page('balances')
  expect(page.data.map(({ value }) => totalOf(value))).toEqual([2, 2])
  expect(totalOf((await reader.read('balances', 'b')).value)).toBe(2)
})

test('Millrace-After waits for a command that is still open, and then for the view', async () => {
  const world = await World.create(redis, { partitions: 2, projections: [balances(), sums()] })
  await using reader = await startedReader(world)
  const commands = new CommandSource(world.link, world.ids, world.source)
  const command = await commands.accept('a')
  let settled = false
  const wait = reader.read('balances', 'a', { after: command.id }).finally(() => {
    settled = true
  })
  await Bun.sleep(60)
  await commands.deliver(command)
  await Bun.sleep(60)
  await commands.finish(command, [change('a', 9)])
  await Bun.sleep(60)
  expect(settled).toBe(false)
  await using set = world.set()
  await set.start()
  const answer = await wait
  expect([totalOf(answer.value), answer.afterState]).toEqual([9, 'done'])
  const merged = await reader.read('sums', 'everything', { after: command.id })
  expect((merged.value as { n: number }).n).toBe(9)
})

test('a wait that runs out, or is given up, says so', async () => {
  const world = await World.create(redis, { projections: [balances()] })
  await using reader = await startedReader(world)
  const commands = new CommandSource(world.link, world.ids, world.source)
  const command = await commands.accept('a')
  const startedMs = performance.now()
  expect(await refusal(reader.read('balances', 'a', { after: command.id, waitMs: 100 }))).toBe(
    'view.wait-timeout',
  )
  expect(performance.now() - startedMs).toBeLessThan(1000)
  expect(await refusal(reader.read('balances', 'a', { after: command.id, waitMs: 0 }))).toBe(
    'view.wait-timeout',
  )
  await commands.deliver(command)
  await commands.finish(command, [change('a', 1)])
  const before = await world.link.use('counts', (client) => client.info('commandstats'))
  expect(await refusal(reader.read('balances', 'a', { after: command.id, waitMs: 1000 }))).toBe(
    'view.wait-timeout',
  )
  const after = await world.link.use('counts', (client) => client.info('commandstats'))
  const scripts = (info: string) => Number(/cmdstat_evalsha:calls=(\d+)/.exec(info)?.[1] ?? 0)
  expect(scripts(after) - scripts(before)).toBeLessThan(8)
  const abort = new AbortController()
  const given = refusal(reader.read('balances', 'a', { after: command.id, signal: abort.signal }))
  abort.abort()
  expect(await given).toBe('view.wait-timeout')
  const stopped = refusal(reader.read('balances', 'a', { after: command.id }))
  await Bun.sleep(20)
  await reader.stop()
  expect(await stopped).toBe('service.stopped')
})

test('commands without effects are answered at once, wrong ones are refused', async () => {
  const world = await World.create(redis, { projections: [balances()] })
  await using reader = await startedReader(world)
  const commands = new CommandSource(world.link, world.ids, world.source)
  const dead = await commands.accept('a')
  await commands.deliver(dead)
  await commands.kill(dead)
  const cancelled = await commands.accept('a')
  expect(await commands.cancel(cancelled)).toBe(true)
  expect((await reader.read('balances', 'a', { after: dead.id })).afterState).toBe('dead')
  expect((await reader.read('balances', 'a', { after: cancelled.id })).afterState).toBe('cancelled')
  expect(await refusal(reader.read('balances', 'a', { after: 'nonsense' }))).toBe('command.malformed')
  const forged = `${dead.id.slice(0, -2)}zz`
  expect(await refusal(reader.read('balances', 'a', { after: forged }))).toBe('not-found')
  const elsewhere = world.ids.format(defineStream({ name: 'other' }).name, 0, 'e1-1')
  expect(await refusal(reader.read('balances', 'a', { after: elsewhere }))).toBe('projection.not-over-stream')
})

test('a projection that stands still answers at once that it does, and old views can still be read', async () => {
  const picky = defineProjection<{ n: number }>({
    name: 'balances',
    stream: 'accounts',
    initial: () => ({ n: 0 }),
  }).on(
    changed,
    (event) => event.payload.account,
    (view, event) => {
      if (event.payload.amount === 13) throw new Error('unlucky')
      return { n: view.n + event.payload.amount }
    },
  )
  const world = await World.create(redis, { projections: [picky] })
  await using set = world.set()
  await set.start()
  await using reader = await startedReader(world)
  const commands = new CommandSource(world.link, world.ids, world.source)
  const [good, bad] = [await commands.accept('a'), await commands.accept('a')]
  await commands.deliver(bad)
  await commands.finish(good, [change('a', 1)])
  await reader.read('balances', 'a', { after: good.id })
  const startedMs = performance.now()
  const wait = refusal(reader.read('balances', 'a', { after: bad.id }))
  await commands.finish(bad, [change('a', 13)])
  expect(await wait).toBe('projection.stopped')
  expect(performance.now() - startedMs).toBeLessThan(2000)
  expect((await reader.read('balances', 'a')).value).toEqual({ n: 1 })
})

test('a view fed from several partitions is merged on read, and merge may change what it is given', async () => {
  const world = await World.create(redis, { partitions: 4, projections: [sums()] })
  await using set = world.set()
  await set.start()
  await using reader = await startedReader(world)
  let total = 0
  for (const [i, name] of NAMES.entries()) {
    await world.change(name, i)
    total += i
  }
  await world.caughtUp(sums())
  for (let round = 0; round < 3; round++) {
    const answer = await reader.read('sums', 'everything')
    expect((answer.value as { n: number }).n).toBe(total)
    expect(answer.position.split(',').length).toBe(4)
  }
  expect((await reader.read('sums', 'everything')).cached).toBe(true)
  const page = await reader.page('sums')
  expect(page.data.map(({ key }) => key)).toEqual(['everything', 'len4', 'len5'])
  expect(page.data[0]?.value).toMatchObject({ n: total })
})

async function walk(
  reader: ViewReader,
  projection: string,
  options: object,
  way: 'next' | 'prev',
  from?: string,
) {
  const pages: string[][] = []
  let cursor = from
  do {
    const page = await reader.page(projection, { ...options, cursor })
    pages.push(page.data.map(({ key }) => key))
    cursor = page[way]
  } while (cursor !== undefined && pages.length < 100)
  return pages
}

test('a walk over all pages finds every view once, in order, forward and back', async () => {
  const world = await World.create(redis, { partitions: 3, projections: [balances(), sums()] })
  await using set = world.set()
  await set.start()
  const reader = world.reader()
  const names = [...NAMES, 'zoë', 'ÅÄÖ', '日本', 'Z', '\u{1f600}']
  await world.source.log(names.map((name) => change(name, 1)))
  await world.caughtUp(balances())
  const inBytes = names.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
  for (const limit of [1, 7, 65, 500]) {
    const pages = await walk(reader, 'balances', { limit }, 'next')
    expect(pages.flat()).toEqual(inBytes)
    expect(pages.length).toBe(Math.ceil(names.length / limit))
  }
  const backward = await walk(reader, 'balances', { limit: 7, direction: 'backward' }, 'next')
  expect(backward.flat()).toEqual(inBytes.toReversed())
  const prefixed = await walk(reader, 'balances', { limit: 4, prefix: 'acc1' }, 'next')
  expect(prefixed.flat()).toEqual(inBytes.filter((name) => name.startsWith('acc1')))

  let page = await reader.page('balances', { limit: 7 })
  expect(page.prev).toBeUndefined()
  while (page.next !== undefined) page = await reader.page('balances', { limit: 7, cursor: page.next })
  const lastKeys = page.data.map(({ key }) => key)
  const back = await walk(reader, 'balances', { limit: 7 }, 'prev', page.prev)
  expect([...back.toReversed().flat(), ...lastKeys]).toEqual(inBytes)
  expect(totalOf(page.data[0]?.value)).toBe(1)
  await reader.stop()
})

test('a cursor belongs to its list', async () => {
  const world = await World.create(redis, { projections: [balances(), sums()] })
  await using set = world.set()
  await set.start()
  const reader = world.reader()
  await world.source.log(NAMES.map((name) => change(name, 1)))
  await world.caughtUp(balances())
  const { next } = await reader.page('balances', { limit: 5 })
  expect(await refusal(reader.page('sums', { cursor: next }))).toBe('cursor.invalid')
  expect(await refusal(reader.page('balances', { cursor: next, prefix: 'acc' }))).toBe('cursor.invalid')
  expect(await refusal(reader.page('balances', { cursor: next, direction: 'backward' }))).toBe(
    'cursor.invalid',
  )
  for (const cursor of [
    '',
    'x',
    'bnVsbA',
    Buffer.from('["balances@1"]').toString('base64url'),
    'a'.repeat(9000),
  ]) {
    expect(await refusal(reader.page('balances', { cursor }))).toBe('cursor.invalid')
  }
  for (const limit of [0, 501, 1.5, Number.NaN]) {
    expect(await refusal(reader.page('balances', { limit }))).toBe('command.malformed')
  }
  await reader.stop()
})

test('keys that no fold can have written are simply not there', async () => {
  const dashed = balances({ partitionKey: (key) => (key.split('-')[1] as string).slice(0, 1) })
  const world = await World.create(redis, { partitions: 2, projections: [dashed] })
  const reader = world.reader()
  for (const key of ['', 'no dash', 'x'.repeat(600), '\ud800', '__proto__']) {
    expect((await reader.read('balances', key)).value).toBeUndefined()
  }
  expect(partitionKeys('accounts', 0).views('balances@1')).toContain('balances@1')
  await reader.stop()
})
