/** Leases as their user sees them, against a real Redis: waiting, renewal, loss, release, refusals, lost answers. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import type { LeaseOptions } from '../src/contracts/lease.ts'
import { Leases } from '../src/leases/leases.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { leaseKey } from '../src/redis/keys.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { loseNextReply } from './support/lost-reply.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { rejection } from './support/rejection.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { until } from './support/until.ts'

let redis: TestRedis
let link: RedisLink
let telemetry: RecordedTelemetry
let leases: Leases
let made = 0

const TAKEOVER_MS = 1000
const SHORT: LeaseOptions = { takeoverMs: TAKEOVER_MS }

const newName = (): string => {
  made += 1
  return `lease-${made}`
}

function process(): Leases {
  return new Leases({ links: redis.links, clock: SYSTEM_CLOCK, telemetry })
}

beforeAll(async () => {
  redis = await startTestRedis()
  link = await redis.open()
})
afterAll(() => redis[Symbol.asyncDispose]())
beforeEach(async () => {
  telemetry = new RecordedTelemetry()
  leases = process()
  await leases.start()
})
afterEach(() => leases.stop())

const field = (name: string, which: string) => link.client.hget(leaseKey(name), which)

/** The connection that the leases of the present test use. */
async function leasesLink(): Promise<RedisLink> {
  const opened: RedisLink[] = []
  const { links } = redis
  const open = links.open.bind(links)
  links.open = (role) => {
    const one = open(role)
    opened.push(one)
    return one
  }
  await (await leases.acquire(newName())).release()
  links.open = open
  const [one] = opened
  if (one === undefined) throw new Error('the leases opened no connection')
  return one
}

describe('a lease', () => {
  test('is taken at once when it is free, held as long as wanted, and released', async () => {
    const name = newName()
    const lease = await leases.acquire(name, SHORT)
    expect(lease.held).toBe(true)
    expect(lease.signal.aborted).toBe(false)
    await until('ten renewals', async () => Number(await field(name, 'beat')) >= 10)
    lease.assertHeld()
    await Promise.all([lease.release(), lease.release()])
    expect(lease.held).toBe(false)
    expect(lease.signal.reason).toMatchObject({ code: 'lease.lost' })
    expect(() => lease.assertHeld()).toThrow(`Lease "${name}" was released`)
    expect(await field(name, 'owner')).toBe('')
    expect(telemetry.of('lease.acquired').map(({ epoch }) => epoch)).toEqual([lease.epoch])
    expect(telemetry.of('lease.released')).toEqual([{ lease: name, epoch: lease.epoch, freed: true }])
    expect(telemetry.of('lease.lost')).toEqual([])
  })

  test('passes from one to the next with rising epochs, by disposal too; its name keeps the epoch for ever', async () => {
    const name = newName()
    const epochs: number[] = []
    for (let turn = 0; turn < 20; turn++) {
      await using lease = await leases.acquire(name, SHORT)
      epochs.push(lease.epoch)
    }
    expect(epochs).toEqual([...new Set(epochs)].toSorted((a, b) => a - b))
    expect(await link.client.pttl(leaseKey(name))).toBe(-1)
  })

  test('is waited for: whoever comes next has it soon after its release, and the others still wait', async () => {
    const name = newName()
    const first = await leases.acquire(name, SHORT)
    const won: number[] = []
    const waiting = Array.from({ length: 4 }, async () => {
      const lease = await leases.acquire(name, SHORT)
      won.push(lease.epoch)
      await Bun.sleep(20)
      expect(lease.held).toBe(true)
      await lease.release()
    })
    await Bun.sleep(2 * TAKEOVER_MS)
    expect(won).toEqual([])
    await first.release()
    await Promise.all(waiting)
    expect(won.length).toBe(4)
    expect(won).toEqual(won.toSorted((a, b) => a - b))
  })

  test('of a holder with a longer figure is waited for by that one', async () => {
    const name = newName()
    const slow = await leases.acquire(name, { takeoverMs: 2500 })
    // As if it had died: nobody renews. Its trust is its own figure's, so a contender may not go by its shorter one.
    const owner = await field(name, 'owner')
    await slow.release()
    await link.client.hset(leaseKey(name), 'owner', owner ?? '')
    const startedMs = performance.now()
    const next = await leases.acquire(name, SHORT)
    expect(performance.now() - startedMs).toBeGreaterThan(2400)
    expect(next.epoch).toBeGreaterThan(slow.epoch)
  })

  test('that somebody else took aborts its signal at the next renewal, and its release harms nobody', async () => {
    const name = newName()
    const lease = await leases.acquire(name, SHORT)
    await link.client.hset(leaseKey(name), 'owner', 'somebody', 'epoch', lease.epoch + 1)
    await telemetry.until('lease.lost')
    expect(lease.signal.aborted).toBe(true)
    expect(telemetry.of('lease.lost')).toEqual([{ lease: name, epoch: lease.epoch, reason: 'taken' }])
    await lease.release()
    expect(await field(name, 'owner')).toBe('somebody')
  })

  test('that vanished from Redis is lost with an alarm, and its next epoch is higher all the same', async () => {
    const name = newName()
    const lease = await leases.acquire(name, SHORT)
    await link.client.flushall()
    await telemetry.until('alarm.raised')
    expect(telemetry.of('alarm.raised')[0]?.alarm).toBe('lease-state-lost')
    expect(telemetry.of('lease.lost')[0]?.reason).toBe('gone')
    expect((await leases.acquire(name)).epoch).toBeGreaterThan(lease.epoch)
  })

  test('is not trusted when the event loop was busy for too long: `held` knows it before any timer ran', async () => {
    const lease = await leases.acquire(newName(), SHORT)
    const end = performance.now() + TAKEOVER_MS
    while (performance.now() < end);
    expect(lease.held).toBe(false)
    expect(lease.signal.aborted).toBe(true)
    expect(telemetry.of('lease.lost')[0]?.reason).toBe('silent')
  })

  test('is kept when Redis is out of memory', async () => {
    const name = newName()
    const lease = await leases.acquire(name, SHORT)
    await link.client.config('SET', 'maxmemory', '1')
    const before = Number(await field(name, 'beat'))
    await until('ten renewals', async () => Number(await field(name, 'beat')) >= before + 10)
    await link.client.config('SET', 'maxmemory', '0')
    expect(lease.held).toBe(true)
  })
})

