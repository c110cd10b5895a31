/** The scripts behind schedules against a real Redis: a model that the fire script must agree with, homes, clocks, overlap. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { type MissedTicks, NONE_MISSED } from '../src/policies/catch-up.ts'
import { readStatus } from '../src/redis/command-log.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { decodeEntry, encodeEntry } from '../src/redis/entry-codec.ts'
import { GROUP, type PartitionKeys, partitionKeys, SCHEDULE_HOMES_KEY } from '../src/redis/keys.ts'
import { packPayload } from '../src/redis/payload-codec.ts'
import {
  type Fire,
  type FireAnswer,
  fireSchedule,
  readSchedule,
  readServerTime,
  registerSchedule,
  type ScheduleSpec,
  setSchedulePaused,
} from '../src/redis/schedule-store.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'

let redis: TestRedis
let link: RedisLink

beforeAll(async () => {
  redis = await startTestRedis()
  link = await redis.open()
})
afterAll(() => redis[Symbol.asyncDispose]())

const DAY_MS = 86_400_000
let made = 0

function newSpec(over: Partial<ScheduleSpec> = {}): ScheduleSpec {
  made += 1
  return { name: `s${made}`, keys: partitionKeys(`ticks${made}`, 0), spec: 'A', timetable: 'a', ...over }
}

function blobOf(tickMs: number): Buffer {
  const envelope = {
    type: 'tick',
    version: 1,
    atMs: tickMs,
    key: '',
    trace: undefined,
    tickMs,
    trail: undefined,
  }
  return encodeEntry(envelope, packPayload({}))
}

async function fire(
  spec: ScheduleSpec,
  over: Partial<Fire> & Pick<Fire, 'epoch' | 'watermarkMs' | 'tickMs'>,
): Promise<FireAnswer> {
  return await fireSchedule(link, spec, {
    missed: NONE_MISSED,
    blob: blobOf(over.tickMs),
    overlap: 'allow',
    ...over,
  })
}

const setField = (spec: ScheduleSpec, field: string, value: number): Promise<number> =>
  link.use('HSET', (client) => client.hset(spec.keys.schedule(spec.name), field, value))

const missedOf = (count: number, firstMs: number): MissedTicks =>
  count === 0 ? NONE_MISSED : { count, firstMs, lastMs: firstMs + count - 1 }

async function ticksIn(at: PartitionKeys): Promise<number[]> {
  const entries = await link.use('XRANGE', (client) => client.xrangeBuffer(at.ready, '-', '+'))
  return entries.map(([, fields]) => decodeEntry(fields[1] ?? Buffer.alloc(0)).tickMs ?? Number.NaN)
}

/** Registers and puts the watermark a day back, so that there are ticks to decide. */
async function registerBack(spec: ScheduleSpec): Promise<{ epoch: string; watermarkMs: number }> {
  const { epoch, watermarkMs } = await registerSchedule(link, spec)
  await setField(spec, 'watermark', watermarkMs - DAY_MS)
  return { epoch, watermarkMs: watermarkMs - DAY_MS }
}

