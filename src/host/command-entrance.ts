/** Where commands enter from this process: a connection of their own, watched for losses, a quorum where one is declared, and the bus. */
import { CommandBus } from '../commands/command-bus.ts'
import type { EntranceSettings } from '../config/settings.ts'
import { ReplicaQuorum } from '../redis/replica-quorum.ts'
import type { Clock } from '../runtime/clock.ts'
import type { TelemetryHub } from '../runtime/telemetry-hub.ts'
import type { LaidFoundation } from './foundation.ts'

export interface EntranceParts
  extends Pick<LaidFoundation, 'links' | 'replication' | 'lossWatch' | 'catalogue' | 'ids'> {
  readonly settings: EntranceSettings
  readonly clock: Clock
  readonly telemetry: TelemetryHub
}

/**
 * The bus is connected, and still to be started.
 *
 * @throws MillraceError `redis.unavailable`
 */
export async function openEntrance(parts: EntranceParts): Promise<CommandBus> {
  const { settings, links, replication, lossWatch, catalogue, ids, clock, telemetry } = parts
  const { durability, redisWaitMs, idempotencyWindowMs, idempotencyRecordsMax } = settings
  const { tenantWaitingMax, tenantWaitingBytesMax } = settings
  const quota = { tenantWaitingMax, tenantWaitingBytesMax }
  const options = { durability, idempotencyWindowMs, idempotencyRecordsMax, ...quota }
  const link = links.open('ingest')
  await link.whenReady(redisWaitMs)
  await lossWatch.watch(link)
  const quorum = replication && new ReplicaQuorum({ links, ...replication })
  await quorum?.whenReady(redisWaitMs)
  return new CommandBus({ link, quorum, catalogue, ids, clock, telemetry, options })
}
