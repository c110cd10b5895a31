/**
 * A schedule: a command that the runtime appends at each tick, at most once across the fleet and never early.
 */
import type { CommandDefinition } from './command.ts'
import { MillraceError } from './errors.ts'
import { checkKnownOptions, checkPlainName, checkWhole } from './names.ts'
import type { PayloadInput } from './schema.ts'
import { isTenantName, NO_TENANT, type Tenant } from './tenant.ts'

interface ScheduleBase<Command extends CommandDefinition> {
  readonly name: string
  readonly command: Command
  /** The payload of every tick; validated at start. The handler reads the tick from `command.tickMs`. */
  readonly payload: PayloadInput<Command['payload']>
  /** Whose commands its ticks are. Default none. */
  readonly tenant?: Tenant
  /** Ticks missed while no scheduler ran: run none, the latest (default), or all (at most `catchUpCountMax`). */
  readonly catchUp?: 'skip' | 'latest' | 'all'
  /** Bound on `catchUp: 'all'`, 1-100 000. Default 1000; older ticks are counted as missed. */
  readonly catchUpCountMax?: number
  /** `forbid` skips a tick while the command of an earlier one is still open. Default `allow`. */
  readonly overlap?: 'allow' | 'forbid'
}

export interface CronScheduleOptions<Command extends CommandDefinition> extends ScheduleBase<Command> {
  /** Five fields, such as `0 3 * * *`. */
  readonly cron: string
  /** IANA time zone. Default `UTC`. */
  readonly timeZone?: string
  readonly every?: never
}

export interface EveryScheduleOptions<Command extends CommandDefinition> extends ScheduleBase<Command> {
  /** Period in milliseconds, 100 ms to 366 days; ticks fall on its multiples since 1970. */
  readonly every: number
  readonly cron?: never
  readonly timeZone?: never
}

export type ScheduleOptions<Command extends CommandDefinition> =
  | CronScheduleOptions<Command>
  | EveryScheduleOptions<Command>

/** When a schedule ticks. */
export type Timetable =
  | { readonly kind: 'cron'; readonly expression: string; readonly timeZone: string }
  | { readonly kind: 'every'; readonly periodMs: number }

export interface ScheduleDefinition {
  readonly kind: 'schedule'
  readonly name: string
  readonly command: CommandDefinition
  readonly payload: unknown
  /** '' none. */
  readonly tenant: Tenant
  readonly timetable: Timetable
  readonly catchUp: 'skip' | 'latest' | 'all'
  readonly catchUpCountMax: number
  readonly overlap: 'allow' | 'forbid'
}

const KNOWN = [
  'name',
  'command',
  'payload',
  'tenant',
  'cron',
  'timeZone',
  'every',
  'catchUp',
  'catchUpCountMax',
  'overlap',
]

/**
 * Declares a schedule: either `cron` (with `timeZone`) or `every`.
 *
 * @throws MillraceError `definition.invalid`, `config.unknown-option`
 */
export function defineSchedule<Command extends CommandDefinition>(
  options: ScheduleOptions<Command>,
): ScheduleDefinition {
  checkKnownOptions('defineSchedule', options, KNOWN)
  const name = checkPlainName('Schedule', options.name)
  const catchUp = options.catchUp ?? 'latest'
  const overlap = options.overlap ?? 'allow'
  if (!['skip', 'latest', 'all'].includes(catchUp)) {
    throw new MillraceError(
      'definition.invalid',
      `"catchUp" of schedule "${name}" must be skip, latest or all.`,
    )
  }
  if (!['allow', 'forbid'].includes(overlap)) {
    throw new MillraceError('definition.invalid', `"overlap" of schedule "${name}" must be allow or forbid.`)
  }
  const tenant = options.tenant ?? NO_TENANT
  if (tenant !== NO_TENANT && !isTenantName(tenant)) {
    throw new MillraceError(
      'definition.invalid',
      `"tenant" of schedule "${name}" must be 1-63 characters of a-z, 0-9 and "-", starting with a letter or digit.`,
    )
  }
  if (options.command?.kind !== 'command') {
    throw new MillraceError(
      'definition.invalid',
      `"command" of schedule "${name}" must be made by defineCommand.`,
    )
  }
  return Object.freeze({
    kind: 'schedule',
    name,
    command: options.command,
    payload: options.payload,
    tenant,
    timetable: timetableOf(name, options),
    catchUp,
    catchUpCountMax: checkWhole(
      `"catchUpCountMax" of schedule "${name}"`,
      options.catchUpCountMax ?? 1000,
      1,
      100_000,
    ),
    overlap,
  })
}

function timetableOf(name: string, options: { cron?: string; timeZone?: string; every?: number }): Timetable {
  if ((options.cron === undefined) === (options.every === undefined)) {
    throw new MillraceError(
      'definition.invalid',
      `Schedule "${name}" needs either "cron" or "every", not both.`,
    )
  }
  if (options.every !== undefined) {
    const periodMs = checkWhole(`"every" of schedule "${name}"`, options.every, 100, 366 * 86_400_000)
    return { kind: 'every', periodMs }
  }
  return { kind: 'cron', expression: options.cron ?? '', timeZone: options.timeZone ?? 'UTC' }
}