describe('the model', () => {
  type Step =
    | { readonly do: 'register' | 'look'; readonly who: number }
    | {
        readonly do: 'fire'
        readonly who: number
        readonly ahead: number
        readonly missed: number
        readonly leaveOut: boolean
      }
    | { readonly do: 'guess'; readonly who: number; readonly from: number; readonly ahead: number }
    | { readonly do: 'future'; readonly who: number }
    | { readonly do: 'pause' | 'resume' | 'silence' }

  const who = fc.integer({ min: 0, max: 3 })
  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 3, arbitrary: fc.record({ do: fc.constantFrom('register' as const, 'look' as const), who }) },
    {
      weight: 8,
      arbitrary: fc.record({
        do: fc.constant('fire' as const),
        who,
        ahead: fc.integer({ min: -1, max: 3 }),
        missed: fc.integer({ min: 0, max: 2 }),
        leaveOut: fc.boolean(),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('guess' as const),
        who,
        from: fc.integer({ min: 0, max: 12 }),
        ahead: fc.integer({ min: -2, max: 3 }),
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('future' as const), who }) },
    {
      weight: 2,
      arbitrary: fc.record({ do: fc.constantFrom('pause' as const, 'resume' as const, 'silence' as const) }),
    },
  )

  /** Two deployments of A, one of A with another payload, one of B with another timetable. */
  const specs = [
    { spec: 'A', timetable: 'a' },
    { spec: 'A', timetable: 'a' },
    { spec: 'A2', timetable: 'a' },
    { spec: 'B', timetable: 'b' },
  ]

  /** What the script should hold, in plain words. Ticks are counted from a base a day ago, a second apart. */
  class Model {
    epoch = 0
    spec = ''
    timetable = ''
    watermark = 0
    paused = false
    silent = false
    past: string[] = []
    fired: number[] = []
    missed = 0

    register(wanted: { spec: string; timetable: string }): string {
      if (this.epoch > 0 && wanted.spec === this.spec) {
        this.silent = false
        return 'kept'
      }
      if (this.past.includes(wanted.spec) && !this.silent) return 'superseded'
      const verdict = this.epoch === 0 ? 'started' : 'changed'
      this.past = [
        ...(this.spec === '' ? [] : [this.spec]),
        ...this.past.filter((spec) => spec !== wanted.spec),
      ]
      this.epoch += 1
      this.spec = wanted.spec
      this.timetable = wanted.timetable
      this.silent = false
      return verdict
    }

    fire(epoch: number, expected: number, tick: number, missed: number, leaveOut: boolean): string {
      if (this.epoch === 0 || epoch !== this.epoch) return 'stale'
      if (this.paused) return 'paused'
      if (expected !== this.watermark || tick <= this.watermark) return 'behind'
      this.watermark = tick
      this.missed += missed
      if (leaveOut) return 'left-out'
      this.fired.push(tick)
      return 'fired'
    }
  }

  interface View {
    epoch: string
    modelEpoch: number
    watermark: number
  }

  async function play(steps: readonly Step[]): Promise<void> {
    const base = newSpec()
    const model = new Model()
    const views: View[] = specs.map(() => ({ epoch: '0', modelEpoch: -1, watermark: 0 }))
    const baseMs = (await readServerTime(link)) - DAY_MS
    const msOf = (tick: number): number => baseMs + tick * 1000

    const register = async (index: number): Promise<void> => {
      const wanted = specs[index] ?? specs[0]
      const view = views[index]
      if (wanted === undefined || view === undefined) return
      const before = { timetable: model.timetable, watermarkMs: msOf(model.watermark) }
      const askedMs = await readServerTime(link)
      let answer = await registerSchedule(link, { ...base, ...wanted })
      if (answer.verdict === 'superseded' && model.silent)
        answer = await registerSchedule(link, { ...base, ...wanted }, answer.beat)
      const verdict = model.register(wanted)
      expect(answer.verdict).toBe(verdict as typeof answer.verdict)
      expect(answer.paused).toBe(model.paused)
      if (verdict === 'started' || (verdict === 'changed' && before.timetable !== wanted.timetable)) {
        expect(answer.watermarkMs).toBeGreaterThanOrEqual(askedMs)
        await setField(base, 'watermark', before.watermarkMs)
      } else expect(answer.watermarkMs).toBe(before.watermarkMs)
      if (verdict === 'superseded') return
      view.epoch = answer.epoch
      view.modelEpoch = model.epoch
      view.watermark = model.watermark
    }

    for (const next of steps) {
      const view = 'who' in next ? views[next.who] : undefined
      if (next.do === 'register') await register(next.who)
      else if (next.do === 'look' && view !== undefined) view.watermark = model.watermark
      else if (next.do === 'silence' && model.epoch > 0) model.silent = true
      else if (next.do === 'pause') {
        expect(await setSchedulePaused(link, base.name, base.keys, true)).toBe(!model.paused)
        model.paused = true
      } else if (next.do === 'resume') {
        const beforeMs = await readServerTime(link)
        expect(await setSchedulePaused(link, base.name, base.keys, false)).toBe(model.paused)
        if (model.paused && model.epoch > 0) {
          model.epoch += 1
          const state = await readSchedule(link, base.keys, base.name)
          expect(state.watermarkMs).toBeGreaterThanOrEqual(beforeMs)
          await setField(base, 'watermark', msOf(model.watermark))
        }
        model.paused = false
      } else if (next.do === 'future' && view !== undefined) {
        const { epoch, modelEpoch } = view
        const answer = await fire(base, {
          epoch,
          watermarkMs: msOf(model.watermark),
          tickMs: baseMs + 2 * DAY_MS,
        })
        const right = model.epoch > 0 && modelEpoch === model.epoch
        expect(answer.verdict).toBe(!right ? 'stale' : model.paused ? 'paused' : 'early')
      } else if ((next.do === 'fire' || next.do === 'guess') && view !== undefined) {
        const expected = next.do === 'fire' ? view.watermark : next.from
        const tick = expected + next.ahead
        const missedCount = next.do === 'fire' ? next.missed : 0
        const leaveOut = next.do === 'fire' && next.leaveOut
        const answer = await fire(base, {
          epoch: view.epoch,
          watermarkMs: msOf(expected),
          tickMs: msOf(tick),
          missed: missedOf(missedCount, msOf(expected + 1)),
          ...(leaveOut ? { blob: undefined } : {}),
        })
        const verdict = model.fire(view.modelEpoch, expected, tick, missedCount, leaveOut)
        expect(answer.verdict).toBe(verdict as typeof answer.verdict)
        if (verdict !== 'stale') expect(answer.watermarkMs).toBe(msOf(model.watermark))
        if (verdict === 'fired' || verdict === 'behind') view.watermark = model.watermark
      }
    }

    const state = await readSchedule(link, base.keys, base.name)
    expect(await ticksIn(base.keys)).toEqual(model.fired.map(msOf))
    expect({ fired: state.firedCount, missed: state.missedCount, paused: state.paused }).toEqual({
      fired: model.fired.length,
      missed: model.missed,
      paused: model.paused,
    })
    if (state.missed.length < 32) {
      expect(state.missed.reduce((sum, { count }) => sum + count, 0)).toBe(model.missed)
    }
    expect(state.runs.map((run) => run.tickMs)).toEqual(model.fired.slice(-10).reverse().map(msOf))
  }

  test('whatever order views, fires, registrations and pauses come in, the script decides as the model does', async () => {
    await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), play), { numRuns: 150 })
  }, 60_000)
})

