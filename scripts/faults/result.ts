/** What a scenario found, as `--json` tells it. Null: not promised in this scenario, or nothing to measure. */

export interface Spread {
  readonly p50: number
  readonly p99: number
  readonly max: number
}

export interface ScenarioResult {
  readonly name: string
  /** Null when the whole scenario was skipped. */
  readonly pass: boolean | null
  /** Commands that a producer saw a 202 for. */
  readonly accepted: number
  /** Accepted commands with their event. */
  readonly done: number
  readonly dead: number
  /** Of the dead: commands that never crashed a worker by themselves, and were charged with three kills. */
  readonly innocentDead: number
  /** Accepted commands, and follow-ups of done ones, with no end at all. */
  readonly lost: number
  /** Events beyond the first of their command, and events of entries that no producer was told of. */
  readonly duplicateEffects: number
  readonly orderViolations: number | null
  readonly handlerCalls: number
  /** Calls beyond the first of the same attempt of the same command. */
  readonly duplicateHandlerCalls: number
  /** Entries pending after the quiet period, over all groups and consumers. */
  readonly pending: number
  /** Names of dead consumers; null where a shortened run did not wait the 30 s for which they are kept. */
  readonly leakedConsumers: number | null
  readonly workerKills: number
  readonly pauses: number
  readonly redisKills: number
  /** From a kill until what the dead worker held was running again, by command. */
  readonly recoveryMs: Spread | null
  /** The whole scenario, start and quiet period included. */
  readonly seconds: number
  /** Cases that could not be run here, by name, with the reason. */
  readonly skipped: readonly string[]
  /** One sentence for each promise that broke. */
  readonly broken: readonly string[]
  /** Figures of this scenario alone. */
  readonly details: Readonly<Record<string, unknown>>
}

export interface FaultsResult {
  readonly seed: number
  /** What limits on time were widened by. */
  readonly slackMs: number
  readonly scenarios: readonly ScenarioResult[]
}

/** Undefined for no values at all. */
export function spreadOf(values: readonly number[]): Spread | undefined {
  if (values.length === 0) return undefined
  const sorted = [...values].sort((a, b) => a - b)
  const at = (share: number): number =>
    Math.round(sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? 0)
  return { p50: at(0.5), p99: at(0.99), max: at(1) }
}
