/** Projectors: every event counts once in every view, whoever dies, throws or comes too late. */
import { afterAll, expect, setDefaultTimeout, test } from 'bun:test'
import type { RecordedEvent } from '../src/contracts/event.ts'
import { defineProjection } from '../src/contracts/projection.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { trimEvents } from '../src/redis/partition-care.ts'
import { readSkipped, readViews } from '../src/redis/view-store.ts'
import { FlakyLink } from './support/flaky-link.ts'
import { type Balance, balances, type Change, change, changed, World } from './support/projections.ts'
import { startTestRedis } from './support/redis-server.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { until } from './support/until.ts'

const redis = await startTestRedis()
setDefaultTimeout(30_000)
afterAll(() => redis[Symbol.asyncDispose]())

const NAMES = Array.from({ length: 40 }, (_, i) => `acc${i}`)
const nameOf = (i: number): string => NAMES[i % NAMES.length] ?? ''

/** Logs `count` changes in settlements of `perEntry`, and answers what each account must come to. */
async function logChanges(world: World, count: number, perEntry: number): Promise<Map<string, number>> {
  const totals = new Map<string, number>()
  for (let at = 0; at < count; at += perEntry) {
    const events = Array.from({ length: Math.min(perEntry, count - at) }, (_, i) =>
      change(nameOf((at + i) * 7), at + i),
    )
    for (const { key, payload } of events)
      totals.set(key, (totals.get(key) ?? 0) + (payload as Change).amount)
    await world.source.log(events)
  }
  return totals
}

/** Each account's stored total, and a complaint for every position that is there twice or out of order. */
async function judge(
  world: World,
  projection = balances(),
): Promise<{ totals: Map<string, number>; complaints: string[] }> {
  const totals = new Map<string, number>()
  const complaints: string[] = []
  for (const views of await world.stored(projection)) {
    for (const [key, view] of views) {
      const { total, seen } = view as Balance
      totals.set(key, (totals.get(key) ?? 0) + total)
      if (new Set(seen).size !== seen.length) complaints.push(`${key} holds an event twice`)
    }
  }
  return { totals, complaints }
}

const sorted = (totals: Map<string, number>): [string, number][] =>
  [...totals].sort(([a], [b]) => (a < b ? -1 : 1))

const totalOf = (view: unknown): number => (view as Balance).total

async function calls(link: RedisLink, command: string): Promise<number> {
  const info = await link.use('command counts', (client) => client.info('commandstats'))
  return Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(info)?.[1] ?? 0)
}

test('views equal a plain fold over all partitions, for a log that was there and one that grows', async () => {
  const projection = balances()
  const world = await World.create(redis, { partitions: 4, projections: [projection] })
  const before = await logChanges(world, 3000, 60)
  await using set = world.set()
  await set.start()
  const after = await logChanges(world, 500, 3)
  await world.caughtUp(projection)
  const { totals, complaints } = await judge(world)
  for (const [key, total] of after) before.set(key, (before.get(key) ?? 0) + total)
  expect(complaints).toEqual([])
  expect(sorted(totals)).toEqual(sorted(before))
})

test('projections share a reading, but nothing that one of them keeps or changes', async () => {
  const keeper = (name: string, mark: string) =>
    defineProjection<{ words: string[] }>({ name, stream: 'accounts', initial: () => ({ words: [] }) }).on(
      changed,
      () => ['left', 'right'],
      (view, event) => {
        const words = event.payload.words as string[]
        words.push(mark)
        view.words = words
        return view
      },
    )
  const one = keeper('one', '1')
  const two = keeper('two', '2')
  const world = await World.create(redis, { projections: [one, two] })
  await world.change('a', 1, ['x'])
  await using set = world.set()
  await set.start()
  await world.caughtUp(one)
  await world.caughtUp(two)
  expect((await world.stored(one))[0]?.get('right')).toEqual({ words: ['x', '1'] })
  expect((await world.stored(two))[0]?.get('left')).toEqual({ words: ['x', '2'] })
})

