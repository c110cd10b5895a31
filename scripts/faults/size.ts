/**
 * How much of a scenario is run. The full size is what its promise is stated for; `--seconds` scales everything down in
 * proportion, `--commands` the commands alone.
 */
export interface Size {
  readonly commands: number
  /** How long commands are posted and faults happen; the quiet period comes after it. */
  readonly seconds: number
  readonly workerKills: number
  readonly pauses: number
  readonly redisKills: number
  /** What the scenario counts by itself: restarts, ticks, repetitions. */
  readonly rounds: number
}

export interface ScaledSize extends Size {
  /** False when it was scaled down. */
  readonly full: boolean
}

export interface SizeWishes {
  readonly commands: number | undefined
  readonly seconds: number | undefined
}

const COMMANDS_MIN = 200

export function scaled(full: Size, { commands, seconds }: SizeWishes): ScaledSize {
  const share = Math.min(1, (seconds ?? full.seconds) / full.seconds)
  const part = (count: number): number => (count === 0 ? 0 : Math.max(1, Math.round(count * share)))
  return {
    full: share === 1,
    commands:
      commands ?? (full.commands === 0 ? 0 : Math.max(COMMANDS_MIN, Math.round(full.commands * share))),
    seconds: full.seconds * share,
    workerKills: part(full.workerKills),
    pauses: part(full.pauses),
    redisKills: part(full.redisKills),
    rounds: part(full.rounds),
  }
}
