/** Memory of the processes of a scenario, from outside: what each has resident, looked at four times a second. Linux only. */
import { readFileSync } from 'node:fs'
import type { Arena } from './arena.ts'

export const MEBIBYTE: number = 1024 ** 2
const PAGE_BYTES = 4096
const SAMPLE_MS = 250

/** The most that every process of the product had resident, against the most that it had while it was warmed. */
export class MemoryWatch {
  readonly #arena: Arena
  readonly growth: Map<string, { readonly firstBytes: number; readonly grownBytes: number }> = new Map()
  #timer: ReturnType<typeof setInterval> | undefined

  constructor(arena: Arena) {
    this.#arena = arena
  }

  start(): void {
    this.#timer = setInterval(() => this.#look(), SAMPLE_MS)
  }

  /** What was seen so far is what the work needs. */
  warm(): void {
    for (const [name, { firstBytes, grownBytes }] of this.growth) {
      this.growth.set(name, { firstBytes: firstBytes + grownBytes, grownBytes: 0 })
    }
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  /** By process: what it had when it was warm, and what came on top, MB. */
  told(): Record<string, string> {
    const megabytes = (bytes: number): number => Math.round(bytes / MEBIBYTE)
    const lines = [...this.growth].map(([name, { firstBytes, grownBytes }]): [string, string] => [
      name,
      `${megabytes(firstBytes)} +${megabytes(grownBytes)}`,
    ])
    return Object.fromEntries(lines)
  }

  #look(): void {
    for (const role of ['api', 'project', 'work'] as const) {
      for (const { name, pid } of this.#arena.fleet.ofRole(role)) {
        const bytes = residentBytes(pid)
        const { firstBytes, grownBytes } = this.growth.get(name) ?? { firstBytes: bytes, grownBytes: 0 }
        this.growth.set(name, { firstBytes, grownBytes: Math.max(grownBytes, bytes - firstBytes) })
      }
    }
  }
}

function residentBytes(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * PAGE_BYTES
  } catch {
    return 0
  }
}