test('a fold that returns null deletes the view, also when it comes back in the same batch', async () => {
  const last = defineProjection<{ n: number }>({
    name: 'last',
    stream: 'accounts',
    initial: () => ({ n: 0 }),
  }).on(
    changed,
    (event) => event.payload.account,
    (view, event) => (event.payload.amount < 0 ? null : { n: view.n + event.payload.amount }),
  )
  const world = await World.create(redis, { projections: [last] })
  await using set = world.set()
  await set.start()
  await world.source.log([
    change('gone', 1),
    change('gone', -1),
    change('back', 5),
    change('back', -1),
    change('back', 2),
  ])
  await world.change('kept', 1)
  await world.change('late', 1)
  await world.change('late', -1)
  await world.caughtUp(last)
  expect(Object.fromEntries((await world.stored(last))[0] ?? [])).toEqual({ back: { n: 2 }, kept: { n: 1 } })
  const index = partitionKeys('accounts', 0).viewKeys('last@1')
  const indexed = await world.link.use('the index', (client) => client.zrange(index, '0', '-1'))
  expect(indexed).toEqual(['back', 'kept'])
})

test('two projectors at once, answers lost and commits that arrive late: every event counts once', async () => {
  const projection = balances()
  const world = await World.create(redis, { partitions: 2, projections: [projection] })
  const telemetry = new RecordedTelemetry()
  const options = { takeoverMs: 60, batchEventsMax: 40 }
  const flaky = async (seed: number): Promise<RedisLink> => {
    const link = new FlakyLink(redis.links.options, seed, ['commit-views'])
    await link.whenReady(5000)
    return link
  }
  const links = [await flaky(1), await flaky(2)]
  const sets = links.map((command) => world.set(options, telemetry, { command }))
  await Promise.all(sets.map((set) => set.start()))
  const expected = await logChanges(world, 2400, 20)
  await world.caughtUp(projection)
  await Promise.all(sets.map((set) => set.stop()))
  await Bun.sleep(100)
  const { totals, complaints } = await judge(world)
  for (const link of links) link.close()
  expect(telemetry.of('projection.conflicted').length).toBeGreaterThan(0)
  expect(telemetry.of('service.failed').length).toBeGreaterThan(5)
  expect(complaints).toEqual([])
  expect(sorted(totals)).toEqual(sorted(expected))
})

test('a commit whose answer is lost counts once, also when it was the first', async () => {
  const projection = balances()
  const world = await World.create(redis, { projections: [projection] })
  const telemetry = new RecordedTelemetry()
  const link = new FlakyLink(redis.links.options, 1, [])
  await link.whenReady(5000)
  link.loseNextAnswerOf = 'commit-views'
  await using set = world.set({}, telemetry, { command: link })
  await set.start()
  await world.source.log([change('a', 1), change('b', 2), change('a', 4)])
  await telemetry.until('service.failed')
  await world.caughtUp(projection)
  link.loseNextAnswerOf = 'commit-views'
  await world.source.log([change('a', 8), change('c', 16)])
  await telemetry.until('service.failed', (failures) => failures.length === 2)
  await world.caughtUp(projection)
  // Whatever is still under way is done once the next commit is.
  await world.source.log([change('b', 32)])
  await world.caughtUp(projection)
  const { totals, complaints } = await judge(world)
  link.close()
  expect(complaints).toEqual([])
  expect(Object.fromEntries(totals)).toEqual({ a: 13, b: 34, c: 16 })
})

