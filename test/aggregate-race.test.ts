/**
 * Two workers race for the same few aggregates: every decision is made on the state it is appended to, versions have no
 * gaps, and no command is lost, doubled or charged an attempt for losing a race.
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
import { buildCatalogue, type Definition } from '../src/policies/catalogue.ts'
import { appendPlain } from '../src/redis/command-log.ts'
import { decodeEntry, packEntry, unpackPayloadOf } from '../src/redis/entry-codec.ts'
import { joinFleet } from '../src/redis/fleet.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { Consumer } from '../src/runtime/consumer.ts'
import { lyingEntries } from './support/lying-entries.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { RecordedTelemetry } from './support/telemetry.ts'
import { until } from './support/until.ts'

const AGGREGATES = ['a', 'b', 'c', 'd', 'e']
const COMMANDS = 500
const EACH = COMMANDS / AGGREGATES.length
/** Beyond this many tickets an aggregate is sold out and rejects. */
const SEATS = 90

const sell = defineCommand({
  type: 'seat.sell',
  payload: z.object({ show: z.string(), buyer: z.int() }),
  key: ({ show }) => show,
})
const sold = defineEvent({ type: 'seat.sold', payload: z.object({ buyer: z.int(), seat: z.int() }) })
const show = defineAggregate({ name: 'show', initial: () => ({ buyers: [] as readonly number[] }) }).on(
  sold,
  (state, { buyer }) => ({ buyers: [...state.buyers, buyer] }),
)
const sellHandler = defineAggregateHandler(show, sell, (state, command) =>
  state.buyers.length === SEATS
    ? reject('sold out')
    : [newEvent(sold, { buyer: command.payload.buyer, seat: state.buyers.length + 1 })],
)
const catalogue = buildCatalogue([sell, sold, show, sellHandler] as Definition[])
const keys = partitionKeys('main', 0)

async function startWorker(redis: TestRedis, telemetry: RecordedTelemetry): Promise<Consumer> {
  const command = await redis.open()
  const handlers = new Map([
    ['seat.sell@1', aggregateHandler(sellHandler, { link: command, clock: SYSTEM_CLOCK })],
  ])
  const consumer = new Consumer({
    ...{ links: redis.links, command, catalogue, handlers, telemetry },
    ids: await joinFleet(command, catalogue.streams.values()),
    clock: SYSTEM_CLOCK,
    logger: SILENT_LOGGER,
    options: {},
  })
  await consumer.start()
  return consumer
}

async function placeAll(redis: TestRedis): Promise<void> {
  const blobs = Array.from({ length: COMMANDS }, (_, buyer) => {
    const key = AGGREGATES[buyer % AGGREGATES.length] ?? ''
    const envelope = { type: 'seat.sell', version: 1, atMs: SYSTEM_CLOCK.nowMs(), key }
    const unset = { trace: undefined, tickMs: undefined, trail: undefined }
    return packEntry({ ...envelope, ...unset }, { show: key, buyer }).blob
  })
  const link = await redis.open()
  for (let at = 0; at < blobs.length; at += 50)
    await appendPlain(link, keys, lyingEntries(blobs.slice(at, at + 50)))
}

test('two workers, 500 commands, 5 aggregates: versions without gaps, no decision lost', async () => {
  await using redis = await startTestRedis()
  const telemetry = [new RecordedTelemetry(), new RecordedTelemetry()]
  const link = await redis.open()
  const workers = await Promise.all(telemetry.map((each) => startWorker(redis, each)))
  await placeAll(redis)
  const total = (field: 'done' | 'dead' | 'retried' | 'conflicts'): number =>
    telemetry.flatMap((each) => each.of('batch.settled')).reduce((sum, settled) => sum + settled[field], 0)
  await until('every command to be settled', () => total('done') + total('dead') >= COMMANDS)
  await Promise.all(workers.map((worker) => worker.stop()))

  expect({ done: total('done'), dead: total('dead'), retried: total('retried') }).toEqual({
    done: SEATS * AGGREGATES.length,
    dead: COMMANDS - SEATS * AGGREGATES.length,
    retried: 0,
  })
  expect(total('conflicts')).toBeGreaterThan(0)
  const buyers = new Set<number>()
  for (const id of AGGREGATES) {
    const key = keys.aggregate('show', id)
    const log = await link.client.xrangeBuffer(key, '-', '+')
    expect(log.map(([version]) => version.toString())).toEqual(
      Array.from({ length: SEATS }, (_, index) => `${index + 1}-0`),
    )
    const { state, version } = await rebuildAggregate(link, show, key)
    expect(version).toBe(SEATS)
    for (const buyer of state.buyers) buyers.add(buyer)
    const seats = log.map(([, fields]) => payloadOf(fields[1]).seat)
    expect(seats).toEqual(Array.from({ length: SEATS }, (_, index) => index + 1))
  }
  expect(buyers.size).toBe(SEATS * AGGREGATES.length)
  const emitted = (await link.client.xrangeBuffer(keys.events, '-', '+')).flatMap(([, fields]) =>
    fields.filter((_, index) => index % 2 === 1).map((blob) => payloadOf(blob).buyer),
  )
  expect(emitted.toSorted((x, y) => x - y)).toEqual([...buyers].toSorted((x, y) => x - y))
  expect(await link.client.xlen(keys.dead)).toBe((EACH - SEATS) * AGGREGATES.length)
  expect((await link.client.xpending(keys.commands, 'workers'))[0]).toBe(0)
})

function payloadOf(blob: Buffer | undefined): { buyer: number; seat: number } {
  if (blob === undefined) throw new Error('an entry without blob')
  return unpackPayloadOf(decodeEntry(blob)) as { buyer: number; seat: number }
}
