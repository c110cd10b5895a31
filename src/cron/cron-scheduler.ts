/**
 * Fires schedules. Any number of these run at once without a leader: each plans by Redis's clock, and the script decides
 * which of them gets a tick.
 *
 *   register ──▶ plan the next tick ──▶ wait ──▶ fire ──▶ plan …
 *      ▲                                          │
 *      └── every 5 s, and when a fire is stale ◀──┘
 *
 * Registering again shows that this definition has a living scheduler, and learns what others did: a pause, a resume,
 * another definition; a paused schedule is looked at every second. A definition that was replaced stops firing here with an
 * alarm, and comes back when the schedulers of its successor have gone: when their beat stood still over four good looks,
 * by this process's monotonic clock. No wall clock of a process decides anything, and a step of Redis's clock only moves
 * what is due: forward, ticks are caught up; backward, everything waits for the last tick, with one alarm. Between ticks the process sleeps; each one adds a
 * few ms of its own, so that a fleet does not ask Redis in the same instant.
 */
import { describeError } from '../contracts/errors.ts'
import type { HealthReport, HealthSource } from '../contracts/health.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import { type MissedTicks, NONE_MISSED, planTicks, type TickPlan } from '../policies/catch-up.ts'
import { DeathVerdict } from '../policies/death-verdict.ts'
import { nextTick } from '../policies/timetable.ts'
import type { RedisLink } from '../redis/connection.ts'
import {
  CLOCK_TOLERANCE_MS,
  type FireAnswer,
  fireSchedule,
  type Registration,
  registerSchedule,
} from '../redis/schedule-store.ts'
import type { Clock } from '../runtime/clock.ts'
import { ServerTime } from '../runtime/server-time.ts'
import { PeriodicService, Service } from '../runtime/service.ts'
import { type PreparedSchedule, prepareSchedules } from './prepared-schedule.ts'

export interface CronSchedulerParts {
  readonly command: RedisLink
  readonly catalogue: Catalogue
  readonly clock: Clock
  readonly telemetry: Telemetry
  /** How often a scheduler shows that it is alive, and looks at what others did. Default 5000; the same in the whole fleet. */
  readonly registerEveryMs?: number
}

const REGISTER_EVERY_MS = 5000
/** How soon a resume is noticed: while paused, a schedule is looked at this often. */
const PAUSED_LOOK_MS = 1000
/** Each process adds up to this much to each tick. */
const SPREAD_MS = 20
/** Ticks of one schedule in one round: a long catch-up must not hold up the others. */
const FIRES_PER_ROUND_MAX = 100
/** Schedules registered or fired at once. */
const CONCURRENCY_MAX = 32
const RETRY_MAX_MS = 1000
const UNHEARD_MS_MAX = 15_000

/** One schedule as this process sees it. */
interface Slot {
  readonly schedule: PreparedSchedule
  epoch: string
  watermarkMs: number
  paused: boolean
  /** Another definition is valid. */
  superseded: boolean
  /** Watches whether its schedulers still live. */
  readonly successor: DeathVerdict
  /** Monotonic; looks that come close after one another would prove nothing. */
  lookedAtMs: number
  plan: TickPlan | undefined
  /** Index of the plan's first tick after the watermark. */
  planAt: number
  /** Server time at which this process acts next; infinite when it doesn't. */
  actAtMs: number
  failures: number
}

export class CronScheduler extends Service implements HealthSource {
  readonly #parts: CronSchedulerParts
  readonly #time = new ServerTime()
  readonly #rounds: PeriodicService
  readonly #registerEveryMs: number
  /** Schedules that wait because the server's clock is behind their last tick. */
  readonly #clockBehind = new Set<string>()
  #slots: readonly Slot[] = []
  #registeredAtMs = Number.NEGATIVE_INFINITY
  #heardAtMs = Number.NEGATIVE_INFINITY