test('a projector that is abandoned in the middle of a commit is replaced within two seconds', async () => {
  const projection = balances()
  const world = await World.create(redis, { projections: [projection] })
  const dying = new FlakyLink(redis.links.options, 3, [])
  await dying.whenReady(5000)
  const first = world.set({}, undefined, { command: dying })
  await first.start()
  await world.change('a', 1)
  await world.caughtUp(projection)
  await using second = world.set()
  await second.start()
  dying.swallow = 'commit-views'
  await world.change('a', 2)
  await until('the first to die in its commit', () => dying.swallowed > 0)
  const startedMs = performance.now()
  await world.caughtUp(projection, 5000)
  expect(performance.now() - startedMs).toBeLessThan(2500)
  const [views] = await world.stored(projection)
  expect(totalOf(views?.get('a'))).toBe(3)
  const stopped = first.stop()
  dying.release()
  await stopped
  dying.close()
})

test('a projector on standby asks rarely, and takes over when the owner has gone', async () => {
  const projection = balances()
  const telemetry = new RecordedTelemetry()
  const world = await World.create(redis, { projections: [projection] })
  await world.change('a', 1)
  const owner = world.set({ batchEventsMax: 1 }, telemetry)
  const other = world.set({ batchEventsMax: 1 }, telemetry)
  await Promise.all([owner.start(), other.start()])
  const standing = () => [owner, other].find((set) => set.projectors[0]?.progress === 'standby')
  for (let i = 0; standing() === undefined && i < 200; i++) {
    await world.change('a', 1)
    await Bun.sleep(5)
  }
  const standby = standing()
  expect(standby).toBeDefined()
  expect(standby?.health().ready).toBe(true)
  await world.caughtUp(projection)
  const before = await calls(world.link, 'evalsha')
  await Bun.sleep(1000)
  expect((await calls(world.link, 'evalsha')) - before).toBeLessThan(8)
  await (standby === owner ? other : owner).stop()
  await world.change('b', 7)
  const startedMs = performance.now()
  await world.caughtUp(projection)
  expect(performance.now() - startedMs).toBeLessThan(2500)
  await standby?.stop()
})

test('a fold that changed its view and then threw leaves nothing of it behind', async () => {
  let failures = 0
  const projection = defineProjection<Balance>({
    name: 'balances',
    stream: 'accounts',
    initial: () => ({ total: 0, seen: [] }),
  }).on(
    changed,
    (event) => event.payload.account,
    (view, event) => {
      view.total += event.payload.amount
      event.payload.amount = 1_000_000
      if (view.total === 6 && failures++ < 2) throw new Error('not today')
      view.seen.push(event.position)
      return view
    },
  )
  const telemetry = new RecordedTelemetry()
  const world = await World.create(redis, { projections: [projection] })
  await using set = world.set({ stopPauseMinMs: 10 }, telemetry)
  await set.start()
  await world.source.log([change('a', 1), change('a', 2), change('a', 3), change('a', 4)])
  await world.change('a', 5)
  await world.caughtUp(projection)
  const view = (await world.stored(projection))[0]?.get('a') as Balance
  expect(view.total).toBe(15)
  expect(view.seen.length).toBe(5)
  expect(failures).toBe(3)
  expect(telemetry.of('projection.stopped').length).toBe(1)
})

const touchy = (onError: 'stop' | 'skip-and-record') =>
  defineProjection<Balance>({
    name: 'touchy',
    stream: 'accounts',
    initial: () => ({ total: 0, seen: [] }),
    onError,
  }).on(
    changed,
    (event) => ['all', event.payload.account],
    (view, event) => {
      view.total += event.payload.amount
      view.seen.push(event.position)
      if (event.payload.amount === 13 && view.total !== 0 && view.seen.length % 2 === 0)
        throw new Error('unlucky')
      if (event.payload.amount === 17) return undefined as unknown as Balance
      return view
    },
  )

