/** A `fetch` that a test answers, and that keeps what it was asked. */

export interface AskedLine {
  readonly type: string
  readonly payload: unknown
  readonly idempotencyKey?: string
}

export interface Asked {
  readonly method: string
  /** With its query. */
  readonly path: string
  readonly headers: Headers
  readonly body: string
  /** Of a bulk request. */
  readonly lines: readonly AskedLine[]
  readonly signal: AbortSignal
}

export type Answering = (asked: Asked, nth: number) => Response | Promise<Response>

export class FakeApi {
  readonly asked: Asked[] = []
  answer: Answering
  /** Most requests that were under way at once. */
  inFlightMost = 0
  #inFlight = 0

  constructor(answer: Answering = accept) {
    this.answer = answer
  }

  readonly fetch = async (url: string, init: RequestInit): Promise<Response> => {
    const { pathname, search } = new URL(url)
    const body = typeof init.body === 'string' ? init.body : new TextDecoder().decode(init.body as Uint8Array)
    const headers = new Headers(init.headers)
    const isBulk = headers.get('content-type') === 'application/x-ndjson'
    const asked: Asked = {
      ...{ method: init.method ?? 'GET', path: `${pathname}${search}`, headers, body },
      lines: isBulk
        ? body
            .split('\n')
            .slice(0, -1)
            .map((line) => JSON.parse(line) as AskedLine)
        : [],
      signal: init.signal as AbortSignal,
    }
    this.asked.push(asked)
    this.#inFlight += 1
    this.inFlightMost = Math.max(this.inFlightMost, this.#inFlight)
    const { promise, reject } = Promise.withResolvers<never>()
    asked.signal.addEventListener('abort', () => reject(new DOMException('cut off', 'AbortError')))
    try {
      return await Promise.race([this.answer(asked, this.asked.length), promise])
    } finally {
      this.#inFlight -= 1
    }
  }
}

export const silence = (): Promise<never> => new Promise<never>(() => undefined)
export const cut = (): never => {
  throw new TypeError('fetch failed')
}

export function json(body: unknown, status = 200, headers: Readonly<Record<string, string>> = {}): Response {
  return new Response(JSON.stringify(body), {
    status,
    headers: { 'content-type': 'application/json', ...headers },
  })
}

export const problem = (name: string, status: number, members: object = {}): object => ({
  type: name.startsWith('http') ? name : `/problems/${name}`,
  title: name,
  status,
  detail: `It is ${name}.`,
  ...members,
})

export const refuse = (
  name: string,
  status: number,
  headers: Readonly<Record<string, string>> = {},
): Response => json(problem(name, status), status, headers)

export const REDUCED = 'https://iana.org/assignments/http-problem-types#temporary-reduced-capacity'

/** Takes everything in; the id of a command is made of its key. */
export function accept({ lines }: Asked): Response {
  return results(lines.map((line, index) => ({ index, id: `id-${line.idempotencyKey}` })))
}

export function results(list: readonly object[], status = 202, headers = {}): Response {
  return json({ durability: 'everysec', results: list }, status, headers)
}
