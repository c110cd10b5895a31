/**
 * A redis-server of the harness: its own port and folder, append-only file on. It can be killed, paused, ended and
 * started again, on the same data.
 */
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { RunError } from './failure.ts'

/** The program, as `./scripts/test` and the product find it: named by a variable, else on PATH. */
export const REDIS_SERVER: string = process.env['MILLRACE_REDIS_SERVER'] ?? 'redis-server'

export interface RedisServerOptions {
  readonly folder: string
  readonly port: number
  readonly fsync: 'everysec' | 'always'
  readonly signal: AbortSignal
  /** More of the configuration, as arguments. */
  readonly settings?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
}

const START_LIMIT_MS = 60_000
const LOOK_MS = 10

export class RedisServer {
  readonly port: number
  readonly folder: string
  readonly #options: RedisServerOptions
  #child: Subprocess | undefined
  /** When it last answered for the first time after a start, by `performance.now()`. */
  answeredAtMs = 0

  constructor(options: RedisServerOptions) {
    this.#options = options
    this.port = options.port
    this.folder = options.folder
    mkdirSync(options.folder, { recursive: true, mode: 0o700 })
  }

  get url(): string {
    return `redis://127.0.0.1:${this.port}`
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  get alive(): boolean {
    const child = this.#child
    return child !== undefined && child.exitCode === null && child.signalCode === null
  }

  /** Resolves when it answers, its data loaded. `more` is configuration for this start alone. */
  async start(more: readonly string[] = []): Promise<void> {
    const { folder, port, fsync, settings = [], environment = {} } = this.#options
    const log = openSync(join(folder, 'redis.log'), 'a', 0o600)
    this.#child = Bun.spawn(
      [
        ...[REDIS_SERVER, '--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', ''],
        ...['--appendonly', 'yes', '--appendfsync', fsync, '--no-appendfsync-on-rewrite', 'no'],
        ...['--maxmemory-policy', 'noeviction', '--loglevel', 'notice', ...settings, ...more],
      ],
      { cwd: folder, env: { ...process.env, ...environment }, stdio: ['ignore', log, log] },
    )
    closeSync(log)
    await this.untilAnswering()
  }

  async untilAnswering(): Promise<void> {
    const endMs = performance.now() + START_LIMIT_MS
    while ((await ping(this.port)) !== 'PONG') {
      this.#options.signal.throwIfAborted()
      if (!this.alive) throw new RunError('unavailable', `redis-server ended at once: ${this.#lastLines()}`)
      if (performance.now() > endMs) throw new RunError('unavailable', 'redis-server does not answer.')
      await Bun.sleep(LOOK_MS)
    }
    this.answeredAtMs = performance.now()
  }

  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL')
    await this.#child?.exited
  }

  pause(): void {
    this.#child?.kill('SIGSTOP')
  }

  resume(): void {
    this.#child?.kill('SIGCONT')
  }

  /** Lets it write everything and end. */
  async end(): Promise<void> {
    if (!this.alive) return
    this.resume()
    this.#child?.kill('SIGTERM')
    const late = setTimeout(() => this.#child?.kill('SIGKILL'), 15_000)
    await this.#child?.exited
    clearTimeout(late)
  }

  abandon(): void {
    this.#child?.kill('SIGKILL')
  }

  #lastLines(): string {
    return readFileSync(join(this.folder, 'redis.log'), 'utf8').trim().split('\n').slice(-2).join(' ')
  }
}

/** What a server says to PING on a connection of its own; '' when nobody answers. */
async function ping(port: number): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  const socket = connect({ host: '127.0.0.1', port })
  socket.setTimeout(500, () => resolve(''))
  socket.on('error', () => resolve(''))
  socket.on('connect', () => socket.write('*1\r\n$4\r\nPING\r\n'))
  socket.on('data', (bytes) => resolve(bytes.toString('latin1').replace(/^\+/, '').trim()))
  const answer = await promise
  socket.destroy()
  return answer
}
