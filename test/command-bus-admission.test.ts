/** When the door in front of a stream closes, when it opens again, and how long producers are told to wait. */
import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { z } from 'zod'
import { CommandBus } from '../src/commands/command-bus.ts'
import { defineCommand } from '../src/contracts/command.ts'
import { errorCode } from '../src/contracts/errors.ts'
import { defineHandler } from '../src/contracts/handler.ts'
import { done } from '../src/contracts/outcome.ts'
import { defineStream } from '../src/contracts/stream.ts'
import {
  type AdmissionState,
  decideAdmission,
  type LoadSample,
  NOT_SAMPLED,
  samplePauseMs,
} from '../src/policies/admission.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { joinFleet } from '../src/redis/fleet.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { readProgress } from '../src/redis/stream-progress.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { SILENT_TELEMETRY } from './support/telemetry.ts'
import { until } from './support/until.ts'

const limits = { depthMax: 1000, memoryRatioMax: 0.85, waitedMsMax: 60_000 }
const SAMPLE_MS = 250
const at = (atMs: number, depth: number, memoryRatio = 0.1, waitedMs = 0): LoadSample => ({
  atMs,
  depth,
  memoryRatio,
  waitedMs,
})
/** What is decided after these samples, one after the other. */
const after = (...samples: readonly LoadSample[]): AdmissionState =>
  samples.reduce((state, sample) => decideAdmission(state, sample, limits, SAMPLE_MS), NOT_SAMPLED)

test('the door closes at the limit of depth, of age or of memory, and names it', () => {
  expect(after(at(0, 999)).verdict).toEqual({ open: true })
  expect(after(at(0, 1000)).verdict).toMatchObject({
    open: false,
    reason: '1000 commands wait in the stream',
  })
  expect(after(at(0, 0, 0.849)).verdict).toEqual({ open: true })
  expect(after(at(0, 0, 0.85)).verdict).toMatchObject({
    open: false,
    reason: 'Redis uses 85 % of its memory',
  })
  expect(after(at(0, 0, 0, 59_999)).verdict).toEqual({ open: true })
  expect(after(at(0, 0, 0, 60_000)).verdict).toMatchObject({
    open: false,
    reason: 'its oldest command waits for 60 s',
  })
})

test('a closed door opens only a little below the limit that closed it, so that it does not flap', () => {
  expect(after(at(0, 1000), at(4000, 951)).verdict.open).toBe(false)
  expect(after(at(0, 1000), at(4000, 949)).verdict.open).toBe(true)
  expect(after(at(0, 0, 0.9), at(4000, 0, 0.82)).verdict.open).toBe(false)
  expect(after(at(0, 0, 0.9), at(4000, 0, 0.8)).verdict.open).toBe(true)
  expect(after(at(0, 1000, 0.82), at(4000, 949, 0.82)).verdict.open, 'memory never closed it').toBe(true)
  expect(after(at(0, 1000, 0.9), at(4000, 949, 0.84)).verdict, 'memory closed it too').toMatchObject({
    reason: 'Redis uses 84 % of its memory',
  })
})

test('a door stays closed for 4 s, unless workers would soon have nothing to do', () => {
  expect(after(at(0, 1000), at(3999, 500)).verdict.open).toBe(false)
  expect(after(at(0, 1000), at(3999, 999), at(4000, 500)).verdict.open).toBe(true)
  expect(after(at(0, 1000), at(100, 250)).verdict.open).toBe(false)
  expect(after(at(0, 1000), at(100, 249)).verdict.open).toBe(true)
})

test('how fast workers settled behind the last closed door tells until it can be measured again', () => {
  const before = [at(0, 2050), at(4000, 1650), at(10_000, 200)]
  expect(after(...before).verdict.open).toBe(true)
  const again = [...before, at(20_000, 2050)]
  expect(after(...again).verdict, 'as fast as before').toMatchObject({ retryAfterS: 13 })
  const stalled = [...again, at(20_250, 2049)]
  expect(after(...stalled).verdict, 'a moment tells nothing').toMatchObject({ retryAfterS: 13 })
  expect(after(...stalled, at(21_000, 2000)).verdict, 'a second does').toMatchObject({ retryAfterS: 24 })
})

const STEP_MS = 50

/** One process in front of workers that settle evenly, first come first served: what it decides, sample by sample. */
function simulate(
  own: typeof limits,
  { perS, load, seconds }: { perS: number; load: (atMs: number) => number; seconds: number },
): { atMs: number; verdict: AdmissionState['verdict'] }[] {
  const arrivals: { atMs: number; left: number }[] = []
  const seen: { atMs: number; verdict: AdmissionState['verdict'] }[] = []
  let [state, depth] = [NOT_SAMPLED, 0]
  for (let nowMs = 0; nowMs <= seconds * 1000; nowMs += STEP_MS) {
    if (nowMs % SAMPLE_MS === 0) {
      const waited = arrivals[0] === undefined ? 0 : nowMs - arrivals[0].atMs
      state = decideAdmission(state, at(nowMs, Math.round(depth), 0.1, waited), own, SAMPLE_MS)
    }
    seen.push({ atMs: nowMs, verdict: state.verdict })
    const came = state.verdict.open ? (load(nowMs) * perS * STEP_MS) / 1000 : 0
    if (came > 0) arrivals.push({ atMs: nowMs, left: came })
    depth += came
    for (let done = (perS * STEP_MS) / 1000; done > 0 && arrivals[0] !== undefined; ) {
      const taken = Math.min(done, arrivals[0].left)
      arrivals[0].left -= taken
      done -= taken
      depth -= taken
      if (arrivals[0].left <= 1e-9) arrivals.shift()
    }
  }
  return seen
}

