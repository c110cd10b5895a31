/**
 * Two projectors of the same views, stepped by hand in any order: at every moment the stored views are exactly the fold of
 * the log up to the stored checkpoint, whichever of the two reads, folds, commits, loses an answer or starts again.
 */
import { afterAll, expect, setDefaultTimeout, test } from 'bun:test'
import fc from 'fast-check'
import { LRUCache } from 'lru-cache'
import { defineProjection } from '../src/contracts/projection.ts'
import { FoldBatch, type FoldSetting, type HotView } from '../src/projections/fold-batch.ts'
import { EventLog } from '../src/redis/event-log.ts'
import { commitViews, loadViews, openReader, type ViewCommit } from '../src/redis/view-store.ts'
import { type Change, change, changed, World } from './support/projections.ts'
import { startTestRedis } from './support/redis-server.ts'

const redis = await startTestRedis()
setDefaultTimeout(30_000)
afterAll(() => redis[Symbol.asyncDispose]())

interface Tally {
  sum: number
  folded: number
}

const tallies = defineProjection<Tally>({
  name: 'tallies',
  stream: 'accounts',
  initial: () => ({ sum: 0, folded: 0 }),
}).on(
  changed,
  (event) => (event.payload.amount % 5 === 0 ? ['fives', event.payload.account] : event.payload.account),
  (view, event) => {
    if (event.payload.amount === 7) return null
    view.sum += event.payload.amount
    view.folded += 1
    return view
  },
)
const READER = 'tallies@1'

function referenceFold(entries: readonly (readonly Change[])[]): Record<string, Tally> {
  const views = new Map<string, Tally>()
  for (const { account, amount } of entries.flat()) {
    for (const key of amount % 5 === 0 ? ['fives', account] : [account]) {
      const { sum, folded } = views.get(key) ?? { sum: 0, folded: 0 }
      if (amount === 7) views.delete(key)
      else views.set(key, { sum: sum + amount, folded: folded + 1 })
    }
  }
  return Object.fromEntries(views)
}

interface Model {
  /** What each log entry holds. */
  readonly entries: Change[][]
}

class HandProjector {
  readonly #world: World
  readonly #log: EventLog
  readonly #hot = new LRUCache<string, HotView>({ max: 3, maxSize: 1000 })
  #checkpoint = '0-0'
  #prepared: { batch: FoldBatch; commit: ViewCommit } | undefined

  constructor(world: World, log: EventLog) {
    this.#world = world
    this.#log = log
  }

  get isPrepared(): boolean {
    return this.#prepared !== undefined
  }

  async open(): Promise<void> {
    this.#hot.clear()
    this.#prepared = undefined
    this.#checkpoint = (await openReader(this.#world.link, this.#world.source.keys(0), READER)).checkpoint
  }

  async fold(eventsMax: number, lastEntry: string): Promise<void> {
    if (this.#checkpoint === lastEntry || this.#prepared !== undefined) return
    const position = await this.#log.next(this.#checkpoint)
    if (position === undefined) throw new Error('the log holds more, but did not give it')
    const origin = { ids: this.#world.ids, stream: 'accounts', partition: 0 }
    const bounds = { eventsMax, viewsMax: 4, viewBytesMax: 1000 }
    const setting: FoldSetting = { projection: tallies, origin, partitions: 1, hot: this.#hot, ...bounds }
    const batch = new FoldBatch(setting, position.chunk, position.from, false)
    expect(batch.plan(position.chunk.entries.length)).toBeUndefined()
    batch.fill(await loadViews(this.#world.link, this.#world.source.keys(0), READER, batch.missing()))
    expect(batch.fold() ?? batch.pack()).toBeUndefined()
    const { checkpoint } = batch
    const commit = { reader: READER, expected: this.#checkpoint, checkpoint, changes: batch.changes() }
    this.#prepared = { batch, commit }
  }

  async commit(isAnswerLost: boolean): Promise<void> {
    const prepared = this.#prepared
    if (prepared === undefined) return
    this.#prepared = undefined
    const committed = await commitViews(this.#world.link, this.#world.source.keys(0), prepared.commit)
    if (!committed || isAnswerLost) return await this.open()
    this.#checkpoint = prepared.commit.checkpoint
    prepared.batch.keep()
  }
}

class Real {
  readonly world: World
  readonly projectors: readonly HandProjector[]
  readonly ids: string[] = []

  constructor(world: World, projectors: readonly HandProjector[]) {
    this.world = world
    this.projectors = projectors
  }

  async judge({ entries }: Model): Promise<void> {
    const checkpoint = await this.world.checkpoint(tallies)
    const read = checkpoint === '0-0' ? 0 : this.ids.indexOf(checkpoint) + 1
    const [stored] = await this.world.stored(tallies)
    expect(Object.fromEntries(stored ?? [])).toEqual({ ...referenceFold(entries.slice(0, read)) })
  }
}

type Step = fc.AsyncCommand<Model, Real>

const step = (name: string, run: (real: Real, model: Model) => Promise<void>): Step => ({
  check: () => true,
  run: async (model, real) => {
    await run(real, model)
    await real.judge(model)
  },
  toString: () => name,
})

const amount = fc.integer({ min: 0, max: 10 })
const oneChange = fc.record({ account: fc.constantFrom('a', 'b', 'c', 'd', 'e'), amount })
const which = fc.constantFrom(0, 1)

const steps = [
  fc.array(oneChange, { minLength: 1, maxLength: 6 }).map((entry) =>
    step(`log ${JSON.stringify(entry)}`, async ({ world, ids }, { entries }) => {
      const [id = ''] = await world.source.log(entry.map(({ account, amount: by }) => change(account, by)))
      ids.push(id)
      entries.push(entry)
    }),
  ),
  which.map((i) => step(`open ${i}`, async ({ projectors }) => await projectors[i]?.open())),
  fc.tuple(which, fc.integer({ min: 1, max: 12 })).map(([i, eventsMax]) =>
    step(`fold ${i} up to ${eventsMax}`, async ({ projectors, ids }) => {
      if (ids.length > 0) await projectors[i]?.fold(eventsMax, ids.at(-1) ?? '')
    }),
  ),
  fc
    .tuple(which, fc.boolean())
    .map(([i, isAnswerLost]) =>
      step(
        `commit ${i}${isAnswerLost ? ', answer lost' : ''}`,
        async ({ projectors }) => await projectors[i]?.commit(isAnswerLost),
      ),
    ),
]

test('stored views are the fold of the log up to the stored checkpoint, after every step', async () => {
  const signal = new AbortController().signal
  const reader = await redis.open('reader')
  const command = await redis.open()
  await fc.assert(
    fc.asyncProperty(fc.commands(steps, { maxCommands: 60, size: '+1' }), async (commands) => {
      const world = await World.create(redis, { projections: [tallies] })
      using log = new EventLog({ reader, command, keys: world.source.keys(0), blockMs: 50, signal })
      const real = new Real(world, [new HandProjector(world, log), new HandProjector(world, log)])
      for (const projector of real.projectors) await projector.open()
      await fc.asyncModelRun(() => ({ model: { entries: [] }, real }), commands)
      redis.links.close(world.link)
    }),
    { numRuns: 60, seed: Number(Bun.env['MILLRACE_TEST_SEED'] ?? Date.now() % 1_000_000) },
  )
})
