/**
 * What was promised and what was seen, kept apart from the product: every order that a producer sent, every run of a handler,
 * every verdict of a lookout. When the fleet has come to rest, `judge` compares it with what lies in Redis.
 */
import type { Ordering } from '../../src/contracts/stream.ts'
import type { PartitionKeys } from '../../src/redis/keys.ts'
import type { Keyspace } from './keyspace.ts'
import {
  type DeadOrder,
  groupOf,
  isAtRest,
  partitionsOf,
  readDead,
  readEvents,
  readViews,
  type StoredEvent,
  sourcesOf,
} from './partition-state.ts'
import { ATTEMPTS_MAX, LATE, type Plan, PULSE_MS, SURVEY_MS, type Tally, tally } from './scenario.ts'
import { compareIds, parseId } from './stream-ids.ts'

export interface SentOrder {
  readonly n: number
  readonly plan: Plan
  /** Stored for certain, perhaps, or for certain not. */
  fate: 'stored' | 'unknown' | 'refused'
  /** When the producer knew, ms of the run. */
  knownMs: number
}

export interface HandlerRun {
  readonly what: string
  readonly n: number
  readonly attempt: number
  readonly process: string
}

/** What the run knows besides. */
export interface Circumstances {
  /** What the server lost by being rolled back was stored no earlier and no later; undefined when it lost nothing. */
  readonly loss: { readonly fromMs: number; readonly toMs: number } | undefined
  /** Processes that ended, however, or were paused. */
  readonly failed: ReadonlySet<string>
  readonly living: ReadonlySet<string>
  /** A process failed, or its heartbeat could not be heard. */
  readonly mayBePronouncedDead: boolean
  readonly pronouncedDead: readonly string[]
  readonly alarms: readonly string[]
}

const LOSSES = ['entries-lost', 'commands-lost', 'group-vanished', 'outbox-gap', 'schedule-state-lost']

export class Ledger {
  readonly orders: Map<number, SentOrder> = new Map()
  readonly runs: HandlerRun[] = []
  /** How often an order failed besides its plan, in the hands of whoever held it. */
  readonly lateRuns: Map<number, number> = new Map()
  readonly partitions: readonly PartitionKeys[]
  readonly #ordering: Ordering

  constructor(ordering: Ordering) {
    this.#ordering = ordering
    this.partitions = partitionsOf(ordering)
  }

  isAtRest(redis: Keyspace, living: ReadonlySet<string>): boolean {
    return this.partitions.every((keys) => isAtRest(redis, keys) && this.#isOwned(redis, keys, living))
  }

  #isOwned(redis: Keyspace, { lease }: PartitionKeys, living: ReadonlySet<string>): boolean {
    return this.#ordering === 'none' || living.has(redis.find(lease, 'hash')?.fields.get('owner') ?? '')
  }

  /** Orders that were stored for certain and came to no end; only a server that lost writes may cause that. */
  lost(redis: Keyspace): number[] {
    const ended = new Set(
      this.partitions.flatMap((keys) => [
        ...readEvents(redis, keys).flatMap(({ type, n }) => (type === 'order.placed' ? [n] : [])),
        ...readDead(redis, keys).map(({ n }) => n),
      ]),
    )
    return [...this.orders.values()].flatMap(({ n, fate }) => (fate === 'stored' && !ended.has(n) ? [n] : []))
  }

  /** Everything that is wrong, in words. */
  judge(redis: Keyspace, facts: Circumstances): string[] {
    const events = this.partitions.map((keys) => readEvents(redis, keys))
    const dead = this.partitions.flatMap((keys) => readDead(redis, keys))
    return [
      ...this.#judgeLoss(redis, facts),
      ...this.#judgeOrders(events.flat(), dead, facts),
      ...this.#judgeRuns(facts),
      ...judgeTicks(events.flat(), this.partitions, redis),
      ...this.#judgeViews(redis, events),
      ...(this.#ordering === 'key' && facts.loss === undefined ? events.flatMap(judgeOrder) : []),
      ...this.#judgeRemains(redis, facts),
    ]
  }

  #judgeLoss(redis: Keyspace, { loss }: Circumstances): string[] {
    return this.lost(redis).flatMap((n) => {
      const knownMs = this.orders.get(n)?.knownMs ?? 0
      const isExcused = loss !== undefined && knownMs >= loss.fromMs && knownMs <= loss.toMs
      return isExcused ? [] : [`order ${n} is lost`]
    })
  }