test('stop: what came before the bad event is committed, the projection stands still, and a mended fold goes on', async () => {
  const bad = defineProjection<Balance>({
    name: 'balances',
    stream: 'accounts',
    initial: () => ({ total: 0, seen: [] }),
  }).on(
    changed,
    (event) => event.payload.account,
    (view, event) => {
      if (event.payload.account === 'bad') throw new Error('no such account')
      view.total += event.payload.amount
      view.seen.push(event.position)
      return view
    },
  )
  const telemetry = new RecordedTelemetry()
  const world = await World.create(redis, { projections: [bad] })
  await world.change('a', 1)
  await world.source.log([change('a', 2), change('bad', 1), change('a', 4)])
  await world.change('a', 8)
  const set = world.set({}, telemetry)
  await set.start()
  await telemetry.until('projection.stopped')
  const [stop] = telemetry.of('projection.stopped')
  expect(stop?.error).toContain('no such account')
  expect(totalOf((await world.stored(bad))[0]?.get('a'))).toBe(1)
  const keys = partitionKeys('accounts', 0)
  const stood = await readViews(world.link, keys, 'balances@1', [])
  expect(stood.stop?.position).toBe(stop?.position ?? 'none')
  expect(stood.stop?.position.endsWith('/1')).toBe(true)
  expect(set.health().ready).toBe(true)
  expect(set.health().detail).toContain('stopped on an event')
  await set.stop()

  await using mended = world.set({}, undefined, { projections: [balances()] })
  await mended.start()
  await world.caughtUp(bad)
  expect(totalOf((await world.stored(bad))[0]?.get('a'))).toBe(15)
  expect((await readViews(world.link, keys, 'balances@1', [])).stop).toBeUndefined()
})

test('skip-and-record: a bad event is recorded once and leaves no trace in any of its views', async () => {
  const projection = touchy('skip-and-record')
  const telemetry = new RecordedTelemetry()
  const world = await World.create(redis, { projections: [projection] })
  await using set = world.set({}, telemetry)
  await set.start()
  await world.source.log([change('a', 1), change('a', 13), change('b', 17), change('b', 2)])
  await world.caughtUp(projection)
  await world.source.log([change('a', 17), change('a', 4)])
  await world.caughtUp(projection)
  const [views] = await world.stored(projection)
  const all = views?.get('all') as Balance
  expect([all.total, totalOf(views?.get('a')), totalOf(views?.get('b'))]).toEqual([7, 5, 2])
  const skipped = await readSkipped(world.link, partitionKeys('accounts', 0), 'touchy@1', 100)
  expect(skipped.map(({ position }) => position.split('/')[1])).toEqual(['1', '2', '0'])
  expect(skipped[0]?.error).toContain('unlucky')
  expect(skipped[1]?.error).toContain('returned undefined')
  expect(telemetry.of('projection.event-skipped').length).toBe(3)
  expect(new Set(all.seen).size).toBe(3)
})

test('skip-and-record also holds for view keys that can not be', async () => {
  const keyed = defineProjection<{ n: number }>({
    name: 'keyed',
    stream: 'accounts',
    initial: () => ({ n: 0 }),
    onError: 'skip-and-record',
  }).on(
    changed,
    (event) => {
      if (event.payload.amount === 1) throw new Error('no key')
      if (event.payload.amount === 2) return 'x'.repeat(600)
      if (event.payload.amount === 3) return ['ok', 4 as unknown as string]
      return event.payload.amount === 4 ? undefined : ['ok', 'ok']
    },
    (view) => ({ n: view.n + 1 }),
  )
  const world = await World.create(redis, { projections: [keyed] })
  await using set = world.set()
  await set.start()
  await world.source.log([1, 2, 3, 4, 5].map((amount) => change('a', amount)))
  await world.caughtUp(keyed)
  expect(Object.fromEntries((await world.stored(keyed))[0] ?? [])).toEqual({ ok: { n: 1 } })
  const skipped = await readSkipped(world.link, partitionKeys('accounts', 0), 'keyed@1', 100)
  expect(skipped.map(({ position }) => position.split('/')[1])).toEqual(['0', '1', '2'])
})

