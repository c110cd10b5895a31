/**
 * Sorts commands into lanes, cuts batches from them and runs these under the limits of each handler and of the process.
 *
 * A lane holds commands of one handler and one partition. Commands that have failed before have a lane of their own, so
 * that they never break a fresh batch; suspects of a crash go to `Suspects`.
 */

import { describeError } from '../contracts/errors.ts'
import type { HandlerDefinition } from '../contracts/handler.ts'
import type { HealthReport } from '../contracts/health.ts'
import { versionKey } from '../policies/catalogue.ts'
import { type BatchEnvironment, runBatch } from './batch.ts'
import type { Timer } from './clock.ts'
import type { CommandRun } from './command-run.ts'
import { toCrashed } from './decisions.ts'
import { OverdueRuns } from './overdue-runs.ts'
import type { PartitionDesk } from './partition-desk.ts'
import type { Decided } from './settler.ts'
import { CRASH_LEVEL_MAX, Suspects } from './suspects.ts'

export interface DispatcherOptions
  extends Omit<BatchEnvironment, 'abandonSignal' | 'overdue' | 'onRunEnded' | 'isOurs'> {
  readonly handlers: ReadonlyMap<string, HandlerDefinition>
  /** Batches that run at once in this process, over all handlers. */
  readonly batchesMax: number
}

interface Lane {
  readonly desk: PartitionDesk
  readonly gate: HandlerGate
  queue: CommandRun[]
  sinceMs: number
  timer: Timer | undefined
}

interface RunningBatch {
  readonly desk: PartitionDesk
  readonly runs: readonly CommandRun[]
}

/** Counts the running batches of one handler. */
interface HandlerGate {
  readonly handler: HandlerDefinition
  running: number
}

export class Dispatcher {
  readonly #options: DispatcherOptions
  readonly #gates = new Map<string, HandlerGate>()
  readonly #lanes = new Map<string, Lane>()
  readonly #abandon = new AbortController()
  readonly #stop = new AbortController()
  readonly #suspects: Suspects
  readonly #running = new Map<Promise<void>, RunningBatch>()
  readonly #overdue: OverdueRuns
  #runEndedMs: number
  #pumpScheduled = false

