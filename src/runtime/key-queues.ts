/**
 * One queue for each key, in the order of entry ids: only the first of a key may run, the others wait behind it until it has
 * ended for good. Keys that nothing waits for cost one map entry.
 */
import { compareEntryIds } from '../redis/bytes.ts'

export interface Queued {
  readonly key: string
  readonly entryId: string
}

const NOBODY: never[] = []

export class KeyQueues<Item extends Queued> {
  /** By key: what waits behind the first, oldest last; NOBODY, shared by all, when nothing does. */
  readonly #waiting = new Map<string, Item[]>()
  #parked = 0

  /** Commands that wait behind another one of their key. */
  get parked(): number {
    return this.#parked
  }

  /** True when the item is the first of its key and may run; else it waits for its turn. */
  add(item: Item): boolean {
    const queue = this.#waiting.get(item.key)
    if (queue === undefined) {
      this.#waiting.set(item.key, NOBODY)
      return true
    }
    this.#parked += 1
    if (queue === NOBODY) this.#waiting.set(item.key, [item])
    else insert(queue, item)
    return false
  }

  /** The first of a key has ended; answers who is first now. */
  next(key: string): Item | undefined {
    const queue = this.#waiting.get(key)
    const item = queue?.pop()
    if (item === undefined) this.#waiting.delete(key)
    else this.#parked -= 1
    return item
  }
}

/** New entries are nearly always the youngest, which stand at the front of the array: the oldest is taken from its end. */
function insert<Item extends Queued>(queue: Item[], item: Item): void {
  let at = 0
  while (at < queue.length && compareEntryIds(queue[at]?.entryId ?? '', item.entryId) > 0) at += 1
  queue.splice(at, 0, item)
}
