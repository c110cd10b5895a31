/**
 * The door in front of the command streams: open or closed by samples of depth, age and memory, taken on a timer. The same
 * looks tell the time that Redis has.
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
import { EvictionSigns } from '../policies/eviction-signs.ts'
import { LossSigns, type StreamSign } from '../policies/loss-signs.ts'
import type { CommandIds } from '../redis/command-id.ts'
import type { RedisLink } from '../redis/connection.ts'
import { restoreFleet } from '../redis/fleet.ts'
import { partitionKeys } from '../redis/keys.ts'
import { readServerState, type ServerState } from '../redis/server-state.ts'
import { readProgress, signOf, waitedMs } from '../redis/stream-progress.ts'
import type { Clock } from '../runtime/clock.ts'
import { ServerTime } from '../runtime/server-time.ts'
import { PeriodicService } from '../runtime/service.ts'

export interface AdmissionGateParts {
  readonly link: RedisLink
  readonly ids: CommandIds
  readonly streams: ReadonlyMap<string, StreamDefinition>
  readonly clock: Clock
  readonly telemetry: Telemetry
  readonly limits: Omit<AdmissionLimits, 'waitedMsMax'>
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
  readonly #time = new ServerTime()
  readonly #eviction = new EvictionSigns()
  readonly #loss = new LossSigns()
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

  /** Redis's clock, a little early rather than late, ms since 1970; NaN before the first sample. */
  readonly serverNowMs = (): number => this.#time.at(this.#parts.clock.monotonicMs())

  /** Takes one sample and decides for every stream. */
  async sample(): Promise<void> {
    const { link, streams, clock } = this.#parts
    const askedMs = clock.monotonicMs()
    const [state, loads] = await Promise.all([
      readServerState(link),
      Promise.all([...streams.values()].map((stream) => readLoad(link, stream))),
    ])
    const atMs = clock.monotonicMs()
    this.#sampledAtMs = atMs
    this.#time.learn(state.timeMs, askedMs, atMs)
    this.#watchEviction(state)
    const limitBytes = state.limitBytes || state.systemBytes
    const memoryRatio = limitBytes > 0 ? state.usedBytes / limitBytes : 0
    for (const { stream, depth, waitedMs: waited } of loads) {
      const sample: LoadSample = { atMs, depth, memoryRatio, waitedMs: waited }
      const limits = { ...this.#parts.limits, waitedMsMax: stream.waitingMsMax }
      const door = this.door(stream.name)
      door.verdict = decideAdmission(sample, door.sample, door.verdict.open, limits)
      door.sample = sample
    }
    await this.#watchLoss(loads)
  }

  /** Workers raise the alarm; where none runs, new processes still get to know the ids that were given out. */
  async #watchLoss(loads: readonly StreamLoad[]): Promise<void> {
    const { link, ids } = this.#parts
    for (const { stream, signs } of loads) {
      const isLost = signs.map((sign, partition) => this.#loss.observe(`${stream.name}.${partition}`, sign))
      if (isLost.includes(true)) await restoreFleet(link, ids, [stream])
    }
  }

  #watchEviction(state: ServerState): void {
    for (const detail of this.#eviction.observe(state)) {
      this.#parts.telemetry.emit('alarm.raised', { alarm: 'eviction', stream: undefined, detail })
    }
  }
}

interface StreamLoad {
  readonly stream: StreamDefinition
  readonly depth: number
  readonly waitedMs: number
  /** Of the command stream of each partition. */
  readonly signs: readonly StreamSign[]
}

/** One script for each partition; all are on their way at once. */
async function readLoad(link: RedisLink, stream: StreamDefinition): Promise<StreamLoad> {
  const parts = await Promise.all(
    Array.from({ length: stream.partitions }, (_, partition) =>
      readProgress(link, partitionKeys(stream.name, partition)),
    ),
  )
  return {
    stream,
    depth: parts.reduce((sum, { commands, ready }) => sum + commands.entries + ready.entries, 0),
    waitedMs: Math.max(0, ...parts.map(waitedMs)),
    signs: parts.map(({ commands }) => signOf(commands)),
  }
}
