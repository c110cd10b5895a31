/**
 * A load that does not care about answers: bodies are posted when they are due by the clock, however many are unanswered,
 * and what is refused is let go. Of the refused a sample comes back once, exactly after its Retry-After, beside the flood.
 *
 *   due ─▶ POST ─┬─ ids ─────────────▶ ledger
 *                └─ 429, 503 ─▶ drawn? ─▶ wait as told ─▶ POST ─▶ accepted or refused: one retry, counted
 */
import type { Ledger } from '../fleet/ledger.ts'
import type { Random } from './random.ts'
import type { Workload } from './workload.ts'

export interface FloodOptions {
  readonly baseUrl: string
  readonly ledger: Ledger
  readonly workload: Workload
  readonly runId: string
  readonly random: Random
  /** Of the refused bodies, how many come back. */
  readonly retryShare: number
  /** Commands of one body; default as the workload says. */
  readonly bodyRows?: number
  readonly tenant?: string
  /** Called with the rows of each body when it is posted for the first time. */
  readonly onPost?: (rows: readonly number[]) => void
  readonly signal: AbortSignal
}

/** One refused body that came back when it was told to. */
export interface Retry {
  /** When it came back, and what it had been told, s. */
  readonly atMs: number
  readonly toldS: number
  readonly accepted: boolean
}

type Item = { id?: string; problem?: { status?: number; type?: string } }

const TICK_MS = 5
const UNKNOWN = 'outcome-unknown'
const FILL_LANES = 8
const BURST_MS_MAX = 500
const UNKNOWN_PAUSE_MS = 200
const UNKNOWN_LIMIT_MS = 60_000
const ANSWER_LIMIT_MS = 30_000

export class Flood {
  readonly #options: FloodOptions
  readonly #bodyRows: number
  readonly #headers: Record<string, string>
  readonly #open = new Set<Promise<void>>()
  #nextRow: number
  /** Rows that were posted for the first time; accepted and refused ones of all posts. */
  posted = 0
  accepted = 0
  refused = 0
  /** Of the refused rows those that a limit of their sender refused. */
  overQuota = 0
  /** Rows without a certain answer, which may have been stored. */
  unknown = 0
  #unknownRows: number[] = []
  /** Refusals that did not say when to come back. */
  silent = 0
  readonly statuses: Map<number, number> = new Map()
  readonly retries: Retry[] = []

