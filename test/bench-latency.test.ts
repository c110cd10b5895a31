/** The open loop: a generator that waits for a server that stalls would hide the stall. */
import { describe, expect, test } from 'bun:test'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { OpenLoadInput, OpenLoadResult } from '../scripts/bench/open-load.ts'
import { dueBy, sendTimes } from '../scripts/bench/send-times.ts'
import { Subject } from '../scripts/bench/subject.ts'

describe('a timetable', () => {
  test('is the same for the same seed, and another for another', () => {
    expect(sendTimes(500, 2, 7)).toEqual(sendTimes(500, 2, 7))
    expect(sendTimes(500, 2, 7)).not.toEqual(sendTimes(500, 2, 8))
  })

  test('keeps the rate, and ends with the time', () => {
    const times = sendTimes(2000, 50, 1)
    expect(Math.abs(times.length - 100_000)).toBeLessThan(1500)
    expect(times.at(-1)).toBeLessThan(50_000)
  })

  test('has gaps as arrivals have that know nothing of each other', () => {
    const times = sendTimes(1000, 100, 3)
    const gaps = [...times].map((atMs, i) => atMs - (times[i - 1] ?? 0))
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(0)
    // Of exponential gaps, 1/e are longer than the mean, and 1/e^3 longer than three times that.
    const longer = (ms: number): number => gaps.filter((gap) => gap > ms).length / gaps.length
    expect(longer(1)).toBeCloseTo(Math.exp(-1), 2)
    expect(longer(3)).toBeCloseTo(Math.exp(-3), 2)
  })

  test('makes everything due that should have gone out by now', () => {
    const times = Float64Array.from([1, 2, 2, 5])
    expect(dueBy(times, 0.9, 0)).toBe(0)
    expect(dueBy(times, 2, 0)).toBe(3)
    expect(dueBy(times, 4.9, 3)).toBe(3)
    expect(dueBy(times, 900, 3)).toBe(4)
  })
})

const STALL_MS = 400

/** Answers as Millrace does, and stands still once. */
function stallingServer() {
  const starts: { key: string; value: { startedAtMs: number } }[] = []
  let stalled = false
  return Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    fetch: async (request) => {
      const { pathname, searchParams } = new URL(request.url)
      if (request.method === 'POST') {
        if (starts.length >= 50 && !stalled) {
          stalled = true
          Bun.sleepSync(STALL_MS)
        }
        const { order } = (await request.json()) as { order: string }
        starts.push({ key: order, value: { startedAtMs: performance.timeOrigin + performance.now() } })
        return new Response('{}', { status: 202 })
      }
      if (!searchParams.has('limit')) {
        const found = starts.some(({ key }) => pathname.endsWith(key))
        return new Response('{}', { status: found ? 200 : 404 })
      }
      return Response.json({ data: starts, page: { next: null } })
    },
  })
}

test('everybody whom a stall would have met tells of it, not only who was waiting', async () => {
  const server = stallingServer()
  const subject = new Subject({
    script: 'open-load',
    input: {
      port: server.port ?? 0,
      ...{ type: 'order.place', projection: 'starts', ratePerS: 500, seconds: 1, seed: 1 },
      // One request at a time: a closed loop of one would have a single slow answer.
      ...{ connections: 1, phase: 1, processes: {} },
    } satisfies OpenLoadInput,
    logFile: join(tmpdir(), `open-load-${process.pid}.log`),
    signal: new AbortController().signal,
  })
  try {
    const { accepted, handler, view, sent } = await subject.result<OpenLoadResult>()
    expect(Math.abs(accepted.count - 500)).toBeLessThan(70)
    for (const each of [accepted, handler]) expect(each.p99).toBeGreaterThan(STALL_MS * 0.9)
    // About 40 % of all were due within the stall: the slowest tenth of all waited for most of it.
    expect(accepted.p50).toBeLessThan(accepted.p99)
    expect(sent.p99).toBeGreaterThan(STALL_MS * 0.5)
    expect(view.max).toBeGreaterThan(STALL_MS * 0.9)
  } finally {
    await subject.end()
    await server.stop(true)
  }
})
