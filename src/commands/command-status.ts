/**
 * What became of a command, read from positions and side records, and cancelling one that has not started.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { CommandSituation, CommandStanding } from '../contracts/producer.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Tenant } from '../contracts/tenant.ts'
import type { CommandIds, CommandPosition } from '../redis/command-id.ts'
import { cancelCommand, readStatus } from '../redis/command-log.ts'
import type { RedisLink } from '../redis/connection.ts'
import { partitionKeys } from '../redis/keys.ts'
import { packPayload } from '../redis/payload-codec.ts'
import { ConfirmedAppend, type ReplicaQuorum } from '../redis/replica-quorum.ts'
import type { Clock } from '../runtime/clock.ts'

export interface CommandReport extends CommandSituation {
  readonly partition: number
  /** Last entry of the partition's event log in the same look. */
  readonly lastEventId: string
}

export interface CommandStatusParts {
  readonly link: RedisLink
  /** A cancelled command must stay cancelled as surely as it was accepted. */
  readonly quorum: ReplicaQuorum | undefined
  readonly ids: CommandIds
  readonly clock: Clock
  readonly telemetry: Telemetry
}

export class CommandStatusReader {
  readonly #parts: CommandStatusParts

  constructor(parts: CommandStatusParts) {
    this.#parts = parts
  }

  /** @throws MillraceError `command.malformed`, `not-found`, `expired`, `redis.unavailable`, `redis.unknown` */
  async status(id: string, tenant: Tenant): Promise<CommandReport> {
    return await this.#look(id, this.#parts.ids.parse(id, tenant))
  }

  /**
   * Cancels a command that no worker has been given; one that was cancelled before is fine.
   *
   * @throws MillraceError `cancel.too-late`, `durability.unconfirmed`, and what `status` throws
   */
  async cancel(id: string, tenant: Tenant): Promise<CommandReport> {
    const position = this.#parts.ids.parse(id, tenant)
    const keys = partitionKeys(position.stream, position.partition)
    const record = packPayload({ atMs: this.#parts.clock.nowMs() })
    const { link, quorum } = this.#parts
    const confirmed = quorum && new ConfirmedAppend(quorum)
    await cancelCommand(confirmed ?? link, keys, position.token, record, tenant)
    const report = await this.#look(id, position)
    if (report.status === 'cancelled') {
      if (confirmed?.confirmed !== false) return report
      throw new MillraceError(
        'durability.unconfirmed',
        'The command is cancelled, but too few replicas confirmed it in time; cancel it once more.',
        { retryAfterS: 1 },
      )
    }
    throw new MillraceError(
      'cancel.too-late',
      `The command is ${report.status}; only one that has not started can be cancelled.`,
    )
  }

  async #look(id: string, position: CommandPosition): Promise<CommandReport> {
    const { stream, partition, token } = position
    const { state, record, dueAtMs, deadLetterId, lastEventId } = await readStatus(
      this.#parts.link,
      partitionKeys(stream, partition),
      token,
    )
    if (state === 'expired') {
      throw new MillraceError(
        'expired',
        'What became of this command is no longer kept; it ended longer ago than results live.',
      )
    }
    if (state === 'lost') {
      this.#parts.telemetry.emit('alarm.raised', {
        alarm: 'command-lost',
        stream,
        detail: `Command ${token} of ${stream}.${partition} was acknowledged, and Redis no longer has it.`,
      })
    }
    return {
      id,
      stream,
      partition,
      status: state,
      attempt: attemptOf(state, record.attempts),
      result: record.result,
      error: record.error,
      reason: state === 'dead' ? record.reason : undefined,
      dueAtMs,
      deadLetterId,
      lastEventId,
    }
  }
}

function attemptOf(state: CommandStanding, attempts: number | undefined): number | undefined {
  return state === 'processing' ? (attempts ?? 0) + 1 : attempts
}
