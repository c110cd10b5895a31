/**
 * Posts rows as commands, several bodies at once, until every row has a command id.
 *
 *   next body ─▶ one NDJSON body ─▶ POST ─┬─ ids ───────────────▶ ledger
 *                    ▲                    ├─ refused for now ───▶ pause ─┐
 *                    └── rows without id ◀┴─ unknown (cut, 5xx) ─────────┘  same idempotency keys
 *
 * A row keeps its key (`<run>-row-<n>`) through every repetition, so a POST whose answer was lost can't store it twice.
 */
import { errorText, RunError } from './failure.ts'
import type { Ledger } from './ledger.ts'

/** Rows that are posted together. */
export interface Body {
  readonly rows: readonly number[]
  /** The command of one row: its type and payload, as members of a JSON object. */
  members(row: number): string
}

export interface ProducerOptions {
  readonly baseUrl: string
  readonly ledger: Ledger
  readonly runId: string
  /** Rows that have no id yet. */
  readonly bodies: AsyncGenerator<Body>
  readonly requestsMax: number
  readonly ratePerSecond: number | undefined
  readonly signal: AbortSignal
}

type Item = { id?: string; problem?: { status?: number; title?: string; detail?: string } }

const ANSWER_LIMIT_MS = 30_000
const PAUSE_MIN_MS = 50
const PAUSE_MAX_MS = 5000
/** So long may the API refuse or fail without accepting anything. */
const PATIENCE_MS = 180_000
const LEDGER_FLUSH_MS = 1000

export class Producer {
  readonly #options: ProducerOptions
  readonly #headers: Record<string, string> = { 'content-type': 'application/x-ndjson' }
  #startMs = 0
  #begun = 0
  #lastAcceptMs = 0
  /** Requests without a certain answer, and requests or rows that were refused for the moment. */
  unknown = 0
  refused = 0

  constructor(options: ProducerOptions) {
    this.#options = options
  }

  async run(): Promise<void> {
    const { ledger, requestsMax, bodies } = this.#options
    this.#startMs = performance.now()
    this.#lastAcceptMs = this.#startMs
    const flush = setInterval(() => void ledger.flush(), LEDGER_FLUSH_MS)
    try {
      await Promise.all(Array.from({ length: requestsMax }, () => this.#lane(bodies)))
    } finally {
      clearInterval(flush)
      await ledger.flush()
    }
  }

  async #lane(bodies: AsyncGenerator<Body>): Promise<void> {
    for (;;) {
      const { value: body, done } = await bodies.next()
      if (done === true) return
      await this.#pace(body.rows.length)
      await this.#deliver(body)
    }
  }

  async #pace(rows: number): Promise<void> {
    const { ratePerSecond } = this.#options
    const dueMs = ratePerSecond === undefined ? 0 : this.#startMs + (this.#begun / ratePerSecond) * 1000
    this.#begun += rows
    const waitMs = dueMs - performance.now()
    if (waitMs > 0) await this.#sleep(waitMs)
  }

  async #deliver(body: Body): Promise<void> {
    let { rows } = body
    let pauseMs = PAUSE_MIN_MS
    while (rows.length > 0) {
      this.#options.signal.throwIfAborted()
      const answer = await this.#post(body, rows)
      if (answer.items !== undefined) {
        const left = this.#take(rows, answer.items)
        if (left.length < rows.length) pauseMs = PAUSE_MIN_MS
        rows = left
        if (rows.length === 0) return
      }
      this.#checkPatience(answer.detail)
      await this.#sleep(Math.min(PAUSE_MAX_MS, answer.retryAfterMs ?? pauseMs * (0.5 + Math.random())))
      pauseMs = Math.min(PAUSE_MAX_MS, pauseMs * 2)
    }
  }

  async #post(
    body: Body,
    rows: readonly number[],
  ): Promise<{ items?: readonly Item[]; retryAfterMs?: number; detail: string }> {
    const { baseUrl, signal } = this.#options
    try {
      const response = await fetch(`${baseUrl}/v1/commands`, {
        method: 'POST',
        headers: this.#headers,
        body: this.#text(body, rows),
        signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_LIMIT_MS)]),
      })
      const text = await response.text()
      const items = resultsOf(text)
      if (items !== undefined && items.length === rows.length) return { items, detail: '' }
      const detail = `${response.status} ${text.slice(0, 300)}`
      if (response.status < 500 && response.status !== 429 && response.status !== 408) {
        throw new RunError('failed', `The API refused a body of ${rows.length} commands: ${detail}`)
      }
      this.refused += 1
      const retryAfterS = Number(response.headers.get('retry-after') ?? Number.NaN)
      return Number.isFinite(retryAfterS) ? { retryAfterMs: retryAfterS * 1000, detail } : { detail }
    } catch (error) {
      if (error instanceof RunError) throw error
      signal.throwIfAborted()
      this.unknown += 1
      return { detail: errorText(error) }
    }
  }

  #text(body: Body, rows: readonly number[]): string {
    const { runId } = this.#options
    let text = ''
    for (const row of rows) text += `{${body.members(row)},"idempotencyKey":"${runId}-row-${row}"}\n`
    return text
  }

  /** Notes what was accepted; answers the rows that must be posted again. */
  #take(rows: readonly number[], items: readonly Item[]): number[] {
    const accepted: number[] = []
    const ids: string[] = []
    const again: number[] = []
    for (let i = 0; i < rows.length; i++) {
      const row = rows[i] ?? 0
      const { id, problem } = items[i] ?? {}
      if (id !== undefined) {
        accepted.push(row)
        ids.push(id)
      } else {
        const status = problem?.status ?? 500
        if (status < 500 && status !== 429) {
          throw new RunError('failed', `Row ${row} was refused: ${problem?.title} ${problem?.detail ?? ''}`)
        }
        again.push(row)
      }
    }
    this.#options.ledger.accept(accepted, ids)
    if (accepted.length > 0) this.#lastAcceptMs = performance.now()
    this.refused += again.length > 0 ? 1 : 0
    return again
  }

  #checkPatience(detail: string): void {
    if (performance.now() - this.#lastAcceptMs < PATIENCE_MS) return
    throw new RunError(
      'unavailable',
      `Nothing was accepted for ${PATIENCE_MS / 1000} s. Last answer: ${detail}`,
    )
  }

  async #sleep(ms: number): Promise<void> {
    const { signal } = this.#options
    const endMs = performance.now() + ms
    while (performance.now() < endMs) {
      signal.throwIfAborted()
      await Bun.sleep(Math.min(100, endMs - performance.now()))
    }
  }
}

function resultsOf(text: string): Item[] | undefined {
  try {
    const { results } = JSON.parse(text) as { results?: Item[] }
    return Array.isArray(results) ? results : undefined
  } catch {
    return undefined
  }
}