  constructor(options: FloodOptions, fromRow: number) {
    this.#options = options
    this.#nextRow = fromRow
    this.#bodyRows = options.bodyRows ?? options.workload.bodyRows
    const { tenant } = options
    this.#headers = {
      'content-type': 'application/x-ndjson',
      ...(tenant === undefined ? {} : { 'millrace-tenant': tenant }),
    }
  }

  get nextRow(): number {
    return this.#nextRow
  }

  /** Posts so many rows as fast as they are taken, before the load begins. */
  async fill(rows: number): Promise<void> {
    const bodies = Array.from({ length: Math.floor(rows / this.#bodyRows) }, () => this.#next())
    const lane = async (): Promise<void> => {
      for (let body = bodies.pop(); body !== undefined; body = bodies.pop()) await this.post(body)
    }
    await Promise.all(Array.from({ length: FILL_LANES }, lane))
  }

  #next(): number[] {
    const rows = Array.from({ length: this.#bodyRows }, (_, i) => this.#nextRow + i)
    this.#nextRow += rows.length
    return rows
  }

  /** Posts at a rate for some time. Retries that are due later are dropped. Answers how long it took in fact, ms. */
  async run(ratePerSecond: number, ms: number): Promise<number> {
    const { workload, signal } = this.#options
    const startMs = performance.now()
    const endMs = startMs + ms
    let begun = 0
    for (let nowMs = startMs; nowMs < endMs; nowMs = performance.now()) {
      signal.throwIfAborted()
      const due = ((nowMs - startMs) / 1000) * ratePerSecond
      // A harness that stood still does not make up for it with one blow.
      begun = Math.max(begun, due - (ratePerSecond * BURST_MS_MAX) / 1000)
      while (begun + this.#bodyRows <= due && this.#nextRow + this.#bodyRows <= workload.rows) {
        const rows = this.#next()
        begun += rows.length
        this.posted += rows.length
        this.#follow(this.#first(rows, endMs))
      }
      await Bun.sleep(TICK_MS)
    }
    const tookMs = performance.now() - startMs
    await Promise.all(this.#open)
    return tookMs
  }

  #follow(work: Promise<void>): void {
    this.#open.add(work)
    void work.finally(() => this.#open.delete(work))
  }

  async #first(rows: readonly number[], endMs: number): Promise<void> {
    const { random, retryShare, onPost } = this.#options
    onPost?.(rows)
    const { left, retryAfterS } = await this.post(rows)
    if (left.length === 0 || retryAfterS === undefined || random.next() >= retryShare) return
    const dueMs = performance.now() + retryAfterS * 1000
    if (dueMs > endMs) return
    await Bun.sleep(dueMs - performance.now())
    const atMs = performance.now()
    const again = await this.post(left)
    this.retries.push({ atMs, toldS: retryAfterS, accepted: again.all })
  }

  /** Posts rows as one body; answers whether all were accepted, which were refused, and for how long. */
  async post(
    rows: readonly number[],
  ): Promise<{ readonly all: boolean; readonly left: readonly number[]; readonly retryAfterS?: number }> {
    const { baseUrl, workload, runId, ledger, signal } = this.#options
    let body = ''
    for (const row of rows) body += `{${workload.members(row)},"idempotencyKey":"${runId}-row-${row}"}\n`
    try {
      const response = await fetch(`${baseUrl}/v1/commands`, {
        method: 'POST',
        headers: this.#headers,
        body,
        signal: AbortSignal.any([signal, AbortSignal.timeout(ANSWER_LIMIT_MS)]),
      })
      const { type, results = [] } = (await response.json()) as { type?: string; results?: Item[] }
      this.statuses.set(response.status, (this.statuses.get(response.status) ?? 0) + 1)
      const taken = rows.flatMap((row, i) => {
        const id = results[i]?.id
        return id === undefined ? [] : [{ row, id }]
      })
      ledger.accept(
        taken.map(({ row }) => row),
        taken.map(({ id }) => id),
      )
      this.accepted += taken.length
      const isUnknown = (i: number): boolean => (results[i]?.problem?.type ?? type ?? '').endsWith(UNKNOWN)
      const missing = [...rows.keys()].filter((i) => results[i]?.id === undefined)
      const left = missing.filter((i) => !isUnknown(i)).map((i) => rows[i] ?? 0)
      this.#notUnderstood(missing.filter(isUnknown).map((i) => rows[i] ?? 0))
      this.refused += left.length
      this.overQuota += results.filter(({ problem }) => problem?.status === 429).length
      const told = Number(response.headers.get('retry-after') ?? Number.NaN)
      if (left.length > 0 && !(told > 0)) this.silent += 1
      const all = taken.length === rows.length
      return told > 0 ? { all, left, retryAfterS: told } : { all, left }
    } catch {
      signal.throwIfAborted()
      this.#notUnderstood(rows)
      return { all: false, left: [] }
    }
  }

  #notUnderstood(rows: readonly number[]): void {
    this.unknown += rows.length
    this.#unknownRows.push(...rows)
  }

  /** After the load: posts what has no certain answer under the same keys, until it has one. False when that takes too long. */
  async settleUnknown(): Promise<boolean> {
    const endMs = performance.now() + UNKNOWN_LIMIT_MS
    const { unknown } = this
    while (this.#unknownRows.length > 0 && performance.now() < endMs) {
      const rows = this.#unknownRows.splice(0, this.#bodyRows)
      const { left } = await this.post(rows)
      this.#unknownRows.push(...left)
      if (left.length > 0) await Bun.sleep(UNKNOWN_PAUSE_MS)
    }
    this.unknown = unknown
    return this.#unknownRows.length === 0
  }
}
