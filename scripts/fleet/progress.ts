/** Tells on stderr how far a run is: one line that is drawn again on a terminal, plain lines every few seconds elsewhere. */

export interface Progression {
  /** From 0 to 1. */
  readonly share: number
  readonly parts: readonly string[]
}

const BAR_WIDTH = 24
const TERMINAL_MS = 200
const PLAIN_MS = 5000

export class Progress {
  readonly #program: string
  readonly #look: () => Progression
  readonly #terminal: boolean = process.stderr.isTTY === true
  #timer: ReturnType<typeof setInterval> | undefined

  constructor(program: string, look: () => Progression) {
    this.#program = program
    this.#look = look
  }

  start(): void {
    this.#timer ??= setInterval(() => this.#draw(), this.#terminal ? TERMINAL_MS : PLAIN_MS)
  }

  stop(): void {
    if (this.#timer === undefined) return
    clearInterval(this.#timer)
    this.#timer = undefined
    if (this.#terminal) process.stderr.write('\r\x1b[K')
  }

  /** A line for people that stays. */
  say(line: string): void {
    if (this.#terminal && this.#timer !== undefined) process.stderr.write('\r\x1b[K')
    tellAs(this.#program, line)
  }

  #draw(): void {
    const { share, parts } = this.#look()
    if (!this.#terminal) {
      tellAs(this.#program, parts.join(', '))
      return
    }
    const full = Math.max(0, Math.min(BAR_WIDTH, Math.round(BAR_WIDTH * share)))
    process.stderr.write(`\r\x1b[K${'█'.repeat(full)}${'░'.repeat(BAR_WIDTH - full)} ${parts.join(' · ')}`)
  }
}

/** A line for people. Not by console.error, which Bun paints red on a terminal. */
export function tellAs(program: string, line: string): void {
  process.stderr.write(`${program}: ${line}\n`)
}

export function number(value: number): string {
  return Math.round(value).toLocaleString('en-US')
}