test('at twice the load who comes back as told gets in, whatever the limit', () => {
  const cases: readonly (readonly [string, typeof limits])[] = [
    ['4 s of work', { ...limits, depthMax: 4000 }],
    ['10 s of work', { ...limits, depthMax: 10_000 }],
    ['60 s of work', { ...limits, depthMax: 60_000 }],
    ['an age of 2 s', { ...limits, depthMax: 1e9, waitedMsMax: 2000 }],
    ['an age of 5 s', { ...limits, depthMax: 1e9, waitedMsMax: 5000 }],
  ]
  for (const [name, own] of cases) {
    const seen = simulate(own, { perS: 1000, load: (atMs) => (atMs < 4000 ? 8 : 2), seconds: 300 })
    let [back, refused] = [0, 0]
    for (const { atMs, verdict } of seen) {
      if (verdict.open) continue
      const then = seen[(atMs + verdict.retryAfterS * 1000) / STEP_MS]
      if (then === undefined) continue
      back += 1
      if (!then.verdict.open) refused += 1
    }
    expect(back, name).toBeGreaterThan(1000)
    expect(refused / back, name).toBeLessThan(0.03)
  }
})

test('between closing and opening a value falls by a twentieth of its limit, however it wavers', () => {
  const steps = fc.array(fc.integer({ min: -60, max: 60 }), { minLength: 50, maxLength: 300 })
  fc.assert(
    fc.property(steps, (walk) => {
      let [state, depth, closedAt] = [NOT_SAMPLED, 990, 0]
      for (const [index, step] of walk.entries()) {
        depth = Math.max(0, depth + step)
        const before = state.verdict.open
        state = decideAdmission(state, at(index * 250, depth), limits, SAMPLE_MS)
        if (before && !state.verdict.open) closedAt = depth
        if (!before && state.verdict.open) expect(closedAt - depth).toBeGreaterThan(50)
      }
    }),
  )
})

test('how long to wait follows from how fast the backlog shrinks since the door closed', () => {
  expect(after(at(0, 2050)).verdict, 'nothing is known yet').toMatchObject({ retryAfterS: 5 })
  expect(after(at(0, 2050), at(1000, 1950)).verdict).toMatchObject({ retryAfterS: 12 })
  expect(after(at(0, 2000), at(1000, 3000)).verdict, 'it still grows').toMatchObject({ retryAfterS: 5 })
  expect(after(at(0, 2000), at(1000, 3000), at(2000, 2800)).verdict).toMatchObject({ retryAfterS: 11 })
  const both = after(at(0, 2050, 0.9), at(1000, 1950, 0.8998))
  expect(both.verdict, 'the longer of two waits').toMatchObject({ retryAfterS: 508 })
})

test('who comes back after the told time finds the door open, as long as workers settle as fast as they did', () => {
  const depth = fc.integer({ min: 1001, max: 2_000_000 })
  fc.assert(
    fc.property(
      depth,
      fc.integer({ min: 40, max: 50_000 }),
      fc.infiniteStream(fc.double({ min: 0.95, max: 1.05, noNaN: true })),
      (start, perS, noise) => {
        let [state, left, nowMs] = [NOT_SAMPLED, start, 0]
        let told: number | undefined
        for (const factor of noise) {
          state = decideAdmission(state, at(nowMs, Math.round(left)), limits, SAMPLE_MS)
          if (told !== undefined && nowMs >= told) break
          // Nobody rests on the first answers, which come before anything was measured.
          if (!state.verdict.open && nowMs === 1000) told = nowMs + state.verdict.retryAfterS * 1000
          if (state.verdict.open) break
          nowMs += SAMPLE_MS
          left = Math.max(0, left - ((perS * SAMPLE_MS) / 1000) * factor)
        }
        const isCapped = (start - 950) / perS > 3000
        if (!isCapped) expect(state.verdict.open).toBe(true)
      },
    ),
    { numRuns: 50 },
  )
})

