/** What one process does with its share of a limit: when it asks Redis, when it waits, and what it does when no answer comes. */
import { describe, expect, test } from 'bun:test'
import { Allotment, type PolicyTally } from '../src/limits/allotment.ts'
import type { Quota } from '../src/policies/quota.ts'
import { type QuotaAnswer, type QuotaCall, quotaCount } from '../src/redis/limit-store.ts'
import type { Clock, Timer } from '../src/runtime/clock.ts'

/** Time that stands still until it is moved. */
class ManualClock implements Clock {
  #nowMs = 1000
  readonly #timers = new Set<{ readonly atMs: number; readonly call: () => void }>()

  nowMs = (): number => this.#nowMs
  monotonicMs = (): number => this.#nowMs
  random = (): number => 0.5

  after(ms: number, call: () => void): Timer {
    const timer = { atMs: this.#nowMs + ms, call }
    this.#timers.add(timer)
    return { cancel: () => this.#timers.delete(timer) }
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve))
  }

  /** Runs what is due on the way, and lets promises settle after each. */
  async pass(ms: number): Promise<void> {
    const endMs = this.#nowMs + ms
    for (;;) {
      await settle()
      const next = [...this.#timers].sort((a, b) => a.atMs - b.atMs)[0]
      if (next === undefined || next.atMs > endMs) break
      this.#timers.delete(next)
      this.#nowMs = Math.max(this.#nowMs, next.atMs)
      next.call()
    }
    this.#nowMs = endMs
    await settle()
  }
}

async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve()
}

interface Asked {
  readonly call: QuotaCall
  answer(answer: Partial<QuotaAnswer>): void
  fail(): void
}

function world(quota: Quota) {
  const clock = new ManualClock()
  const asked: Asked[] = []
  const tally: PolicyTally = {
    ...{ admitted: 0, returned: 0, refused: 0, unchecked: 0, calls: 0, leased: 0, held: 0 },
  }
  let idle = 0
  const allotment = new Allotment({
    ...{ count: quotaCount(quota, ['rule']), tally, clock, holder: 'me', onRefused: () => undefined },
    call: (_, call) =>
      new Promise((resolve, reject) => {
        asked.push({
          call,
          answer: (given) => resolve({ granted: 0, free: 0, nextMs: 0, largestMs: 0, ...given }),
          fail: () => reject(new Error('no answer')),
        })
      }),
    onIdle: () => {
      idle += 1
    },
  })
  const last = (): Asked => asked.at(-1) as Asked
  return { clock, asked, tally, allotment, last, idle: () => idle }
}

const LARGE: Quota = { kind: 'bucket', burst: 1000, ratePerS: 1000 }
const SMALL: Quota = { kind: 'window', quota: 10, windowS: 1 }

/** A world whose allotment holds two tokens. */
async function stocked() {
  const made = world(LARGE)
  const first = made.allotment.take(1, 1)
  made.last().answer({ granted: 3, free: 990 })
  expect(await first).toBe(1)
  return made
}

describe('a large limit', () => {
  test('the first request waits, the next are served from the stock without asking', async () => {
    const { asked, allotment, tally } = await stocked()
    expect(asked[0]?.call).toMatchObject({ need: 1, wish: 2, used: 0, kept: 0, isSpent: false })
    expect(allotment.take(1, 1)).toBe(1)
    expect(asked.length).toBe(1)
    expect(tally).toMatchObject({ admitted: 2, held: 1, leased: 2 })
  })

  test('below half of the stock more is asked for, and nobody waits for it', async () => {
    const { asked, allotment, last } = await stocked()
    void allotment.take(1, 1)
    expect(allotment.take(1, 1)).toBe(1)
    expect(asked.length).toBe(2)
    expect(last().call).toMatchObject({ need: 0, used: 3, kept: 0 })
    expect(last().call.wish).toBeGreaterThanOrEqual(2)
  })

  test('all who wait together are one call, and each gets what fits', async () => {
    const { asked, allotment, last } = world(LARGE)
    const first = allotment.take(1, 1)
    const [five, two, many] = [allotment.take(5, 5), allotment.take(2, 2), allotment.take(50, 1)]
    expect(asked.length).toBe(1)
    last().answer({ granted: 1, free: 6, nextMs: 1 })
    expect(await first).toBe(1)
    expect(last().call).toMatchObject({ need: 57, largest: 5 })
    last().answer({ granted: 6, free: 0, nextMs: 40 })
    expect(await five).toBe(5)
    expect(await two, 'all or none: one is not enough').toBe(0)
    expect(await many).toBe(1)
  })

  test('a use is told after a while, a stock that nobody wants goes back, and then the allotment ends', async () => {
    const { clock, asked, allotment, last, idle, tally } = await stocked()
    void allotment.take(1, 1)
    await clock.pass(100)
    expect(last().call).toMatchObject({ used: 2, kept: 1, need: 0 })
    last().answer({ granted: 1, free: 998 })
    await clock.pass(499)
    expect(asked.length).toBe(2)
    await clock.pass(101)
    expect(last().call).toMatchObject({ used: 0, kept: 0, wish: 0 })
    last().answer({ free: 1000 })
    expect(tally.held).toBe(0)
    await clock.pass(500)
    expect(idle()).toBe(1)
  })

  test('nothing of the stock is used once Redis may have written it off', async () => {
    const { clock, asked, allotment, last } = await stocked()
    // The process was stopped: no timer ran.
    clock.monotonicMs = () => 1950
    expect(allotment.take(1, 1)).toBeInstanceOf(Promise)
    expect(asked.length).toBe(2)
    expect(last().call).toMatchObject({ holder: 'me.1', used: 0, kept: 0, need: 1 })
  })
})