describe('a new schedule', () => {
  test('starts at the present: nothing of the past is due', async () => {
    const spec = newSpec()
    const beforeMs = await readServerTime(link)
    const { verdict, watermarkMs, epoch } = await registerSchedule(link, spec)
    expect(verdict).toBe('started')
    expect(watermarkMs).toBeGreaterThanOrEqual(beforeMs)
    expect((await fire(spec, { epoch, watermarkMs, tickMs: watermarkMs - 1000 })).verdict).toBe('behind')
  })

  test('can be paused before anybody registered it', async () => {
    const spec = newSpec()
    expect(await setSchedulePaused(link, spec.name, spec.keys, true)).toBe(true)
    const { verdict, paused, epoch } = await registerSchedule(link, spec)
    expect({ verdict, paused }).toEqual({ verdict: 'started', paused: true })
    expect(await setSchedulePaused(link, spec.name, spec.keys, false)).toBe(true)
    expect((await registerSchedule(link, spec)).epoch).not.toBe(epoch)
  })
})

describe('time', () => {
  test('a tick is never fired early, by the clock of Redis', async () => {
    const spec = newSpec()
    const { epoch, watermarkMs } = await registerSchedule(link, spec)
    const tickMs = watermarkMs + 300
    let refusals = 0
    for (;;) {
      const answer = await fire(spec, { epoch, watermarkMs, tickMs })
      if (answer.verdict === 'fired') {
        expect(answer.serverMs).toBeGreaterThanOrEqual(tickMs)
        break
      }
      expect(answer.verdict).toBe('early')
      expect(answer.serverMs).toBeLessThan(tickMs)
      refusals += 1
      await Bun.sleep(5)
    }
    expect(refusals).toBeGreaterThan(5)
  })

  test('a clock that went back by more than a second fires nothing', async () => {
    const spec = newSpec()
    const { epoch, watermarkMs } = await registerSchedule(link, spec)
    const aheadMs = watermarkMs + 60_000
    await setField(spec, 'watermark', aheadMs)
    expect((await fire(spec, { epoch, watermarkMs: aheadMs, tickMs: aheadMs + 1000 })).verdict).toBe('clock')
    expect((await registerSchedule(link, spec)).watermarkMs).toBe(aheadMs)
    expect(await ticksIn(spec.keys)).toEqual([])
  })
})

