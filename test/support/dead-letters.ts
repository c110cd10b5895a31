/** Commands whose handlers fail until they are told otherwise, a fleet on a private Redis, and its dead letters. */
import { z } from 'zod'
import type { DeadLetterSummary } from '../../src/dead-letters/dead-letter.ts'
import type { DeadLetterFilter } from '../../src/dead-letters/dead-letter-filter.ts'
import type { Operation } from '../../src/dead-letters/dead-letter-operations.ts'
import { DeadLetters, type DeadLettersOptions } from '../../src/dead-letters/dead-letters.ts'
import { defineCommand, defineHandler, defineStream, done, reject } from '../../src/index.ts'
import { SYSTEM_CLOCK } from '../../src/runtime/clock.ts'
import { type Appended, type TestFleet, testFleet } from './fleet.ts'
import { startTestRedis, type TestRedis } from './redis-server.ts'
import { until } from './until.ts'

const orders = defineStream({ name: 'orders', partitions: 4 })
export const Ship = defineCommand({
  type: 'order.ship',
  stream: orders,
  payload: z.object({ orderId: z.string(), weight: z.number() }),
  key: (p) => p.orderId,
})
export const Bill = defineCommand({
  type: 'order.bill',
  stream: orders,
  payload: z.object({ n: z.number() }),
})
export const Note = defineCommand({
  type: 'note.write',
  stream: 'notes',
  payload: z.object({ n: z.number() }),
})

export interface Run {
  readonly type: string
  readonly payload: unknown
  readonly attempt: number
}

export class Graveyard implements AsyncDisposable {
  readonly redis: TestRedis
  readonly fleet: TestFleet
  readonly mood: { fails: boolean; runs: Run[] }

  private constructor(redis: TestRedis, fleet: TestFleet, mood: { fails: boolean; runs: Run[] }) {
    this.redis = redis
    this.fleet = fleet
    this.mood = mood
  }

  static async open(): Promise<Graveyard> {
    const mood: { fails: boolean; runs: Run[] } = { fails: true, runs: [] }
    const end = (type: string, payload: unknown, attempt: number, error: string) => {
      mood.runs.push({ type, payload, attempt })
      return mood.fails ? reject(error) : done()
    }
    const redis = await startTestRedis()
    const fleet = await testFleet(redis, [
      ...[orders, Ship, Bill, Note],
      defineHandler(Ship, ({ payload, attempt }) =>
        end('ship', payload, attempt, `No address for order "${payload.orderId}"`),
      ),
      defineHandler(Bill, ({ payload, attempt }) =>
        end('bill', payload, attempt, `Bank said no ${payload.n} times`),
      ),
      defineHandler(Note, ({ payload, attempt }) => end('note', payload, attempt, 'Disk full')),
    ])
    return new Graveyard(redis, fleet, mood)
  }

  letters(options: Partial<DeadLettersOptions> = {}, link = this.fleet.link): DeadLetters {
    const { catalogue, ids, telemetry } = this.fleet
    return new DeadLetters({ command: link, catalogue, ids, clock: SYSTEM_CLOCK, telemetry, options })
  }

  idOf({ stream, partition, token }: Appended): string {
    return this.fleet.ids.format(stream, partition, token)
  }

  /** Commands that are done or dead so far. */
  get settled(): number {
    return this.fleet.telemetry.of('batch.settled').reduce((sum, batch) => sum + batch.done + batch.dead, 0)
  }

  async untilSettled(count: number): Promise<void> {
    await this.fleet.telemetry.until('batch.settled', () => this.settled >= count)
  }

  /** Runs a worker until `count` more commands are done or dead. */
  async work(count: number): Promise<void> {
    const goal = this.settled + count
    await using _worker = await this.fleet.worker()
    await this.untilSettled(goal)
  }

  async oneDead(): Promise<{ at: Appended; id: string }> {
    const [at] = await this.fleet.append(Ship, [{ orderId: 'o-1', weight: 2 }])
    if (at === undefined) throw new Error('nothing appended')
    await this.work(1)
    return { at, id: this.idOf(at) }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.redis[Symbol.asyncDispose]()
  }
}

export const numbers = (count: number): { n: number }[] => Array.from({ length: count }, (_, n) => ({ n }))

export async function ended(letters: DeadLetters, { id }: Operation): Promise<Operation> {
  await until('the operation to end', () => letters.operation(id).state !== 'running')
  return letters.operation(id)
}

/** The code that work fails with. */
export async function codeOf(work: Promise<unknown> | (() => unknown)): Promise<unknown> {
  try {
    await (typeof work === 'function' ? work() : work)
    return 'no error'
  } catch (error) {
    return (error as { code?: unknown }).code
  }
}

/** All pages of a filter. */
export async function walk(
  letters: DeadLetters,
  filter: DeadLetterFilter,
  limit: number,
): Promise<{ all: DeadLetterSummary[]; pages: number }> {
  const all: DeadLetterSummary[] = []
  let cursor: string | undefined
  let pages = 0
  do {
    const page = await letters.page(filter, { limit, cursor })
    all.push(...page.data)
    pages += 1
    cursor = page.next
  } while (cursor !== undefined)
  return { all, pages }
}