  constructor(options: DispatcherOptions) {
    this.#options = options
    this.#overdue = new OverdueRuns(options.clock, options.telemetry)
    this.#runEndedMs = options.clock.monotonicMs()
    for (const [key, handler] of options.handlers) this.#gates.set(key, { handler, running: 0 })
    this.#suspects = new Suspects(
      (desk, handler, runs) => this.#run(desk, handler, runs),
      options.clock,
      this.#stop.signal,
      () => this.#pump(),
    )
  }

  /** Takes commands that this process holds; each reaches its partition's settler, or is still held after `drain`. */
  accept(desk: PartitionDesk, runs: readonly CommandRun[]): void {
    if (this.#stop.signal.aborted) return
    let before: CommandRun | undefined
    let lane: Lane | undefined
    for (const run of runs) {
      // Most commands that come together are alike: they go where the one before them went.
      if (lane === undefined || before === undefined || !areAlike(before, run)) lane = this.#sort(desk, run)
      before = run
      lane?.queue.push(run)
    }
    this.#schedulePump()
  }

  /** The lane that a command waits in; undefined when it goes elsewhere, and is on its way there. */
  #sort(desk: PartitionDesk, run: CommandRun): Lane | undefined {
    const gate = this.#gates.get(versionKey(run))
    if (run.ref.level >= CRASH_LEVEL_MAX) this.#bury(desk, run)
    else if (gate === undefined) desk.defer(run)
    else if (this.#overdue.isFull(gate.handler)) desk.defer(run, 'suspended')
    else if (run.ref.level > 0) this.#suspects.add({ desk, handler: gate.handler, run })
    else return this.#laneOf(desk, gate, run)
    return undefined
  }

  /** Runs a command once more after a lost version race. */
  redo(desk: PartitionDesk, run: CommandRun): void {
    this.accept(desk, [run])
  }

  /** Forgets what has not started of a partition that this worker gives up; the entries stay pending. */
  forget(desk: PartitionDesk): void {
    for (const [name, lane] of this.#lanes) {
      if (lane.desk !== desk) continue
      lane.timer?.cancel()
      this.#lanes.delete(name)
    }
    this.#suspects.clear(desk)
  }

  /** What a partition has running. */
  runsOf(desk: PartitionDesk): CommandRun[] {
    return [...this.#running.values()].flatMap((batch) => (batch.desk === desk ? batch.runs : []))
  }

  /** Resolves when nothing of this partition runs. */
  async idle(desk: PartitionDesk): Promise<void> {
    for (;;) {
      const own = [...this.#running].filter(([, batch]) => batch.desk === desk).map(([work]) => work)
      if (own.length === 0) return
      await Promise.all(own)
    }
  }

  /** True while suspects are cleared: nothing new should be read. */
  get holding(): boolean {
    return this.#suspects.holding
  }

  /** Monotonic ms at which a run of any handler last ended, well or not. */
  get runEndedMs(): number {
    return this.#runEndedMs
  }

  /** Undefined as long as there is nothing to tell. */
  health(): HealthReport | undefined {
    return this.#overdue.health()
  }

  /** Starts nothing new from now on, and forgets what waits: the partition hands it back. */
  close(): void {
    this.#stop.abort()
    for (const lane of this.#lanes.values()) {
      lane.timer?.cancel()
      lane.queue = []
    }
    this.#suspects.clear()
  }

  /** Closes, waits for what runs, and aborts it when `limitSignal` says that time is up. */
  async drain(limitSignal: AbortSignal): Promise<void> {
    this.close()
    const abandon = () => this.#abandon.abort()
    if (limitSignal.aborted) abandon()
    limitSignal.addEventListener('abort', abandon, { once: true })
    while (this.#running.size > 0) await Promise.all(this.#running.keys())
    limitSignal.removeEventListener('abort', abandon)
  }

  #bury(desk: PartitionDesk, run: CommandRun): void {
    const { level } = run.ref
    const error = `It was running when its worker died, ${level} times.`
    this.#options.telemetry.emit('command.dead-lettered', {
      ...run.called,
      attempt: run.attempt,
      reason: 'crashed',
      error,
    })
    desk.settler.push([toCrashed(run, level)])
  }

  #laneOf(desk: PartitionDesk, gate: HandlerGate, run: CommandRun): Lane {
    const fresh = run.trail.attempts === 0
    // A partition may be taken again before its earlier lease is wound up: each lease has lanes of its own.
    const name = `${desk.tag}|${desk.scope.epoch ?? ''}|${versionKey(run)}|${fresh ? 'fresh' : 'again'}`
    let lane = this.#lanes.get(name)
    if (lane === undefined) {
      lane = { desk, gate, queue: [], sinceMs: 0, timer: undefined }
      this.#lanes.set(name, lane)
    }
    if (lane.queue.length === 0) lane.sinceMs = this.#options.clock.monotonicMs()
    return lane
  }

  #schedulePump(): void {
    if (this.#pumpScheduled) return
    this.#pumpScheduled = true
    queueMicrotask(() => {
      this.#pumpScheduled = false
      this.#pump()
    })
  }

  /** Lanes take turns: one that started a batch goes to the end, however fast it is filled again. */
  #pump(): void {
    if (this.#suspects.holding || this.#stop.signal.aborted) return
    for (const [name, lane] of this.#lanes) {
      if (this.#running.size >= this.#options.batchesMax) return
      if (!this.#startOne(lane)) continue
      this.#lanes.delete(name)
      this.#lanes.set(name, lane)
    }
  }

  #startOne(lane: Lane): boolean {
    const { gate } = lane
    if (lane.queue.length > 0 && this.#overdue.isFull(gate.handler)) {
      const runs = lane.queue
      lane.queue = []
      for (const run of runs) lane.desk.defer(run, 'suspended')
      return false
    }
    if (lane.queue.length === 0 || gate.running >= gate.handler.options.concurrencyMax) return false
    const runs = this.#cut(lane)
    if (runs === undefined) return false
    void this.#run(lane.desk, gate.handler, runs, gate)
    return true
  }

  /** A full batch, or what has waited long enough; undefined while it may still fill. */
  #cut(lane: Lane): CommandRun[] | undefined {
    const { batchCountMax, batchBytesMax, lingerMs } = lane.gate.handler.options
    let bytes = 0
    let count = 0
    let full = false
    for (const run of lane.queue) {
      bytes += run.entry.bytes.length - run.entry.payloadAt
      full = count >= batchCountMax || (count > 0 && bytes > batchBytesMax)
      if (full) break
      count += 1
    }
    full ||= count >= batchCountMax
    const waitMs = lane.sinceMs + lingerMs - this.#options.clock.monotonicMs()
    if (!full && lingerMs > 0 && waitMs > 0) {
      lane.timer ??= this.#options.clock.after(Math.ceil(waitMs), () => {
        lane.timer = undefined
        this.#pump()
      })
      return undefined
    }
    lane.timer?.cancel()
    lane.timer = undefined
    const batch = lane.queue.slice(0, count)
    lane.queue = count === lane.queue.length ? [] : lane.queue.slice(count)
    lane.sinceMs = this.#options.clock.monotonicMs()
    return batch
  }

  async #run(
    desk: PartitionDesk,
    handler: HandlerDefinition,
    runs: readonly CommandRun[],
    gate?: HandlerGate,
  ): Promise<void> {
    if (gate !== undefined) gate.running += 1
    const work = this.#execute(desk, handler, runs)
    this.#running.set(work, { desk, runs })
    await work
    this.#running.delete(work)
    if (gate !== undefined) gate.running -= 1
    this.#pump()
  }

  async #execute(
    desk: PartitionDesk,
    handler: HandlerDefinition,
    runs: readonly CommandRun[],
  ): Promise<void> {
    const environment: BatchEnvironment = {
      ...this.#options,
      overdue: this.#overdue,
      onRunEnded: () => {
        this.#runEndedMs = this.#options.clock.monotonicMs()
      },
      isOurs: () => desk.isOurs(),
      abandonSignal: this.#abandon.signal,
    }
    const parts: (readonly Decided[])[] = []
    try {
      await runBatch(environment, handler, runs, (decided) => {
        parts.push(decided)
        desk.settler.push(decided)
      })
    } catch (error) {
      // Not the handler's doing: the entries stay pending and are found again by re-reading the own pending list.
      this.#options.telemetry.emit('service.failed', { service: 'dispatcher', error: describeError(error) })
      const settled = new Set(parts.flat().map(({ run }) => run.ref))
      for (const run of runs) if (!settled.has(run.ref)) desk.forget(run)
    }
  }
}

/** True for two fresh commands of one type and version that never crashed a worker. */
function areAlike(a: CommandRun, b: CommandRun): boolean {
  return (
    a.type === b.type &&
    a.version === b.version &&
    a.entry.trail === undefined &&
    b.entry.trail === undefined &&
    a.ref.level === 0 &&
    b.ref.level === 0
  )
}