describe('two deployments', () => {
  test('the newer definition wins; the older one is refused and does not win again while the newer lives', async () => {
    const a = newSpec()
    const b = { ...a, spec: 'B', timetable: 'b' }
    const old = await registerBack(a)
    expect((await registerSchedule(link, b)).verdict).toBe('changed')
    expect((await fire(a, { ...old, tickMs: old.watermarkMs + 1 })).verdict).toBe('stale')
    for (let round = 0; round < 5; round++) {
      expect((await registerSchedule(link, a)).verdict).toBe('superseded')
      expect((await registerSchedule(link, b)).verdict).toBe('kept')
    }
    // Whatever the server's clock says of the last sign of life, only a beat that stood still counts.
    const { beat } = await registerSchedule(link, a)
    expect((await registerSchedule(link, b)).verdict).toBe('kept')
    await setField(a, 'seen', 1)
    expect((await registerSchedule(link, a, beat)).verdict).toBe('superseded')
    const still = await registerSchedule(link, a)
    expect((await registerSchedule(link, a, still.beat)).verdict).toBe('changed')
    expect((await registerSchedule(link, b)).verdict).toBe('superseded')
  })

  test('a definition whose commands go to another partition takes the state along, and leaves nothing that fires', async () => {
    const a = newSpec()
    const elsewhere = partitionKeys(a.keys.stream, 3)
    const b = { ...a, spec: 'B', keys: elsewhere }
    const old = await registerBack(a)
    const tickMs = old.watermarkMs + 1000
    expect((await fire(a, { ...old, tickMs, missed: missedOf(4, 1000) })).verdict).toBe('fired')
    await setSchedulePaused(link, a.name, a.keys, true)
    const moved = await registerSchedule(link, b)
    expect(moved).toMatchObject({ verdict: 'changed', watermarkMs: tickMs, paused: true })
    expect(await link.use('EXISTS', (client) => client.exists(a.keys.schedule(a.name)))).toBe(0)
    expect((await fire(a, { ...old, watermarkMs: tickMs, tickMs: tickMs + 1 })).verdict).toBe('stale')
    await setSchedulePaused(link, a.name, a.keys, false)
    const state = await readSchedule(link, elsewhere, a.name)
    expect(state).toMatchObject({ paused: false, firedCount: 1, missedCount: 4 })
    expect(state.runs).toEqual([{ tenant: '', stream: a.keys.stream, partition: 0, token: 'x1', tickMs }])
    expect(await link.use('HGET', (client) => client.hget(SCHEDULE_HOMES_KEY, a.name))).toBe(
      `${a.keys.stream}.3`,
    )
  })

  test('many that start at once agree on one', async () => {
    const name = newSpec().name
    const wanted = Array.from({ length: 12 }, (_, i) => ({
      name,
      keys: partitionKeys('race', i % 4),
      spec: `S${i % 4}`,
      timetable: 't',
    }))
    const answers = await Promise.all(wanted.map((spec) => registerSchedule(link, spec)))
    expect(answers.filter((answer) => answer.verdict === 'started').length).toBe(1)
    const standing = await Promise.all(wanted.map((spec) => registerSchedule(link, spec)))
    const kept = wanted.filter((_, i) => standing[i]?.verdict === 'kept')
    expect(new Set(kept.map((spec) => spec.spec)).size).toBe(1)
    const homes = await link.use('EXISTS', (client) =>
      client.exists(...[0, 1, 2, 3].map((p) => partitionKeys('race', p).schedule(name))),
    )
    expect(homes).toBe(1)
  })
})

