/**
 * What was promised and what was seen, kept apart from the product: every order that a producer sent, every run of a handler,
 * every verdict of a lookout. When the fleet has come to rest, `judge` compares it with what lies in Redis.
 */
import { decodeEntry, unpackPayload } from '../../src/redis/entry-codec.ts'
import { type PartitionKeys, partitionKeys } from '../../src/redis/keys.ts'
import type { Keyspace } from './keyspace.ts'
import { type Plan, STREAMS, type Tally, tally } from './scenario.ts'
import { compareIds, parseId, ZERO_ID } from './stream-ids.ts'

export interface SentOrder {
  readonly n: number
  readonly plan: Plan
  /** Stored for certain, perhaps, or for certain not. */
  fate: 'stored' | 'unknown' | 'refused'
  /** When the producer knew, ms of the run. */
  knownMs: number
  token: string
  partition: number
}

export interface HandlerRun {
  readonly what: string
  readonly n: number
  readonly attempt: number
  readonly process: string
  readonly atMs: number
}

interface StoredEvent {
  readonly type: string
  readonly n: number
  readonly key: string
  readonly tickMs: number
}

/** What the run knows besides; see `Simulation`. */
export interface Circumstances {
  /** What the server lost by being rolled back: nothing that was stored before this moment of the run. */
  readonly lossFromMs: number | undefined
  readonly lossToMs: number
  readonly clockWentBack: boolean
  readonly clockStepped: boolean
  /** Deaths of processes, by whatever cause, and pauses. */
  readonly deadProcesses: ReadonlySet<string>
  readonly living: ReadonlySet<string>
  readonly mayBePronouncedDead: boolean
  readonly pronouncedDead: readonly string[]
  readonly alarms: readonly string[]
  readonly periods: Readonly<Record<'pulse' | 'survey', number>>
}

export const PARTITIONS: readonly PartitionKeys[] = STREAMS.flatMap(({ name, partitions }) =>
  Array.from({ length: partitions }, (_, partition) => partitionKeys(name, partition)),
)
const GROUP = 'workers'
const LOSSES = ['entries-lost', 'commands-lost', 'group-vanished', 'outbox-gap', 'schedule-state-lost']

export class Ledger {
  readonly orders: Map<number, SentOrder> = new Map()
  readonly runs: HandlerRun[] = []

  /** True when nothing is on its way any more. */
  isAtRest(redis: Keyspace): boolean {
    return PARTITIONS.every((keys) => {
      const isIdle = [keys.commands, keys.ready].every((key) => {
        const stream = redis.find(key, 'stream')
        const group = stream?.groups.get(GROUP)
        if (stream === undefined || group === undefined) return false
        const last = stream.entries.at(-1)
        return group.pending.length === 0 && (last === undefined || compareIds(last.id, group.lastId) <= 0)
      })
      const isEmpty = redis.typeOf(keys.due) === undefined && (redis.find(keys.outbox, 'stream')?.entries.length ?? 0) === 0
      return isIdle && isEmpty && this.#readersAreThere(redis, keys)
    })
  }

