/**
 * Commands that were in a worker's hands when it died run apart, so that a culprit is found without harm to the others.
 *
 *   level 1   in small marked groups of about √n, at most 16, one group at a time in a process
 *   level 2   alone
 *   level 3   never again: a dead letter (decided before they get here)
 *
 * A group is marked in Redis before it starts. Whoever takes over from a dead worker raises marked commands by one level,
 * so a culprit is charged for each crash, and an innocent at most for having stood in its group.
 */
import type { HandlerDefinition } from '../contracts/handler.ts'
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

export class Suspects {
  readonly #runGroup: RunGroup
  readonly #stopSignal: AbortSignal
  #waiting: Suspect[] = []
  #loop: Promise<void> | undefined

  constructor(runGroup: RunGroup, stopSignal: AbortSignal) {
    this.#runGroup = runGroup
    this.#stopSignal = stopSignal
  }

  add(suspect: Suspect): void {
    this.#waiting.push(suspect)
    this.#loop ??= this.#work().finally(() => {
      this.#loop = undefined
    })
  }

  /** Forgets what has not started. */
  clear(): void {
    this.#waiting = []
  }

  async #work(): Promise<void> {
    await Promise.resolve()
    for (;;) {
      if (this.#stopSignal.aborted) return
      const group = this.#nextGroup()
      const first = group[0]
      if (first === undefined) return
      const { desk, handler } = first
      await desk.mark(
        group.map((suspect) => suspect.run.ref.token),
        this.#stopSignal,
      )
      if (this.#stopSignal.aborted) return
      await this.#runGroup(
        desk,
        handler,
        group.map((suspect) => suspect.run),
      )
      await desk.settler.idle()
      await desk.unmark()
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