describe('overlap forbid', () => {
  const next = async (spec: ScheduleSpec, epoch: string): Promise<FireAnswer> => {
    const { watermarkMs = 0 } = await readSchedule(link, spec.keys, spec.name)
    return await fire(spec, { epoch, watermarkMs, tickMs: watermarkMs + 1000, overlap: 'forbid' })
  }
  const statusOf = async (spec: ScheduleSpec, token: string): Promise<string> =>
    (await readStatus(link, spec.keys, token)).state

  test('leaves a tick out as long as the last run is open, in every way a command can be open', async () => {
    const spec = newSpec()
    const { ready, commands, records, recordTimes } = spec.keys
    const { epoch } = await registerBack(spec)
    const set = (token: string, record: string) =>
      link.use('HSET', (client) => client.hset(records, token, record))

    const first = await next(spec, epoch)
    expect(first).toMatchObject({ verdict: 'fired', token: 'x1' })
    expect((await next(spec, epoch)).verdict).toBe('overlap')

    await link.run('ensure-group', [commands, ready, spec.keys.floors], [GROUP]).catch(() => undefined)
    await link.use('XGROUP', (client) =>
      client.xgroup('CREATE', ready, GROUP, '0', 'MKSTREAM').catch(() => 'OK'),
    )
    expect(await statusOf(spec, 'x1')).toBe('accepted')
    expect((await next(spec, epoch)).verdict).toBe('overlap')

    await link.use('XREADGROUP', (client) => client.xreadgroup('GROUP', GROUP, 'me', 'STREAMS', ready, '>'))
    expect(await statusOf(spec, 'x1')).toBe('processing')
    expect((await next(spec, epoch)).verdict).toBe('overlap')

    await set('x1', 'T99999999999999:')
    expect(await statusOf(spec, 'x1')).toBe('retrying')
    expect((await next(spec, epoch)).verdict).toBe('overlap')

    await set('x1', 'X5-1:')
    expect(await statusOf(spec, 'x1')).toBe('dead')
    expect(await next(spec, epoch)).toMatchObject({ verdict: 'fired', token: 'x2' })

    const [entry] = await link
      .use('XRANGE', (client) => client.xrange(ready, '-', '+'))
      .then((all) => all.slice(-1))
    await link.use('XREADGROUP', (client) => client.xreadgroup('GROUP', GROUP, 'me', 'STREAMS', ready, '>'))
    expect((await next(spec, epoch)).verdict).toBe('overlap')
    await link.use('XACK', (client) => client.xack(ready, GROUP, entry?.[0] ?? ''))
    await set('x2', 'D')
    await link.use('ZADD', (client) => client.zadd(recordTimes, 1, 'x2'))
    expect(await statusOf(spec, 'x2')).toBe('done')
    expect(await next(spec, epoch)).toMatchObject({ verdict: 'fired', token: 'x3' })

    await link.use('HDEL', (client) => client.hdel(records, 'x3'))
    expect((await next(spec, epoch)).verdict).toBe('fired')
    expect(await readSchedule(link, spec.keys, spec.name)).toMatchObject({
      firedCount: 4,
      overlappedCount: 5,
    })
  })

  test('a ready copy that is gone does not block for ever', async () => {
    const spec = newSpec()
    const { epoch } = await registerBack(spec)
    expect((await next(spec, epoch)).verdict).toBe('fired')
    await link.use('DEL', (client) => client.del(spec.keys.ready))
    expect((await next(spec, epoch)).verdict).toBe('fired')
  })
})