  #judgeOrders(events: readonly StoredEvent[], dead: readonly DeadOrder[], facts: Circumstances): string[] {
    const wrong: string[] = []
    const counts = new Map<string, number>()
    for (const { type, n } of events) counts.set(`${type} ${n}`, (counts.get(`${type} ${n}`) ?? 0) + 1)
    const count = (type: string, n: number): number => counts.get(`${type} ${n}`) ?? 0
    for (const order of this.orders.values()) {
      const { n, plan, fate } = order
      const placedCount = count('order.placed', n)
      const letters = dead.filter((letter) => letter.n === n)
      if (placedCount + letters.length > 1) {
        wrong.push(`order ${n} came to ${placedCount} events and ${letters.length} dead letters`)
      }
      if (placedCount + letters.length > 0 && fate === 'refused')
        wrong.push(`order ${n} was refused and stored`)
      if (placedCount === 1 && plan.kind !== 'done')
        wrong.push(`order ${n} was to end ${plan.kind}, but was placed`)
      const bills = placedCount === 1 && plan.follows ? 1 : 0
      const reminders = placedCount === 1 && plan.remindMs >= 0 ? 1 : 0
      if (count('bill.sent', n) !== bills)
        wrong.push(`order ${n} has ${count('bill.sent', n)} bills, not ${bills}`)
      if (count('order.reminded', n) !== reminders) {
        wrong.push(`order ${n} has ${count('order.reminded', n)} reminders, not ${reminders}`)
      }
      for (const letter of letters) wrong.push(...this.#judgeLetter(order, letter, facts))
    }
    return wrong
  }

  #judgeLetter({ n, plan }: SentOrder, { error }: DeadOrder, { failed }: Circumstances): string[] {
    if (error.includes('when its worker died')) {
      const runners = new Set(
        this.runs.filter((run) => run.what === 'place' && run.n === n).map((run) => run.process),
      )
      const died = [...runners].filter((process) => failed.has(process)).length
      // Whoever holds an unstarted command when it dies makes a suspect of it: that is the first of three levels.
      return died >= 2 ? [] : [`order ${n} was charged with crashes, but only ${died} processes died with it`]
    }
    if (plan.kind === 'reject' && error.includes('rejected')) return []
    if (plan.kind === 'exhaust' && error.includes('exhausted')) return []
    if (error.includes(LATE) && this.lateRuns.has(n)) return []
    return [`order ${n} was to end ${plan.kind}, but is dead: ${error}`]
  }

  #judgeRuns({ mayBePronouncedDead, loss }: Circumstances): string[] {
    const wrong: string[] = []
    const processes = new Map<string, Set<string>>()
    for (const { what, n, attempt, process } of this.runs) {
      const plan = what === 'place' ? this.orders.get(n)?.plan : undefined
      const most =
        plan === undefined || plan.kind === 'exhaust'
          ? ATTEMPTS_MAX
          : 1 + plan.retries + plan.throws + (this.lateRuns.get(n) ?? 0)
      if (attempt > most) wrong.push(`${what} ${n} ran as attempt ${attempt}, of ${most} at most`)
      const name = `${what} ${n} attempt ${attempt}`
      processes.set(name, (processes.get(name) ?? new Set()).add(process))
    }
    if (mayBePronouncedDead || loss !== undefined) return wrong
    for (const [name, where] of processes) {
      if (where.size > 1) wrong.push(`${name} ran in ${[...where].join(' and ')} although no process failed`)
    }
    return wrong
  }

  /** Every view equals an independent fold of the events. */
  #judgeViews(redis: Keyspace, events: readonly (readonly StoredEvent[])[]): string[] {
    return this.partitions.flatMap((keys, i) =>
      (
        [
          ['by-key@1', 'order.placed'],
          ['bills@1', 'bill.sent'],
        ] as const
      ).flatMap(([reader, type]) => {
        const wanted = new Map<string, Tally>()
        for (const event of events[i] ?? []) {
          if (event.type !== type) continue
          wanted.set(event.key, tally(wanted.get(event.key) ?? { count: 0, trail: 0 }, event.n))
        }
        return compareViews(`${reader} of ${keys.partition}`, wanted, readViews(redis, keys, reader))
      }),
    )
  }

  /** Nothing may be left behind, and nobody may have been alarmed or taken for dead without a cause. */
  #judgeRemains(redis: Keyspace, facts: Circumstances): string[] {
    const wrong = this.partitions.flatMap((keys) => judgePartition(redis, keys, facts))
    if (!facts.mayBePronouncedDead && facts.pronouncedDead.length > 0) {
      wrong.push(`${facts.pronouncedDead.join(', ')} taken for dead although no process failed`)
    }
    for (const keys of this.partitions) {
      if (!this.#isOwned(redis, keys, facts.living))
        wrong.push(`partition ${keys.partition} has no living owner`)
    }
    if (facts.loss === undefined) {
      for (const alarm of facts.alarms) if (LOSSES.includes(alarm)) wrong.push(`alarm: ${alarm}`)
    }
    return wrong
  }
}