test('a view key that lives in another partition stops the projection with advice', async () => {
  const lost = defineProjection<{ n: number }>({
    name: 'lost',
    stream: 'accounts',
    initial: () => ({ n: 0 }),
  }).on(
    changed,
    (event) => `${event.payload.account}-by-day`,
    (view) => ({ n: view.n + 1 }),
  )
  const found = defineProjection<{ n: number }>({
    name: 'found',
    stream: 'accounts',
    initial: () => ({ n: 0 }),
    partitionKey: (key) => key.split('-')[0] ?? '',
  }).on(
    changed,
    (event) => `${event.payload.account}-by-day`,
    (view) => ({ n: view.n + 1 }),
  )
  const telemetry = new RecordedTelemetry()
  const world = await World.create(redis, { partitions: 4, projections: [lost, found] })
  await using set = world.set({}, telemetry)
  await set.start()
  for (const name of NAMES) await world.change(name, 1)
  await telemetry.until('projection.stopped')
  expect(telemetry.of('projection.stopped')[0]).toMatchObject({ projection: 'lost' })
  expect(telemetry.of('projection.stopped')[0]?.error).toContain('declare "partitionKey"')
  await world.caughtUp(found)
  const keys = (await world.stored(found)).flatMap((views) => [...views.keys()])
  expect(keys.length).toBe(NAMES.length)
})

test('an event of a newer version is never skipped', async () => {
  const projection = touchy('skip-and-record')
  const telemetry = new RecordedTelemetry()
  const world = await World.create(redis, { projections: [projection] })
  await using set = world.set({}, telemetry)
  await set.start()
  await world.change('a', 1)
  await world.source.log([{ type: 'another.event', key: 'a', payload: 1 }])
  await world.source.log([{ ...change('a', 2), version: 2 }])
  await telemetry.until('projection.stopped')
  expect(telemetry.of('projection.stopped')[0]?.error).toContain('newer definition')
  expect(telemetry.of('projection.event-skipped')).toEqual([])
})

test('one entry that touches thousands of views is one commit', async () => {
  const projection = balances()
  const telemetry = new RecordedTelemetry()
  const world = await World.create(redis, { projections: [projection] })
  await world.source.log(Array.from({ length: 1900 }, (_, i) => change(`many${i}`, i)))
  await using set = world.set({ batchViewsMax: 10, hotViewsMax: 7 }, telemetry)
  await set.start()
  await world.caughtUp(projection)
  await world.source.log(Array.from({ length: 1900 }, (_, i) => change(`many${i}`, 1)))
  await world.caughtUp(projection)
  expect(telemetry.of('projection.committed').map(({ views }) => views)).toEqual([1900, 1900])
  const [views] = await world.stored(projection)
  expect(views?.size).toBe(1900)
  expect(totalOf(views?.get('many1899'))).toBe(1900)
})

test('memory is only a cache: hardly any of it gives the same views', async () => {
  const projection = balances()
  const world = await World.create(redis, { projections: [projection] })
  const expected = await logChanges(world, 2000, 10)
  await using set = world.set({ hotViewsMax: 2, batchEventsMax: 30, hotBytesMax: 400 })
  await set.start()
  await world.caughtUp(projection)
  expect(sorted((await judge(world)).totals)).toEqual(sorted(expected))
})

test('a view that msgpack does not give back as it was shows with the second event, not with the next restart', async () => {
  const mapped = defineProjection<{ counts: Map<string, number> }>({
    name: 'mapped',
    stream: 'accounts',
    initial: () => ({ counts: new Map() }),
  }).on(
    changed,
    () => 'all',
    (view, event) => {
      view.counts.set(event.payload.account, 1)
      return view
    },
  )
  const telemetry = new RecordedTelemetry()
  const world = await World.create(redis, { projections: [mapped] })
  await using set = world.set({}, telemetry)
  await set.start()
  await world.change('a', 1)
  await telemetry.until('projection.stopped')
  expect(telemetry.of('projection.stopped')[0]?.error).toContain('TypeError')
})

