/**
 * What a simulated fleet does: follow-ups from one partition to another, delayed commands, two schedules, two projections. What becomes of each command is decided beforehand from its number, so the ledger knows what to expect.
 */
import type { StandardSchemaV1 } from '@standard-schema/spec'
import { defineCommand } from '../../src/contracts/command.ts'
import { defineEvent } from '../../src/contracts/event.ts'
import { defineBatchHandler, type HandledCommand } from '../../src/contracts/handler.ts'
import { done, type Outcome, reject, retry } from '../../src/contracts/outcome.ts'
import { defineProjection } from '../../src/contracts/projection.ts'
import { defineSchedule } from '../../src/contracts/schedule.ts'
import { defineStream, type Ordering } from '../../src/contracts/stream.ts'
import { buildCatalogue, type Catalogue } from '../../src/policies/catalogue.ts'
import type { Clock } from '../../src/runtime/clock.ts'
import { Chance } from './chance.ts'

function anything<Shape>(): StandardSchemaV1<Shape, Shape> {
  return {
    '~standard': { version: 1, vendor: 'simulator', validate: (value) => ({ value: value as Shape }) },
  }
}

export const STREAM = 'orders'
export const PARTITIONS = 2

interface Numbered {
  readonly n: number
}
interface Keyed extends Numbered {
  readonly key: string
}

export const placeOrder = defineCommand({
  type: 'order.place',
  payload: anything<Keyed>(),
  stream: STREAM,
  key: ({ key }) => key,
})
const remindOrder = defineCommand({
  type: 'order.remind',
  payload: anything<Keyed>(),
  stream: STREAM,
  key: ({ key }) => key,
})
const sendBill = defineCommand({
  type: 'bill.send',
  payload: anything<Keyed>(),
  stream: STREAM,
  key: ({ key }) => key,
})
const pulse = defineCommand({
  type: 'pulse.take',
  payload: anything<object>(),
  stream: STREAM,
  key: () => 'pulse',
})
const survey = defineCommand({
  type: 'survey.take',
  payload: anything<object>(),
  stream: STREAM,
  key: () => 'survey',
})

const placed = defineEvent({ type: 'order.placed', payload: anything<Keyed>() })
const reminded = defineEvent({ type: 'order.reminded', payload: anything<Numbered>() })
const billed = defineEvent({ type: 'bill.sent', payload: anything<Keyed>() })
const pulsed = defineEvent({ type: 'pulse.taken', payload: anything<{ readonly tickMs: number }>() })
const surveyed = defineEvent({
  type: 'survey.taken',
  payload: anything<{ readonly tickMs: number }>(),
})

export const PULSE_MS = 500
export const SURVEY_MS = 800

export interface Tally {
  count: number
  /** Depends on the order of the fold. */
  trail: number
}

export function tally(view: Tally, n: number): Tally {
  return { count: view.count + 1, trail: (view.trail * 31 + n) % 1_000_003 }
}

const byKey = defineProjection<Tally>({
  name: 'by-key',
  stream: STREAM,
  initial: () => ({ count: 0, trail: 0 }),
}).on(
  placed,
  ({ payload }) => payload.key,
  (view, { payload }) => tally(view, payload.n),
)
const bills = defineProjection<Tally>({
  name: 'bills',
  stream: STREAM,
  initial: () => ({ count: 0, trail: 0 }),
}).on(
  billed,
  ({ payload }) => payload.key,
  (view, { payload }) => tally(view, payload.n),
)

/** What becomes of one order. */
export interface Plan {
  readonly kind: 'done' | 'reject' | 'exhaust' | 'poison'
  /** Runs that end in `retry` first. */
  readonly retries: number
  /** Runs that throw first. */
  readonly throws: number
  readonly durationMs: number
  readonly follows: boolean
  /** Sends a reminder with this delay; -1 none. */
  readonly remindMs: number
  readonly key: string
}

export const ATTEMPTS_MAX = 4
const KEYS = 7

export function planOf(seed: number, n: number, poisonous: number): Plan {
  const chance = new Chance(seed * 7919 + n)
  const dice = chance.next()
  const plan: Plan = {
    kind: 'done',
    retries: 0,
    throws: 0,
    durationMs: chance.happens(0.2) ? chance.between(1, 60) : 0,
    follows: chance.happens(0.35),
    remindMs: chance.happens(0.1) ? chance.whole(0, 700) : -1,
    key: `k${n % KEYS}`,
  }
  if (n === poisonous) return { ...plan, kind: 'poison', durationMs: 5 }
  if (dice < 0.12) return { ...plan, retries: chance.whole(1, 2) }
  if (dice < 0.2) return { ...plan, throws: chance.whole(1, 2) }
  if (dice < 0.26) return { ...plan, kind: 'reject' }
  if (dice < 0.29) return { ...plan, kind: 'exhaust' }
  if (dice < 0.4) return { ...plan, durationMs: chance.between(200, 1600) }
  return plan
}