describe('a small limit', () => {
  test('asks at each request, holds nothing and has nothing to tell afterwards', async () => {
    const { clock, asked, allotment, last } = world(SMALL)
    for (let i = 1; i <= 3; i++) {
      const taken = allotment.take(1, 1)
      expect(last().call).toMatchObject({ need: 1, wish: 0, used: 0, kept: 0, isSpent: true })
      last().answer({ granted: 1, free: 10 - i })
      expect(await taken).toBe(1)
      expect(asked.length).toBe(i)
    }
    await clock.pass(400)
    expect(asked.length).toBe(3)
  })

  test('after a refusal nobody asks until there is something, and no sooner is it told to come back', async () => {
    const { clock, asked, allotment, last } = world(SMALL)
    const taken = allotment.take(1, 1)
    last().answer({ granted: 0, free: 0, nextMs: 200 })
    expect(await taken).toBe(0)
    expect(allotment.isExhausted).toBe(true)
    expect(allotment.untilMs(1)).toBe(200)
    expect(allotment.take(1, 1)).toBe(0)
    await clock.pass(199)
    expect(allotment.take(1, 1)).toBe(0)
    expect(asked.length).toBe(1)
    await clock.pass(1)
    expect(allotment.take(1, 1)).toBeInstanceOf(Promise)
  })

  test('what was taken in vain goes back with the next call', async () => {
    const { clock, allotment, last } = world(SMALL)
    const taken = allotment.take(2, 2)
    last().answer({ granted: 2, free: 8 })
    await taken
    allotment.giveBack(2)
    await clock.pass(10)
    expect(last().call).toMatchObject({ back: 2, need: 0 })
  })
})

describe('when Redis does not answer', () => {
  test('who waits is let through after a quarter of a second, and for another one nobody asks', async () => {
    const { clock, asked, allotment, tally } = world(SMALL)
    const taken = allotment.take(1, 1)
    await clock.pass(249)
    const later = allotment.take(3, 3)
    await clock.pass(1)
    expect(await taken).toBe(1)
    expect(await later).toBe(3)
    expect(tally.unchecked).toBe(4)
    expect(allotment.take(1, 1)).toBe(1)
    expect(asked.length).toBe(1)
    await clock.pass(250)
    expect(allotment.take(1, 1)).toBeInstanceOf(Promise)
  })

  test('an answer that was lost leaves nothing to go on with: the process takes another name', async () => {
    const { clock, allotment, last } = await stocked()
    void allotment.take(1, 1)
    void allotment.take(1, 1)
    last().fail()
    await clock.pass(300)
    void allotment.take(1, 1)
    expect(last().call).toMatchObject({ holder: 'me.1', used: 0, kept: 0, back: 0 })
  })

  test('an answer that comes after all gives nothing', async () => {
    const { clock, asked, allotment, tally } = world(LARGE)
    const taken = allotment.take(1, 1)
    await clock.pass(250)
    await taken
    asked[0]?.answer({ granted: 3, free: 500 })
    await clock.pass(1)
    expect(tally.held).toBe(0)
  })
})

test('closing gives back what is held', async () => {
  const { allotment, last } = await stocked()
  const closed = allotment.close()
  await settle()
  expect(last().call).toMatchObject({ used: 1, kept: 0, need: 0, wish: 0 })
  last().answer({ free: 1000 })
  await closed
})
