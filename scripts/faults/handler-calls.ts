/**
 * What the handler journals add up to: calls, calls that should not have been, and how soon the work of the dead ran again.
 */
import { closeSync, openSync, readdirSync, readSync } from 'node:fs'
import { join } from 'node:path'
import {
  JOURNAL_RECORD_BYTES,
  type JournalRecord,
  KIND_START,
  readRecord,
  STREAM_NAMES,
  tokenNumber,
} from './journal-format.ts'
import type { Casualty } from './strikes.ts'

export interface HandlerCalls {
  readonly calls: number
  readonly duplicates: number
  /** Per entry of a casualty: ms until it ran again elsewhere. */
  readonly recoveriesMs: readonly number[]
  /** Entries of casualties that did not have to run again: somebody who had been thought dead brought their success. */
  readonly unrecovered: number
}

export interface JournalEntry extends JournalRecord {
  readonly process: string
}

const PAGE_BYTES = JOURNAL_RECORD_BYTES * 32_768

/** Every record of every process, process by process in the order of their files; a torn end is left out. */
export function* journalEntries(folder: string): Generator<JournalEntry> {
  const page = Buffer.allocUnsafe(PAGE_BYTES)
  for (const name of readdirSync(folder).sort()) {
    const file = openSync(join(folder, name), 'r')
    const process = name.replace('.journal', '')
    for (let at = 0; ; ) {
      const length = readSync(file, page, 0, PAGE_BYTES, at)
      const whole = length - (length % JOURNAL_RECORD_BYTES)
      for (let i = 0; i < whole; i += JOURNAL_RECORD_BYTES) {
        const record = readRecord(page, i)
        if (record !== undefined) yield Object.assign(record, { process })
      }
      if (whole === 0) break
      at += whole
    }
    closeSync(file)
  }
}

const ATTEMPTS_MAX = 16

/** Counts calls by row and attempt. Rows of different streams are different commands. */
class CallTable {
  readonly #rows: number
  readonly #counts: (Uint8Array | undefined)[] = STREAM_NAMES.map(() => undefined)

  constructor(rows: number) {
    this.#rows = rows
  }

  /** False when this attempt was called before. */
  add({ stream, row, attempt }: JournalRecord): boolean {
    const counts = this.#counts[stream] ?? new Uint8Array(this.#rows * ATTEMPTS_MAX)
    this.#counts[stream] = counts
    const at = row * ATTEMPTS_MAX + Math.min(attempt, ATTEMPTS_MAX - 1)
    const before = counts[at] ?? 0
    counts[at] = Math.min(255, before + 1)
    return before === 0
  }
}

/** When each entry that a casualty held ran next. */
class Recoveries {
  readonly #waiting = new Map<string, { readonly casualty: Casualty; againMs: number }[]>()

  constructor(casualties: readonly Casualty[], baseMs: number) {
    for (const casualty of casualties) {
      for (const { place, token } of casualty.held) {
        const key = `${place.stream}.${place.partition}.${tokenNumber(token, baseMs)}`
        const list = this.#waiting.get(key) ?? []
        list.push({ casualty, againMs: Number.POSITIVE_INFINITY })
        this.#waiting.set(key, list)
      }
    }
  }

  add(entry: JournalEntry): void {
    if (this.#waiting.size === 0) return
    const key = `${STREAM_NAMES[entry.stream]}.${entry.partition}.${entry.token}`
    for (const waiting of this.#waiting.get(key) ?? []) {
      if (entry.process === waiting.casualty.process || entry.monotonicMs < waiting.casualty.atMs) continue
      waiting.againMs = Math.min(waiting.againMs, entry.monotonicMs)
    }
  }

  sum(): { recoveriesMs: number[]; unrecovered: number } {
    const all = [...this.#waiting.values()].flat()
    const again = all.filter(({ againMs }) => againMs < Number.POSITIVE_INFINITY)
    return {
      recoveriesMs: again.map(({ againMs, casualty }) => againMs - casualty.atMs),
      unrecovered: all.length - again.length,
    }
  }
}

export function sumHandlerCalls(
  folder: string,
  rows: number,
  casualties: readonly Casualty[],
  baseMs: number,
): HandlerCalls {
  const table = new CallTable(rows)
  const recoveries = new Recoveries(casualties, baseMs)
  let [calls, duplicates] = [0, 0]
  for (const entry of journalEntries(folder)) {
    if (entry.kind !== KIND_START) continue
    calls += 1
    if (!table.add(entry)) duplicates += 1
    recoveries.add(entry)
  }
  return { calls, duplicates, ...recoveries.sum() }
}
