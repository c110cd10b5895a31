/**
 * The door in front of the command streams: open or closed by samples of depth and memory, taken on a timer.
 *
 * A request only reads the last verdict. A gate that can't sample keeps its verdict; whether Redis answers at all is seen
 * from the connection, not from here.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { StreamDefinition } from '../contracts/stream.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import {
  type AdmissionLimits,
  type AdmissionVerdict,
  decideAdmission,
  type LoadSample,
  OPEN,
} from '../policies/admission.ts'
import { readBacklog } from '../redis/backlog.ts'
import type { RedisLink } from '../redis/connection.ts'
import type { Clock } from '../runtime/clock.ts'
import { PeriodicService } from '../runtime/service.ts'

export interface AdmissionGateParts {
  readonly link: RedisLink
  readonly streams: ReadonlyMap<string, StreamDefinition>
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly limits: AdmissionLimits
  readonly sampleMs: number
}

/** What stands in front of one stream. */
export interface Door {
  readonly stream: string
  verdict: AdmissionVerdict
  sample: LoadSample | undefined
}

/** @throws MillraceError `admission.overloaded` */
export function checkDoor({ stream, verdict }: Door): void {
  if (verdict.open) return
  throw new MillraceError(
    'admission.overloaded',
    `Stream "${stream}" takes no more commands now: ${verdict.reason}.`,
    { retryAfterS: verdict.retryAfterS },
  )
}

export class AdmissionGate extends PeriodicService {
  readonly #parts: AdmissionGateParts
  readonly #doors = new Map<string, Door>()
  #sampledAtMs = Number.NEGATIVE_INFINITY

  constructor(parts: AdmissionGateParts) {
    const { clock, telemetry, sampleMs } = parts
    super({ name: 'admission', clock, telemetry, pauseMinMs: sampleMs, pauseMaxMs: sampleMs }, async () => {
      await this.sample()
      return undefined
    })
    this.#parts = parts
  }

  /** The door of a stream; the same object as long as the gate lives. */
  door(stream: string): Door {
    const known = this.#doors.get(stream)
    if (known !== undefined) return known
    const door: Door = { stream, verdict: OPEN, sample: undefined }
    this.#doors.set(stream, door)
    return door
  }

  /** Monotonic ms since Redis last answered a sample; infinite before the first. */
  get silentMs(): number {
    return this.#parts.clock.monotonicMs() - this.#sampledAtMs
  }

  /** Takes one sample and decides for every stream. */
  async sample(): Promise<void> {
    const { link, streams, clock, limits } = this.#parts
    const backlog = await readBacklog(link, streams.values())
    const atMs = clock.monotonicMs()
    this.#sampledAtMs = atMs
    const memoryRatio = backlog.memoryLimitBytes > 0 ? backlog.memoryUsedBytes / backlog.memoryLimitBytes : 0
    for (const [stream, depth] of backlog.depths) {
      const sample: LoadSample = { atMs, depth, memoryRatio }
      const door = this.door(stream)
      door.verdict = decideAdmission(sample, door.sample, door.verdict.open, limits)
      door.sample = sample
    }
  }
}
