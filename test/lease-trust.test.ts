/** How long a holder trusts its lease: to the millisecond, from when a renewal was sent, on a clock that the test moves. */
import { expect, test } from 'bun:test'
import { FakeClock, RecordedTelemetry } from 'millrace/testing'
import { HeldLease } from '../src/leases/held-lease.ts'
import type { RedisLink } from '../src/redis/connection.ts'

const TAKEOVER_MS = 1000

/** A connection whose answers come after so many ms each, and then never. */
function slowLink(clock: FakeClock, answersMs: readonly number[]): { link: RedisLink; sentMs: number[] } {
  const sentMs: number[] = []
  const run = async () => {
    const answerMs = answersMs[sentMs.length]
    sentMs.push(clock.monotonicMs())
    if (answerMs === undefined) return await new Promise<never>(() => undefined)
    await clock.sleep(answerMs)
    return 'held'
  }
  return { link: { run, reconnect: () => undefined } as unknown as RedisLink, sentMs }
}

function heldAt(clock: FakeClock, link: RedisLink): HeldLease {
  const telemetry = new RecordedTelemetry()
  const hold = { owner: 'me', epoch: 1 }
  return new HeldLease({
    ...{
      link,
      clock,
      telemetry,
      name: 'any',
      hold,
      takeoverMs: TAKEOVER_MS,
      sentMs: 0,
      onEnd: () => undefined,
    },
  })
}

test('trust runs from when a renewal was sent, however late its answer came', async () => {
  const clock = new FakeClock()
  const { link, sentMs } = slowLink(clock, [300])
  const lease = heldAt(clock, link)
  await clock.advance(500)
  const [first = 0] = sentMs
  expect(first).toBeCloseTo(TAKEOVER_MS / 6, 3)
  await clock.advance(first + 0.8 * TAKEOVER_MS - 1 - clock.monotonicMs())
  expect(lease.signal.aborted).toBe(false)
  await clock.advance(2)
  expect(lease.signal.aborted).toBe(true)
  expect(lease.signal.reason).toMatchObject({ code: 'lease.lost' })
})

test('a lease that is renewed is trusted on and on; without an answer it ends a fifth of the takeover before the takeover', async () => {
  const clock = new FakeClock()
  const { link, sentMs } = slowLink(
    clock,
    Array.from({ length: 30 }, () => 2),
  )
  const lease = heldAt(clock, link)
  await clock.advance(4000)
  expect(lease.held).toBe(true)
  await clock.advance(10_000)
  expect(lease.held).toBe(false)
  expect(sentMs.length).toBeGreaterThan(30)
})
