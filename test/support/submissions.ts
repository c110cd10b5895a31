/** A producer that never gives up: every command gets an id in the end, by the same key for each of its attempts. */
import { CommandBus } from '../../src/commands/command-bus.ts'
import { errorCode } from '../../src/contracts/errors.ts'
import { SYSTEM_CLOCK } from '../../src/runtime/clock.ts'
import type { TestFleet } from './fleet.ts'
import type { TestRedis } from './redis-server.ts'

export async function startBus(redis: TestRedis, fleet: TestFleet): Promise<CommandBus> {
  const { catalogue, ids, telemetry } = fleet
  const link = await redis.open('ingest')
  const bus = new CommandBus({ link, catalogue, ids, clock: SYSTEM_CLOCK, telemetry })
  await bus.start()
  return bus
}

export interface Persistence {
  /** Error codes by how often they came. */
  readonly refusals: Map<string, number>
}

/** The id; tries again after any refusal that may pass. */
export async function submitPersistently(
  bus: CommandBus,
  type: string,
  payload: unknown,
  key: string,
  { refusals }: Persistence = { refusals: new Map() },
): Promise<string> {
  for (;;) {
    try {
      return (await bus.submit(type, payload, { idempotencyKey: key })).id
    } catch (error) {
      const code = errorCode(error) ?? 'none'
      if (!/^(redis|admission)\./.test(code)) throw error
      refusals.set(code, (refusals.get(code) ?? 0) + 1)
      await Bun.sleep(10)
    }
  }
}
