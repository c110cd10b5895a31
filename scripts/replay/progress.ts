/** Tells on stderr how far a replay is: one line that is drawn again on a terminal, plain lines every few seconds elsewhere. */

export interface Standing {
  readonly total: number
  readonly accepted: number
  /** Accepted by this run, for the rate. */
  readonly acceptedNow: number
  /** Records in the views, as last seen. */
  readonly folded: number
  readonly kills: number
}

const BAR_WIDTH = 24
const TERMINAL_MS = 200
const PLAIN_MS = 5000

export class Progress {
  readonly #look: () => Standing
  readonly #terminal: boolean = process.stderr.isTTY === true
  readonly #startMs: number = performance.now()
  #timer: ReturnType<typeof setInterval> | undefined

  constructor(look: () => Standing) {
    this.#look = look
  }

  start(): void {
    this.#timer = setInterval(() => this.#draw(), this.#terminal ? TERMINAL_MS : PLAIN_MS)
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
    tell(line)
  }

  #draw(): void {
    const { total, accepted, acceptedNow, folded, kills } = this.#look()
    const seconds = (performance.now() - this.#startMs) / 1000
    const rate = acceptedNow / seconds
    const leftS = rate > 0 ? Math.ceil((total - accepted) / rate) : Number.NaN
    const parts = [
      `${number(accepted)} of ${number(total)} in`,
      `${number(rate)}/s`,
      `lag ${number(Math.max(0, accepted - folded))}`,
      accepted < total ? `${Number.isNaN(leftS) ? '?' : leftS} s left` : 'waiting for the views',
      ...(kills > 0 ? [`${kills} kills`] : []),
    ]
    if (!this.#terminal) {
      tell(parts.join(', '))
      return
    }
    const full = Math.round((BAR_WIDTH * accepted) / total)
    process.stderr.write(`\r\x1b[K${'█'.repeat(full)}${'░'.repeat(BAR_WIDTH - full)} ${parts.join(' · ')}`)
  }
}

/** A line for people. Not by console.error, which Bun paints red on a terminal. */
export function tell(line: string): void {
  process.stderr.write(`replay: ${line}\n`)
}

export function number(value: number): string {
  return Math.round(value).toLocaleString('en-US')
}
