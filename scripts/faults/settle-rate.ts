/** What the workers settle now: a closed loop, in which something always waits and never much. */
import type { Arena } from './arena.ts'
import { Flood } from './flood.ts'

/** Unfinished at a time, as a multiple of what workers may have in flight. */
const IN_FLIGHTS = 4
const CLOSED_LOOP_LANES = 4
/** The start is not measured. */
const WARM_MS = 750
const MEASURE_MS = 3000
const MEASURE_SHORT_MS = 1000

/** What workers settle in a second when there is always something to do, and never much. */
export async function settledPerSecond(arena: Arena, inFlightMax: number): Promise<number> {
  const { workload, ledger, probe, places, signal } = arena
  const { apiUrl: baseUrl, name: runId, random } = arena
  const posting = new Flood({ ...{ baseUrl, ledger, workload, runId, random }, retryShare: 0, signal }, 0)
  const outstanding = arena.fleet.workers.length * IN_FLIGHTS * inFlightMax
  const startMs = performance.now()
  let [settled, row, isOver] = [0, 0, false]
  const measureMs = arena.size.full ? MEASURE_MS : MEASURE_SHORT_MS
  let from: { atMs: number; settled: number } | undefined
  const lane = async (): Promise<void> => {
    while (!isOver && row + workload.bodyRows <= workload.rows) {
      if (ledger.acceptedCount - settled >= outstanding) {
        await Bun.sleep(1)
        continue
      }
      const rows = Array.from({ length: workload.bodyRows }, () => row++)
      await posting.post(rows)
    }
  }
  const watch = async (): Promise<number> => {
    for (;;) {
      const { added, unfinished } = await probe.backlog(places)
      settled = added - unfinished
      const nowMs = performance.now()
      if (nowMs - startMs >= WARM_MS) from ??= { atMs: nowMs, settled }
      if (from !== undefined && nowMs - from.atMs >= measureMs) {
        isOver = true
        return ((settled - from.settled) / (nowMs - from.atMs)) * 1000
      }
      await Bun.sleep(2)
    }
  }
  const lanes = Array.from({ length: CLOSED_LOOP_LANES }, lane)
  const [rate] = await arena.guard(Promise.all([watch(), ...lanes]))
  return rate
}