/** Each tick once; under `all` none is left out between the first and the last. */
function judgeTicks(
  events: readonly StoredEvent[],
  partitions: readonly PartitionKeys[],
  redis: Keyspace,
): string[] {
  const wrong: string[] = []
  for (const [type, periodMs, isWhole] of [
    ['pulse.taken', PULSE_MS, true],
    ['survey.taken', SURVEY_MS, false],
  ] as const) {
    const ticks = events.filter((event) => event.type === type).map((event) => event.tickMs)
    ticks.sort((a, b) => a - b)
    for (const [i, tickMs] of ticks.entries()) {
      const before = ticks[i - 1]
      if (tickMs % periodMs !== 0) wrong.push(`${type} at ${tickMs}, which is no tick`)
      if (before === tickMs) wrong.push(`${type} at ${tickMs} ran twice`)
      else if (isWhole && before !== undefined && tickMs - before > periodMs) {
        wrong.push(`${type}: nothing between ${before} and ${tickMs}`)
      }
    }
  }
  const state = partitions
    .map((keys) => redis.find(keys.schedule('pulse'), 'hash'))
    .find((hash) => hash !== undefined)
  const missed = state?.fields.get('missed')
  if (state === undefined) wrong.push('the schedule "pulse" was never registered')
  else if (Number(missed ?? 0) > 0) wrong.push(`"pulse" left out ${missed} ticks`)
  return wrong
}

/** Effects of one key come in the order in which its commands arrived. */
function judgeOrder(events: readonly StoredEvent[]): string[] {
  const wrong: string[] = []
  const last = new Map<string, string>()
  for (const { type, key, token, n } of events) {
    if (key === '' || !token.startsWith('e')) continue
    const before = last.get(key)
    last.set(key, token)
    if (before === undefined || compareIds(parseId(before.slice(1)), parseId(token.slice(1))) < 0) continue
    wrong.push(`${type} of ${key}, number ${n} (${token}), came after ${before}`)
  }
  return wrong
}

function compareViews(
  where: string,
  wanted: ReadonlyMap<string, Tally>,
  found: ReadonlyMap<string, Tally>,
): string[] {
  const differing = [...new Set([...wanted.keys(), ...found.keys()])].filter(
    (key) => show(found.get(key)) !== show(wanted.get(key)),
  )
  return differing.map(
    (key) => `view ${key} of ${where} is ${show(found.get(key))}, its events give ${show(wanted.get(key))}`,
  )
}

function show(view: Tally | undefined): string {
  return view === undefined ? 'not there' : `${view.count} with trail ${view.trail}`
}

function judgePartition(redis: Keyspace, keys: PartitionKeys, { living }: Circumstances): string[] {
  const wrong: string[] = []
  const place = `${keys.stream}.${keys.partition}`
  for (const key of sourcesOf(keys)) {
    for (const { id, consumer } of groupOf(redis, key)?.pending ?? []) {
      const whose = living.has(consumer.name) ? 'a living' : 'a dead'
      wrong.push(`${id.text} of ${key} is pending with ${consumer.name}, ${whose} consumer`)
    }
  }
  const outbox = redis.find(keys.outbox, 'stream')?.entries.length ?? 0
  if (outbox > 0) wrong.push(`${outbox} commands are left in the outbox of ${place}`)
  const levels = [...(redis.find(keys.crashes, 'hash')?.fields.keys() ?? [])]
  if (levels.length > 0) wrong.push(`the crash levels of ${levels.join(', ')} of ${place} are left behind`)
  for (const key of [keys.due, keys.dueBodies, keys.held]) {
    const value =
      redis.typeOf(key) === 'hash' ? redis.find(key, 'hash')?.fields : redis.find(key, 'zset')?.scores
    if (value !== undefined && value.size > 0) wrong.push(`${value.size} commands are left in ${key}`)
  }
  return wrong
}
