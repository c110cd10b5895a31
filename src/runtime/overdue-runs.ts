/**
 * Runs that were told to stop at their time limit and go on all the same.
 *
 *   time limit ─▶ signal aborted, the batch is decided without it ─▶ overdue ─▶ returns late (or never)
 *
 * Such a run has lost its place: its slot is free, what it answers or adds counts for nothing. But it still holds its
 * commands in memory and whatever it waits for, so the number of them is bounded for each handler. At the bound the handler
 * starts nothing more in this process until some have returned: its commands go back for other workers, the process says
 * that it is not ready, and an alarm says why. Other handlers go on.
 */
import type { HandlerDefinition } from '../contracts/handler.ts'
import type { HealthReport } from '../contracts/health.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Clock } from './clock.ts'

/**
 * Overdue runs of one handler in one process, beside one for each run that it may have at once; those that run when the bound
 * is met may still join them.
 */
const OVERDUE_RUNS_MAX = 100
/** A handler that returns this soon after its signal has heeded it. */
const HEED_MS = 1000

interface Overdue {
  open: number
  alarmed: boolean
  alarmedFull: boolean
}

export class OverdueRuns {
  readonly #clock: Clock
  readonly #telemetry: Telemetry
  readonly #byHandler = new Map<HandlerDefinition, Overdue>()
  readonly #late = new WeakSet<HandlerDefinition>()

  constructor(clock: Clock, telemetry: Telemetry) {
    this.#clock = clock
    this.#telemetry = telemetry
  }

  /** Counts a run from its time limit until `work` settles. */
  add(stream: string, handler: HandlerDefinition, work: Promise<unknown>): void {
    const known = this.#byHandler.get(handler)
    const overdue = known ?? { open: 0, alarmed: false, alarmedFull: false }
    if (known === undefined) this.#byHandler.set(handler, overdue)
    const { type } = handler.command
    overdue.open += 1
    this.#telemetry.emit('run.overdue', { stream, type, open: overdue.open })
    const timer = this.#clock.after(HEED_MS, () => this.#alarm(stream, handler, overdue))
    const returned = () => {
      timer.cancel()
      overdue.open -= 1
      if (overdue.open === 0) overdue.alarmed = false
      if (!this.isFull(handler)) overdue.alarmedFull = false
      this.#telemetry.emit('run.returned-late', { stream, type, open: overdue.open })
    }
    work.then(returned, returned)
  }

  /** True while the handler may start nothing more. */
  isFull(handler: HandlerDefinition): boolean {
    const open = this.#byHandler.get(handler)?.open ?? 0
    return open >= OVERDUE_RUNS_MAX + handler.options.concurrencyMax
  }

  /** A handler added effects to a run that was over; they are dropped. Told once for each handler. */
  effectsDropped(stream: string, handler: HandlerDefinition): void {
    if (this.#late.has(handler)) return
    this.#late.add(handler)
    this.#telemetry.emit('alarm.raised', {
      alarm: 'effects-too-late',
      stream,
      detail: `The handler of "${handler.command.type}" emitted or sent something after its run was over; that is dropped. Await everything before answering.`,
    })
  }

  /** Not ready while a handler is suspended. */
  health(): HealthReport | undefined {
    for (const handler of this.#byHandler.keys()) {
      if (!this.isFull(handler)) continue
      const detail = `"${handler.command.type}" is suspended: too many of its runs ignore their signal; restart this process`
      return { ready: false, detail }
    }
    return undefined
  }

  #alarm(stream: string, handler: HandlerDefinition, overdue: Overdue): void {
    const { type } = handler.command
    const { timeLimitMs } = handler.options
    if (!overdue.alarmed) {
      overdue.alarmed = true
      this.#telemetry.emit('alarm.raised', {
        alarm: 'handler-ignores-signal',
        stream,
        detail: `A run of "${type}" goes on after its time limit of ${timeLimitMs} ms: pass context.signal to everything that waits. It no longer counts.`,
      })
    }
    if (overdue.alarmedFull || !this.isFull(handler)) return
    overdue.alarmedFull = true
    this.#telemetry.emit('alarm.raised', {
      alarm: 'handler-suspended',
      stream,
      detail: `${overdue.open} runs of "${type}" ignore their signal. It starts nothing more in this process until some return; its commands go to other workers. Restart the process.`,
    })
  }
}