test('the wait is always a whole number of seconds from 1 to an hour', () => {
  const depth = fc.nat(10_000_000)
  const ratio = fc.double({ min: 0, max: 3, noNaN: true })
  fc.assert(
    fc.property(depth, depth, ratio, ratio, fc.nat(10_000), (now, before, memory, memoryBefore, spanMs) => {
      const { verdict } = after(at(0, before, memoryBefore), at(spanMs, now, memory))
      if (verdict.open) return
      expect(Number.isInteger(verdict.retryAfterS)).toBe(true)
      expect(verdict.retryAfterS).toBeGreaterThanOrEqual(1)
      expect(verdict.retryAfterS).toBeLessThanOrEqual(3600)
    }),
  )
})

test('the nearer a limit comes, the sooner the next sample; a value that stands or falls hurries nobody', () => {
  const bounds = { minMs: 25, maxMs: 250 }
  const pause = (before: LoadSample | undefined, now: LoadSample) =>
    samplePauseMs(before, now, limits, bounds)
  expect(pause(undefined, at(0, 999))).toBe(250)
  expect(pause(at(0, 990), at(250, 990))).toBe(250)
  expect(pause(at(0, 999), at(250, 900))).toBe(250)
  expect(pause(at(0, 500), at(250, 750))).toBe(125)
  expect(pause(at(0, 0), at(250, 990))).toBe(25)
  expect(pause(at(0, 0, 0.5), at(100, 0, 0.75))).toBeCloseTo(25)
})

const payload = z.object({ n: z.number() })

test('several API processes let in no more beyond the limit than comes in between two samples', async () => {
  await using redis = await startTestRedis()
  const limit = 2000
  const catalogue = buildCatalogue([
    defineStream({ name: 'narrow', waitingCountMax: limit }),
    defineStream({ name: 'wide' }),
    defineCommand({ type: 'fill', stream: 'narrow', payload }),
    defineCommand({ type: 'other', stream: 'wide', payload }),
  ])
  const ids = await joinFleet(await redis.open(), catalogue.streams.values())
  const buses = await Promise.all(
    [1, 2, 3].map(async () => {
      const link = await redis.open('ingest')
      return new CommandBus({ link, catalogue, ids, clock: SYSTEM_CLOCK, telemetry: SILENT_TELEMETRY })
    }),
  )
  await Promise.all(buses.map((bus) => bus.start()))
  try {
    let accepted = 0
    let crossedMs = Number.POSITIVE_INFINITY
    const lastMs: number[] = []
    const fill = async (bus: CommandBus): Promise<void> => {
      for (;;) {
        try {
          await bus.submit('fill', { n: accepted })
        } catch (error) {
          expect(errorCode(error)).toBe('admission.overloaded')
          lastMs.push(performance.now())
          return
        }
        accepted += 1
        if (accepted === limit) crossedMs = performance.now()
        // About 1,000 a second from each, so that the limit is seen to come.
        if (accepted % 3 === 0) await Bun.sleep(2)
      }
    }
    await Promise.all(buses.flatMap((bus) => [fill(bus), fill(bus), fill(bus)]))
    expect(accepted).toBeGreaterThanOrEqual(limit)
    // Half of the last pause, one sample, and what a busy machine adds: far below the longest pause for a load that grows steadily.
    expect(Math.max(...lastMs) - crossedMs).toBeLessThan(SAMPLE_MS + 250)
    expect((await buses[0]?.submit('other', { n: 1 }))?.status, 'the other stream is open').toBe('accepted')
  } finally {
    await Promise.all(buses.map((bus) => bus.stop()))
  }
})

test('what workers have finished does not count, trimmed or not; what is in their hands does', async () => {
  await using redis = await startTestRedis()
  const fill = defineCommand({ type: 'fill', stream: 'quick', payload })
  const gate = Promise.withResolvers<void>()
  const handler = defineHandler(fill, async ({ payload: { n } }) => {
    if (n === 0) await gate.promise
    return done()
  })
  const fleet = await testFleet(redis, [defineStream({ name: 'quick' }), fill, handler])
  const keys = partitionKeys('quick', 0)
  await fleet.append(
    fill,
    Array.from({ length: 300 }, (_, n) => ({ n })),
  )
  expect((await readProgress(fleet.link, keys)).commands.unfinished).toBe(300)
  await using _worker = await fleet.worker()
  await until('all but one to be finished', async () => (await fleet.pending('quick')) === 1)
  await fleet.append(fill, [{ n: 1 }])
  await until(
    'the last to be finished',
    async () => (await readProgress(fleet.link, keys)).commands.unfinished === 1,
  )
  expect((await readProgress(fleet.link, keys)).commands.entries).toBeGreaterThan(1)
  gate.resolve()
  await until(
    'nothing to be left',
    async () => (await readProgress(fleet.link, keys)).commands.unfinished === 0,
  )
})

test('a stream may close earlier than others when memory runs short', () => {
  expect(defineStream({ name: 'a' })).toMatchObject({ memoryShareMax: 0.85, waitingCountMax: 10_000_000 })
  expect(() => defineStream({ name: 'a', memoryShareMax: 0.9 })).toThrow(/use a number from 0.05 to 0.85/)
  expect(() => defineStream({ name: 'a', waitingCountMax: 0 })).toThrow(/"waitingCountMax" of stream "a"/)
})