test('a view that outgrows its bound, or can not be packed, stops the projection', async () => {
  const grown = defineProjection<{ text: string }>({
    name: 'grown',
    stream: 'accounts',
    initial: () => ({ text: '' }),
  }).on(
    changed,
    () => 'all',
    (view, event) => ({ text: `${view.text}${'x'.repeat(event.payload.amount)}` }),
  )
  const telemetry = new RecordedTelemetry()
  const world = await World.create(redis, { projections: [grown] })
  await using set = world.set({ viewBytesMax: 1000 }, telemetry)
  await set.start()
  await world.change('a', 500)
  await world.change('a', 400)
  await world.change('a', 300)
  await telemetry.until('projection.stopped')
  expect(telemetry.of('projection.stopped')[0]?.error).toContain('Keep less in one view')
  expect((await world.stored(grown))[0]?.get('all')).toEqual({ text: 'x'.repeat(900) })
})

test('a projection that starts behind another does not wait for the blocked reading of the other', async () => {
  const early = balances({ name: 'early' })
  const late = balances({ name: 'late' })
  const world = await World.create(redis, { projections: [early] })
  const expected = await logChanges(world, 3000, 30)
  const set = world.set()
  await set.start()
  await world.caughtUp(early)
  await set.stop()
  await using both = world.set({}, undefined, { projections: [early, late] })
  const startedMs = performance.now()
  await both.start()
  await world.caughtUp(late)
  expect(performance.now() - startedMs).toBeLessThan(redis.links.options.blockMs - 50)
  expect(sorted((await judge(world, late)).totals)).toEqual(sorted(expected))
})

test('trimming waits for every reader; a new one after it starts at the floor and says so', async () => {
  const early = balances({ name: 'early' })
  const late = balances({ name: 'late' })
  const world = await World.create(redis, { projections: [early] })
  const keys = partitionKeys('accounts', 0)
  const retention = { eventsMs: 0, eventsBytesMax: 1, resultsMs: 1000, deadLettersMs: 1000 }
  const fill = async () => {
    for (let i = 0; i < 30; i++) await world.source.log(Array.from({ length: 30 }, () => change('a', 1)))
  }
  const set = world.set()
  await set.start()
  await fill()
  await world.caughtUp(early)
  await set.stop()
  const read = await world.checkpoint(early)
  await fill()
  await trimEvents(world.link, keys, retention)
  const left = await world.link.use('the log', (client) => client.xrange(keys.events, '-', '+'))
  expect(left.some(([id]) => id === read)).toBe(true)
  expect(left.length).toBeLessThan(60)
  const floor = await world.link.use('the floor', (client) => client.hget(keys.floors, 'events'))

  const telemetry = new RecordedTelemetry()
  await using both = world.set({}, telemetry, { projections: [early, late] })
  await both.start()
  await world.caughtUp(early)
  await world.caughtUp(late)
  expect(totalOf((await world.stored(early))[0]?.get('a'))).toBe(1800)
  const alarms = telemetry.of('alarm.raised')
  expect(alarms.map(({ alarm }) => alarm)).toEqual(['events-trimmed'])
  expect(alarms[0]?.detail).toContain(String(floor))
})

test('a reader whose next events were trimmed stops instead of going on in silence', async () => {
  const projection = balances()
  const telemetry = new RecordedTelemetry()
  const world = await World.create(redis, { projections: [projection] })
  const keys = partitionKeys('accounts', 0)
  await world.change('a', 1)
  await world.change('a', 1)
  await world.link.use('a gap', async (client) => {
    await client.hset(keys.readers, 'balances@1', '1-1')
    await client.hset(keys.floors, 'events', '5-0')
  })
  await using set = world.set({}, telemetry)
  await set.start()
  await telemetry.until('projection.stopped')
  expect(telemetry.of('projection.stopped')[0]?.error).toContain("Raise the projection's version")
  expect((await world.stored(projection))[0]?.size).toBe(0)
})

