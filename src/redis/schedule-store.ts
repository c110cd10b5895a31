/**
 * What Redis knows of a schedule: watermark, epoch of the valid definition, pause flag, runs and counts.
 *
 * A schedule lives in the partition its commands go to, so that deciding a tick and appending its command is one script in
 * one slot. `homes` tells where; a definition whose commands go elsewhere moves it there. Every write here can be repeated
 * after a lost answer: the repetition finds the watermark moved.
 */
import { MillraceError } from '../contracts/errors.ts'
import { NO_TENANT, type Tenant } from '../contracts/tenant.ts'
import type { MissedTicks } from '../policies/catch-up.ts'
import { replyArray, replyNumber, replyText } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import { GROUP, type PartitionKeys, partitionKeys, SCHEDULE_HOMES_KEY } from './keys.ts'

/** How far the server's clock may be behind the watermark before ticks wait; the fire script has the same figure. */
export const CLOCK_TOLERANCE_MS = 1000

export interface ScheduleSpec {
  readonly name: string
  readonly keys: PartitionKeys
  /** Whose its commands are. Absent: nobody's. */
  readonly tenant?: Tenant
  /** Digest over everything that the definition says. */
  readonly spec: string
  /** Digest over when it ticks. */
  readonly timetable: string
}

export interface Registration {
  /** `superseded`: another definition is valid and its schedulers are alive; epoch and watermark are its. */
  readonly verdict: 'kept' | 'started' | 'changed' | 'superseded'
  readonly epoch: string
  readonly watermarkMs: number
  readonly paused: boolean
  readonly serverMs: number
  /** Moves whenever a scheduler of the valid definition shows that it is alive. */
  readonly beat: string
}

/** Where a schedule lives, as `<stream>.<partition>`. */
function homeOf(keys: PartitionKeys): string {
  return `${keys.stream}.${keys.partition}`
}

function keysOfHome(home: string): PartitionKeys {
  const dot = home.lastIndexOf('.')
  return partitionKeys(home.slice(0, dot), Number(home.slice(dot + 1)))
}

const MOVES_MAX = 10

/** Repeats with the present home as long as another process moves the schedule meanwhile. */
async function atHome(
  name: string,
  guess: string,
  attempt: (home: string) => Promise<string | undefined>,
): Promise<void> {
  let home = guess
  for (let round = 0; round < MOVES_MAX; round++) {
    const moved = await attempt(home)
    if (moved === undefined) return
    home = moved
  }
  throw new MillraceError(
    'redis.unavailable',
    `Schedule "${name}" is being redefined again and again; see which deployments run.`,
    { retryAfterS: 5 },
  )
}

/**
 * Registers a definition, and shows that its scheduler is alive. One that was replaced comes back only by naming the beat
 * that its successor was seen to have stopped at.
 */
export async function registerSchedule(
  link: RedisLink,
  schedule: ScheduleSpec,
  silentBeat = '',
): Promise<Registration> {
  const { name, keys, spec, timetable } = schedule
  let registration: Registration | undefined
  await atHome(name, homeOf(keys), async (home) => {
    const present = home === '' ? keys : keysOfHome(home)
    const reply = replyArray(
      await link.run(
        'schedule-register',
        [SCHEDULE_HOMES_KEY, keys.schedule(name), present.schedule(name)],
        [name, homeOf(keys), home, spec, timetable, silentBeat],
      ),
    )
    const verdict = replyText(reply[0])
    if (verdict === 'moved') return replyText(reply[5])
    registration = {
      verdict: verdict as Registration['verdict'],
      epoch: replyText(reply[1]),
      watermarkMs: replyNumber(reply[2]),
      paused: replyText(reply[3]) !== '',
      serverMs: replyNumber(reply[4]),
      beat: replyText(reply[6]),
    }
    return undefined
  })
  if (registration === undefined)
    throw new MillraceError('redis.unknown', `Registering "${name}" had no answer.`)
  return registration
}

export interface Fire {
  readonly epoch: string
  /** The watermark this tick follows; undefined runs now, beside the timetable. */
  readonly watermarkMs: number | undefined
  readonly tickMs: number
  /** Ticks left out before this one, or up to and including it when it is left out too. */
  readonly missed: MissedTicks
  /** The command; undefined leaves this tick out too. */
  readonly blob: Buffer | undefined
  readonly overlap: 'allow' | 'forbid'
}

export type FireVerdict =
  | 'fired'
  /** Counted as missed; the watermark moved. */
  | 'left-out'
  /** An earlier run is still open; the watermark moved. */
  | 'overlap'
  /** Another definition is valid, or the state is gone. */
  | 'stale'
  /** The server's clock is more than a second behind the watermark. */
  | 'clock'
  | 'paused'
  /** The watermark is another: somebody else decided this tick. */
  | 'behind'
  /** The tick lies in the server's future. */
  | 'early'

export interface FireAnswer {
  readonly verdict: FireVerdict
  readonly watermarkMs: number
  readonly serverMs: number
  /** Of the appended command, for `fired`. */
  readonly token: string | undefined
}

