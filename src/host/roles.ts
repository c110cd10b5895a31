/**
 * What each role runs, in the order in which it starts; it stops in reverse.
 *
 *   every role   admin listener
 *   project      projectors
 *   work         consumer
 *   schedule     cron scheduler
 *   api          view reader, command bus, public listener
 *   all          the four in one process
 *
 * So the door closes first, then no tick fires any more, then the workers drain into projections that still run.
 */
import type { Settings } from '../config/settings.ts'
import { MillraceError } from '../contracts/errors.ts'
import type { HealthSource } from '../contracts/health.ts'
import type { Logger } from '../contracts/logger.ts'
import { nearest } from '../contracts/names.ts'
import type { Catalogue } from '../policies/catalogue.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { RedisLink, RedisLinks } from '../redis/connection.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Supervisor } from '../runtime/supervisor.ts'
import type { TelemetryHub } from '../runtime/telemetry-hub.ts'

export const ROLES = ['all', 'api', 'work', 'project', 'schedule'] as const
export type Role = (typeof ROLES)[number]

/** @throws MillraceError `config.invalid` */
export function checkRole(role: string): Role {
  const found = ROLES.find((known) => known === role)
  if (found !== undefined) return found
  const near = nearest(role, ROLES)
  const hint = near === undefined ? '' : ` Did you mean "${near}"?`
  throw new MillraceError('config.invalid', `There is no role "${role}"; use ${ROLES.join(', ')}.${hint}`)
}

/** What a role is built on. */
export interface RoleGround {
  readonly supervisor: Supervisor
  readonly settings: Settings
  readonly catalogue: Catalogue
  readonly links: RedisLinks
  readonly command: RedisLink
  readonly ids: CommandIds
  readonly clock: Clock
  readonly telemetry: TelemetryHub
  readonly logger: Logger
  /** What `/readyz` asks, beside the role's own services. */
  readonly health: readonly HealthSource[]
}

/** Where a role listens. */
export interface RoleUrls {
  /** Absent for roles without a public listener. */
  readonly public: string | undefined
  readonly admin: string | undefined
}

/** Starts the services of a role. */
export async function startRole(_role: Role, _ground: RoleGround): Promise<RoleUrls> {
  return { public: undefined, admin: undefined }
}
