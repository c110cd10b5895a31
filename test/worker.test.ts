/** The worker against a real Redis: settlement, splitting, retries, recovery, hand-over, outbox, trimming. */
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { z } from 'zod'
import {
  defineBatchHandler,
  defineCommand,
  defineEvent,
  defineHandler,
  defineStream,
  done,
  reject,
  retry,
} from '../src/index.ts'
import { partitionOf } from '../src/policies/partition.ts'
import { ensureGroup, readNew, removeConsumer, sampleConsumers } from '../src/redis/consumer-group.ts'
import { encodeEntry, unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { sharedMembership } from '../src/redis/membership.ts'
import { packPayload } from '../src/redis/payload-codec.ts'
import { settle } from '../src/redis/settlements.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const Add = defineCommand({ type: 'sum.add', payload: z.object({ n: z.number() }), stream: 'sums' })
const Added = defineEvent({ type: 'sum.added', payload: z.object({ n: z.number() }) })
const keys = partitionKeys('sums', 0)
const numbers = (count: number) => Array.from({ length: count }, (_, n) => ({ n }))

let redis: TestRedis
beforeEach(async () => {
  redis = await startTestRedis()
})
afterEach(async () => {
  await redis[Symbol.asyncDispose]()
})

const settledCount = (fleet: TestFleet) => () =>
  fleet.telemetry.of('batch.settled').reduce((sum, batch) => sum + batch.done + batch.dead, 0)

async function settledAll(fleet: TestFleet, count: number): Promise<void> {
  const settled = settledCount(fleet)
  await fleet.telemetry.until('batch.settled', () => settled() >= count)
}

describe('a command that succeeds', () => {
  test('is acknowledged with its events, once each, and its status is done', async () => {
    const handler = defineBatchHandler(Add, (batch) =>
      batch.map((command) => {
        command.emit(Added, { n: command.payload.n })
        return done()
      }),
    )
    const fleet = await testFleet(redis, [Add, Added, handler])
    const appended = await fleet.append(Add, numbers(3000))
    await using worker = await fleet.worker()
    await settledAll(fleet, 3000)
    expect(await fleet.pending('sums')).toBe(0)
    const events = await fleet.events('sums')
    expect(events).toHaveLength(3000)
    expect(new Set(events.map((event) => event.token))).toEqual(new Set(appended.map((item) => item.token)))
    expect((await fleet.status(appended[0] as never)).state).toBe('done')
    expect(worker.health().ready).toBe(true)
  })

  test('keeps its result where a status can show it', async () => {
    const handler = defineHandler(Add, (command) => done({ twice: command.payload.n * 2 }))
    const fleet = await testFleet(redis, [Add, handler])
    const [first] = await fleet.append(Add, [{ n: 21 }])
    await using _worker = await fleet.worker()
    await settledAll(fleet, 1)
    const status = await fleet.status(first as never)
    expect(status.state).toBe('done')
    expect(status.record).toMatchObject({ result: { twice: 42 }, attempts: 1 })
  })
})

describe('a batch that throws', () => {
  test('is split until the bad commands stand alone: exactly those die, with every error, the rest runs as attempt 1', async () => {
    const bad = new Set([3, 150, 151, 777, 1000, 1001, 5002, 7500, 9999, 0])
    const attempts: number[] = []
    const handler = defineBatchHandler(
      Add,
      (batch) => {
        for (const command of batch) {
          if (bad.has(command.payload.n)) throw new Error(`poison ${command.payload.n}`)
        }
        for (const command of batch) attempts.push(command.attempt)
        return batch.map(() => done())
      },
      { batchCountMax: 200, attemptsMax: 3, backoffBaseMs: 5, backoffMaxMs: 20 },
    )
    const fleet = await testFleet(redis, [Add, handler])
    const appended = await fleet.append(Add, numbers(10_000))
    await using _worker = await fleet.worker()
    await settledAll(fleet, 10_000)
    const dead = await fleet.deadLetters('sums')
    const payloads = dead.map(({ entry }) => (unpackPayloadOf(entry) as { n: number }).n)
    expect(payloads.sort((a, b) => a - b)).toEqual([...bad].sort((a, b) => a - b))
    for (const { entry } of dead) {
      expect(entry.trail?.failures.map((failure) => failure.attempt)).toEqual([1, 2, 3])
      expect(entry.trail?.failures[0]?.error).toContain('poison')
    }
    expect(attempts).toHaveLength(9990)
    expect(attempts.every((attempt) => attempt === 1)).toBe(true)
    expect((await fleet.status(appended[3] as never)).state).toBe('dead')
  })

  test('keeps no effect of a run that failed', async () => {
    const handler = defineBatchHandler(
      Add,
      (batch) => {
        for (const command of batch) command.emit(Added, { n: command.payload.n })
        if (batch.length > 1) throw new Error('too many at once')
        return batch.map(() => done())
      },
      { batchCountMax: 50 },
    )
    const fleet = await testFleet(redis, [Add, Added, handler])
    await fleet.append(Add, numbers(50))
    await using _worker = await fleet.worker()
    await settledAll(fleet, 50)
    expect(await fleet.events('sums')).toHaveLength(50)
  })

  test('a wrong number of outcomes is a fault of the batch, not a loss', async () => {
    const handler = defineBatchHandler(Add, (batch) => (batch.length > 1 ? [done()] : [done()]), {
      batchCountMax: 10,
    })
    const fleet = await testFleet(redis, [Add, handler])
    await fleet.append(Add, numbers(10))
    await using _worker = await fleet.worker()
    await settledAll(fleet, 10)
    expect(fleet.telemetry.of('batch.split').length).toBeGreaterThan(0)
    expect(await fleet.pending('sums')).toBe(0)
  })
})

test('a command that failed before runs with its like, never in a fresh batch', async () => {
  const gate = Promise.withResolvers<void>()
  const batches: number[][] = []
  const handler = defineBatchHandler(
    Add,
    async (batch) => {
      batches.push(batch.map(({ payload }) => payload.n))
      if (batches.length === 2) await gate.promise
      return batch.map(({ payload, attempt }) =>
        payload.n === 0 && attempt === 1 ? retry('once more', { delayMs: 0 }) : done(),
      )
    },
    { concurrencyMax: 1 },
  )
  const fleet = await testFleet(redis, [Add, handler])
  await fleet.append(Add, [{ n: 0 }])
  await using _worker = await fleet.worker({ promoteEveryMs: 500 })
  await until('the first run', () => batches.length === 1)
  await fleet.append(Add, [{ n: 1 }])
  await until('a run that waits', () => batches.length === 2)
  await fleet.append(Add, [{ n: 2 }, { n: 3 }])
  // All that is left lies in this worker's hands, and waits for the one that runs.
  await until('all to be read', async () => (await fleet.pending('sums')) === (batches[1]?.length ?? 0) + 3)
  gate.resolve()
  await settledAll(fleet, 4)
  expect(batches.flat().filter((n) => n === 0)).toHaveLength(2)
  expect(batches.filter((batch) => batch.includes(0))).toEqual([[0], [0]])
})

describe('outcomes', () => {
  test('retry runs again with the next attempt, reject dies at once', async () => {
    const seen: number[] = []
    const handler = defineHandler(Add, (command) => {
      if (command.payload.n === 1) return reject('never this one')
      seen.push(command.attempt)
      return command.attempt < 3 ? retry('not yet', { delayMs: 10 }) : done()
    })
    const fleet = await testFleet(redis, [Add, handler])
    const [first, second] = await fleet.append(Add, [{ n: 0 }, { n: 1 }])
    await using _worker = await fleet.worker()
    await settledAll(fleet, 2)
    expect(seen).toEqual([1, 2, 3])
    expect((await fleet.status(first as never)).state).toBe('done')
    const dead = await fleet.status(second as never)
    expect(dead).toMatchObject({ state: 'dead', record: { error: 'never this one', attempts: 1 } })
  })

  test('a handler that overruns its time is retried, and what it does later is ignored', async () => {
    const late = Promise.withResolvers<void>()
    let aborted = false
    const handler = defineHandler(
      Add,
      async (command, { signal }) => {
        if (command.attempt > 1) return done()
        signal.addEventListener('abort', () => {
          aborted = true
        })
        await late.promise
        command.emit(Added, { n: 1 })
        return done()
      },
      { timeLimitMs: 50, backoffBaseMs: 1 },
    )
    const fleet = await testFleet(redis, [Add, Added, handler])
    await fleet.append(Add, [{ n: 0 }])
    await using _worker = await fleet.worker()
    await settledAll(fleet, 1)
    late.resolve()
    expect(aborted).toBe(true)
    expect(await fleet.events('sums')).toHaveLength(0)
  })
})

describe('follow-up commands', () => {
  const Wide = defineStream({ name: 'wide', partitions: 4 })
  const Start = defineCommand({
    type: 'walk.start',
    payload: z.object({ k: z.string() }),
    stream: Wide,
    key: (p) => p.k,
  })
  const Step = defineCommand({
    type: 'walk.step',
    payload: z.object({ k: z.string() }),
    stream: Wide,
    key: (p) => p.k,
  })

  test('reach other partitions exactly once, through the outbox, also when two workers relay', async () => {
    const steps: string[] = []
    const start = defineHandler(Start, (command) => {
      for (let i = 0; i < 3; i++) command.send(Step, { k: `${command.payload.k}/${i}` })
      return done()
    })
    const step = defineHandler(Step, (command) => {
      steps.push(command.payload.k)
      return done()
    })
    const fleet = await testFleet(redis, [Wide, Start, Step, start, step])
    await fleet.append(
      Start,
      Array.from({ length: 200 }, (_, i) => ({ k: `k${i}` })),
    )
    await using _first = await fleet.worker()
    await using _second = await fleet.worker()
    await settledAll(fleet, 800)
    expect(steps).toHaveLength(600)
    expect(new Set(steps).size).toBe(600)
    const partitions = new Set(steps.map((key) => partitionOf(key, 4)))
    expect(partitions.size).toBe(4)
    await until('empty outboxes', async () => {
      const lengths = await Promise.all(
        [0, 1, 2, 3].map((p) => redis.links && fleet.link.client.xlen(partitionKeys('wide', p).outbox)),
      )
      return lengths.every((length) => length === 0)
    })
  })

  test('a delayed one comes when it is due and can be asked about', async () => {
    const times: number[] = []
    const start = defineHandler(Start, (command) => {
      command.send(Step, { k: command.payload.k }, { delayMs: 150 })
      times.push(performance.now())
      return done()
    })
    const step = defineHandler(Step, () => {
      times.push(performance.now())
      return done()
    })
    const fleet = await testFleet(redis, [Wide, Start, Step, start, step])
    await fleet.append(Start, [{ k: 'a' }])
    await using _worker = await fleet.worker()
    await settledAll(fleet, 2)
    expect((times[1] ?? 0) - (times[0] ?? 0)).toBeGreaterThanOrEqual(150)
    const at = { stream: 'wide', partition: partitionOf('a', 4), token: 'x1' }
    expect((await fleet.status(at)).state).toBe('done')
  })
})

describe('settling', () => {
  test('a success counts once, whoever delivers it first; a stale failure never wins', async () => {
    const fleet = await testFleet(redis, [Add, Added, defineHandler(Add, () => done())])
    const [item] = await fleet.append(Add, [{ n: 1 }])
    await fleet.link.client.xgroup('CREATE', keys.commands, 'workers', '0')
    await fleet.link.client.xgroup('CREATE', keys.ready, 'workers', '0', 'MKSTREAM')
    const reader = await redis.open('reader')
    const [entry] = await readNew(reader, sharedMembership(keys, 'old'), 1, 10)
    await fleet.link.client.xclaim(keys.commands, 'workers', 'new', 0, entry?.entryId ?? '')
    const ref = {
      source: 'commands',
      entryId: entry?.entryId ?? '',
      token: item?.token ?? '',
      level: 0,
    } as const
    const nothing = { trace: undefined, tickMs: undefined, trail: undefined }
    const event = encodeEntry(
      { type: 'sum.added', version: 1, atMs: 1, key: '', ...nothing },
      packPayload({ n: 1 }),
    )
    const success = { ref, events: [event], followUps: [], append: undefined, record: '' } as const
    const record = packPayload({})
    const failure = { ref, move: 'dead', delayMs: 0, blob: entry?.blob ?? Buffer.alloc(0), record } as const
    const none = { plain: [], successes: [], failures: [] }
    const stale = await settle(fleet.link, sharedMembership(keys, 'old'), { ...none, failures: [failure] })
    expect(stale.failures).toEqual(['settled-before'])
    expect(await fleet.deadLetters('sums')).toHaveLength(0)
    const late = await settle(fleet.link, sharedMembership(keys, 'old'), { ...none, successes: [success] })
    expect(late.successes).toEqual(['applied'])
    const second = await settle(fleet.link, sharedMembership(keys, 'new'), { ...none, successes: [success] })
    expect(second.successes).toEqual(['settled-before'])
    expect(await fleet.events('sums')).toHaveLength(1)
  })
})

describe('recovery', () => {
  test('entries that were read by a connection that died are found again', async () => {
    const fleet = await testFleet(redis, [Add, defineHandler(Add, () => done())])
    await using worker = await fleet.worker()
    const killAll = setInterval(
      () =>
        void fleet.link.client
          .call('CLIENT', ['KILL', 'TYPE', 'normal', 'SKIPME', 'yes'])
          .catch(() => undefined),
      40,
    )
    try {
      for (let i = 0; i < 20; i++) {
        await until('an append that is answered', async () => {
          try {
            await fleet.append(Add, numbers(50))
            return true
          } catch {
            return false
          }
        })
      }
    } finally {
      clearInterval(killAll)
    }
    await until('an empty stream', async () => {
      const last = (await fleet.link.client.xinfo('GROUPS', keys.commands)) as unknown[][]
      const group = last[0] ?? []
      const delivered = group[group.indexOf('last-delivered-id') + 1]
      const newest = await fleet.link.client.xrevrange(keys.commands, '+', '-', 'COUNT', 1)
      return (newest[0] === undefined || newest[0][0] === delivered) && (await fleet.pending('sums')) === 0
    })
    expect(worker.state).toBe('running')
  })

  test('a silent consumer is taken over from within three seconds', async () => {
    const fleet = await testFleet(redis, [Add, defineHandler(Add, () => done())])
    await fleet.append(Add, numbers(30))
    await fleet.link.client.xgroup('CREATE', keys.commands, 'workers', '0')
    await fleet.link.client.xgroup('CREATE', keys.ready, 'workers', '0', 'MKSTREAM')
    const reader = await redis.open('reader')
    expect(await readNew(reader, sharedMembership(keys, 'dead-one'), 30, 10)).toHaveLength(30)
    await fleet.link.client.hset(keys.beats, 'dead-one', '7:7')
    const startedMs = performance.now()
    await using _worker = await fleet.worker()
    await settledAll(fleet, 30)
    expect(performance.now() - startedMs).toBeLessThan(3000)
    expect(fleet.telemetry.of('entries.claimed').reduce((sum, claim) => sum + claim.suspects, 0)).toBe(30)
    expect(await fleet.link.client.hlen(keys.crashes)).toBe(0)
  })

  test('a consumer is removed only when it holds nothing and its heartbeat has not moved', async () => {
    const fleet = await testFleet(redis, [Add, defineHandler(Add, () => done())])
    await fleet.append(Add, numbers(1))
    await ensureGroup(fleet.link, keys)
    const reader = await redis.open('reader')
    const [entry] = await readNew(reader, sharedMembership(keys, 'gone'), 1, 10)
    await fleet.link.client.hset(keys.beats, 'gone', '7:7')
    expect(await removeConsumer(fleet.link, keys, 'gone', '7:7')).toBe(false)
    await fleet.link.client.xack(keys.commands, 'workers', entry?.entryId ?? '')
    expect(await removeConsumer(fleet.link, keys, 'gone', '6:6')).toBe(false)
    expect(await removeConsumer(fleet.link, keys, 'gone', '7:7')).toBe(true)
    expect((await sampleConsumers(fleet.link, keys)).map((view) => view.consumer)).not.toContain('gone')
  })

  test('what a draining worker has read but not started goes to another, uncharged', async () => {
    const gate = Promise.withResolvers<void>()
    const attempts: number[] = []
    const handler = defineHandler(
      Add,
      async (command) => {
        if (command.payload.n < 2) await gate.promise
        attempts.push(command.attempt)
        return done()
      },
      { concurrencyMax: 2 },
    )
    const fleet = await testFleet(redis, [Add, handler])
    await fleet.append(Add, numbers(40))
    const first = await fleet.worker()
    await fleet.telemetry.until('entries.read')
    const stopped = first.stop()
    gate.resolve()
    await stopped
    expect(fleet.telemetry.of('entries.released').reduce((sum, item) => sum + item.count, 0)).toBe(38)
    await using _second = await fleet.worker()
    await settledAll(fleet, 40)
    expect(attempts).toHaveLength(40)
    expect(attempts.every((attempt) => attempt === 1)).toBe(true)
    expect(fleet.telemetry.of('entries.redelivered')).toHaveLength(0)
  })

  test('others get it at once, while a slow handler of the draining worker still runs', async () => {
    const gate = Promise.withResolvers<void>()
    const seen: number[] = []
    const handler = defineHandler(
      Add,
      async (command) => {
        const slow = command.payload.n < 2
        if (slow) await gate.promise
        seen.push(command.payload.n)
        return done()
      },
      { concurrencyMax: 2 },
    )
    const fleet = await testFleet(redis, [Add, handler])
    await fleet.append(Add, numbers(40))
    const first = await fleet.worker()
    await fleet.telemetry.until('entries.read')
    await using _second = await fleet.worker()
    const stopped = first.stop()
    await settledAll(fleet, 38)
    expect(seen).not.toContain(0)
    gate.resolve()
    await stopped
    await settledAll(fleet, 40)
    expect(seen.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 40 }, (_, n) => n))
  })
})

