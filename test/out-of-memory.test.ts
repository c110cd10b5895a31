/** With Redis out of memory nothing new is taken in, and all that was taken in can still come to its end. */
import { expect, test } from 'bun:test'
import { z } from 'zod'
import { CommandBus } from '../src/commands/command-bus.ts'
import { errorCode } from '../src/contracts/errors.ts'
import { defineCommand, defineEvent, defineHandler, done, reject, retry } from '../src/index.ts'
import { ensureGroup } from '../src/redis/consumer-group.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { testFleet } from './support/fleet.ts'
import { startTestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const payload = z.object({ n: z.int() })
const Do = defineCommand({ type: 'do.it', payload })
const Done = defineEvent({ type: 'did.it', payload })
const keys = partitionKeys('main', 0)

test('appends are refused with their code and store nothing; workers settle, retry and bury; then all goes on', async () => {
  await using redis = await startTestRedis()
  const handle = defineHandler(Do, (command) => {
    const { n } = command.payload
    if (n === 1) return reject('never')
    if (n === 2 && command.attempt === 1) return retry('once more', { delayMs: 0 })
    command.emit(Done, { n })
    return done({ n })
  })
  const fleet = await testFleet(redis, [Do, Done, handle])
  const { link, catalogue, ids, telemetry } = fleet
  await ensureGroup(link, keys)
  await fleet.append(Do, [{ n: 0 }, { n: 1 }, { n: 2 }, { n: 3 }])
  await using bus = new CommandBus({
    ...{ link: await redis.open('ingest'), catalogue, ids, clock: SYSTEM_CLOCK, telemetry },
    options: {},
  })
  await bus.start()
  await link.client.config('SET', 'maxmemory', '1mb')
  const codeOf = (work: Promise<unknown>) => work.then(() => 'stored', errorCode)
  expect(await codeOf(bus.submit('do.it', { n: 4 }))).toBe('admission.overloaded')
  expect(await codeOf(bus.submit('do.it', { n: 4 }, { idempotencyKey: 'k' }))).toBe('admission.overloaded')
  expect(await link.client.xlen(keys.commands)).toBe(4)

  await using _worker = await fleet.worker()
  await until('all to end', async () => (await fleet.events('main')).length === 3, 5000)
  await until('nothing to be pending', async () => (await fleet.pending('main')) === 0)
  expect(await fleet.deadLetters('main')).toHaveLength(1)

  await link.client.config('SET', 'maxmemory', '0')
  await until(
    'the door to open',
    async () => (await codeOf(bus.submit('do.it', { n: 5 }, { idempotencyKey: 'k' }))) === 'stored',
  )
  await until('it to be done', async () => (await fleet.events('main')).length === 4)
})