test('a log that lost its end raises an alarm, and its next events are still read', async () => {
  const projection = balances()
  const telemetry = new RecordedTelemetry()
  const world = await World.create(redis, { projections: [projection] })
  const keys = partitionKeys('accounts', 0)
  const future = `${Date.now() + 60_000}-7`
  await world.link.use('a lost log', (client) => client.hset(keys.readers, 'balances@1', future))
  await using set = world.set({}, telemetry)
  await set.start()
  await telemetry.until('alarm.raised')
  expect(telemetry.of('alarm.raised')[0]?.alarm).toBe('events-behind')
  await world.change('a', 5)
  await world.caughtUp(projection)
  expect(totalOf((await world.stored(projection))[0]?.get('a'))).toBe(5)
})

test('Redis dies and comes back in the middle: every event counts once', async () => {
  await using own = await startTestRedis()
  const projection = balances()
  const world = await World.create(own, { partitions: 2, projections: [projection] })
  const expected = await logChanges(world, 12_000, 40)
  await using set = world.set({ batchEventsMax: 50 })
  await set.start()
  for (let round = 0; round < 3; round++) {
    const before = await world.checkpoint(projection)
    await until('some progress', async () => (await world.checkpoint(projection)) !== before || round > 0)
    await own.kill()
    await own.restart()
    await world.link.whenReady(5000)
  }
  await world.caughtUp(projection)
  const { totals, complaints } = await judge(world)
  expect(complaints).toEqual([])
  expect(sorted(totals)).toEqual(sorted(expected))
}, 60_000)

test('a server that comes back without the newest events is not handed what they caused', async () => {
  await using own = await startTestRedis()
  const projection = balances()
  const world = await World.create(own, { projections: [projection] })
  await world.change('a', 1)
  const slow = new FlakyLink(own.links.options, 1, [])
  await slow.whenReady(5000)
  await using set = world.set({}, undefined, { command: slow })
  await set.start()
  await world.caughtUp(projection)
  const kept = await Bun.file(`${own.directory}/appendonlydir/appendonly.aof.1.incr.aof`).bytes()
  slow.holdBefore = 'views'
  await world.change('b', 100)
  await until('a batch that is about to be folded', () => slow.held > 0)
  await own.kill()
  await Bun.write(`${own.directory}/appendonlydir/appendonly.aof.1.incr.aof`, kept)
  await own.restart()
  await world.link.whenReady(5000)
  await slow.whenReady(5000)
  slow.release()
  await world.change('b', 10)
  await world.caughtUp(projection)
  const [views] = await world.stored(projection)
  expect(totalOf(views?.get('a'))).toBe(1)
  expect(totalOf(views?.get('b'))).toBe(10)
  slow.close()
})

test('stopping is quick, also when Redis is away', async () => {
  await using own = await startTestRedis()
  const world = await World.create(own, { partitions: 3, projections: [balances()] })
  const set = world.set()
  await set.start()
  await world.change('a', 1)
  await world.caughtUp(balances())
  await own.kill()
  await Bun.sleep(50)
  const startedMs = performance.now()
  await set.stop()
  expect(performance.now() - startedMs).toBeLessThan(1000)
})

test('the position, time and command id of an event are those of its entry', async () => {
  const seen: RecordedEvent[] = []
  const spy = defineProjection<{ n: number }>({
    name: 'spy',
    stream: 'accounts',
    initial: () => ({ n: 0 }),
  }).on(
    changed,
    (event) => event.payload.account,
    (view, event) => {
      seen.push(event)
      return { n: view.n + 1 }
    },
  )
  const world = await World.create(redis, { projections: [spy] })
  await using set = world.set()
  await set.start()
  const [id] = await world.source.log([change('a', 1), change('b', 2)])
  await world.caughtUp(spy)
  const event = seen[1]
  expect(event).toMatchObject({ type: 'account.changed', version: 1, key: 'b', atMs: 1_700_000_000_000 })
  expect(event?.position).toBe(`${id}/1`)
  expect(world.ids.parse(event?.commandId ?? '')).toEqual({ stream: 'accounts', partition: 0, token: 'e2-0' })
  expect(JSON.parse(JSON.stringify(event)).commandId).toBe(event?.commandId)
})
