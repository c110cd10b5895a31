/** When the door in front of a stream closes, when it opens again, and how long producers are told to wait. */
import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { decideAdmission, type LoadSample } from '../src/policies/admission.ts'

const limits = { depthMax: 1000, memoryRatioMax: 0.85, waitedMsMax: 60_000 }
const at = (atMs: number, depth: number, memoryRatio = 0.1, waitedMs = 0): LoadSample => ({
  atMs,
  depth,
  memoryRatio,
  waitedMs,
})

test('the door closes at the limit of depth, of age or of memory, and names it', () => {
  expect(decideAdmission(at(0, 999), undefined, true, limits)).toEqual({ open: true })
  expect(decideAdmission(at(0, 1000), undefined, true, limits)).toMatchObject({
    open: false,
    reason: '1000 commands wait in the stream',
  })
  expect(decideAdmission(at(0, 0, 0.849), undefined, true, limits)).toEqual({ open: true })
  expect(decideAdmission(at(0, 0, 0.85), undefined, true, limits)).toMatchObject({
    open: false,
    reason: 'Redis uses 85 % of its memory',
  })
  expect(decideAdmission(at(0, 0, 0, 59_999), undefined, true, limits)).toEqual({ open: true })
  expect(decideAdmission(at(0, 0, 0, 60_000), undefined, true, limits)).toMatchObject({
    open: false,
    reason: 'its oldest command waits for 60 s',
  })
})

test('a closed door opens only a little below the limit, so that it does not flap', () => {
  expect(decideAdmission(at(0, 960), undefined, false, limits).open).toBe(false)
  expect(decideAdmission(at(0, 949), undefined, false, limits).open).toBe(true)
  expect(decideAdmission(at(0, 0, 0.82), undefined, false, limits).open).toBe(false)
  expect(decideAdmission(at(0, 0, 0.8), undefined, false, limits).open).toBe(true)
})

test('how long to wait follows from how fast the backlog shrinks', () => {
  const verdict = decideAdmission(at(1000, 1950), at(0, 2050), false, limits)
  expect(verdict).toMatchObject({ open: false, retryAfterS: 10 })
  expect(decideAdmission(at(1000, 3000), at(0, 2000), false, limits)).toMatchObject({ retryAfterS: 5 })
})

test('the wait is always a whole number of seconds from 1 to 60', () => {
  const depth = fc.nat(10_000_000)
  const ratio = fc.double({ min: 0, max: 3, noNaN: true })
  fc.assert(
    fc.property(
      depth,
      depth,
      ratio,
      ratio,
      fc.nat(10_000),
      fc.boolean(),
      (now, before, memory, memoryBefore, spanMs, wasOpen) => {
        const verdict = decideAdmission(at(spanMs, now, memory), at(0, before, memoryBefore), wasOpen, limits)
        if (verdict.open) return
        expect(Number.isInteger(verdict.retryAfterS)).toBe(true)
        expect(verdict.retryAfterS).toBeGreaterThanOrEqual(1)
        expect(verdict.retryAfterS).toBeLessThanOrEqual(60)
      },
    ),
  )
})
