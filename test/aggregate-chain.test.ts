/**
 * Decisions of one batch build on each other. When the first of them loses its race, nothing that was built on it may
 * count: no event, no rejection, even where another process has just reached the same version number.
 */
import { expect, test } from 'bun:test'
import { z } from 'zod'
import { aggregateHandler } from '../src/aggregates/aggregate-handler.ts'
import { rebuildAggregate } from '../src/aggregates/aggregate-state.ts'
import { SILENT_LOGGER } from '../src/contracts/logger.ts'
import {
  defineAggregate,
  defineAggregateHandler,
  defineCommand,
  defineEvent,
  newEvent,
  reject,
} from '../src/index.ts'
import { decideSettlement } from '../src/policies/settlement.ts'
import { ensureGroup, readNew } from '../src/redis/consumer-group.ts'
import { decodeEntry } from '../src/redis/entry-codec.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { sharedMembership } from '../src/redis/membership.ts'
import { type SettleAnswer, settle } from '../src/redis/settlements.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { CommandRun } from '../src/runtime/command-run.ts'
import { toDecided } from '../src/runtime/decisions.ts'
import type { Decided } from '../src/runtime/settler.ts'
import { type TestFleet, testFleet } from './support/fleet.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'

const move = defineCommand({
  type: 'money.move',
  payload: z.object({ account: z.string(), by: z.int() }),
  key: ({ account }) => account,
})
const moved = defineEvent({ type: 'money.moved', payload: z.object({ by: z.int() }) })
const account = defineAggregate({ name: 'account', initial: () => ({ balance: 0 }) }).on(
  moved,
  (state, { by }) => ({ balance: state.balance + by }),
)
const handler = defineAggregateHandler(account, move, ({ balance }, { payload: { by } }) =>
  balance + by < 0 ? reject('not enough money') : [newEvent(moved, { by })],
)
const keys = partitionKeys('main', 0)
const key = keys.aggregate('account', 'a')

interface World {
  readonly redis: TestRedis
  readonly fleet: TestFleet
  /** Reads, decides and returns what is to be settled. */
  decide(consumer: string, moves: readonly number[]): Promise<Decided[]>
  settleAll(consumer: string, decided: readonly Decided[]): Promise<SettleAnswer>
}

async function startWorld(): Promise<World> {
  const redis = await startTestRedis()
  const fleet = await testFleet(redis, [move, moved, account, handler])
  const { link } = fleet
  await ensureGroup(link, keys)
  const running = aggregateHandler(handler, { link, clock: SYSTEM_CLOCK })
  const context = {
    signal: new AbortController().signal,
    logger: SILENT_LOGGER,
    stream: 'main',
    partition: 0,
    epoch: undefined,
  }
  const scope = {
    stream: 'main',
    partition: 0,
    ids: fleet.ids,
    clock: SYSTEM_CLOCK,
    epoch: undefined,
    serverNowMs: () => SYSTEM_CLOCK.nowMs(),
    partitionsOf: () => 1,
  }
  return {
    redis,
    fleet,
    decide: async (consumer, moves) => {
      await fleet.append(
        move,
        moves.map((by) => ({ account: 'a', by })),
      )
      const entries = await readNew(
        await redis.open('reader'),
        sharedMembership(keys, consumer),
        moves.length,
        100,
      )
      const runs = entries.map(
        ({ source, entryId, token, blob, level }) =>
          new CommandRun(scope, { source, entryId, token, level }, decodeEntry(blob ?? Buffer.alloc(0))),
      )
      const outcomes = await running.run(runs, context)
      return runs.map((run, i) => {
        const outcome = outcomes[i]
        if (outcome === undefined) throw new Error('no outcome')
        return toDecided(run, decideSettlement(outcome, run.attempt, running.options, 0.5))
      })
    },
    settleAll: async (consumer, decided) =>
      await settle(link, sharedMembership(keys, consumer), {
        plain: [],
        successes: decided.flatMap((each) => ('success' in each ? [each.success] : [])),
        failures: decided.flatMap((each) => ('failure' in each ? [each.failure] : [])),
      }),
  }
}

test('what was decided on a lost decision is lost with it, though the version number fits', async () => {
  const world = await startWorld()
  await using _ = world.redis
  const slow = await world.decide('slow', [100, -100])
  const quick = await world.decide('quick', [1])
  expect((await world.settleAll('quick', quick)).successes).toEqual(['applied'])
  expect((await world.settleAll('slow', slow)).successes).toEqual(['conflict', 'conflict'])
  expect((await rebuildAggregate(world.fleet.link, account, key)).state).toEqual({ balance: 1 })
})

test('the same holds when the two are settled by different requests', async () => {
  const world = await startWorld()
  await using _ = world.redis
  const slow = await world.decide('slow', [100, -100])
  await world.settleAll('quick', await world.decide('quick', [1]))
  expect((await world.settleAll('slow', slow.slice(1))).successes).toEqual(['conflict'])
})

test('a rejection that follows from a lost decision is lost with it, and one that stands alone is not', async () => {
  const world = await startWorld()
  await using _ = world.redis
  await world.settleAll('quick', await world.decide('quick', [100]))
  const slow = await world.decide('slow', [-100, -50])
  await world.settleAll('quick', await world.decide('quick', [25]))
  const answer = await world.settleAll('slow', slow)
  expect([answer.successes, answer.failures]).toEqual([['conflict'], ['conflict']])
  expect(await world.fleet.deadLetters('main')).toHaveLength(0)

  const alone = await world.decide('slow', [-500])
  await world.settleAll('quick', await world.decide('quick', [1]))
  expect((await world.settleAll('slow', alone)).failures).toEqual(['applied'])
})

test('a settlement sent again answers that it was settled, not that it lost a race', async () => {
  const world = await startWorld()
  await using _ = world.redis
  const decided = await world.decide('one', [100, -100])
  expect((await world.settleAll('one', decided)).successes).toEqual(['applied', 'applied'])
  expect((await world.settleAll('one', decided)).successes).toEqual(['settled-before', 'settled-before'])
})
