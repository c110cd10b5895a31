/** When a consumer is dead: four good looks in a row at the same heartbeat, and never a mere length of time. */
import { expect, test } from 'bun:test'
import { DeathVerdict } from '../src/policies/death-verdict.ts'

const EVERY_MS = 300
const SILENT = new Map([['w', '7:7']])

/** Looks at the same heartbeat at these times, and tells after which of them the consumer was dead. */
function deadAfter(atMs: readonly number[], roundTripsMs: readonly number[] = []): number[] {
  const verdict = new DeathVerdict(EVERY_MS)
  return atMs.filter((at, i) => {
    return verdict.observe({ beats: SILENT, atMs: at, roundTripMs: roundTripsMs[i] ?? 1 }).length > 0
  })
}

test('the fourth good look at the same heartbeat is the verdict, with how long it stood still', () => {
  expect(deadAfter([0, 300, 600, 900, 1200])).toEqual([900, 1200])
  const verdict = new DeathVerdict(EVERY_MS)
  const looks = [0, 300, 600, 900].map((atMs) => verdict.observe({ beats: SILENT, atMs, roundTripMs: 1 }))
  expect(looks.at(-1)).toEqual([{ consumer: 'w', beat: '7:7', silentMs: 900 }])
})

test('a heartbeat that moved starts the count again; a consumer without one counts like any other', () => {
  const verdict = new DeathVerdict(EVERY_MS)
  const dead = ['1', '1', '1', '2', '2', '2', '2'].map(
    (beat, i) =>
      verdict.observe({
        beats: new Map([
          ['w', beat],
          ['bare', ''],
        ]),
        atMs: i * EVERY_MS,
        roundTripMs: 1,
      }).length,
  )
  expect(dead).toEqual([0, 0, 0, 1, 1, 1, 2])
})

test('after a pause of the observer, however long, the count starts again', () => {
  expect(deadAfter([0, 300, 600, 60_000, 60_300, 60_600, 60_900])).toEqual([60_900])
  expect(deadAfter([0, 10_000, 20_000, 30_000, 40_000, 50_000])).toEqual([])
})

test('a look that took as long as the interval counts for nothing, and neither does what came before it', () => {
  const slow = [1, 1, 1, 300, 1, 1, 1, 1]
  expect(deadAfter([0, 300, 600, 1200, 1500, 1800, 2100, 2400], slow)).toEqual([2400])
})

test('time alone is no proof: three looks are too few, however far apart they may be', () => {
  expect(deadAfter([0, 600, 1200])).toEqual([])
})

test('after a look that failed the count starts again', () => {
  const verdict = new DeathVerdict(EVERY_MS)
  const look = (atMs: number): number => verdict.observe({ beats: SILENT, atMs, roundTripMs: 1 }).length
  for (const atMs of [0, 300, 600]) look(atMs)
  verdict.forget()
  expect([700, 1000, 1300, 1600].map(look)).toEqual([0, 0, 0, 1])
})