  #readersAreThere(redis: Keyspace, keys: PartitionKeys): boolean {
    const last = redis.find(keys.events, 'stream')?.lastId ?? ZERO_ID
    const readers = redis.find(keys.readers, 'hash')?.fields
    if (readers === undefined) return false
    return [...readers.values()].every((checkpoint) => compareIds(parseId(checkpoint), last) >= 0)
  }

  /** Everything that is wrong, in words. */
  judge(redis: Keyspace, facts: Circumstances): string[] {
    const events = PARTITIONS.map((keys) => readEvents(redis, keys))
    const dead = PARTITIONS.flatMap((keys) => readDead(redis, keys))
    return [
      ...this.#judgeOrders(events.flat(), dead, facts),
      ...this.#judgeRuns(facts),
      ...judgeTicks(events.flat(), redis, facts),
      ...judgeViews(redis, events),
      ...judgeRemains(redis, facts),
    ]
  }

  #judgeOrders(events: readonly StoredEvent[], dead: readonly DeadOrder[], facts: Circumstances): string[] {
    const wrong: string[] = []
    const count = (type: string, n: number): number =>
      events.filter((event) => event.type === type && event.n === n).length
    for (const order of this.orders.values()) {
      const { n, plan, fate } = order
      const placedCount = count('order.placed', n)
      const letters = dead.filter((letter) => letter.n === n)
      const ends = placedCount + letters.length
      const mayBeLost =
        facts.lossFromMs !== undefined && order.knownMs >= facts.lossFromMs && order.knownMs <= facts.lossToMs
      if (ends > 1) wrong.push(`order ${n} came to ${placedCount} events and ${letters.length} dead letters`)
      if (ends === 0 && fate === 'stored' && !mayBeLost) wrong.push(`order ${n} is lost`)
      if (ends > 0 && fate === 'refused') wrong.push(`order ${n} was refused and stored`)
      if (placedCount === 1) {
        if (plan.kind !== 'done') wrong.push(`order ${n} was to end ${plan.kind}, but was placed`)
        if (plan.follows && count('bill.sent', n) !== 1) wrong.push(`order ${n} has ${count('bill.sent', n)} bills`)
        const wanted = plan.remindMs >= 0 ? 1 : 0
        const reminders = count('order.reminded', n)
        if (reminders !== wanted) wrong.push(`order ${n} has ${reminders} reminders instead of ${wanted}`)
      } else if (count('bill.sent', n) + count('order.reminded', n) > 0) {
        wrong.push(`order ${n} has effects, but was not placed`)
      }
      for (const letter of letters) wrong.push(...this.#judgeLetter(order, letter, facts))
    }
    return wrong
  }

  #judgeLetter({ n, plan }: SentOrder, letter: DeadOrder, facts: Circumstances): string[] {
    const byCrash = letter.error.includes('when its worker died')
    if (byCrash) {
      const crashes = new Set(this.runs.filter((run) => run.what === 'place' && run.n === n).map((run) => run.process))
      const died = [...crashes].filter((process) => facts.deadProcesses.has(process)).length
      // Whoever holds an unstarted command when it dies makes a suspect of it: that is the first of three levels.
      return died >= 2 ? [] : [`order ${n} was charged with crashes, but only ${died} processes died with it`]
    }
    if (plan.kind === 'reject' && letter.error.includes('rejected')) return []
    if (plan.kind === 'exhaust' && letter.error.includes('exhausted')) return []
    return [`order ${n} was to end ${plan.kind}, but is dead: ${letter.error}`]
  }

  #judgeRuns(facts: Circumstances): string[] {
    const wrong: string[] = []
    const attempts = new Map<string, Set<string>>()
    for (const run of this.runs) {
      const plan = this.orders.get(run.n)?.plan
      if (run.what === 'place' && plan !== undefined) {
        const most = plan.kind === 'exhaust' ? 4 : 1 + plan.retries + plan.throws
        if (run.attempt > most) wrong.push(`order ${run.n} ran as attempt ${run.attempt}, of ${most} at most`)
      }
      const name = `${run.what} ${run.n} attempt ${run.attempt}`
      const seen = attempts.get(name) ?? new Set()
      attempts.set(name, seen.add(run.process))
    }
    if (facts.mayBePronouncedDead || facts.lossFromMs !== undefined) return wrong
    for (const [name, processes] of attempts) {
      if (processes.size > 1) wrong.push(`${name} ran in ${[...processes].join(' and ')} although no process failed`)
    }
    return wrong
  }
}

interface DeadOrder {
  readonly n: number
  readonly error: string
}

function bytes(text: string): Buffer {
  return Buffer.from(text, 'latin1')
}

function readEvents(redis: Keyspace, keys: PartitionKeys): StoredEvent[] {
  const found: StoredEvent[] = []
  for (const { fields } of redis.find(keys.events, 'stream')?.entries ?? []) {
    for (let i = 1; i < fields.length; i += 2) {
      const entry = decodeEntry(bytes(fields[i] ?? ''))
      const payload = unpackPayload(entry.payloadBytes) as { n?: number; key?: string; tickMs?: number }
      found.push({ type: entry.type, n: payload.n ?? -1, key: payload.key ?? '', tickMs: payload.tickMs ?? 0 })
    }
  }
  return found
}

