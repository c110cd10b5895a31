/**
 * Schedules in an operator's hands: what they are about to do and have done, run one now, pause, resume.
 *
 * Everything is read from and written to Redis, so it works in any process, whether or not a scheduler runs.
 */
import { MillraceError } from '../contracts/errors.ts'
import { nearest } from '../contracts/names.ts'
import type { ScheduleDefinition, Timetable } from '../contracts/schedule.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import { type MissedTicks, NONE_MISSED } from '../policies/catch-up.ts'
import { nextTicks } from '../policies/timetable.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { RedisLink } from '../redis/connection.ts'
import {
  CLOCK_TOLERANCE_MS,
  fireSchedule,
  readSchedule,
  readScheduleHome,
  readServerTime,
  type ScheduleState,
  setSchedulePaused,
} from '../redis/schedule-store.ts'
import { type PreparedSchedule, prepareSchedule } from './prepared-schedule.ts'

export interface SchedulesParts {
  readonly command: RedisLink
  readonly catalogue: Catalogue
  readonly ids: CommandIds
}

export interface ScheduleRunReport {
  /** Command id. */
  readonly id: string
  /** The tick, or when it was run by hand; ms since 1970 by Redis's clock. */
  readonly tickMs: number
}

export interface ScheduleReport {
  readonly name: string
  /** Type of its command. */
  readonly command: string
  readonly stream: string
  readonly timetable: Timetable
  readonly catchUp: ScheduleDefinition['catchUp']
  readonly overlap: ScheduleDefinition['overlap']
  readonly paused: boolean
  /**
   * `unregistered`: no scheduler has run yet; `other-definition`: the fleet follows another deployment's definition than
   * the one this process knows; `clock-behind`: Redis's clock went back, and nothing fires before it has come to the last
   * tick again; `silent`: no scheduler was heard of in the last 15 s.
   */
  readonly state: 'active' | 'paused' | 'silent' | 'clock-behind' | 'unregistered' | 'other-definition'
  /** The next ticks, by this process's definition; none while paused. */
  readonly nextTicksMs: readonly number[]
  /** The last tick that was decided: run, or left out. */
  readonly decidedThroughMs: number | undefined
  /** Newest first, at most ten. */
  readonly lastRuns: readonly ScheduleRunReport[]
  readonly firedCount: number
  /** Ticks left out because no scheduler ran in time. */
  readonly missedCount: number
  /** Ticks left out because an earlier run was still open. */
  readonly overlappedCount: number
  /** The newest ranges of them, newest first, at most 32 each. */
  readonly missed: readonly MissedTicks[]
  readonly overlapped: readonly MissedTicks[]
}

/** After this long without a word from a scheduler, a schedule is called silent. */
const SILENT_MS = 15_000

const NEXT_TICKS = 5

export class Schedules {
  readonly #parts: SchedulesParts
  readonly #prepared = new Map<string, Promise<PreparedSchedule>>()

  constructor(parts: SchedulesParts) {
    this.#parts = parts
  }

