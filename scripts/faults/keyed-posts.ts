/**
 * Many producers that post the same command under the same idempotency key at once, and each again and again until it has an
 * answer. Some of them hang up before they have one.
 *
 *   key ─▶ 8 producers ─▶ API 1, API 2 ─┬─ 202 ──────────────────▶ id, noted by key
 *              ▲                        ├─ 429, 5xx, connection cut ─┐
 *              └── same key, same body ◀┴─ hung up ──────────────────┘
 */
import { RunError } from '../fleet/failure.ts'
import type { Random } from './random.ts'
import type { Workload } from './workload.ts'

export interface KeyedPostsOptions {
  /** Producers are spread over them. */
  readonly baseUrls: readonly string[]
  readonly workload: Workload
  readonly keyOf: (row: number) => string
  readonly random: Random
  /** Of the posts: how many are hung up by the producer, and within which time. */
  readonly hangUpShare: number
  readonly hangUpMsMax: number
  readonly signal: AbortSignal
}

/** What one key was answered with. */
export interface KeyAnswers {
  readonly ids: Set<string>
  /** Answers that did not say that the command was there already. */
  fresh: number
  answers: number
}

const ANSWER_LIMIT_MS = 15_000
const PATIENCE_MS = 90_000
const PAUSE_MIN_MS = 10
const PAUSE_MAX_MS = 500

export class KeyedPosts {
  readonly #options: KeyedPostsOptions
  readonly byRow: Map<number, KeyAnswers> = new Map()
  readonly statuses: Map<number, number> = new Map()
  posts = 0
  /** Posts without an answer: hung up here, and cut by the other side. */
  hungUp = 0
  cut = 0
  /** Producers that gave up without an answer. */
  unanswered = 0

  constructor(options: KeyedPostsOptions) {
    this.#options = options
  }

  /** Posts every row by so many producers at once; so many keys are under way at a time. */
  async run(
    rows: readonly number[],
    { producers, keys }: { producers: number; keys: number },
  ): Promise<void> {
    const next = rows.values()
    const lane = async (): Promise<void> => {
      for (const row of next) {
        await Promise.all(Array.from({ length: producers }, (_, producer) => this.#deliver(row, producer)))
      }
    }
    await Promise.all(Array.from({ length: keys }, lane))
  }

  async #deliver(row: number, producer: number): Promise<void> {
    const endMs = performance.now() + PATIENCE_MS
    let pauseMs = PAUSE_MIN_MS
    while (performance.now() < endMs) {
      this.#options.signal.throwIfAborted()
      if (await this.#post(row, producer)) return
      await Bun.sleep(pauseMs * (0.5 + Math.random()))
      pauseMs = Math.min(PAUSE_MAX_MS, pauseMs * 2)
    }
    this.unanswered += 1
  }

  /** True when it was answered with an id. */
  async #post(row: number, producer: number): Promise<boolean> {
    const { baseUrls, workload, keyOf, random, hangUpShare, hangUpMsMax, signal } = this.#options
    const hangsUp = random.next() < hangUpShare
    const limitMs = hangsUp ? random.between(0, hangUpMsMax) : ANSWER_LIMIT_MS
    const limit = new AbortController()
    const timer = setTimeout(() => limit.abort(), limitMs)
    this.posts += 1
    try {
      const response = await fetch(
        `${baseUrls[producer % baseUrls.length]}/v1/commands/${workload.typeOf(row)}`,
        {
          method: 'POST',
          headers: { 'content-type': 'application/json', 'idempotency-key': `"${keyOf(row)}"` },
          body: workload.payload(row),
          signal: AbortSignal.any([signal, limit.signal]),
        },
      )
      const { id, detail } = (await response.json()) as { id?: string; detail?: string }
      const { status, headers } = response
      this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1)
      if (status === 202 && id !== undefined) {
        this.#note(row, id, headers.get('idempotent-replayed') === 'true')
        return true
      }
      if (status >= 500 || status === 429) return false
      throw new RunError('failed', `Row ${row} was answered with ${status}: ${detail}`)
    } catch (error) {
      if (error instanceof RunError) throw error
      signal.throwIfAborted()
      if (hangsUp && limit.signal.aborted) this.hungUp += 1
      else this.cut += 1
      return false
    } finally {
      clearTimeout(timer)
    }
  }

  #note(row: number, id: string, isReplayed: boolean): void {
    const known = this.byRow.get(row) ?? { ids: new Set(), fresh: 0, answers: 0 }
    known.ids.add(id)
    known.answers += 1
    if (!isReplayed) known.fresh += 1
    this.byRow.set(row, known)
  }
}
