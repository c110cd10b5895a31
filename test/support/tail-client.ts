/** A reader of server-sent events as a browser is one: keeps the last id, tells blocks apart, and can come back. */

export interface Block {
  readonly id: string | undefined
  readonly event: string | undefined
  readonly data: unknown
  readonly comment: string | undefined
  readonly retryMs: number | undefined
}

export class TailClient implements AsyncDisposable {
  readonly response: Response
  readonly blocks: Block[] = []
  /** What a browser would send as Last-Event-ID. */
  lastId = ''
  ended = false
  readonly #abort: AbortController
  readonly #waiting = new Set<() => void>()
  readonly #reading: Promise<void>

  private constructor(response: Response, abort: AbortController) {
    this.response = response
    this.#abort = abort
    this.#reading = this.#read().catch(() => undefined)
  }

  static async open(url: string, headers: Record<string, string> = {}): Promise<TailClient> {
    const abort = new AbortController()
    const client = new TailClient(await fetch(url, { headers, signal: abort.signal }), abort)
    return client
  }

  /** Blocks that carry data. */
  get events(): Block[] {
    return this.blocks.filter(({ data }) => data !== undefined)
  }

  async until(what: string, test: () => boolean, limitMs = 20_000): Promise<void> {
    if (test()) return
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const timer = setTimeout(() => reject(new Error(`waited ${limitMs} ms in vain for ${what}`)), limitMs)
    const check = () => {
      if (test()) resolve()
    }
    this.#waiting.add(check)
    try {
      await promise
    } finally {
      clearTimeout(timer)
      this.#waiting.delete(check)
    }
  }

  async untilEnded(limitMs?: number): Promise<void> {
    await this.until('the end of the stream', () => this.ended, limitMs)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort()
    await this.#reading
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder()
    let rest = ''
    try {
      for await (const chunk of this.response.body ?? []) {
        rest += decoder.decode(chunk, { stream: true })
        const parts = rest.split('\n\n')
        rest = parts.pop() ?? ''
        for (const part of parts) this.#take(parseBlock(part))
        this.#tell()
      }
    } finally {
      this.ended = true
      this.#tell()
    }
  }

  #take(block: Block): void {
    this.blocks.push(block)
    if (block.id !== undefined) this.lastId = block.id
  }

  #tell(): void {
    for (const check of [...this.#waiting]) check()
  }
}

function parseBlock(text: string): Block {
  const field = (name: string) => new RegExp(`^${name}: ?(.*)$`, 'm').exec(text)?.[1]
  const data = field('data')
  const retry = field('retry')
  return {
    id: field('id'),
    event: field('event'),
    data: data === undefined ? undefined : JSON.parse(data),
    comment: field(''),
    retryMs: retry === undefined ? undefined : Number(retry),
  }
}
