/** Where commands go: from each type to the stream, the door in front of it and the lanes of its partitions. */
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { RedisLink } from '../redis/connection.ts'
import { partitionKeys } from '../redis/keys.ts'
import type { ReplicaQuorum } from '../redis/replica-quorum.ts'
import type { Clock } from '../runtime/clock.ts'
import type { AdmissionGate } from './admission-gate.ts'
import { AppendLane } from './append-lane.ts'
import type { Route } from './intake.ts'
import type { CommandBusOptions } from './submission.ts'

export interface RouteParts {
  readonly link: RedisLink
  readonly quorum?: ReplicaQuorum | undefined
  readonly catalogue: Catalogue
  readonly ids: CommandIds
  readonly clock: Clock
  readonly telemetry: Telemetry
}

/** One lane for each partition, shared by the types of a stream. */
export function buildRoutes(
  { link, quorum, catalogue, clock, telemetry, ids }: RouteParts,
  options: CommandBusOptions,
  gate: AdmissionGate,
): Map<string, Route> {
  const { batchCountMax, batchBytesMax, batchesInFlightMax } = options
  const limits = {
    ...{ batchCountMax, batchBytesMax, batchesInFlightMax },
    windowMs: options.idempotencyWindowMs,
    recordsMax: options.idempotencyRecordsMax,
    tenantQuota: { countMax: options.tenantWaitingMax, bytesMax: options.tenantWaitingBytesMax },
  }
  const lanes = new Map<string, AppendLane[]>()
  for (const { name, partitions } of catalogue.streams.values()) {
    const toLane = (_: unknown, partition: number): AppendLane => {
      const place = { keys: partitionKeys(name, partition), toId: ids.formatter(name, partition) }
      return new AppendLane({ link, quorum, clock, telemetry, limits, ...place })
    }
    lanes.set(name, Array.from({ length: partitions }, toLane))
  }
  const routes = new Map<string, Route>()
  for (const command of catalogue.commands.values()) {
    const { stream } = command
    routes.set(command.type, { command, stream, door: gate.door(stream), lanes: lanes.get(stream) ?? [] })
  }
  return routes
}