describe('waiting', () => {
  test('ends with the reason of the signal, and leaves nothing behind', async () => {
    const name = newName()
    const first = await leases.acquire(name, SHORT)
    const stop = new AbortController()
    const waiting = rejection(leases.acquire(name, { ...SHORT, signal: stop.signal }))
    await Bun.sleep(50)
    stop.abort(new Error('changed my mind'))
    expect((await waiting).message).toBe('changed my mind')
    await first.release()
    expect(await field(name, 'owner')).toBe('')
    expect((await rejection(leases.acquire(name, { signal: stop.signal }))).message).toBe('changed my mind')
  })

  test('lasts no longer than it may; 0 asks once', async () => {
    const name = newName()
    await leases.acquire(name, SHORT)
    const startedMs = performance.now()
    expect(await rejection(leases.acquire(name, { waitMs: 0 }))).toMatchObject({ code: 'lease.held' })
    expect(await rejection(leases.acquire(name, { waitMs: 300 }))).toMatchObject({ code: 'lease.held' })
    expect(performance.now() - startedMs).toBeLessThan(1000)
    const free = await leases.acquire(newName(), { waitMs: 0 })
    expect(free.held).toBe(true)
  })

  test('ends with the process, which releases what it holds', async () => {
    const [held, waited] = [newName(), newName()]
    const other = process()
    await other.start()
    await other.acquire(waited)
    const lease = await leases.acquire(held)
    const waiting = rejection(leases.acquire(waited))
    await Bun.sleep(20)
    await leases.stop()
    expect(await waiting).toMatchObject({ code: 'service.stopped' })
    expect(lease.signal.aborted).toBe(true)
    expect(await field(held, 'owner')).toBe('')
    expect(await rejection(leases.acquire(held))).toMatchObject({ code: 'service.stopped' })
    await other.stop()
  })

  test('outlasts a Redis that is away', async () => {
    await using server = await startTestRedis()
    await using there = new Leases({ links: server.links, clock: SYSTEM_CLOCK, telemetry })
    await there.start()
    await (await there.acquire('any')).release()
    await server.kill()
    expect(await rejection(there.acquire('any', { waitMs: 200 }))).toMatchObject({
      code: 'redis.unavailable',
    })
    const waiting = there.acquire('any')
    await server.restart()
    expect((await waiting).held).toBe(true)
  })
})

describe('answers that are lost', () => {
  test('a take is asked for again, and found to be ours, with one epoch', async () => {
    loseNextReply(await leasesLink())
    const name = newName()
    const lease = await leases.acquire(name, SHORT)
    expect(lease.held).toBe(true)
    expect(await field(name, 'epoch')).toBe(String(lease.epoch))
    // The repetition has beaten: whoever had begun to look starts again.
    expect(Number(await field(name, 'beat'))).toBeGreaterThanOrEqual(1)
  })

  test('a renewal is sent again', async () => {
    const used = await leasesLink()
    const lease = await leases.acquire(newName(), SHORT)
    loseNextReply(used)
    const generation = used.generation
    await until('the connection to be dialled again', () => used.generation > generation)
    await Bun.sleep(2 * TAKEOVER_MS)
    expect(lease.held).toBe(true)
  })

  test('a release is sent again', async () => {
    const used = await leasesLink()
    const name = newName()
    const lease = await leases.acquire(name, { takeoverMs: 600_000 })
    loseNextReply(used)
    await lease.release()
    expect(await field(name, 'owner')).toBe('')
  })
})

test('what is not a name, a figure or an option is refused', async () => {
  const refused = async (name: string, options: object = {}) =>
    await rejection(leases.acquire(name, options as LeaseOptions))
  expect(await refused('x}{y')).toMatchObject({ code: 'definition.invalid' })
  expect(await refused('')).toMatchObject({ code: 'definition.invalid' })
  expect((await refused('x', { takeoverMs: 999 })).message).toContain('from 1000 to 600000')
  expect((await refused('x', { waitMs: -1 })).message).toContain('"waitMs" of lease "x"')
  expect(await refused('x', { takeOverMs: 5000 })).toMatchObject({
    code: 'config.unknown-option',
    message: expect.stringContaining('Did you mean "takeoverMs"?'),
  })
})
