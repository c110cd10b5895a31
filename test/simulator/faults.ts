/**
 * Every kind of fault that a simulated run may meet. A kind says of itself whether it could strike at that moment; faults on
 * requests lie in wait for one and strike when it comes.
 *
 * To add one: name it in `FAULT_KINDS`, and say in `strike` what it does.
 */
import { SCRIPTS } from '../../src/redis/scripts.ts'
import type { Chance } from './chance.ts'
import type { Network, RequestFault, Wire } from './network.ts'
import type { SimulatedProcess } from './simulated-process.ts'

export const FAULT_KINDS = [
  'request-lost',
  'reply-lost',
  'request-late',
  'connection-cut',
  'connection-half-open',
  'connection-stalled',
  'heartbeat-stalled',
  'redis-restarted',
  'redis-rolled-back',
  'redis-paused',
  'redis-clock-forward',
  'redis-clock-back',
  'redis-out-of-memory',
  'scripts-flushed',
  'process-killed',
  'process-vanished',
  'process-paused',
  'loop-stalled',
  'process-terminated',
] as const
export type FaultKind = (typeof FAULT_KINDS)[number]

/** Kinds after which a living consumer may rightly be thought dead. */
export const DEADLY: ReadonlySet<FaultKind> = new Set([
  'process-killed',
  'process-vanished',
  'process-paused',
  'heartbeat-stalled',
])

/** Requests that are worth a fault of their own; '' is any. */
const TARGETS = [
  ...['', '', 'settle', 'settle', 'XREADGROUP', 'XREADGROUP', 'takeover', 'append-once', 'append-keyed'],
  ...['append', 'commit-views', 'fire', 'promote', 'release', 'beat', 'sample', 'mark-running', 'XTRIM'],
] as const
/** A fault that waits longer than this for its request takes any. */
const CHOOSY_MS = 1200

const digests = new Map(Object.entries(SCRIPTS).map(([name, { digest }]) => [digest, name]))
const sources = new Map(Object.entries(SCRIPTS).map(([name, { source }]) => [source, name]))

/** What a request is: the name of its script, or its command. */
export function requestName(words: readonly string[]): string {
  const [command = '', first = ''] = words
  if (command === 'EVALSHA') return digests.get(first) ?? first
  if (command === 'EVAL') return sources.get(Buffer.from(first, 'latin1').toString('utf8')) ?? 'EVAL'
  return command
}

interface Ambush {
  readonly kind: RequestFault
  readonly target: string
  readonly sinceMs: number
}

export interface FaultGround {
  readonly network: Network
  readonly chance: Chance
  processes(): readonly SimulatedProcess[]
  /** Moves the clock of Redis. */
  stepClock(ms: number): void
  /** Ends Redis and brings back what it had `lostMs` ago. */
  rollBack(): boolean
  replaceLater(process: SimulatedProcess): void
  onStruck(kind: FaultKind, detail: string): void
}

export class Faults {
  readonly #ground: FaultGround
  readonly #ambushes: Ambush[] = []
  readonly counts: Map<FaultKind, number> = new Map()

  constructor(ground: FaultGround) {
    this.#ground = ground
  }

  get struck(): number {
    return [...this.counts.values()].reduce((sum, count) => sum + count, 0)
  }

  get waiting(): number {
    return this.#ambushes.length
  }

  has(kinds: ReadonlySet<FaultKind>): boolean {
    return [...this.counts.keys()].some((kind) => kinds.has(kind))
  }

  /** Nothing lies in wait any more. */
  calm(): void {
    this.#ambushes.length = 0
  }

  /** For the network: what this request meets. */
  forRequest(label: string, words: readonly string[]): RequestFault | undefined {
    if (this.#ambushes.length === 0 || words[1] === 'SETNAME') return undefined
    const name = requestName(words)
    const { nowMs } = this.#ground.network.time
    const at = this.#ambushes.findIndex(
      ({ target, sinceMs }) => target === '' || target === name || nowMs - sinceMs > CHOOSY_MS,
    )
    const [ambush] = at < 0 ? [] : this.#ambushes.splice(at, 1)
    if (ambush === undefined) return undefined
    this.#count(ambush.kind, `${label} ${name}`)
    return ambush.kind
  }

