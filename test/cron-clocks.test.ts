/**
 * Clocks that lie, all at once: six scheduler processes, some an hour ahead or behind, killed and frozen for longer than
 * the period, while Redis's clock is stepped forward and back. Judged by Redis's time, from what it stored.
 */
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { clockOff, FAKETIME_MISSING, SHIM_MISSING, steppedClock } from '../scripts/fleet/clock-shim.ts'
import type { RedisLink } from '../src/redis/connection.ts'
import { decodeEntry } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { readServerTime } from '../src/redis/schedule-store.ts'
import { startTestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const PROGRAM = join(import.meta.dir, 'fixtures/scheduler/scheduler.ts')
const PERIOD_MS = 100
const HOUR_MS = 3_600_000
const MISSING = SHIM_MISSING ?? FAKETIME_MISSING
const TITLE =
  'six schedulers with clocks an hour off, kills, pauses and steps of Redis: each tick once, at its hour'

interface Ran {
  readonly tickMs: number
  /** What its command says of when it was accepted. */
  readonly acceptedAtMs: number
  /** Where Redis's stream put it: never goes back. */
  readonly streamMs: number
}

async function ranTicks(link: RedisLink): Promise<Ran[]> {
  const rows = await link.client.xrangeBuffer(partitionKeys('main', 0).ready, '-', '+')
  return rows.map(([id, fields]) => {
    const entry = decodeEntry(fields[1] ?? Buffer.alloc(0))
    return {
      tickMs: entry.tickMs ?? 0,
      acceptedAtMs: entry.atMs,
      streamMs: Number(id.toString().split('-')[0]),
    }
  })
}

class Fleet {
  readonly alarms: string[][] = []
  readonly #living = new Map<number, Subprocess>()
  readonly #url: string

  constructor(url: string) {
    this.#url = url
  }

  start(place: number, offsetMs: number): void {
    const heard: string[] = []
    this.alarms.push(heard)
    const child = Bun.spawn([process.execPath, PROGRAM, this.#url, String(PERIOD_MS)], {
      env: { ...Bun.env, ...clockOff(offsetMs) },
      stdout: 'pipe',
      stderr: 'inherit',
    })
    this.#living.set(place, child)
    void (async () => {
      const decoder = new TextDecoder()
      for await (const chunk of child.stdout) {
        heard.push(
          ...decoder
            .decode(chunk)
            .split('\n')
            .filter((line) => line !== ''),
        )
      }
    })()
  }

  signal(place: number, signal: NodeJS.Signals): void {
    this.#living.get(place)?.kill(signal)
  }

  async end(): Promise<void> {
    for (const child of this.#living.values()) child.kill('SIGKILL')
    await Promise.all([...this.#living.values()].map((child) => child.exited))
  }
}

const OFFSETS = [0, HOUR_MS, -HOUR_MS, 0, HOUR_MS, -HOUR_MS]

test.skipIf(MISSING !== undefined)(
  MISSING === undefined ? TITLE : `${TITLE} (skipped: ${MISSING})`,
  async () => {
    await using clock = await steppedClock()
    await using redis = await startTestRedis([], clock.env)
    const link = await redis.open()
    const fleet = new Fleet(redis.url)
    const ran = () => ranTicks(link)
    const goesOn = async (ticks: number) => {
      const seen = (await ran()).length
      await until(`${ticks} more ticks`, async () => (await ran()).length >= seen + ticks)
    }
    try {
      for (const [place, offsetMs] of OFFSETS.entries()) fleet.start(place, offsetMs)
      await until('the first tick', async () => (await ran()).length > 0)
      await goesOn(50)
      const late = (await ran()).map(({ tickMs, streamMs }) => streamMs - tickMs).toSorted((a, b) => a - b)
      const share = (q: number) => late[Math.min(late.length - 1, Math.floor(q * late.length))]
      console.log(
        `six schedulers, every ${PERIOD_MS} ms, undisturbed: ${late.length} ticks, late p50 ${share(0.5)} ms, p99 ${share(0.99)} ms`,
      )

      // Some die and come back with another clock, some freeze for ten periods and more.
      fleet.signal(0, 'SIGKILL')
      fleet.signal(1, 'SIGSTOP')
      fleet.signal(2, 'SIGSTOP')
      await goesOn(15)
      fleet.start(0, -HOUR_MS)
      fleet.signal(1, 'SIGCONT')
      await goesOn(10)
      fleet.signal(2, 'SIGCONT')

      // All of them at once, so that nobody is there for a second and a half.
      for (const place of OFFSETS.keys()) fleet.signal(place, 'SIGSTOP')
      const frozenMs = await readServerTime(link)
      await until('the freeze to last', async () => (await readServerTime(link)) > frozenMs + 1500)
      for (const place of OFFSETS.keys()) fleet.signal(place, 'SIGCONT')
      await goesOn(20)

      // A minute forward: its 600 ticks are due at once, and run.
      await clock.step(60_000)
      await goesOn(620)
      expect(fleet.alarms.flat()).toEqual([])

      // An hour back: not a tick, one alarm from each process.
      await clock.step(60_000 - HOUR_MS)
      await until('an alarm from each', () => fleet.alarms.filter((heard) => heard.length > 0).length >= 6)
      const silent = await ran()
      const backMs = await readServerTime(link)
      await until('a silent second', async () => (await readServerTime(link)) > backMs + 1000)
      expect((await ran()).length).toBe(silent.length)
      const told = fleet.alarms.filter((heard) => heard.length > 0)
      expect(told.map((heard) => heard.length)).toEqual([1, 1, 1, 1, 1, 1])
      for (const [line = ''] of told) {
        expect(JSON.parse(line)).toMatchObject({
          alarm: 'schedule-clock-behind',
          detail: expect.stringMatching(/it is 3(599|600) s behind the last tick/),
        })
      }

      // Time comes to the watermark again (two seconds before it, so as not to wait the hour), and all goes on by itself.
      const lastMs = silent.at(-1)?.tickMs ?? 0
      await clock.step(clock.aheadMs + (lastMs - 2000 - (await readServerTime(link))))
      await goesOn(30)
      expect(fleet.alarms.flat().length).toBe(6)
    } finally {
      await fleet.end()
    }

    const all = await ran()
    const first = all[0]?.tickMs ?? 0
    expect(all.map(({ tickMs }) => tickMs)).toEqual(all.map((_, i) => first + i * PERIOD_MS))
    expect(all.filter(({ tickMs, streamMs }) => streamMs < tickMs)).toEqual([])
    // What a command says of its time is Redis's clock: no hour of a process's own gets in. (At a step one answer is stale.)
    const strange = all.filter(({ tickMs, acceptedAtMs }) => Math.abs(acceptedAtMs - tickMs) > 70_000)
    expect(strange).toEqual([])
  },
  120_000,
)
