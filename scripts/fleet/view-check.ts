/**
 * Reads the views as any client would, page by page over HTTP, and holds them against what they must be.
 */
import { errorText, RunError } from './failure.ts'

export type View = Readonly<Record<string, unknown>>

/** Views by key, by projection. */
export type ExpectedViews = ReadonlyMap<string, ReadonlyMap<string, View>>

type Page = {
  readonly data: readonly { readonly key: string; readonly value: View }[]
  readonly page: { readonly next?: string | null }
}

const PAGE_VIEWS = 500
const ANSWER_LIMIT_MS = 30_000
const DIFFERENCES_TOLD = 10
const TRIES = 5

export class ViewReader {
  readonly #baseUrl: string
  readonly #signal: AbortSignal

  constructor(baseUrl: string, signal: AbortSignal) {
    this.#baseUrl = baseUrl
    this.#signal = signal
  }

  async *views(projection: string): AsyncGenerator<[string, View]> {
    let cursor: string | null | undefined
    do {
      const query = new URLSearchParams({ limit: String(PAGE_VIEWS), ...(cursor ? { cursor } : {}) })
      const { data, page }: Page = await this.#get(`/v1/views/${projection}?${query}`)
      for (const { key, value } of data) yield [key, value]
      cursor = page.next
    } while (cursor)
  }

  async #get(path: string): Promise<Page> {
    let detail = ''
    for (let round = 0; round < TRIES; round++) {
      this.#signal.throwIfAborted()
      if (round > 0) await Bun.sleep(200 * round)
      try {
        const response = await fetch(`${this.#baseUrl}${path}`, {
          signal: AbortSignal.any([this.#signal, AbortSignal.timeout(ANSWER_LIMIT_MS)]),
        })
        if (response.ok) return (await response.json()) as Page
        detail = `${response.status} ${(await response.text()).slice(0, 300)}`
        if (response.status < 500) break
      } catch (error) {
        this.#signal.throwIfAborted()
        detail = errorText(error)
      }
    }
    throw new RunError('unavailable', `The views can't be read from ${this.#baseUrl}${path}: ${detail}`)
  }
}

export interface Comparison {
  readonly compared: number
  /** Views that are missing, that should not be there, or that differ in a field. */
  readonly different: number
  /** The first few, one sentence each. */
  readonly differences: readonly string[]
}

export async function compareViews(reader: ViewReader, expected: ExpectedViews): Promise<Comparison> {
  const differences: string[] = []
  let [compared, different] = [0, 0]
  const differ = (sentence: string): void => {
    different += 1
    if (differences.length < DIFFERENCES_TOLD) differences.push(sentence)
  }
  for (const [projection, wanted] of expected) {
    const missing = new Set(wanted.keys())
    for await (const [key, view] of reader.views(projection)) {
      compared += 1
      if (!missing.delete(key)) differ(`${projection}/${key} should not be there`)
      else if (!Bun.deepEquals(view, wanted.get(key), true)) {
        differ(`${projection}/${key} is ${JSON.stringify(view)}, not ${JSON.stringify(wanted.get(key))}`)
      }
    }
    compared += missing.size
    for (const key of missing) differ(`${projection}/${key} is missing`)
  }
  return { compared, different, differences }
}
