/**
 * A process of the benchmark that is not the product's: a baseline, a load generator, a peer. It is a script of
 * `subjects/` with one JSON argument; it tells what it has to tell as JSON, a line each, on stdout.
 *
 *   spawn ─▶ {"ready":…} ─▶ … ─▶ {"result":…} or SIGTERM
 */
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { RunError } from '../fleet/failure.ts'

const FOLDER = join(import.meta.dir, 'subjects')
const READY_LIMIT_MS = 30_000

export interface SubjectOptions {
  /** File name in `subjects/`, without its ending; or an absolute path. */
  readonly script: string
  readonly input: object
  readonly logFile: string
  readonly signal: AbortSignal
  /** The program to run it with; default this Bun. */
  readonly program?: string
}

type Word = { readonly ready?: unknown; readonly result?: unknown }

export class Subject {
  readonly child: Subprocess<'ignore', 'pipe', Bun.BunFile>
  readonly #name: string
  readonly #signal: AbortSignal
  readonly #ready: PromiseWithResolvers<unknown> = Promise.withResolvers()
  readonly #result: PromiseWithResolvers<unknown> = Promise.withResolvers()
  #isEnding = false

  constructor({ script, input, logFile, signal, program = process.execPath }: SubjectOptions) {
    this.#name = script
    this.#signal = signal
    const path = script.startsWith('/') ? script : join(FOLDER, `${script}.ts`)
    this.child = Bun.spawn([program, path, JSON.stringify(input)], {
      stdin: 'ignore',
      stdout: 'pipe',
      stderr: Bun.file(logFile),
    })
    for (const { promise } of [this.#ready, this.#result]) promise.catch(() => undefined)
    void this.#listen(logFile)
  }

  get pid(): number {
    return this.child.pid
  }

  /** What it says when it can be measured. */
  async ready<Answer>(): Promise<Answer> {
    const { promise, reject } = Promise.withResolvers<never>()
    const late = setTimeout(
      () => reject(new RunError('failed', `${this.#name} did not get ready.`)),
      READY_LIMIT_MS,
    )
    try {
      return (await this.#orInterrupted(Promise.race([this.#ready.promise, promise]))) as Answer
    } finally {
      clearTimeout(late)
    }
  }

  /** What it found. */
  async result<Answer>(): Promise<Answer> {
    return (await this.#orInterrupted(this.#result.promise)) as Answer
  }

  async end(): Promise<void> {
    this.#isEnding = true
    this.child.kill('SIGTERM')
    const late = setTimeout(() => this.child.kill('SIGKILL'), 3000)
    await this.child.exited
    clearTimeout(late)
  }

  async #listen(logFile: string): Promise<void> {
    let rest = ''
    const decoder = new TextDecoder()
    for await (const bytes of this.child.stdout) {
      const lines = (rest + decoder.decode(bytes, { stream: true })).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) this.#hear(line)
    }
    await this.child.exited
    const why = this.#isEnding ? 'was ended' : `ended: ${(await Bun.file(logFile).text()).trim().slice(-600)}`
    const error = new RunError('failed', `${this.#name} ${why}`)
    this.#ready.reject(error)
    this.#result.reject(error)
  }

  #hear(line: string): void {
    if (!line.startsWith('{')) return
    const word = JSON.parse(line) as Word
    if ('ready' in word) this.#ready.resolve(word.ready)
    if ('result' in word) this.#result.resolve(word.result)
  }

  async #orInterrupted<Answer>(work: Promise<Answer>): Promise<Answer> {
    const { promise, reject } = Promise.withResolvers<never>()
    const onAbort = (): void => reject(this.#signal.reason)
    if (this.#signal.aborted) onAbort()
    this.#signal.addEventListener('abort', onAbort, { once: true })
    try {
      return await Promise.race([work, promise])
    } finally {
      this.#signal.removeEventListener('abort', onAbort)
    }
  }
}
