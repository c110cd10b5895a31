/**
 * Handlers that misbehave without ending their process. What must hold each time: the bad command is charged what is due,
 * its neighbours are done at their first attempt, other handlers go on, and nothing is held for ever.
 */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { z } from 'zod'
import { describeError, errorCode } from '../src/contracts/errors.ts'
import {
  defineBatchHandler,
  defineCommand,
  defineEvent,
  defineHandler,
  done,
  type HandledCommand,
  type Outcome,
  reject,
  retry,
} from '../src/index.ts'
import { readOutcomes } from '../src/policies/outcomes.ts'
import { unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

setDefaultTimeout(30_000)

const number = z.object({ n: z.number() })
const Bad = defineCommand({ type: 'bad.take', payload: number, stream: 'bad' })
const Good = defineCommand({ type: 'good.take', payload: number, stream: 'bad' })
const Taken = defineEvent({ type: 'bad.taken', payload: z.object({ n: z.number(), attempt: z.number() }) })
const good = defineHandler(Good, () => done())

const circular: Record<string, unknown> = { name: 'circular' }
circular['self'] = circular

class Hidden extends Error {
  override get message(): string {
    throw new Error('not to be read')
  }
}

/** Every way in which one of a batch of ten goes wrong; number 5 is the bad one. */
const THROWN: Readonly<Record<string, () => unknown>> = {
  'a string': () => 'no',
  undefined: () => undefined,
  null: () => null,
  'a symbol': () => Symbol('no'),
  'an object without a prototype': () => Object.create(null),
  'a proxy that throws': () =>
    new Proxy(new Error('x'), {
      get: () => {
        throw new Error('trap')
      },
      getPrototypeOf: () => {
        throw new Error('trap')
      },
    }),
  'an error whose message throws': () => new Hidden(),
  'an error with a circular cause': () => new Error('round and round', { cause: circular }),
  'an error with a huge message': () => new Error('x'.repeat(5_000_000)),
}

type Answer = (batch: readonly HandledCommand<{ n: number }>[]) => readonly Outcome[]

function answering(wrong: (outcomes: Outcome[], at: number) => unknown): Answer {
  return (batch) => {
    const outcomes = takeAll(batch)
    const at = batch.findIndex(({ payload }) => payload.n === 5)
    return (at < 0 ? outcomes : wrong(outcomes, at)) as Outcome[]
  }
}

function takeAll(batch: readonly HandledCommand<{ n: number }>[]): Outcome[] {
  return batch.map((command) => {
    command.emit(Taken, { n: command.payload.n, attempt: command.attempt })
    return done()
  })
}

function replaced(value: unknown): Answer {
  return answering((outcomes, at) => outcomes.with(at, value as Outcome))
}

const ANSWERS: Readonly<Record<string, Answer>> = {
  'too few outcomes': answering((outcomes) => outcomes.slice(1)),
  'too many outcomes': answering((outcomes) => [...outcomes, done()]),
  'nothing at all': answering(() => undefined),
  'an outcome that is none': replaced({ outcome: 'maybe' }),
  'an outcome that is a text': replaced('done'),
  'an outcome that throws when read': replaced(
    new Proxy(
      {},
      {
        get: () => {
          throw new Error('trap')
        },
      },
    ),
  ),
  'a circular result': replaced(done(circular)),
  'a result with a number too large': replaced(done({ n: 10n ** 30n })),
  'a function as result': replaced({ outcome: 'done', result: () => 1 }),
}

async function run(fleet: TestFleet, retries: number): Promise<void> {
  const ten = Array.from({ length: 10 }, (_, n) => ({ n }))
  await fleet.append(Bad, ten)
  await fleet.append(Good, ten)
  await using _worker = await fleet.worker()
  const isOver = async () =>
    (await fleet.events('bad')).length === 9 && (await fleet.deadLetters('bad')).length === 1
  await until('nine done and one dead', isOver)
  await until('nothing pending', async () => (await fleet.pending('bad')) === 0)
  const taken = (await fleet.events('bad')).map(
    ({ entry }) => unpackPayloadOf(entry) as { n: number; attempt: number },
  )
  expect(taken.map(({ n }) => n).sort()).toEqual([0, 1, 2, 3, 4, 6, 7, 8, 9])
  expect(taken.every(({ attempt }) => attempt === 1)).toBe(true)
  const [dead] = await fleet.deadLetters('bad')
  expect(dead === undefined ? undefined : unpackPayloadOf(dead.entry)).toEqual({ n: 5 })
  expect(dead?.entry.trail).toMatchObject({ attempts: retries, reason: 'failed' })
  const error = dead?.entry.trail?.failures.at(-1)?.error ?? ''
  expect(error.length).toBeGreaterThan(0)
  expect(error.length).toBeLessThanOrEqual(500)
  expect(fleet.telemetry.of('service.failed')).toEqual([])
}

const LIMITS = { attemptsMax: 2, backoffBaseMs: 1, backoffMaxMs: 5 }

describe('one of ten throws', () => {
  for (const [what, make] of Object.entries(THROWN)) {
    test(what, async () => {
      await using redis = await startTestRedis()
      const bad = defineBatchHandler(
        Bad,
        (batch) => {
          if (batch.some(({ payload }) => payload.n === 5)) throw make()
          return takeAll(batch)
        },
        LIMITS,
      )
      await run(await testFleet(redis, [Bad, Good, Taken, bad, good]), 2)
    })
  }
})

describe('one of ten is answered with', () => {
  for (const [what, answer] of Object.entries(ANSWERS)) {
    test(what, async () => {
      await using redis = await startTestRedis()
      const bad = defineBatchHandler(Bad, (batch) => answer(batch), LIMITS)
      await run(await testFleet(redis, [Bad, Good, Taken, bad, good]), 2)
    })
  }
})

test('a result that can not be stored fails its command alone: the batch is not split', async () => {
  await using redis = await startTestRedis()
  const bad = defineBatchHandler(Bad, replaced(done(circular)), { ...LIMITS, attemptsMax: 1 })
  const fleet = await testFleet(redis, [Bad, Good, Taken, bad, good])
  await run(fleet, 1)
  expect(fleet.telemetry.of('batch.split')).toEqual([])
})

test('a result too large to keep is dropped with a note, and its command is done', async () => {
  await using redis = await startTestRedis()
  const bad = defineBatchHandler(Bad, (batch) => batch.map(() => done('x'.repeat(3_000_000))))
  const fleet = await testFleet(redis, [Bad, Taken, bad])
  const [command] = await fleet.append(Bad, [{ n: 1 }])
  await using _worker = await fleet.worker()
  if (command === undefined) throw new Error('no command')
  await until('done', async () => (await fleet.status(command)).state === 'done')
  expect((await fleet.status(command)).record).toMatchObject({ resultDroppedBytes: expect.any(Number) })
})

test('a handler that empties or sorts its batch decides nothing but what it answers', async () => {
  await using redis = await startTestRedis()
  const bad = defineBatchHandler(
    Bad,
    (batch) => {
      const own = batch as HandledCommand<{ n: number }>[]
      const outcomes = own.map(({ payload }) => (payload.n % 2 === 0 ? done() : reject('odd')))
      own.sort((a, b) => b.payload.n - a.payload.n)
      own.length = 1
      return outcomes
    },
    LIMITS,
  )
  const fleet = await testFleet(redis, [Bad, Taken, bad])
  await fleet.append(
    Bad,
    Array.from({ length: 10 }, (_, n) => ({ n })),
  )
  await using _worker = await fleet.worker()
  await until('five dead', async () => (await fleet.deadLetters('bad')).length === 5)
  await until('nothing pending', async () => (await fleet.pending('bad')) === 0)
  const dead = (await fleet.deadLetters('bad')).map(({ entry }) => unpackPayloadOf(entry))
  expect(dead).toEqual([1, 3, 5, 7, 9].map((n) => ({ n })))
})

test('what is emitted after the answer is dropped, with one alarm', async () => {
  await using redis = await startTestRedis()
  const late = Promise.withResolvers<void>()
  const emitted = Promise.withResolvers<void>()
  const bad = defineBatchHandler(Bad, (batch) => {
    void late.promise.then(() => {
      for (const command of batch) command.emit(Taken, { n: command.payload.n, attempt: 0 })
      emitted.resolve()
    })
    // In the same turn too: the settlement has not been sent yet.
    queueMicrotask(() => queueMicrotask(() => queueMicrotask(() => late.resolve())))
    return takeAll(batch)
  })
  const fleet = await testFleet(redis, [Bad, Taken, bad])
  await fleet.append(Bad, [{ n: 1 }, { n: 2 }])
  await using _worker = await fleet.worker()
  await emitted.promise
  await fleet.telemetry.until('alarm.raised')
  await until('both settled', async () => (await fleet.events('bad')).length >= 2)
  await until('nothing pending', async () => (await fleet.pending('bad')) === 0)
  const taken = (await fleet.events('bad')).map(({ entry }) => unpackPayloadOf(entry))
  expect(taken).toEqual([
    { n: 1, attempt: 1 },
    { n: 2, attempt: 1 },
  ])
  expect(fleet.telemetry.of('alarm.raised').map(({ alarm }) => alarm)).toEqual(['effects-too-late'])
})

describe('a handler that never returns', () => {
  test('costs the attempts of its command, one after another; neighbours and other handlers go on', async () => {
    await using redis = await startTestRedis()
    let calls = 0
    const bad = defineBatchHandler(
      Bad,
      async (batch) => {
        if (!batch.some(({ payload }) => payload.n === 5)) return takeAll(batch)
        calls += 1
        return await new Promise<never>(() => undefined)
      },
      { ...LIMITS, timeLimitMs: 100 },
    )
    const fleet = await testFleet(redis, [Bad, Good, Taken, bad, good])
    await run(fleet, 2)
    // Alone it ran twice; before that, in ever smaller parts of its batch.
    expect(calls).toBeGreaterThanOrEqual(2)
    expect(calls).toBeLessThanOrEqual(6)
    expect(fleet.telemetry.of('command.retried')).toMatchObject([{ attempt: 1 }])
    await fleet.telemetry.until('alarm.raised')
    expect(fleet.telemetry.of('alarm.raised')).toMatchObject([{ alarm: 'handler-ignores-signal' }])
    expect(fleet.telemetry.of('run.overdue').length).toBe(calls)
  })

  test('leaves its slots, and is suspended when too many of its runs pile up', async () => {
    await using redis = await startTestRedis()
    let open = 0
    const free = Promise.withResolvers<void>()
    const bad = defineHandler(
      Bad,
      async () => {
        open += 1
        await free.promise
        open -= 1
        return done()
      },
      { attemptsMax: 1, timeLimitMs: 10, concurrencyMax: 20 },
    )
    const fleet = await testFleet(redis, [Bad, Good, Taken, bad, good])
    await using worker = await fleet.worker({ inFlightMax: 50 })
    await fleet.append(
      Bad,
      Array.from({ length: 300 }, (_, n) => ({ n })),
    )
    await fleet.telemetry.until('command.deferred')
    await fleet.telemetry.until('alarm.raised', (all) =>
      all.some(({ alarm }) => alarm === 'handler-suspended'),
    )
    // 100, and one for each slot; what was running when the bound was met comes on top.
    await until('all its runs to be overdue', () => fleet.telemetry.of('run.overdue').at(-1)?.open === open)
    expect(open).toBeGreaterThanOrEqual(120)
    expect(open).toBeLessThan(140)
    const started = open
    expect(worker.health()).toMatchObject({ ready: false })
    expect(worker.health().detail).toContain('bad.take')
    const [next] = await fleet.append(Good, [{ n: 1 }])
    if (next === undefined) throw new Error('no command')
    await until('another handler', async () => (await fleet.status(next)).state === 'done')
    free.resolve()
    const isOver = async () =>
      (await fleet.pending('bad')) === 0 && (await fleet.link.client.zcard('mr:{bad.0}:due')) === 0
    await until('the rest to be handled', isOver)
    expect(worker.health()).toMatchObject({ ready: true })
    expect(await fleet.deadLetters('bad')).toHaveLength(started)
    expect(open).toBe(0)
  })
})

describe('what is thrown or answered', () => {
  test('is described whatever it is, in bounds', () => {
    for (const make of Object.values(THROWN)) {
      const text = describeError(make())
      expect(typeof text).toBe('string')
      expect(text.length).toBeLessThanOrEqual(500)
      expect(errorCode(make())).toBeUndefined()
    }
  })

  test('is read once and copied', () => {
    const answer = [done(1), retry('later', { delayMs: 5 }), reject('never')]
    const read = readOutcomes('x', 3, answer)
    answer.length = 0
    expect(read).toEqual([
      { outcome: 'done', result: 1 },
      { outcome: 'retry', reason: 'later', delayMs: 5 },
      { outcome: 'reject', reason: 'never' },
    ])
    const loose = [{ outcome: 'retry', reason: 5n, delayMs: 'soon' }]
    expect(readOutcomes('x', 1, loose)).toEqual([{ outcome: 'retry', reason: '5', delayMs: undefined }])
  })
})