  constructor(parts: CronSchedulerParts) {
    super('cron scheduler')
    this.#parts = parts
    const { clock, telemetry, registerEveryMs = REGISTER_EVERY_MS } = parts
    this.#registerEveryMs = registerEveryMs
    this.#rounds = new PeriodicService(
      { name: 'cron scheduler', clock, telemetry, pauseMinMs: 1, pauseMaxMs: registerEveryMs },
      () => this.#round(),
    )
  }

  health(): HealthReport {
    const count = this.#slots.length
    if (this.state !== 'running') return { ready: false, detail: `The cron scheduler is ${this.state}.` }
    if (count === 0) return { ready: true, detail: 'No schedules are defined.' }
    const silentMs = this.#parts.clock.monotonicMs() - this.#heardAtMs
    if (silentMs > UNHEARD_MS_MAX) {
      return {
        ready: false,
        detail: `Redis has not answered the schedules for ${Math.round(silentMs / 1000)} s.`,
      }
    }
    const left = this.#slots.filter((slot) => slot.superseded).length
    const note = left === 0 ? '' : ` ${left} are defined otherwise by another deployment.`
    return { ready: true, detail: `${count - left} of ${count} schedules fire from here.${note}` }
  }

  /** @throws MillraceError `definition.invalid`, `redis.unavailable`, `redis.unknown` */
  protected override async onStart(): Promise<void> {
    const prepared = await prepareSchedules(this.#parts.catalogue)
    this.#slots = prepared.map((schedule) => newSlot(schedule, this.#registerEveryMs))
    if (prepared.length === 0) return
    await this.#registerAll()
    const [first, ...others] = this.#slots
    if (first?.epoch === '' && others.every(({ epoch }) => epoch === '')) await this.#register(first)
    await this.#rounds.start()
  }

  protected override async onStop(): Promise<void> {
    await this.#rounds.stop()
  }

  /** Answers the pause until something is to be done. */
  async #round(): Promise<number> {
    const { clock } = this.#parts
    const nowMs = this.#time.at(clock.monotonicMs())
    await inGroups(
      this.#slots.filter((slot) => slot.actAtMs <= nowMs),
      (slot) => this.#guarded(slot, () => this.#act(slot)),
    )
    if (clock.monotonicMs() - this.#registeredAtMs >= this.#registerEveryMs) await this.#registerAll()
    const nextMs = Math.min(...this.#slots.map((slot) => slot.actAtMs))
    const monotonicMs = clock.monotonicMs()
    const registerInMs = this.#registeredAtMs + this.#registerEveryMs - monotonicMs
    return Math.min(nextMs - this.#time.at(monotonicMs), registerInMs)
  }

  async #registerAll(): Promise<void> {
    this.#registeredAtMs = this.#parts.clock.monotonicMs()
    await inGroups(this.#slots, (slot) => this.#guarded(slot, () => this.#register(slot)))
  }

  /** One schedule's failure is reported and retried later; it does not concern the others. */
  async #guarded(slot: Slot, work: () => Promise<void>): Promise<void> {
    const { clock, telemetry } = this.#parts
    try {
      await work()
      slot.failures = 0
    } catch (error) {
      slot.failures += 1
      // It may be long until the next attempt: what is due then, and what was missed, is to be asked anew.
      slot.plan = undefined
      const backoffMs =
        Math.min(RETRY_MAX_MS, 50 * 2 ** Math.min(slot.failures, 10)) * (0.5 + clock.random() / 2)
      slot.actAtMs = this.#after(backoffMs)
      const service = `schedule ${slot.schedule.name}`
      telemetry.emit('service.failed', { service, error: describeError(error) })
    }
  }

  async #register(slot: Slot): Promise<void> {
    const { command, clock } = this.#parts
    const askedMs = clock.monotonicMs()
    let registration = await registerSchedule(command, slot.schedule)
    this.#heard(registration.serverMs, askedMs)
    if (registration.verdict === 'superseded' && this.#isAlone(slot, registration, askedMs)) {
      registration = await registerSchedule(command, slot.schedule, registration.beat)
    }
    if (registration.verdict === 'started' && slot.epoch !== '') {
      this.#alarm(slot, 'schedule-state-lost', 'had lost its state in Redis and starts anew')
    }
    slot.epoch = registration.epoch
    slot.paused = registration.paused
    this.#supersede(slot, registration)
    this.#checkClock(slot, registration.watermarkMs, registration.serverMs)
    this.#moveTo(slot, registration.watermarkMs)
  }

  #supersede(slot: Slot, { verdict }: Registration): void {
    const superseded = verdict === 'superseded'
    if (superseded && !slot.superseded) {
      const detail = 'is defined otherwise by a newer deployment, and no longer fires from here'
      this.#alarm(slot, 'schedule-superseded', detail)
    }
    slot.superseded = superseded
  }

  /** True when the schedulers of the definition that replaced this one have gone. */
  #isAlone(slot: Slot, { beat }: Registration, askedMs: number): boolean {
    if (askedMs - slot.lookedAtMs < this.#registerEveryMs / 2) return false
    const atMs = this.#parts.clock.monotonicMs()
    slot.lookedAtMs = atMs
    const beats = new Map([[slot.schedule.name, beat]])
    return slot.successor.observe({ beats, atMs, roundTripMs: atMs - askedMs }).length > 0
  }

  #checkClock(slot: Slot, watermarkMs: number, serverMs: number): void {
    const { name } = slot.schedule
    if (serverMs >= watermarkMs - CLOCK_TOLERANCE_MS) {
      this.#clockBehind.delete(name)
      return
    }
    if (this.#clockBehind.size === 0) {
      const seconds = Math.round((watermarkMs - serverMs) / 1000)
      const detail = `waits, and so do others if Redis's clock went back: it is ${seconds} s behind the last tick, and firing would repeat ticks`
      this.#alarm(slot, 'schedule-clock-behind', detail)
    }
    this.#clockBehind.add(name)
  }

  /** Takes over a watermark and plans the next tick after it, or goes on with the plan at hand. */
  #moveTo(slot: Slot, watermarkMs: number): void {
    // A server that lost its last writes has forgotten decisions: what was planned after them is not all that is due.
    if (watermarkMs < slot.watermarkMs) slot.plan = undefined
    slot.watermarkMs = watermarkMs
    const run = slot.plan?.run ?? []
    while ((run[slot.planAt] ?? Number.POSITIVE_INFINITY) <= watermarkMs) slot.planAt += 1
    if (slot.planAt >= run.length) slot.plan = undefined
    const spreadMs = this.#parts.clock.random() * SPREAD_MS
    slot.actAtMs = this.#nextActMs(slot) + spreadMs
  }

  #nextActMs(slot: Slot): number {
    if (slot.superseded) return Number.POSITIVE_INFINITY
    if (slot.paused) return this.#after(PAUSED_LOOK_MS)
    return nextTick(slot.schedule.definition.timetable, slot.watermarkMs) ?? Number.POSITIVE_INFINITY
  }

  /** Server time in so many ms; at once, when it is not known yet. */
  #after(ms: number): number {
    const nowMs = this.#time.at(this.#parts.clock.monotonicMs())
    return Number.isNaN(nowMs) ? Number.NEGATIVE_INFINITY : nowMs + ms
  }

  async #act(slot: Slot): Promise<void> {
    if (slot.paused || slot.epoch === '') return await this.#register(slot)
    for (let fires = 0; fires < FIRES_PER_ROUND_MAX && !this.stopSignal.aborted; fires++) {
      const plan = this.#plan(slot)
      if (plan === undefined) return this.#moveTo(slot, slot.watermarkMs)
      if (!(await this.#fire(slot, plan))) return
    }
  }

  #plan(slot: Slot): TickPlan | undefined {
    if (slot.plan !== undefined) return slot.plan
    if (slot.superseded) return undefined
    slot.plan = planTicks(
      slot.schedule.definition,
      slot.watermarkMs,
      this.#time.at(this.#parts.clock.monotonicMs()),
    )
    slot.planAt = 0
    return slot.plan
  }

  /** Fires the next tick of a plan; answers whether to go on at once. */
  async #fire(slot: Slot, plan: TickPlan): Promise<boolean> {
    const { schedule } = slot
    const { command, clock } = this.#parts
    const runMs = plan.run[slot.planAt]
    const tickMs = runMs ?? plan.missedThroughMs
    if (tickMs === undefined) return false
    const missed = slot.watermarkMs === plan.afterMs ? plan.missed : NONE_MISSED
    const askedMs = clock.monotonicMs()
    const answer = await fireSchedule(command, schedule, {
      epoch: slot.epoch,
      watermarkMs: slot.watermarkMs,
      tickMs,
      missed,
      blob: runMs === undefined ? undefined : schedule.encode(tickMs, Math.floor(this.#time.at(askedMs))),
      overlap: schedule.definition.overlap,
    })
    this.#heard(answer.serverMs, askedMs)
    return await this.#judge(slot, tickMs, missed, answer)
  }

  async #judge(slot: Slot, tickMs: number, missed: MissedTicks, answer: FireAnswer): Promise<boolean> {
    const { telemetry } = this.#parts
    const { name } = slot.schedule
    const { verdict } = answer
    switch (verdict) {
      case 'fired':
        telemetry.emit('schedule.fired', { schedule: name, tickMs, missed: missed.count })
        this.#tellMissed(name, missed)
        this.#moveTo(slot, answer.watermarkMs)
        return true
      case 'overlap':
      case 'left-out':
        telemetry.emit('schedule.refused', { schedule: name, tickMs, reason: verdict })
        this.#tellMissed(name, missed)
        this.#moveTo(slot, answer.watermarkMs)
        return true
      case 'behind':
        // Somebody else was quicker. A watermark between two of our ticks comes from another view of what was missed.
        this.#moveTo(slot, answer.watermarkMs)
        if (slot.plan?.run[slot.planAt - 1] !== answer.watermarkMs) slot.plan = undefined
        return true
      case 'early':
        slot.actAtMs = tickMs + 1
        return false
      case 'paused':
        slot.paused = true
        this.#moveTo(slot, answer.watermarkMs)
        return false
      case 'clock':
        this.#checkClock(slot, answer.watermarkMs, answer.serverMs)
        this.#moveTo(slot, answer.watermarkMs)
        return false
      case 'stale':
        await this.#register(slot)
        if (slot.superseded) telemetry.emit('schedule.refused', { schedule: name, tickMs, reason: verdict })
        return false
      default:
        return verdict satisfies never
    }
  }

  #tellMissed(schedule: string, missed: MissedTicks): void {
    if (missed.count > 0) this.#parts.telemetry.emit('schedule.missed', { schedule, ...missed })
  }

  #heard(serverMs: number, askedMs: number): void {
    this.#heardAtMs = this.#parts.clock.monotonicMs()
    this.#time.learn(serverMs, askedMs, this.#heardAtMs)
  }

  #alarm({ schedule }: Slot, alarm: string, detail: string): void {
    const { name, keys } = schedule
    const sentence = `Schedule "${name}" ${detail}.`
    this.#parts.telemetry.emit('alarm.raised', { alarm, stream: keys.stream, detail: sentence })
  }
}

function newSlot(schedule: PreparedSchedule, lookEveryMs: number): Slot {
  return {
    schedule,
    epoch: '',
    watermarkMs: 0,
    paused: false,
    superseded: false,
    successor: new DeathVerdict(lookEveryMs),
    lookedAtMs: Number.NEGATIVE_INFINITY,
    plan: undefined,
    planAt: 0,
    actAtMs: Number.POSITIVE_INFINITY,
    failures: 0,
  }
}

async function inGroups(slots: readonly Slot[], work: (slot: Slot) => Promise<void>): Promise<void> {
  for (let at = 0; at < slots.length; at += CONCURRENCY_MAX) {
    await Promise.all(slots.slice(at, at + CONCURRENCY_MAX).map(work))
  }
}