export interface HandlerWorld {
  readonly clock: Clock
  planOf(n: number): Plan
  /** Each run of each command. */
  onRun(what: string, n: number, command: HandledCommand): void
  /** A run that took much longer than planned, because its process was paused, is about to fail. */
  onLate(n: number, command: HandledCommand): void
  /** Ends the process; never resolves. */
  crash(): Promise<never>
}

export interface ScenarioOptions {
  readonly ordering: Ordering
  readonly batchCountMax: number
  readonly concurrencyMax: number
}

/** The definitions as one process has them. */
export function scenarioCatalogue(world: HandlerWorld, options: ScenarioOptions): Catalogue {
  const { ordering, ...sizes } = options
  const limits = { ...sizes, backoffBaseMs: 20, backoffMaxMs: 300, attemptsMax: ATTEMPTS_MAX }
  const effect = (what: string, run: (command: HandledCommand<unknown>) => void) => {
    return (batch: readonly HandledCommand<unknown>[]): Outcome[] =>
      batch.map((command) => {
        world.onRun(what, (command.payload as Partial<Numbered>).n ?? command.tickMs ?? 0, command)
        run(command)
        return done()
      })
  }
  return buildCatalogue([
    defineStream({ name: STREAM, partitions: PARTITIONS, ordering }),
    ...[placeOrder, remindOrder, sendBill, pulse, survey],
    ...[placed, reminded, billed, pulsed, surveyed],
    ...[byKey, bills],
    defineSchedule({ name: 'pulse', command: pulse, payload: {}, every: PULSE_MS, catchUp: 'all' }),
    defineSchedule({ name: 'survey', command: survey, payload: {}, every: SURVEY_MS, overlap: 'forbid' }),
    defineBatchHandler(placeOrder, (batch) => placeAll(world, batch), limits),
    defineBatchHandler(
      remindOrder,
      effect('remind', (command) => command.emit(reminded, { n: (command.payload as Numbered).n })),
      limits,
    ),
    defineBatchHandler(
      sendBill,
      effect('bill', (command) => command.emit(billed, command.payload as Keyed)),
      limits,
    ),
    defineBatchHandler(
      pulse,
      effect('pulse', (command) => command.emit(pulsed, { tickMs: command.tickMs ?? 0 })),
      limits,
    ),
    defineBatchHandler(
      survey,
      effect('survey', (command) => command.emit(surveyed, { tickMs: command.tickMs ?? 0 })),
      limits,
    ),
  ])
}

/** As a call to the outside that was cut while the process slept. */
const LATE_MS = 900
export const LATE = 'it woke up late'

async function placeAll(world: HandlerWorld, batch: readonly HandledCommand<Keyed>[]): Promise<Outcome[]> {
  const plans = batch.map(({ payload }) => world.planOf(payload.n))
  for (const command of batch) world.onRun('place', command.payload.n, command)
  const durationMs = Math.max(...plans.map((plan) => plan.durationMs))
  const startedMs = world.clock.monotonicMs()
  if (durationMs > 0) await world.clock.sleep(durationMs)
  if (world.clock.monotonicMs() - startedMs > durationMs + LATE_MS) {
    for (const command of batch) if (batch.length === 1) world.onLate(command.payload.n, command)
    throw new Error(LATE)
  }
  if (plans.some(({ kind }) => kind === 'poison')) await world.crash()
  if (batch.some((command, i) => command.attempt <= (plans[i]?.throws ?? 0)))
    throw new Error('thrown as planned')
  return batch.map((command, i) => placeOne(command, plans[i]))
}

function placeOne(command: HandledCommand<Keyed>, plan: Plan | undefined): Outcome {
  if (plan === undefined) throw new Error('a command without a plan')
  const { n, key } = command.payload
  if (plan.kind === 'reject') return reject('rejected as planned')
  if (plan.kind === 'exhaust') return retry('exhausted as planned', { delayMs: 30 })
  if (command.attempt <= plan.retries) return retry('retried as planned', { delayMs: 20 + (n % 5) * 40 })
  command.emit(placed, { n, key })
  if (plan.follows) command.send(sendBill, { n, key: `b${n % 5}` })
  if (plan.remindMs >= 0)
    command.send(remindOrder, { n, key: `k${(n + 1) % KEYS}` }, { delayMs: plan.remindMs })
  return done()
}
