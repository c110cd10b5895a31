/** Runs many seeds on all cores but keeps each run on one: seeds are dealt out to threads, reports are added up. */
import { availableParallelism } from 'node:os'
import type { FaultKind } from './faults.ts'
import type { RunReport } from './simulation.ts'

export interface SeedFailure {
  readonly seed: number
  readonly wrong: readonly string[]
  readonly faults: ReadonlyMap<FaultKind, number>
}

/** What all runs came to. */
export interface BatchSum {
  runs: number
  orders: number
  handlerRuns: number
  lost: number
  stepsMin: number
  faultsMin: number
  readonly faults: Map<FaultKind, number>
  readonly failed: SeedFailure[]
}

/** What a thread tells of one run; a run that could not end tells its error as what is wrong. */
export type SeedReport = Omit<RunReport, 'trace' | 'hash' | 'virtualMs'>

const THREADS_MAX = 4

export async function runSeeds(seeds: readonly number[]): Promise<BatchSum> {
  const sum: BatchSum = {
    runs: 0,
    orders: 0,
    handlerRuns: 0,
    lost: 0,
    stepsMin: Number.POSITIVE_INFINITY,
    faultsMin: Number.POSITIVE_INFINITY,
    faults: new Map(),
    failed: [],
  }
  const waiting = [...seeds]
  const threads = Math.min(THREADS_MAX, availableParallelism(), Math.ceil(seeds.length / 10))
  await Promise.all(Array.from({ length: Math.max(1, threads) }, () => runThread(waiting, sum)))
  return sum
}

/** One thread takes a seed after another until none waits. */
async function runThread(waiting: number[], sum: BatchSum): Promise<void> {
  const worker = new Worker(new URL('./seed-thread.ts', import.meta.url))
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const next = (): void => {
    const seed = waiting.shift()
    if (seed === undefined) resolve()
    else worker.postMessage(seed)
  }
  worker.onmessage = ({ data }: { data: SeedReport }) => {
    add(sum, data)
    next()
  }
  worker.onerror = (event: { readonly message: string }) => reject(new Error(event.message))
  next()
  try {
    await promise
  } finally {
    worker.terminate()
  }
}

function add(sum: BatchSum, { seed, wrong, steps, faults, orders, handlerRuns, lost }: SeedReport): void {
  sum.runs += 1
  sum.orders += orders
  sum.handlerRuns += handlerRuns
  sum.lost += lost
  sum.stepsMin = Math.min(sum.stepsMin, steps)
  sum.faultsMin = Math.min(
    sum.faultsMin,
    [...faults.values()].reduce((total, count) => total + count, 0),
  )
  for (const [kind, count] of faults) sum.faults.set(kind, (sum.faults.get(kind) ?? 0) + count)
  if (wrong.length > 0) sum.failed.push({ seed, wrong, faults })
}

export function describeFaults(faults: ReadonlyMap<FaultKind, number>): string {
  return [...faults]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([kind, count]) => `${kind} ${count}`)
    .join(', ')
}
