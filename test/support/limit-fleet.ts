/**
 * How exactly several real processes keep one rate limit together, and against what: one limiter that sees every request of
 * all of them at once, and counts without error.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface LoadStep {
  readonly perS: number
  readonly ms: number
}

export interface LimitProcessPlan {
  readonly url: string
  readonly rule: string
  readonly startMs: number
  readonly steps: readonly LoadStep[]
  readonly output: string
}

/** Limits as the measurement understands them, beside the product's own. */
export type Exact =
  | { readonly kind: 'window'; readonly quota: number; readonly windowMs: number }
  | { readonly kind: 'bucket'; readonly burst: number; readonly perMs: number }

export interface FleetFigures {
  readonly asked: number
  readonly admitted: number
  /** What the exact limiter admits of the same requests. */
  readonly exact: number
  /** Most that were admitted beyond the limit: in any window, or at any moment of a bucket. */
  readonly over: number
  /** Requests that waited for Redis. */
  readonly waited: number
  readonly calls: number
  readonly unchecked: number
}

const LEAD_MS = 1200

/** One process for each list of steps, all at once. */
export async function measureFleet(
  url: string,
  rule: string,
  exact: Exact,
  loads: readonly (readonly LoadStep[])[],
): Promise<FleetFigures> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-limits-'))
  try {
    const startMs = Date.now() + LEAD_MS
    const outputs = loads.map((_, index) => join(folder, String(index)))
    const children = loads.map((steps, index) => {
      const plan: LimitProcessPlan = { url, rule, startMs, steps, output: outputs[index] ?? '' }
      const script = join(import.meta.dir, 'limit-process.ts')
      return Bun.spawn([process.execPath, script, JSON.stringify(plan)], {
        stdio: ['ignore', 'inherit', 'inherit'],
      })
    })
    const codes = await Promise.all(children.map(({ exited }) => exited))
    if (codes.some((code) => code !== 0))
      throw new Error(`a process of the fleet ended with ${codes.join(', ')}`)
    const [asked, admitted] = [await merged(outputs, 'asked'), await merged(outputs, 'admitted')]
    const notes = await Promise.all(outputs.map((output) => Bun.file(`${output}.json`).json()))
    const total = (name: string): number => notes.reduce((sum, note) => sum + note[name], 0)
    return {
      ...{ asked: asked.length, admitted: admitted.length },
      ...{ exact: exactCount(exact, asked), over: overOf(exact, admitted) },
      ...{ waited: total('waited'), calls: total('calls'), unchecked: total('unchecked') },
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function merged(outputs: readonly string[], kind: string): Promise<Float64Array> {
  const parts = await Promise.all(
    outputs.map(async (output) => new Float64Array(await Bun.file(`${output}.${kind}`).arrayBuffer())),
  )
  const all = new Float64Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all.sort()
}

export function exactCount(exact: Exact, asked: Float64Array): number {
  const admitted: number[] = []
  let first = 0
  let [level, atMs] = [exact.kind === 'bucket' ? exact.burst : 0, asked[0] ?? 0]
  for (const ms of asked) {
    if (exact.kind === 'window') {
      while ((admitted[first] ?? Number.POSITIVE_INFINITY) <= ms - exact.windowMs) first += 1
      if (admitted.length - first < exact.quota) admitted.push(ms)
    } else {
      level = Math.min(exact.burst, level + (ms - atMs) * exact.perMs)
      atMs = ms
      if (level >= 1) {
        level -= 1
        admitted.push(ms)
      }
    }
  }
  return admitted.length
}

export function overOf(exact: Exact, admitted: Float64Array): number {
  let over = 0
  if (exact.kind === 'window') {
    let first = 0
    for (let last = 0; last < admitted.length; last++) {
      while ((admitted[first] ?? 0) <= (admitted[last] ?? 0) - exact.windowMs) first += 1
      over = Math.max(over, last - first + 1 - exact.quota)
    }
    return over
  }
  let [level, atMs] = [exact.burst, admitted[0] ?? 0]
  for (const ms of admitted) {
    level = Math.min(exact.burst, level + (ms - atMs) * exact.perMs) - 1
    atMs = ms
    over = Math.max(over, -level)
  }
  return over
}
