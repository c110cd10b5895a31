/**
 * Replicas behind the primary: how many follow it, and how an append is confirmed by them.
 *
 * `WAIT` tells how many replicas have in memory what its own connection sent before; `WAITAOF` (Redis 7.2, Valkey) how many
 * have it in their append-only file. WAITAOF is used where the primary writes its own file through (`appendfsync always`):
 * with `everysec` it would hold every answer for up to a second, and longer where a replica keeps no file.
 */
import type { RedisLink } from './connection.ts'

export interface ReplicationRule {
  /** As many must have it. Declare every replica that may become the primary. */
  readonly replicas: number
  /** How long they may take, ms. */
  readonly waitMs: number
}

export interface ReplicationInfo {
  /** `master` or `slave`. */
  readonly role: string
  /** Seconds since each connected replica was heard of. */
  readonly lagsS: readonly number[]
}

/** What Redis itself takes for a replica that can't be counted on (`min-replicas-max-lag`). */
const LAG_MAX_S = 10

/** @throws MillraceError `redis.unavailable`, `redis.unknown` */
export async function readReplication(link: RedisLink): Promise<ReplicationInfo> {
  return parseReplication(await link.use('INFO replication', (client) => client.info('replication')))
}

/** Replicas that are still loading their first copy are left out. */
export function parseReplication(text: string): ReplicationInfo {
  const lagsS: number[] = []
  for (const [, fields = ''] of text.matchAll(/^slave\d+:(.*)$/gm)) {
    if (!/(^|,)state=online(,|\r|$)/.test(fields)) continue
    lagsS.push(Number(/(?:^|,)lag=(-?\d+)/.exec(fields)?.[1] ?? '0'))
  }
  return { role: /^role:(\w+)/m.exec(text)?.[1] ?? '', lagsS }
}

/** Replicas that follow closely enough to confirm anything. */
export function countFollowing({ lagsS }: ReplicationInfo): number {
  return lagsS.filter((lagS) => lagS >= 0 && lagS <= LAG_MAX_S).length
}

export type Confirmation = 'WAIT' | 'WAITAOF'

/** `appendfsync` is undefined where it can't be read. */
export function chooseConfirmation(server: {
  readonly hasWaitAof: boolean
  readonly appendOnly: boolean
  readonly appendfsync: string | undefined
}): Confirmation {
  return server.hasWaitAof && server.appendOnly && server.appendfsync === 'always' ? 'WAITAOF' : 'WAIT'
}

/** True where the server knows WAITAOF and lets this user send it. */
export async function hasWaitAof(link: RedisLink): Promise<boolean> {
  try {
    const reply: unknown = await link.client.call('COMMAND', 'INFO', 'waitaof')
    return Array.isArray(reply) && Array.isArray(reply[0])
  } catch {
    return false
  }
}

/** What to send behind the appends of one connection. */
export function confirmationCommand(
  confirmation: Confirmation,
  { replicas, waitMs }: ReplicationRule,
): [string, ...number[]] {
  return confirmation === 'WAITAOF' ? ['WAITAOF', 1, replicas, waitMs] : ['WAIT', replicas, waitMs]
}

/** True when the reply says that enough have it. */
export function isConfirmed(reply: unknown, { replicas }: ReplicationRule): boolean {
  if (!Array.isArray(reply)) return Number(reply) >= replicas
  return Number(reply[0]) >= 1 && Number(reply[1]) >= replicas
}
