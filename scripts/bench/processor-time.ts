/** How much processor time processes took, read from /proc; nothing is told where there is no such folder. */
import { readFileSync } from 'node:fs'

/** Linux counts in hundredths of a second. */
const TICKS_PER_S = 100

/** Names of processes, with their ids. */
export type NamedProcesses = Readonly<Record<string, number>>

export class ProcessorTime {
  readonly #processes: NamedProcesses
  readonly #before: ReadonlyMap<string, number>
  readonly #startMs: number

  constructor(processes: NamedProcesses) {
    this.#processes = processes
    this.#before = seconds(processes)
    this.#startMs = performance.now()
  }

  /** Cores that each has kept busy since then. */
  cores(): Record<string, number> {
    const elapsedS = (performance.now() - this.#startMs) / 1000
    const used: Record<string, number> = {}
    for (const [name, after] of seconds(this.#processes)) {
      used[name] = Number(((after - (this.#before.get(name) ?? 0)) / elapsedS).toFixed(2))
    }
    return used
  }
}

function seconds(processes: NamedProcesses): Map<string, number> {
  const found = new Map<string, number>()
  for (const [name, pid] of Object.entries(processes)) {
    const used = secondsOf(pid)
    if (used !== undefined) found.set(name, used)
  }
  return found
}

/** User and system time are fields 14 and 15; the second one may hold spaces and ends with the last parenthesis. */
function secondsOf(pid: number): number | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_S
  } catch {
    return undefined
  }
}

/** Resident bytes of a process; undefined where /proc does not tell. */
export function residentBytes(pid: number): number | undefined {
  try {
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
  } catch {
    return undefined
  }
}