/** Decides one tick, at most once across the fleet. */
export async function fireSchedule(
  link: RedisLink,
  { name, keys, tenant = NO_TENANT }: Pick<ScheduleSpec, 'name' | 'keys' | 'tenant'>,
  fire: Fire,
): Promise<FireAnswer> {
  const reply = replyArray(
    await link.run(
      'fire',
      [keys.schedule(name), keys.ready, keys.records, keys.counter, keys.tenantLoads],
      [
        fire.epoch,
        fire.watermarkMs ?? '',
        fire.tickMs,
        fire.missed.count,
        fire.blob ?? '',
        fire.overlap === 'forbid' ? '1' : '0',
        GROUP,
        tenant === NO_TENANT ? homeOf(keys) : `${tenant}/${homeOf(keys)}`,
        fire.missed.firstMs,
        fire.missed.lastMs,
        tenant,
      ],
    ),
  )
  const token = replyText(reply[3])
  return {
    verdict: replyText(reply[0]) as FireVerdict,
    watermarkMs: replyNumber(reply[1]),
    serverMs: replyNumber(reply[2]),
    token: token === '' ? undefined : token,
  }
}

/** Where the schedule lives now; undefined before its first registration. */
export async function readScheduleHome(link: RedisLink, name: string): Promise<PartitionKeys | undefined> {
  const home = await link.use('the home of a schedule', (client) => client.hget(SCHEDULE_HOMES_KEY, name))
  return home === null ? undefined : keysOfHome(home)
}

/**
 * Pauses or resumes; answers false when it was so already. A schedule that was never registered can be paused beforehand.
 */
export async function setSchedulePaused(
  link: RedisLink,
  name: string,
  guess: PartitionKeys,
  paused: boolean,
): Promise<boolean> {
  let changed = false
  await atHome(name, homeOf(guess), async (home) => {
    const reply = replyArray(
      await link.run(
        'schedule-pause',
        [SCHEDULE_HOMES_KEY, keysOfHome(home).schedule(name)],
        [name, home, paused ? '1' : '0'],
      ),
    )
    if (replyText(reply[0]) === 'moved') return replyText(reply[1])
    changed = replyText(reply[0]) === '1'
    return undefined
  })
  return changed
}

export interface ScheduleRun {
  /** '' none. */
  readonly tenant: Tenant
  readonly stream: string
  readonly partition: number
  readonly token: string
  readonly tickMs: number
}

export interface ScheduleState {
  readonly spec: string
  readonly epoch: string
  readonly watermarkMs: number | undefined
  readonly paused: boolean
  /** Newest first, at most ten. */
  readonly runs: readonly ScheduleRun[]
  readonly firedCount: number
  readonly missedCount: number
  readonly overlappedCount: number
  /** Newest first, at most 32 ranges. */
  readonly missed: readonly MissedTicks[]
  /** Ticks left out because an earlier run was open; newest first, at most 32 ranges. */
  readonly overlapped: readonly MissedTicks[]
  /** When a scheduler of the valid definition was last heard of, by the server's clock. */
  readonly seenAtMs: number | undefined
}

export async function readSchedule(
  link: RedisLink,
  keys: PartitionKeys,
  name: string,
): Promise<ScheduleState> {
  const fields = await link.use('a schedule', (client) => client.hgetall(keys.schedule(name)))
  const number = (field: string): number | undefined => {
    const text = fields[field]
    return text === undefined ? undefined : Number(text)
  }
  return {
    spec: fields['spec'] ?? '',
    epoch: fields['epoch'] ?? '',
    watermarkMs: number('watermark'),
    paused: fields['paused'] !== undefined,
    runs: (fields['runs'] ?? '').split(' ').flatMap(parseRun),
    firedCount: number('fired') ?? 0,
    missedCount: number('missed') ?? 0,
    overlappedCount: number('overlapped') ?? 0,
    missed: (fields['missed-ranges'] ?? '').split(' ').flatMap(parseRange),
    overlapped: (fields['overlapped-ranges'] ?? '').split(' ').flatMap(parseRange),
    seenAtMs: number('seen'),
  }
}

function parseRun(text: string): ScheduleRun[] {
  const match = /^(?:([^/]+)\/)?([^.]+)\.(\d+)\.(x\d+)@(\d+)$/.exec(text)
  if (match === null) return []
  const [, tenant = NO_TENANT, stream = '', partition = '', token = '', tickMs = ''] = match
  return [{ tenant, stream, partition: Number(partition), token, tickMs: Number(tickMs) }]
}

function parseRange(text: string): MissedTicks[] {
  const match = /^(\d+)-(\d+)\*(\d+)$/.exec(text)
  if (match === null) return []
  const [, first, last, count] = match
  return [{ count: Number(count), firstMs: Number(first), lastMs: Number(last) }]
}

/** The server's clock, ms since 1970. */
export async function readServerTime(link: RedisLink): Promise<number> {
  const [seconds, micros] = replyArray(await link.use('the time', (client) => client.time()))
  return replyNumber(seconds) * 1000 + Math.floor(replyNumber(micros) / 1000)
}
