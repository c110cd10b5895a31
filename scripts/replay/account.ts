/**
 * Lost and duplicated, counted: the commands that were accepted against the events that they caused.
 *
 * Every accepted command emits one event, so each id of the ledger must stand in the event streams exactly once, and
 * nothing else may stand there. Two sorted numbers arrays and a bitmap are all the memory it takes.
 */
import { RunError } from '../fleet/failure.ts'
import type { Ledger } from '../fleet/ledger.ts'
import type { RedisProbe } from './probe.ts'

export interface Account {
  readonly events: number
  /** Accepted commands without an event, and rows that share a command with another row. */
  readonly lost: number
  /** Events beyond the first of their command, and events of commands that no answer told of. */
  readonly duplicated: number
}

export async function balance(ledger: Ledger, probe: RedisProbe): Promise<Account> {
  let [events, lost, duplicated] = [0, 0, 0]
  const partitions = new Set(ledger.partitions())
  for (let partition = 0; partition < (await probe.partitions()); partition++) partitions.add(partition)
  for (const partition of partitions) {
    if (await probe.eventsTrimmed(partition)) {
      throw new RunError(
        'failed',
        "Events were trimmed by retention: what was lost or doubled can't be counted.",
      )
    }
    const accepted = ledger.sortedTokens(partition)
    const seen = new Uint8Array(Math.ceil(accepted.length / 8))
    let found = 0
    for await (const tokens of probe.eventTokens(partition)) {
      events += tokens.length
      for (const token of tokens) {
        const at = indexOf(accepted, ledger.tokenNumber(token))
        if (at < 0 || isSet(seen, at)) duplicated += 1
        else {
          set(seen, at)
          found += 1
        }
      }
    }
    lost += accepted.length - found
  }
  return { events, lost, duplicated }
}

/** Of equal numbers the first, so that rows with a shared command stay without an event of their own. */
function indexOf(sorted: Float64Array, value: number): number {
  let [low, high] = [0, sorted.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((sorted[middle] ?? 0) < value) low = middle + 1
    else high = middle
  }
  return sorted[low] === value ? low : -1
}

function isSet(bits: Uint8Array, at: number): boolean {
  return ((bits[at >> 3] ?? 0) & (1 << (at & 7))) !== 0
}

function set(bits: Uint8Array, at: number): void {
  bits[at >> 3] = (bits[at >> 3] ?? 0) | (1 << (at & 7))
}
