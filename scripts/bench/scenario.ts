/**
 * What the benchmark is made of. A scenario plays rounds; in each, the contestants do the same work one after another, and
 * the order turns from round to round. A row compares Millrace with a baseline of the same rounds, against a budget.
 */
import type { Stage } from './stage.ts'

/** What one contestant reached in one round. */
export interface Measure {
  readonly value: number
  /** Processor time of each process while it was measured, in cores. */
  readonly cores?: Readonly<Record<string, number>>
  /** What else is worth telling of it. */
  readonly details?: Readonly<Record<string, number | string>>
}

export interface Round {
  readonly value: number
  /** Null where the scenario has no baseline. */
  readonly baseline: number | null
  readonly ratio: number | null
  readonly cores?: Readonly<Record<string, Readonly<Record<string, number>>>>
  readonly details?: Readonly<Record<string, number | string>>
}

/** One budget, as `--json` tells it. */
export interface Row {
  readonly name: string
  readonly unit: string
  /** Median over the rounds. */
  readonly value: number
  readonly baseline: number | null
  readonly baselineName: string
  /** Median of the ratios of the rounds, not the ratio of the medians: rounds are pairs. */
  readonly ratio: number | null
  /** Such as `ratio >= 0.85`; '' for a figure that is only shown. */
  readonly budget: string
  readonly pass: boolean
  /** Lowest and highest ratio of the rounds; of the values where there is no baseline. */
  readonly spread: readonly [number, number]
  readonly rounds: readonly Round[]
  /** Payload, batch, concurrency and the like, where they are the scenario's own. */
  readonly setting: Readonly<Record<string, number | string>>
  /** Figures beside the budget: what else was measured in the same rounds. */
  readonly beside: Readonly<Record<string, number | string>>
}

export interface Scenario {
  readonly name: string
  /** One line for `--help`. */
  readonly summary: string
  /** True when it can only run with the peers installed. */
  readonly needsPeers?: boolean
  play(stage: Stage): Promise<readonly Row[]>
}
