/**
 * The order of a key's commands, from the journals: what arrived later may only start when what arrived before has ended for
 * good, and nothing runs again once a later one has started. What arrived when is told by the ids that producers got.
 */
import type { Ledger } from '../fleet/ledger.ts'
import { journalEntries } from './handler-calls.ts'
import { KIND_START, OUTCOME_DONE, OUTCOME_REJECT } from './journal-format.ts'
import type { Workload } from './workload.ts'

export interface OrderFindings {
  readonly violations: number
  /** Pairs of neighbours within a key that were looked at. */
  readonly pairs: number
  readonly examples: readonly string[]
}

const EXAMPLES_MAX = 5

/** `dead` are rows with a dead letter: they ended without a word of their handler, and nobody is early behind them. */
export function checkOrder(
  folder: string,
  ledger: Ledger,
  workload: Workload,
  dead: ReadonlySet<number> = new Set(),
): OrderFindings {
  const { rows } = workload
  const firstStarts = new Float64Array(rows).fill(Number.POSITIVE_INFINITY)
  const lastStarts = new Float64Array(rows).fill(Number.NEGATIVE_INFINITY)
  const ends = new Float64Array(rows).fill(Number.POSITIVE_INFINITY)
  for (const { row, kind, outcome, monotonicMs } of journalEntries(folder)) {
    if (kind === KIND_START) {
      firstStarts[row] = Math.min(firstStarts[row] ?? 0, monotonicMs)
      lastStarts[row] = Math.max(lastStarts[row] ?? 0, monotonicMs)
    } else if (outcome === OUTCOME_DONE || outcome === OUTCOME_REJECT) {
      ends[row] = Math.min(ends[row] ?? 0, monotonicMs)
    }
  }
  const examples: string[] = []
  let [violations, pairs] = [0, 0]
  for (let key = 0; key < workload.keys; key++) {
    const arrived = arrivalOrder(key, ledger, workload)
    for (let i = 1; i < arrived.length; i++) {
      const [before = 0, after = 0] = [arrived[i - 1], arrived[i]]
      const started = firstStarts[after] ?? 0
      if (dead.has(before) || dead.has(after)) continue
      pairs += 1
      const early = started - (ends[before] ?? 0)
      const late = (lastStarts[before] ?? 0) - started
      if (early >= 0 && late <= 0) continue
      violations += 1
      if (examples.length >= EXAMPLES_MAX) continue
      const what =
        early < 0
          ? `started ${Math.round(-early)} ms before the end of`
          : `was followed ${Math.round(late)} ms later by`
      examples.push(`row ${after} of key ${key} ${what} row ${before}`)
    }
  }
  return { violations, pairs, examples }
}

function arrivalOrder(key: number, ledger: Ledger, workload: Workload): number[] {
  const rows: number[] = []
  for (let row = key; row < workload.rows; row += workload.keys) if (ledger.isAccepted(row)) rows.push(row)
  const tokenOf = (row: number): number => ledger.positionOf(row)?.token ?? 0
  return rows.sort((a, b) => tokenOf(a) - tokenOf(b))
}
