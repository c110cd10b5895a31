/** The lease scripts against a real Redis and a model in plain words: whatever order takes, renewals, releases and losses come in. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import fc from 'fast-check'
import type { RedisLink } from '../src/redis/connection.ts'
import { leaseKey } from '../src/redis/keys.ts'
import { type LeaseSight, releaseLease, renewLease, takeLease } from '../src/redis/lease-store.ts'
import { readServerTime } from '../src/redis/schedule-store.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'

let redis: TestRedis
let link: RedisLink
let made = 0

beforeAll(async () => {
  redis = await startTestRedis()
  link = await redis.open()
})
afterAll(() => redis[Symbol.asyncDispose]())

type Step =
  /** `sight`: none takes what is free; else the state as it was so many of this contender's looks ago. */
  | { readonly do: 'take'; readonly who: number; readonly sight: number | undefined }
  | { readonly do: 'renew' | 'release'; readonly who: number; readonly stale: boolean }
  | { readonly do: 'vanish' | 'ahead' }

const who = fc.integer({ min: 0, max: 3 })
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('take' as const),
      who,
      sight: fc.option(fc.integer({ min: 0, max: 2 }), { nil: undefined }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom('renew' as const, 'renew' as const, 'release' as const),
      who,
      stale: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('vanish' as const, 'ahead' as const) }) },
)

interface Model {
  owner: string
  epoch: number
  beat: number
  takeoverMs: number
  there: boolean
}

interface Contender {
  readonly owner: string
  readonly takeoverMs: number
  /** Epochs it was ever given, newest last. */
  readonly epochs: number[]
  /** What it saw, newest last. */
  readonly sights: LeaseSight[]
}

async function play(steps: readonly Step[]): Promise<void> {
  made += 1
  const name = `model-${made}`
  const model: Model = { owner: '', epoch: 0, beat: 0, takeoverMs: 0, there: false }
  const contenders: Contender[] = [0, 1, 2, 3].map((n) => ({
    ...{ owner: `o${n}`, takeoverMs: 1000 + n, epochs: [], sights: [] },
  }))
  const given: number[] = []
  for (const next of steps) {
    const contender = 'who' in next ? contenders[next.who] : undefined
    if (next.do === 'vanish') {
      await link.client.del(leaseKey(name))
      Object.assign(model, { owner: '', epoch: 0, beat: 0, there: false })
    } else if (next.do === 'ahead') {
      // As after an hour by which Redis's clock was ahead: epochs lie in the future of its clock, and only count on.
      if (!model.there) continue
      model.epoch += 3_600_000_000
      await link.client.hset(leaseKey(name), 'epoch', model.epoch)
    } else if (contender === undefined) continue
    else if (next.do === 'take') {
      const sight = next.sight === undefined ? undefined : contender.sights.at(-1 - next.sight)
      const beforeMs = await readServerTime(link)
      const take = await takeLease(link, name, contender, sight)
      const again = model.owner === contender.owner
      const same =
        sight !== undefined &&
        sight.owner === model.owner &&
        sight.epoch === model.epoch &&
        sight.beat === String(model.beat)
      const won = !again && (model.owner === '' || same)
      expect(take.mine).toBe(again || won)
      if (again) model.beat += 1
      if (won) {
        expect(take.epoch).toBeGreaterThan(model.epoch)
        expect(take.epoch).toBeGreaterThanOrEqual(beforeMs * 1000)
        if (model.epoch > (beforeMs + 1000) * 1000) expect(take.epoch).toBe(model.epoch + 1)
        const { owner, takeoverMs } = contender
        Object.assign(model, { owner, takeoverMs, epoch: take.epoch, beat: 0, there: true })
        contender.epochs.push(take.epoch)
        given.push(take.epoch)
      }
      const { owner, epoch, beat, takeoverMs } = take
      expect({ owner, epoch, beat, takeoverMs }).toEqual({
        ...{ owner: model.owner, epoch: model.epoch, beat: String(model.beat), takeoverMs: model.takeoverMs },
      })
      contender.sights.push({ owner, epoch, beat, takeoverMs })
    } else if ('stale' in next) {
      const epoch = contender.epochs.at(next.stale ? -2 : -1) ?? 1
      const mine = model.owner === contender.owner && model.epoch === epoch
      const hold = { owner: contender.owner, epoch }
      if (next.do === 'renew') {
        expect(await renewLease(link, name, hold)).toBe(!model.there ? 'gone' : mine ? 'held' : 'taken')
        if (mine) model.beat += 1
      } else {
        expect(await releaseLease(link, name, hold)).toBe(mine)
        if (mine) model.owner = ''
      }
    }
  }
  // Never the same twice and never lower, unless the lease was lost after it had run ahead of the clock.
  if (!steps.some((one) => one.do === 'ahead')) {
    expect(given).toEqual([...new Set(given)].toSorted((a, b) => a - b))
  }
  expect(await link.client.pttl(leaseKey(name))).toBeLessThan(0)
}

test('whatever happens, one owner at a time, epochs that rise, and only what was seen is taken from a holder', async () => {
  const seed = Date.now() % 1_000_000
  console.log(`lease model: seed ${seed}`)
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 80 }), play), {
    numRuns: 300,
    seed,
  })
}, 60_000)
