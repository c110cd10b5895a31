/**
 * The door in front of the command streams: open or closed by samples of depth, age and memory, taken on a timer. The same
 * looks tell the time that Redis has.
 *
 * The nearer a stream comes to a limit, the sooner the next sample. A request only reads the last verdict. A gate that can't sample keeps its verdict; whether Redis answers at all is seen
 * from the connection, not from here.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { StreamDefinition } from '../contracts/stream.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import {
  type AdmissionLimits,
  type AdmissionState,
  type AdmissionVerdict,
  decideAdmission,
  type LoadSample,
  NOT_SAMPLED,
  OPEN,
  samplePauseMs,
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
  /** For every stream, beside what the stream itself declares. */
  readonly limits: Omit<AdmissionLimits, 'waitedMsMax'>
  /** The longest pause between two samples. */
  readonly sampleMs: number
}

/** The shortest pause between two samples, ms, and what it is for each partition that is looked at. */
const SAMPLE_MS_MIN = 25
const PARTITION_SAMPLE_MS = 0.5

/** What stands in front of one stream. */
export interface Door {
  readonly stream: string
  verdict: AdmissionVerdict
  state: AdmissionState
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
  readonly #shortestMs: number
  #sampledAtMs = Number.NEGATIVE_INFINITY

  constructor(parts: AdmissionGateParts) {
    const { clock, telemetry, sampleMs } = parts
    const partitions = [...parts.streams.values()].reduce((sum, stream) => sum + stream.partitions, 0)
    const shortestMs = Math.min(sampleMs, Math.max(SAMPLE_MS_MIN, partitions * PARTITION_SAMPLE_MS))
    const pauses = { pauseMinMs: shortestMs, pauseMaxMs: sampleMs }
    super({ name: 'admission', clock, telemetry, ...pauses }, () => this.sample())
    this.#parts = parts
    this.#shortestMs = shortestMs
  }

  /** The door of a stream; the same object as long as the gate lives. */
  door(stream: string): Door {
    const known = this.#doors.get(stream)
    if (known !== undefined) return known
    const door: Door = { stream, verdict: OPEN, state: NOT_SAMPLED }
    this.#doors.set(stream, door)
    return door
  }

  /** Monotonic ms since Redis last answered a sample; infinite before the first. */
  get silentMs(): number {
    return this.#parts.clock.monotonicMs() - this.#sampledAtMs
  }

  /** Redis's clock, a little early rather than late, ms since 1970; NaN before the first sample. */
  readonly serverNowMs = (): number => this.#time.at(this.#parts.clock.monotonicMs())

  /** Takes one sample and decides for every stream. Answers after how long the next one is due, ms. */
  async sample(): Promise<number> {
    const { link, streams, clock, sampleMs } = this.#parts
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
    let pauseMs = sampleMs
    for (const { stream, depth, waitedMs: waited } of loads) {
      const sample: LoadSample = { atMs, depth, memoryRatio, waitedMs: waited }
      const limits = this.#limitsOf(stream)
      const door = this.door(stream.name)
      const before = door.state.sample
      door.state = decideAdmission(door.state, sample, limits, sampleMs)
      door.verdict = door.state.verdict
      const bounds = { minMs: this.#shortestMs, maxMs: sampleMs }
      pauseMs = Math.min(pauseMs, samplePauseMs(before, sample, limits, bounds))
    }
    await this.#watchLoss(loads)
    return pauseMs
  }

  #limitsOf({ waitingCountMax, memoryShareMax, waitingMsMax }: StreamDefinition): AdmissionLimits {
    const { depthMax, memoryRatioMax } = this.#parts.limits
    return {
      depthMax: Math.min(depthMax, waitingCountMax),
      memoryRatioMax: Math.min(memoryRatioMax, memoryShareMax),
      waitedMsMax: waitingMsMax,
    }
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
    depth: parts.reduce((sum, { commands, ready }) => sum + commands.unfinished + ready.unfinished, 0),
    waitedMs: Math.max(0, ...parts.map(waitedMs)),
    signs: parts.map(({ commands }) => signOf(commands)),
  }
}
