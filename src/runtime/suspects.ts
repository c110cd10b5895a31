/**
 * Commands that were in a worker's hands when it died run apart, so that a culprit is found without harm to the others.
 *
 *   level 1   in small marked groups of about √n, at most 16, one group at a time in a process
 *   level 2   alone
 *   level 3   never again: a dead letter (decided before they get here)
 *
 * While suspects run, this process reads nothing and starts no fresh batch, for a second at most. A worker that dies of
 * something else charges whatever is marked at that moment; the chance that the same command is hit twice grows with the
 * square of the time that a mark stands, so nothing else should be in the way of taking it off again. A group is marked in Redis before it starts. Whoever takes over from a dead worker raises marked commands by one level,
 * so a culprit is charged for each crash, and an innocent at most for having stood in its group.
 */
import type { HandlerDefinition } from '../contracts/handler.ts'
import type { Clock, Timer } from './clock.ts'
import type { CommandRun } from './command-run.ts'
import type { PartitionDesk } from './partition-desk.ts'

/** Crashes after which a command becomes a dead letter. */
export const CRASH_LEVEL_MAX = 3
const GROUP_COUNT_MAX = 16

export interface Suspect {
  readonly desk: PartitionDesk
  readonly handler: HandlerDefinition
  readonly run: CommandRun
}

export type RunGroup = (desk: PartitionDesk, handler: HandlerDefinition, runs: CommandRun[]) => Promise<void>

/** How long fresh batches wait for suspects at most. */
const HOLD_MAX_MS = 1000

export class Suspects {
  readonly #runGroup: RunGroup
  readonly #clock: Clock
  readonly #onRelease: () => void
  readonly #stopSignal: AbortSignal
  readonly #givenUp = new WeakSet<PartitionDesk>()
  #waiting: Suspect[] = []
  #loop: Promise<void> | undefined
  #hold: Timer | undefined

  /** `onRelease` is called when fresh batches may start again. */
  constructor(runGroup: RunGroup, clock: Clock, stopSignal: AbortSignal, onRelease: () => void) {
    this.#runGroup = runGroup
    this.#clock = clock
    this.#stopSignal = stopSignal
    this.#onRelease = onRelease
  }

  /** True while fresh batches should wait. */
  get holding(): boolean {
    return this.#hold !== undefined
  }

  add(suspect: Suspect): void {
    this.#waiting.push(suspect)
    if (this.#loop === undefined) this.#begin()
  }

  #begin(): void {
    this.#hold = this.#clock.after(HOLD_MAX_MS, () => this.#release())
    this.#loop = this.#work().finally(() => {
      this.#loop = undefined
      this.#release()
      // One may have come after the last look, while the last mark was taken off.
      if (this.#waiting.length > 0 && !this.#stopSignal.aborted) this.#begin()
    })
  }

  /** Forgets what has not started, of all partitions or of one that is given up for good. */
  clear(desk?: PartitionDesk): void {
    if (desk !== undefined) this.#givenUp.add(desk)
    this.#waiting = desk === undefined ? [] : this.#waiting.filter((suspect) => suspect.desk !== desk)
  }

  #release(): void {
    this.#hold?.cancel()
    this.#hold = undefined
    this.#onRelease()
  }

  /**
   * A mark covers the run of the handler and no more: it goes with the next group's mark, or when no suspect is left. A
   * worker that dies later, for whatever reason, does not charge them again.
   */
  async #work(): Promise<void> {
    await Promise.resolve()
    let marked: PartitionDesk | undefined
    for (;;) {
      const group = this.#nextGroup()
      const first = group[0]
      if (marked !== undefined && marked !== first?.desk) await marked.unmark()
      if (first === undefined || this.#stopSignal.aborted) return
      const { desk, handler } = first
      // Asked before the mark: what stands marked while its worker waits for an answer is charged for a death that is not its doing.
      await desk.isOurs()
      await desk.mark(
        group.map((suspect) => suspect.run.ref.token),
        this.#stopSignal,
      )
      marked = desk
      if (this.#stopSignal.aborted) return
      if (this.#givenUp.has(desk)) continue
      await this.#runGroup(
        desk,
        handler,
        group.map((suspect) => suspect.run),
      )
    }
  }

  /** The first suspect, with others of its kind if it is of level 1. */
  #nextGroup(): Suspect[] {
    const first = this.#waiting[0]
    if (first === undefined) return []
    const alike = this.#waiting.filter(
      (other) => other.run.ref.level === 1 && other.desk === first.desk && other.handler === first.handler,
    )
    const size = Math.min(
      GROUP_COUNT_MAX,
      Math.ceil(Math.sqrt(alike.length)),
      first.handler.options.batchCountMax,
    )
    const group = first.run.ref.level > 1 ? [first] : alike.slice(0, Math.max(1, size))
    const chosen = new Set(group)
    this.#waiting = this.#waiting.filter((suspect) => !chosen.has(suspect))
    return group
  }
}