  /** False when this kind can't strike now. */
  strike(kind: FaultKind): boolean {
    const detail = this.#act(kind)
    if (detail === undefined) return false
    if (detail !== '') this.#count(kind, detail)
    return true
  }

  #count(kind: FaultKind, detail: string): void {
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1)
    this.#ground.onStruck(kind, detail)
  }

  /** What it did; '' when it lies in wait, undefined when it can't be done now. */
  #act(kind: FaultKind): string | undefined {
    const { network, chance } = this.#ground
    switch (kind) {
      case 'request-lost':
      case 'reply-lost':
      case 'request-late':
        this.#ambushes.push({ kind, target: chance.pick(TARGETS), sinceMs: network.time.nowMs })
        return ''
      case 'connection-cut':
        return this.#onWire((wire) => wire.cut())
      case 'connection-half-open':
        return this.#onWire((wire) => wire.halfOpen())
      case 'connection-stalled':
        return this.#onWire((wire) => wire.stall(chance.between(50, 3500)))
      case 'heartbeat-stalled':
        return this.#onWire((wire) => wire.stall(chance.between(500, 3500)), true)
      case 'redis-restarted':
        if (!network.isUp) return undefined
        return this.#for(chance.between(20, 1500), (ms) => network.restart(ms, () => undefined))
      case 'redis-rolled-back':
        return this.#ground.rollBack() ? 'soon' : undefined
      case 'redis-paused':
        return this.#for(chance.between(50, 2500), (ms) => network.pause(ms))
      case 'redis-clock-forward':
        return this.#for(chance.between(1000, 12_000), (ms) => this.#ground.stepClock(ms))
      case 'redis-clock-back':
        return this.#for(chance.between(500, 5000), (ms) => this.#ground.stepClock(-ms))
      case 'redis-out-of-memory':
        return this.#for(chance.between(50, 1500), (ms) => {
          network.redis.isOutOfMemory = true
          network.time.after(ms, () => {
            network.redis.isOutOfMemory = false
          })
        })
      case 'scripts-flushed':
        network.redis.forgetScripts()
        return 'SCRIPT FLUSH'
      case 'process-killed':
        return this.#onProcess((process) => this.#kill(process, true))
      case 'process-vanished':
        return this.#onProcess((process) => this.#kill(process, false))
      case 'process-paused':
        return this.#onProcess((process) => process.pause(chance.between(100, 5000)))
      case 'loop-stalled':
        return this.#onProcess((process) => process.stallLoop(chance.between(100, 3000)))
      case 'process-terminated':
        return this.#onProcess((process) => process.terminate())
      default:
        return kind satisfies never
    }
  }

  #for(ms: number, work: (ms: number) => void): string {
    work(ms)
    return `${Math.round(ms)} ms`
  }

  #kill(process: SimulatedProcess, serverKnows: boolean): void {
    process.kill(serverKnows)
    this.#ground.replaceLater(process)
  }

  #onWire(work: (wire: Wire) => void, isBeat = false): string | undefined {
    const { network, chance } = this.#ground
    const wires = [...network.wires].filter(
      (wire) => wire.isWhole && !wire.strand.isDead && wire.label.includes('-beat ') === isBeat,
    )
    if (wires.length === 0) return undefined
    const wire = chance.pick(wires)
    work(wire)
    return wire.label
  }

  #onProcess(work: (process: SimulatedProcess) => void): string | undefined {
    const well = this.#ground.processes().filter((process) => process.isWell)
    if (well.length === 0) return undefined
    const process = this.#ground.chance.pick(well)
    work(process)
    return process.name
  }
}
