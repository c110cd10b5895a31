/**
 * Do as many replicas follow the primary as tier `replicated` needs? Sampled, never asked by a request. While too few do,
 * the door is closed: what would be stored could not be confirmed.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { HealthReport } from '../contracts/health.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { RedisLink } from '../redis/connection.ts'
import { countFollowing, type ReplicationRule, readReplication } from '../redis/replication.ts'
import type { Clock } from '../runtime/clock.ts'
import { PeriodicService } from '../runtime/service.ts'

export interface ReplicaWatchParts {
  readonly link: RedisLink
  readonly rule: ReplicationRule
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly sampleMs: number
}

export class ReplicaWatch extends PeriodicService {
  readonly #parts: ReplicaWatchParts
  #following = 0
  #alarmed = false

  constructor(parts: ReplicaWatchParts) {
    const { clock, telemetry, sampleMs } = parts
    super(
      { name: 'replica-watch', clock, telemetry, pauseMinMs: sampleMs, pauseMaxMs: sampleMs },
      async () => {
        await this.sample()
        return undefined
      },
    )
    this.#parts = parts
  }

  /** Replicas that follow closely, at the last sample, and how many are needed. */
  get replicas(): { readonly following: number; readonly needed: number } {
    return { following: this.#following, needed: this.#parts.rule.replicas }
  }

  async sample(): Promise<void> {
    this.#following = countFollowing(await readReplication(this.#parts.link))
    const isShort = this.#following < this.#parts.rule.replicas
    if (isShort && !this.#alarmed) {
      this.#parts.telemetry.emit('alarm.raised', {
        alarm: 'replicas-missing',
        stream: undefined,
        detail: `${this.#sentence()}: commands are refused until they are back.`,
      })
    }
    this.#alarmed = isShort
  }

  /** @throws MillraceError `redis.unavailable` */
  check(): void {
    if (this.#following >= this.#parts.rule.replicas) return
    throw new MillraceError('redis.unavailable', `${this.#sentence()}; nothing was stored.`, {
      retryAfterS: 1,
    })
  }

  health(): HealthReport {
    return { ready: this.#following >= this.#parts.rule.replicas, detail: this.#sentence() }
  }

  #sentence(): string {
    const { following, needed } = this.replicas
    return `${following} of ${needed} ${needed === 1 ? 'replica follows' : 'replicas follow'} the primary`
  }
}