describe('rolling deploys', () => {
  test('a version that nobody knows here is put back, not dead-lettered, and handled once a worker knows it', async () => {
    const handler = defineHandler(Add, () => done())
    const old = await testFleet(redis, [Add, handler])
    const [item] = await old.append(Add, [{ n: 1 }], 2)
    const worker = await old.worker()
    await old.telemetry.until('command.deferred')
    await worker.stop()
    const Add2 = defineCommand({
      type: 'sum.add',
      version: 2,
      payload: z.object({ n: z.number() }),
      stream: 'sums',
    })
    const versions: number[] = []
    const second = defineHandler(Add2, (command) => {
      versions.push(command.version, command.attempt)
      return done()
    })
    const fleet = await testFleet(redis, [Add, Add2, handler, second])
    await using _worker = await fleet.worker()
    await settledAll(fleet, 1)
    expect(versions).toEqual([2, 1])
    expect((await fleet.status(item as never)).state).toBe('done')
    expect(await fleet.deadLetters('sums')).toHaveLength(0)
  })
})

describe('trimming', () => {
  test('removes what is done and nothing that is pending or unread', async () => {
    const gate = Promise.withResolvers<void>()
    const handler = defineHandler(Add, async (command) => {
      if (command.payload.n === 2500) await gate.promise
      return done()
    })
    const fleet = await testFleet(redis, [Add, handler])
    await fleet.append(Add, numbers(5000))
    await using _worker = await fleet.worker({ trimEveryMs: 20 })
    await settledAll(fleet, 4999)
    await until('a trimmed stream', async () => (await fleet.link.client.xlen(keys.commands)) < 2700)
    expect(await fleet.link.client.xlen(keys.commands)).toBeGreaterThanOrEqual(2500)
    gate.resolve()
    await settledAll(fleet, 5000)
    await until('an almost empty stream', async () => (await fleet.link.client.xlen(keys.commands)) <= 100)
  })
})
