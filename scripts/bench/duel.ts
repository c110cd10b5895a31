/**
 * A duel: Millrace and its baseline do the same work in turn, round after round, and the rounds are compared pair by pair.
 * Machines drift; two halves of one round lie seconds apart, so the drift falls on both.
 */
import { RunError } from '../fleet/failure.ts'
import type { Measure, Round, Row } from './scenario.ts'
import type { Stage } from './stage.ts'
import { median, rounded } from './statistics.ts'

export interface Contestant {
  readonly name: string
  /** One round. A contestant prepares what it needs before it measures. */
  play(round: number): Promise<Measure>
}

export interface Budget {
  readonly of: 'ratio' | 'value' | 'difference'
  readonly is: 'at least' | 'at most'
  readonly bound: number
}

export interface DuelOptions {
  readonly name: string
  readonly unit: string
  readonly millrace: Contestant
  readonly baseline: Contestant
  /** Play in the same rounds, and are only shown. */
  readonly beside?: readonly Contestant[]
  readonly budget: Budget
  readonly rounds: { readonly full: number; readonly quick: number }
  readonly setting?: Row['setting']
}

export async function duel(stage: Stage, options: DuelOptions): Promise<Row> {
  const { millrace, baseline, beside = [] } = options
  const contestants = [baseline, millrace, ...beside]
  return compare(options, await playRounds(stage, { ...options, contestants }))
}

/** What everybody measured, round by round; for a scenario that draws several rows from the same rounds. */
export async function playRounds(
  stage: Stage,
  options: Pick<DuelOptions, 'name' | 'rounds'> & { readonly contestants: readonly Contestant[] },
): Promise<ReadonlyMap<string, Measure>[]> {
  const { name, contestants, rounds } = options
  const played: ReadonlyMap<string, Measure>[] = []
  const count = stage.quick ? rounds.quick : rounds.full
  for (let round = 0; round < count; round++) {
    const results = new Map<string, Measure>()
    for (const contestant of turned(contestants, round)) {
      stage.tell(`${name}: round ${round + 1} of ${count}, ${contestant.name}`)
      results.set(contestant.name, await contestant.play(round))
    }
    played.push(results)
  }
  return played
}

/** Who comes first turns, so that what a round leaves behind falls on everybody. */
function turned<Item>(items: readonly Item[], by: number): Item[] {
  const start = by % items.length
  return [...items.slice(start), ...items.slice(0, start)]
}

/** The row of a duel whose rounds were played. */
export function compare(
  options: Omit<DuelOptions, 'rounds'>,
  played: readonly ReadonlyMap<string, Measure>[],
): Row {
  const { name, unit, millrace, baseline, beside = [], budget, setting = {} } = options
  const rounds = played.map((results) => roundOf(results, millrace.name, baseline.name))
  const ratios = rounds.map(({ ratio }) => ratio ?? 0)
  const [value, base] = [median(rounds.map((round) => round.value)), median(rounds.map(baselineOf))]
  const judged = { ratio: median(ratios), value, difference: median(rounds.map(differenceOf)) }[budget.of]
  return {
    name,
    unit,
    value: rounded(value),
    baseline: rounded(base),
    baselineName: baseline.name,
    ratio: rounded(judged === undefined ? 0 : median(ratios)),
    budget: budgetText(budget),
    pass: meets(judged, budget),
    spread: [rounded(Math.min(...ratios)), rounded(Math.max(...ratios))],
    rounds,
    setting,
    beside: Object.fromEntries(
      beside.map((each) => [
        each.name,
        rounded(median(played.map((results) => measured(results, each.name).value))),
      ]),
    ),
  }
}

function roundOf(results: ReadonlyMap<string, Measure>, own: string, other: string): Round {
  const [mine, theirs] = [measured(results, own), measured(results, other)]
  const cores = Object.fromEntries(
    [...results].flatMap(([name, { cores }]) => (cores ? [[name, cores]] : [])),
  )
  const details = { ...prefixed(own, mine.details), ...prefixed(other, theirs.details) }
  return {
    value: rounded(mine.value),
    baseline: rounded(theirs.value),
    ratio: rounded(mine.value / theirs.value),
    ...(Object.keys(cores).length > 0 ? { cores } : {}),
    ...(Object.keys(details).length > 0 ? { details } : {}),
  }
}

function prefixed(name: string, details: Measure['details'] = {}): Record<string, number | string> {
  return Object.fromEntries(Object.entries(details).map(([key, value]) => [`${name}: ${key}`, value]))
}

function measured(results: ReadonlyMap<string, Measure>, name: string): Measure {
  const found = results.get(name)
  if (found !== undefined && found.value > 0) return found
  throw new RunError('failed', `"${name}" measured nothing.`)
}

function baselineOf({ baseline }: Round): number {
  return baseline ?? 0
}

function differenceOf({ value, baseline }: Round): number {
  return value - (baseline ?? 0)
}

function meets(value: number, { is, bound }: Pick<Budget, 'is' | 'bound'>): boolean {
  return is === 'at least' ? value >= bound : value <= bound
}

function budgetText({ of, is, bound }: Budget): string {
  return `${of} ${is === 'at least' ? '>=' : '<='} ${bound}`
}
