/** What the services of a role are built on: one of each for the whole process. */
import type { Settings } from '../config/settings.ts'
import type { HealthSource } from '../contracts/health.ts'
import type { Logger } from '../contracts/logger.ts'
import type { Leases } from '../leases/leases.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { RedisLink, RedisLinks } from '../redis/connection.ts'
import type { LossWatch } from '../redis/loss-watch.ts'
import type { Clock } from '../runtime/clock.ts'
import type { HeartbeatThread } from '../runtime/heartbeat.ts'
import type { Supervisor } from '../runtime/supervisor.ts'
import type { TelemetryHub } from '../runtime/telemetry-hub.ts'
import type { Replication } from './connections.ts'
import type { Identity } from './identity.ts'

export interface RoleGround {
  readonly supervisor: Supervisor
  readonly settings: Settings
  readonly catalogue: Catalogue
  readonly links: RedisLinks
  readonly command: RedisLink
  /** Undefined unless the tier is `replicated`. */
  readonly replication: Replication | undefined
  readonly lossWatch: LossWatch
  readonly ids: CommandIds
  readonly leases: Leases
  readonly identity: Identity
  /** Loading since the start of the process, in roles that work. */
  readonly heartbeatThread: HeartbeatThread | undefined
  readonly clock: Clock
  readonly telemetry: TelemetryHub
  readonly logger: Logger
  /** What `/readyz` asks, beside the role's own services. */
  readonly health: readonly HealthSource[]
}
