/** Tails over real logs: nothing left out, nothing twice, whatever way an event comes by and whatever breaks meanwhile. */
import { afterAll, expect, setDefaultTimeout, test } from 'bun:test'
import { errorCode } from '../src/contracts/errors.ts'
import { defineStream } from '../src/contracts/stream.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { RedisLink, RedisLinks } from '../src/redis/connection.ts'
import type { LoggedEvent } from '../src/redis/event-log.ts'
import { LossWatch } from '../src/redis/loss-watch.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { EventCursors } from '../src/tails/event-cursor.ts'
import type { Tail } from '../src/tails/tail.ts'
import { type TailBeginning, Tails, type TailsOptions } from '../src/tails/tails.ts'
import { EventSource } from './support/event-source.ts'
import { HalfOpenProxy } from './support/half-open-proxy.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { rejection } from './support/rejection.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { logBytes, tearLog } from './support/torn-log.ts'
import { until } from './support/until.ts'

setDefaultTimeout(60_000)
const redis = await startTestRedis()
afterAll(() => redis[Symbol.asyncDispose]())

const PARTITIONS = 4
const catalogue = buildCatalogue([defineStream({ name: 'log', partitions: PARTITIONS })])
const cursors = new EventCursors('log', PARTITIONS)

/** mulberry32 */
function dice(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

interface Setup {
  readonly server?: TestRedis
  readonly links?: RedisLinks
  readonly command?: RedisLink
  readonly options?: Partial<TailsOptions>
}

class World implements AsyncDisposable {
  readonly telemetry = new RecordedTelemetry()
  readonly source: EventSource
  readonly link: RedisLink
  readonly tails: Tails
  #written = 0

  private constructor(
    link: RedisLink,
    command: RedisLink,
    links: RedisLinks,
    options: Partial<TailsOptions>,
  ) {
    this.link = link
    this.source = new EventSource(link, 'log', PARTITIONS)
    const parts = { links, command, catalogue, clock: SYSTEM_CLOCK, telemetry: this.telemetry }
    this.tails = new Tails({ ...parts, options })
  }

  static async create({ server = redis, links, options = {}, ...given }: Setup = {}): Promise<World> {
    const link = await server.open()
    await link.use('a clean server', (client) => client.flushall())
    const command = given.command ?? links?.open('command') ?? (await server.open())
    await command.whenReady(5000)
    const world = new World(link, command, links ?? server.links, options)
    await world.tails.start()
    return world
  }

  /** One entry of so many events in this partition. */
  async write(partition: number, events = 1, text = ''): Promise<void> {
    const some = Array.from({ length: events }, () => {
      this.#written += 1
      return { type: this.#written % 2 === 0 ? 'even' : 'odd', key: 'k', payload: { n: this.#written, text } }
    })
    await this.source.log(some, partition)
  }

  async open(beginning: TailBeginning, sees: (event: LoggedEvent) => boolean = () => true): Promise<Reader> {
    return new Reader(this, await this.tails.open({ stream: 'log', beginning, sees, onEnd: () => undefined }))
  }

  /** Every event in the logs, as `<partition>:<entry id>/<index>`, by partition. */
  async logged(): Promise<string[][]> {
    return await Promise.all(
      Array.from({ length: PARTITIONS }, async (_, partition) => {
        const reply = await this.link.use('the log', (client) =>
          client.xrange(this.source.keys(partition).events, '-', '+'),
        )
        return reply.flatMap(([id, fields]) =>
          Array.from({ length: fields.length / 2 }, (_each, index) => `${partition}:${id}/${index}`),
        )
      }),
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.tails.stop()
  }
}

/** Reads one tail until it is stopped, and remembers what came. */
class Reader {
  readonly tail: Tail
  readonly start: string
  readonly found: string[] = []
  readonly gaps: string[] = []
  cursor: string
  readonly #world: World

  constructor(world: World, tail: Tail) {
    this.#world = world
    this.tail = tail
    this.start = tail.cursor
    this.cursor = tail.cursor
  }

  /** Answers whether anything came. */
  async once(waitMs = 50): Promise<boolean> {
    const items = await this.tail.next(waitMs)
    for (const item of items) {
      this.cursor = item.cursor
      if (item.kind === 'event') this.found.push(`${item.partition}:${item.entry}/${item.index}`)
      else this.gaps.push(`${item.partition}:${item.reason}`)
    }
    return items.length > 0
  }

  async until(count: number, limitMs = 20_000): Promise<void> {
    await until(`${count} events`, async () => (await this.once()) && this.found.length >= count, limitMs)
  }

  close(): void {
    this.#world.tails.close(this.tail, 'client')
  }
}

const byPartition = (found: readonly string[]): string[][] =>
  Array.from({ length: PARTITIONS }, (_, p) => found.filter((each) => each.startsWith(`${p}:`)))

/** Of what lies in the log, what comes after a cursor. */
function after(logged: readonly string[][], cursor: string): string[][] {
  const positions = cursors.decode(cursor)
  return logged.map((events, partition) => {
    const { id, seen } = positions[partition] ?? { id: '0-0', seen: 0 }
    return events.filter((each) => {
      const [entry = '', index = '0'] = each.slice(each.indexOf(':') + 1).split('/')
      const [ms = 0, seq = 0] = entry.split('-').map(Number)
      const [cursorMs = 0, cursorSeq = 0] = id.split('-').map(Number)
      if (ms !== cursorMs) return ms > cursorMs
      if (seq !== cursorSeq) return seq > cursorSeq
      return seen > 0 && Number(index) >= seen
    })
  })
}

/**
 * Writers at full speed in all partitions; readers that begin anywhere, read at any pace, leave anywhere and come back with
 * the cursor of the last thing they saw.
 */
async function joinAtRandom(seed: number, disturb?: (random: () => number, world: World) => Promise<void>) {
  console.log(`seed ${seed}`)
  const random = dice(seed)
  const pick = (most: number): number => Math.floor(random() * most)
  await using world = await World.create({
    options: {
      bytesMax: pick(2) === 0 ? 2000 : 20_000,
      keptBytesMax: pick(3) === 0 ? 2000 : 20_000 + pick(500_000),
    },
  })
  const over = new AbortController()
  const writing = Array.from({ length: PARTITIONS }, async (_, partition) => {
    if (partition === PARTITIONS - 1) return
    for (let entries = 0; entries < 600 && !over.signal.aborted; entries++) {
      await world.write(partition, 1 + pick(6), 'x'.repeat(pick(300)))
      if (pick(20) === 0) await Bun.sleep(random() * 80)
    }
  })
  const disturbing =
    disturb === undefined
      ? []
      : [
          (async () => {
            while (!over.signal.aborted) await disturb(random, world)
          })(),
        ]
  const seen: string[] = []
  const lives = Array.from({ length: 12 }, async () => {
    await Bun.sleep(random() * 600)
    const known = seen[pick(seen.length)]
    const way = pick(3)
    const beginning = way === 0 ? 'now' : way === 1 || known === undefined ? 'start' : { cursor: known }
    let reader = await world.open(beginning)
    const found: string[] = []
    const { start } = reader
    while (!over.signal.aborted) {
      await reader.once(20)
      if (pick(4) === 0) await Bun.sleep(random() * 30)
      if (pick(40) !== 0) continue
      found.push(...reader.found)
      seen.push(reader.cursor)
      reader.close()
      await Bun.sleep(random() * 50)
      reader = await world.open({ cursor: reader.cursor })
    }
    return { beginning, start, found, reader }
  })
  await Bun.sleep(1500)
  over.abort()
  const readers = await Promise.all(lives)
  await Promise.all([...writing, ...disturbing])
  const logged = await world.logged()
  expect(logged.flat().length).toBeGreaterThan(500)
  for (const { start, found, reader } of readers) {
    const wanted = after(logged, start)
    for (let empty = 0; found.length + reader.found.length < wanted.flat().length; ) {
      empty = (await reader.once(100)) ? 0 : empty + 1
      if (empty > 50) break
    }
    // Anything that came twice would come now at the latest.
    await reader.once(20)
    expect(reader.gaps).toEqual([])
    expect(byPartition([...found, ...reader.found])).toEqual(wanted)
    reader.close()
  }
  expect(readers.some(({ beginning }) => beginning === 'now')).toBe(true)
  expect(world.tails.count).toBe(0)
  return { world, total: logged.flat().length }
}

const SEED = Number(Bun.env['TAILS_SEED'] ?? Date.now() % 1_000_000_000)

for (const round of [0, 1, 2, 3]) {
  test(`readers join anywhere while writers run: each event after their place once and in order (${round})`, async () => {
    await joinAtRandom(SEED + round)
  })
}

test('the same while connections are cut again and again', async () => {
  await joinAtRandom(SEED + 10, async (random, { link }) => {
    await Bun.sleep(random() * 150)
    await link.use('CLIENT LIST', async (client) => {
      const list = String(await client.client('LIST'))
      for (const line of list.split('\n').filter((each) => each.includes('name=millrace-reader'))) {
        const id = /id=(\d+)/.exec(line)?.[1]
        if (id !== undefined) await client.client('KILL', 'ID', id).catch(() => undefined)
      }
    })
  })
})

test('all tails share one connection, and a partition that nobody tailed is read at once when somebody does', async () => {
  const other = defineStream({ name: 'other', partitions: 1 })
  await using server = await startTestRedis()
  const command = await server.open()
  const telemetry = new RecordedTelemetry()
  const both = buildCatalogue([...catalogue.streams.values(), other])
  // Longer than anything here may take.
  const links = new RedisLinks({ ...server.links.options, blockMs: 20_000 })
  const tails = new Tails({ links, command, catalogue: both, clock: SYSTEM_CLOCK, telemetry })
  await tails.start()
  const readers = async () =>
    String(await command.client.client('LIST'))
      .split('\n')
      .filter((each) => each.includes('name=millrace-reader')).length
  const open = (stream: string) =>
    tails.open({ stream, beginning: 'now', sees: () => true, onEnd: () => undefined })
  const first = await Promise.all([open('log'), open('log'), open('log')])
  const waiting = first.map((tail) => tail.next(10_000))
  await until('a blocked reader', async () => {
    const list = String(await command.client.client('LIST'))
    return /name=millrace-reader.* flags=\S*b.* cmd=xread /.test(list)
  })
  expect(await readers()).toBe(1)
  const late = await open('other')
  const started = performance.now()
  const answer = late.next(10_000)
  await new EventSource(command, 'other', 1).log([{ type: 'a', key: 'k', payload: 1 }])
  expect(await answer).toHaveLength(1)
  expect(performance.now() - started).toBeLessThan(5000)
  expect(await readers()).toBe(1)
  await new EventSource(command, 'log', PARTITIONS).log([{ type: 'a', key: 'k', payload: 1 }])
  for (const each of waiting) expect(await each).toHaveLength(1)
  for (const tail of [...first, late]) tails.close(tail, 'client')
  await tails.stop()
  await until('no reader', async () => (await readers()) === 0 && !tails.reads)
})

/** A connection on which pages are read, and given out only when they may be. */
class HeldLink extends RedisLink {
  readonly #held = Promise.withResolvers<void>()
  holds = false
  read = 0

  release(): void {
    this.holds = false
    this.#held.resolve()
  }

  override async run(...args: Parameters<RedisLink['run']>): Promise<unknown> {
    const { holds } = this
    const reply = await super.run(...args)
    this.read += 1
    if (holds) await this.#held.promise
    return reply
  }
}

test('what is new is read once for all, and by nobody from pages', async () => {
  await using server = await startTestRedis()
  const command = new HeldLink('command', server.links.options)
  await command.whenReady(5000)
  await using world = await World.create({ server, command })
  await world.write(0)
  const readers = await Promise.all(Array.from({ length: 20 }, () => world.open('now')))
  await Promise.all(readers.map((reader) => reader.once()))
  const pages = command.read
  for (let i = 0; i < 100; i++) await world.write(i % PARTITIONS)
  await Promise.all(readers.map((reader) => reader.until(100)))
  const logged = (await world.logged()).map((events, partition) => events.slice(partition === 0 ? 1 : 0))
  for (const { found } of readers) expect(byPartition(found)).toEqual(logged)
  expect(command.read).toBe(pages)
  const stats = String(await world.link.client.info('commandstats'))
  expect(Number(/cmdstat_xread:calls=(\d+)/.exec(stats)?.[1])).toBeLessThan(120)
  command.close()
})

test('a page that somebody else began before the newest event came hides nothing', async () => {
  await using server = await startTestRedis()
  const command = new HeldLink('command', server.links.options)
  await command.whenReady(5000)
  await using world = await World.create({ server, command, options: { keptBytesMax: 0 } })
  await world.write(0)
  const first = await world.open('start')
  await first.until(1)
  first.close()
  const { cursor } = first
  // Reads that nothing comes after the first event; the answer is held.
  command.holds = true
  const early = await world.open({ cursor })
  const readBefore = command.read
  const earlyEvents = early.once(5000)
  await until('the page', () => command.read > readBefore)
  command.holds = false
  await world.write(0)
  // Makes the feed read from the second event on.
  const now = await world.open('now')
  await until('the feed', async () => {
    await now.once(20)
    return world.tails.reads
  })
  const late = await world.open({ cursor })
  const lateEvents = late.once(5000)
  command.release()
  await Promise.all([earlyEvents, lateEvents])
  await Promise.all([early.once(200), late.once(200)])
  const second = (await world.logged())[0]?.slice(1) ?? []
  expect([early.found, late.found]).toEqual([second, second])
  command.close()
})

test('a filter that hides everything costs no answer, and its place moves on', async () => {
  await using world = await World.create()
  for (let i = 0; i < 40; i++) await world.write(i % PARTITIONS)
  const reader = await world.open('start', () => false)
  await until('the end', async () => {
    await reader.once()
    return after(await world.logged(), reader.tail.cursor).flat().length === 0
  })
  expect(reader.found).toEqual([])
})

test('a cursor older than what is kept: a gap first, then the oldest; from the start there is none', async () => {
  await using world = await World.create()
  for (let i = 0; i < 300; i++) await world.write(0)
  for (let i = 0; i < 3; i++) await world.write(1)
  const early = await world.open('start')
  await early.once()
  early.close()
  await until('all', async () => {
    await early.once()
    return true
  })
  const keys = world.source.keys(0)
  const [, , cut = ''] = (await world.logged())[0]?.filter((_, i) => i % 100 === 0) ?? []
  const floor = cut.slice(2).split('/')[0] ?? ''
  const client = world.link.client
  await client.xtrim(keys.events, 'MINID', floor)
  await client.hset(keys.floors, 'events', floor)
  const logged = await world.logged()
  expect(logged[0]?.length).toBe(100)
  const late = await world.open({ cursor: early.cursor })
  await late.until(after(logged, early.cursor).flat().length)
  expect(late.gaps).toEqual(['0:trimmed'])
  expect(byPartition(late.found)).toEqual(after(logged, early.cursor))
  const fresh = await world.open('start')
  await fresh.until(103)
  expect(fresh.gaps).toEqual([])
  // At the newest event nothing was missed, even when that one is gone too.
  const current = await world.open({ cursor: fresh.cursor })
  await client.xtrim(keys.events, 'MAXLEN', 0)
  await client.hset(keys.floors, 'events', `${Date.now() + 1000}-0`)
  const again = await world.open({ cursor: fresh.cursor })
  await Promise.all([current.once(300), again.once(300)])
  expect([current.gaps, again.gaps]).toEqual([[], []])
  await world.write(0)
  await Promise.all([current.until(1), again.until(1)])
  expect(current.found).toEqual(again.found)
  const behind = await world.open({ cursor: early.cursor })
  await behind.until(1)
  expect(behind.gaps).toEqual(['0:trimmed'])
})

test('a live reader that was too slow for retention is told of the gap as well', async () => {
  await using world = await World.create({ options: { bytesMax: 100, keptBytesMax: 1000 } })
  await world.write(0)
  const reader = await world.open('start')
  await reader.until(1)
  for (let i = 0; i < 300; i++) await world.write(0, 1, 'x'.repeat(100))
  await reader.once()
  const [all = []] = await world.logged()
  const floor = all.at(-50)?.slice(2).split('/')[0] ?? ''
  await world.link.client.xtrim(world.source.keys(0).events, 'MINID', floor)
  await world.link.client.hset(world.source.keys(0).floors, 'events', floor)
  await until('the gap and the rest', async () => (await reader.once()) && reader.found.at(-1) === all.at(-1))
  expect(reader.gaps).toEqual(['0:trimmed'])
  expect(reader.found.slice(-50)).toEqual(all.slice(-50))
})

test('Redis is killed and comes back: readers that are there go on without loss, and one that was away too', async () => {
  await using server = await startTestRedis(['--appendfsync', 'always'])
  await using world = await World.create({ server })
  for (let i = 0; i < 20; i++) await world.write(i % PARTITIONS)
  const live = await world.open('start')
  await live.until(20)
  await live.once()
  for (let round = 0; round < 3; round++) {
    await server.kill()
    const waited = live.once(300)
    expect(errorCode(await rejection(world.open('now')))).toMatch(/^redis\./)
    await server.restart()
    await waited
    await world.link.whenReady(10_000)
    for (let i = 0; i < 10; i++) await world.write(i % PARTITIONS)
    await live.until(30 + round * 10)
  }
  expect(live.gaps).toEqual([])
  expect(byPartition(live.found)).toEqual(await world.logged())
  const late = await world.open({ cursor: live.start })
  await late.until(50)
  expect(byPartition(late.found)).toEqual(await world.logged())
})

for (const isWatched of [false, true]) {
  const which = isWatched ? ', when its ids were moved on as well' : ''
  test(`a Redis that lost the end of its log: readers are told, and go on with what comes${which}`, async () => {
    await using server = await startTestRedis(['--appendfsync', 'always'])
    await using world = await World.create({ server })
    if (isWatched) {
      const watch = new LossWatch({ telemetry: world.telemetry, streams: catalogue.streams.values() })
      await watch.watch(world.link)
    }
    for (let i = 0; i < 3; i++) await world.write(0)
    const bytes = await logBytes(server.directory)
    for (let i = 0; i < 2; i++) await world.write(0)
    const live = await world.open('start')
    await live.until(5)
    const idle = await world.open('now')
    await Promise.all([live.once(), idle.once()])
    await server.kill()
    await tearLog(server.directory, bytes)
    await server.restart()
    await world.link.whenReady(10_000)
    const { cursor } = live
    await until('both to be told', async () => {
      await Promise.all([live.once(), idle.once()])
      return live.gaps.length > 0 && idle.gaps.length > 0
    })
    // The log is read live again, and ends before the place of this one.
    const away = await world.open({ cursor })
    await until('the one that was away to be told', async () => {
      await away.once()
      return away.gaps.length > 0
    })
    await world.write(0)
    for (const reader of [live, idle, away]) {
      await until(
        'the new event',
        async () => (await reader.once()) || reader.found.length === (reader === live ? 6 : 1),
      )
      await reader.once()
      expect(reader.gaps).toEqual(['0:lost'])
      expect(reader.found.at(-1)).toBe((await world.logged())[0]?.[3] ?? '')
    }
    expect([live.found.length, idle.found.length, away.found.length]).toEqual([6, 1, 1])
  })
}

test('a reader connection that is open and dead is left in time, and nothing is missing', async () => {
  await using server = await startTestRedis()
  await using proxy = await HalfOpenProxy.open(server, 500)
  await using world = await World.create({ server, links: proxy.links })
  const live = await world.open('now')
  await live.once(100)
  await until('the shared reader', () => world.tails.reads)
  proxy.muteAnswers()
  const started = performance.now()
  for (let i = 0; i < 8; i++) await world.write(i % PARTITIONS)
  await live.until(8)
  // A block of 500 ms, the grace of a silent link, and the way back.
  expect(performance.now() - started).toBeLessThan(4000)
  expect(byPartition(live.found)).toEqual(await world.logged())
})