describe('ticks left out', () => {
  test('are kept as ranges, newest first: neighbours join, ticks that ran stand between, and old ranges go', async () => {
    const spec = newSpec()
    const { epoch, watermarkMs: startMs } = await registerBack(spec)
    let at = 0
    const step = async (count: number, leaveOut: boolean) => {
      const [watermarkMs, first] = [startMs + at * 1000, startMs + (at + 1) * 1000]
      at += leaveOut ? count : count + 1
      const lastMs = first + (count - 1) * 1000
      const missed = count === 0 ? NONE_MISSED : { count, firstMs: first, lastMs }
      const over = leaveOut ? { blob: undefined } : {}
      await fire(spec, { epoch, watermarkMs, tickMs: startMs + at * 1000, missed, ...over })
    }
    const ranges = async () => {
      const { missed } = await readSchedule(link, spec.keys, spec.name)
      return missed.map(({ count, firstMs, lastMs }) => [
        count,
        (firstMs - startMs) / 1000,
        (lastMs - startMs) / 1000,
      ])
    }
    await step(3, true)
    await step(4, true)
    expect(await ranges()).toEqual([[7, 1, 7]])
    await step(2, false)
    expect(await ranges()).toEqual([[9, 1, 9]])
    await step(0, false)
    await step(1, false)
    expect(await ranges()).toEqual([
      [1, 12, 12],
      [9, 1, 9],
    ])
    for (let more = 0; more < 50; more++) await step(1, false)
    const kept = await ranges()
    expect(kept.length).toBe(32)
    expect(kept[0]).toEqual([1, 112, 112])
    expect(kept.at(-1)).toEqual([1, 50, 50])
    expect((await readSchedule(link, spec.keys, spec.name)).missedCount).toBe(60)
  })

  test('by an open run are kept apart from those that nobody was there for', async () => {
    const spec = newSpec()
    const { epoch, watermarkMs } = await registerBack(spec)
    const tick = (n: number) => watermarkMs + n * 1000
    const next = (from: number, to: number, missed = NONE_MISSED) =>
      fire(spec, { epoch, watermarkMs: tick(from), tickMs: tick(to), missed, overlap: 'forbid' })
    expect((await next(0, 1)).verdict).toBe('fired')
    for (const at of [1, 2, 3]) expect((await next(at, at + 1)).verdict).toBe('overlap')
    await next(4, 7, { count: 2, firstMs: tick(5), lastMs: tick(6) })
    expect(await readSchedule(link, spec.keys, spec.name)).toMatchObject({
      missed: [{ count: 2, firstMs: tick(5), lastMs: tick(6) }],
      overlapped: [
        { count: 1, firstMs: tick(7), lastMs: tick(7) },
        { count: 3, firstMs: tick(2), lastMs: tick(4) },
      ],
    })
  })
})

test('a fired command is found by its id, and its entry carries the tick', async () => {
  const spec = newSpec()
  const { epoch, watermarkMs } = await registerBack(spec)
  const tickMs = watermarkMs + 1000
  const { token = '' } = await fire(spec, { epoch, watermarkMs, tickMs })
  expect((await readStatus(link, spec.keys, token)).state).toBe('accepted')
  expect(await ticksIn(spec.keys)).toEqual([tickMs])
})

test('a fire that is repeated after a lost answer happens once', async () => {
  const spec = newSpec()
  const { epoch, watermarkMs } = await registerBack(spec)
  const tickMs = watermarkMs + 1000
  const answers = await Promise.all(
    Array.from({ length: 20 }, () => fire(spec, { epoch, watermarkMs, tickMs })),
  )
  expect(answers.filter((answer) => answer.verdict === 'fired').length).toBe(1)
  expect(answers.filter((answer) => answer.verdict === 'behind').length).toBe(19)
  expect(await ticksIn(spec.keys)).toEqual([tickMs])
})

test('out of memory fires nothing and moves nothing', async () => {
  const spec = newSpec()
  const { epoch, watermarkMs } = await registerBack(spec)
  await link.use('CONFIG', (client) => client.config('SET', 'maxmemory', '1'))
  const code = await fire(spec, { epoch, watermarkMs, tickMs: watermarkMs + 1 }).then(
    () => 'fired',
    (error: { code?: string }) => error.code,
  )
  await link.use('CONFIG', (client) => client.config('SET', 'maxmemory', '0'))
  expect(code).toBe('admission.overloaded')
  expect((await fire(spec, { epoch, watermarkMs, tickMs: watermarkMs + 1 })).verdict).toBe('fired')
})