  /** All schedules of the catalogue, by name. */
  async list(): Promise<ScheduleReport[]> {
    const names = [...this.#parts.catalogue.schedules.keys()].sort()
    const nowMs = await readServerTime(this.#parts.command)
    return await Promise.all(names.map((name) => this.#report(name, nowMs)))
  }

  /** @throws MillraceError `not-found` */
  async get(name: string): Promise<ScheduleReport> {
    this.#definition(name)
    return await this.#report(name, await readServerTime(this.#parts.command))
  }

  /**
   * Appends the command now, beside the timetable, also while the schedule is paused. Its tick is the present time.
   *
   * @throws MillraceError `not-found`; `schedule.conflict` when runs must not overlap and one is open, or when the fleet
   * follows another definition whose commands go elsewhere
   */
  async runNow(name: string): Promise<ScheduleRunReport> {
    const { command, ids } = this.#parts
    const schedule = await this.#prepare(name)
    const home = await readScheduleHome(command, name)
    if (home !== undefined && home.commands !== schedule.keys.commands) {
      throw new MillraceError(
        'schedule.conflict',
        `Schedule "${name}" is defined otherwise by another deployment; run it from there.`,
      )
    }
    const tickMs = await readServerTime(command)
    const answer = await fireSchedule(command, schedule, {
      epoch: '',
      watermarkMs: undefined,
      tickMs,
      missed: NONE_MISSED,
      blob: schedule.encode(tickMs, tickMs),
      overlap: schedule.definition.overlap,
    })
    if (answer.token === undefined) {
      throw new MillraceError(
        'schedule.conflict',
        `Schedule "${name}" must not overlap, and its last run is still open.`,
      )
    }
    const { stream, partition } = schedule.keys
    return { id: ids.format(stream, partition, answer.token, schedule.tenant), tickMs }
  }

  /** Stops firing until `resume`; false when it was paused already. @throws MillraceError `not-found` */
  async pause(name: string): Promise<boolean> {
    const { keys } = await this.#prepare(name)
    return await setSchedulePaused(this.#parts.command, name, keys, true)
  }

  /** Fires again from now on: ticks of the pause are gone. False when it was not paused. @throws MillraceError `not-found` */
  async resume(name: string): Promise<boolean> {
    const { keys } = await this.#prepare(name)
    return await setSchedulePaused(this.#parts.command, name, keys, false)
  }

  #definition(name: string): ScheduleDefinition {
    const { schedules } = this.#parts.catalogue
    const definition = schedules.get(name)
    if (definition !== undefined) return definition
    const near = nearest(name.slice(0, 80), schedules.keys())
    const hint = near === undefined ? '' : ` Did you mean "${near}"?`
    throw new MillraceError('not-found', `There is no schedule "${name.slice(0, 80)}".${hint}`)
  }

  async #prepare(name: string): Promise<PreparedSchedule> {
    const definition = this.#definition(name)
    const known = this.#prepared.get(name)
    if (known !== undefined) return await known
    const preparing = prepareSchedule(definition, this.#parts.catalogue)
    this.#prepared.set(name, preparing)
    return await preparing
  }

  async #report(name: string, nowMs: number): Promise<ScheduleReport> {
    const { command } = this.#parts
    const { definition, keys, spec } = await this.#prepare(name)
    const state = await readSchedule(command, (await readScheduleHome(command, name)) ?? keys, name)
    const { timetable, catchUp, overlap } = definition
    const afterMs = Math.max(nowMs, state.watermarkMs ?? nowMs)
    return {
      name,
      command: definition.command.type,
      stream: definition.command.stream,
      timetable,
      catchUp,
      overlap,
      paused: state.paused,
      state: stateOf(state, spec, nowMs),
      nextTicksMs: state.paused ? [] : nextTicks(timetable, afterMs, NEXT_TICKS),
      decidedThroughMs: state.watermarkMs,
      lastRuns: state.runs.map((run) => ({ id: this.#idOf(run), tickMs: run.tickMs })),
      firedCount: state.firedCount,
      missedCount: state.missedCount,
      overlappedCount: state.overlappedCount,
      missed: state.missed,
      overlapped: state.overlapped,
    }
  }

  #idOf({ tenant, stream, partition, token }: ScheduleState['runs'][number]): string {
    return this.#parts.ids.format(stream, partition, token, tenant)
  }
}

function stateOf(state: ScheduleState, spec: string, nowMs: number): ScheduleReport['state'] {
  if (state.epoch === '') return state.paused ? 'paused' : 'unregistered'
  if (state.spec !== spec) return 'other-definition'
  if (state.paused) return 'paused'
  if (nowMs < (state.watermarkMs ?? 0) - CLOCK_TOLERANCE_MS) return 'clock-behind'
  return nowMs - (state.seenAtMs ?? 0) > SILENT_MS ? 'silent' : 'active'
}