function readDead(redis: Keyspace, keys: PartitionKeys): DeadOrder[] {
  return (redis.find(keys.dead, 'stream')?.entries ?? []).map(({ fields }) => {
    const entry = decodeEntry(bytes(fields[1] ?? ''))
    const { n } = unpackPayload(entry.payloadBytes) as { n?: number }
    return { n: n ?? -1, error: entry.trail?.failures.at(-1)?.error ?? '' }
  })
}

/** Each tick once; under `all` none is left out between the first and the last, unless Redis says that it was. */
function judgeTicks(events: readonly StoredEvent[], redis: Keyspace, { periods }: Circumstances): string[] {
  const wrong: string[] = []
  for (const [type, periodMs, isWhole] of [
    ['pulse.taken', periods.pulse, true],
    ['survey.taken', periods.survey, false],
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
  const home = PARTITIONS.map((keys) => redis.find(keys.schedule('pulse'), 'hash')?.fields).find(
    (fields) => fields !== undefined,
  )
  if (home === undefined) wrong.push('the schedule "pulse" was never registered')
  else if (Number(home.get('missed') ?? 0) > 0) wrong.push(`"pulse" left out ${home.get('missed')} ticks`)
  return wrong
}

/** Every view equals an independent fold of the events. */
function judgeViews(redis: Keyspace, events: readonly (readonly StoredEvent[])[]): string[] {
  return PARTITIONS.flatMap((keys, i) =>
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
      return compareViews(`${reader} of ${keys.stream}.${keys.partition}`, wanted, readViews(redis, keys, reader))
    }),
  )
}

function readViews(redis: Keyspace, keys: PartitionKeys, reader: string): Map<string, Tally> {
  const stored = redis.find(keys.views(reader), 'hash')?.fields ?? new Map<string, string>()
  return new Map([...stored].map(([key, blob]) => [key, unpackPayload(bytes(blob)) as Tally]))
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

/** Nothing may be left behind, and nobody may have been alarmed or taken for dead without a cause. */
function judgeRemains(redis: Keyspace, facts: Circumstances): string[] {
  const wrong: string[] = []
  for (const keys of PARTITIONS) {
    const place = `${keys.stream}.${keys.partition}`
    for (const key of [keys.commands, keys.ready]) {
      for (const { id, consumer } of redis.find(key, 'stream')?.groups.get(GROUP)?.pending ?? []) {
        const whose = facts.living.has(consumer.name) ? 'a living' : 'a dead'
        wrong.push(`${id.text} of ${key} is pending with ${consumer.name}, ${whose} consumer`)
      }
    }
    const due = redis.find(keys.due, 'zset')?.scores.size ?? 0
    if (due > 0) wrong.push(`${due} commands of ${place} wait for their time for ever`)
    const outbox = redis.find(keys.outbox, 'stream')?.entries.length ?? 0
    if (outbox > 0) wrong.push(`${outbox} commands are left in the outbox of ${place}`)
    const levels = [...(redis.find(keys.crashes, 'hash')?.fields.keys() ?? [])]
    if (levels.length > 0) wrong.push(`the crash levels of ${levels.join(', ')} of ${place} are left behind`)
    const bodies = redis.find(keys.dueBodies, 'hash')?.fields.size ?? 0
    if (bodies > 0) wrong.push(`${bodies} bodies of ${place} are left behind`)
  }
  if (!facts.mayBePronouncedDead && facts.pronouncedDead.length > 0) {
    wrong.push(`${facts.pronouncedDead.join(', ')} taken for dead although no process failed`)
  }
  if (facts.lossFromMs === undefined) {
    for (const alarm of facts.alarms) if (LOSSES.includes(alarm)) wrong.push(`alarm: ${alarm}`)
  }
  return wrong
}
