/**
 * An HTTP listener: binds one address, hands requests to an app, and stops without cutting off who is being answered.
 *
 *   running ──stop──▶ no new connections ──(answers are through, or the limit)──▶ closed
 */
import { describeError, MillraceError } from '../contracts/errors.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import type { Clock } from '../runtime/clock.ts'
import { Service } from '../runtime/service.ts'
import type { HttpEnv } from './http-env.ts'
import { addressed, isAddressed, refuseUnaddressed } from './request-target.ts'

/** What a listener needs of a Hono app. */
export interface HttpApp {
  fetch(request: Request, env: HttpEnv['Bindings']): Response | Promise<Response>
}

export interface HttpServerOptions {
  readonly name: string
  readonly app: HttpApp
  readonly host: string
  /** 0 takes any free port. */
  readonly port: number
  readonly clock: Clock
  readonly telemetry: Telemetry
  /** Silence on a connection after which it is closed, also within a request. Default 30 s. */
  readonly idleTimeoutS?: number
  /** How long `stop` waits for answers under way. Default 5 s. */
  readonly stopLimitMs?: number
}

const IDLE_TIMEOUT_S = 30
const STOP_LIMIT_MS = 5000

/** The apps refuse large bodies with a problem; this bound of the server's, which answers without one, lies far above. */
const BODY_BYTES_MAX = 1024 ** 3

export class HttpServer extends Service {
  readonly #options: HttpServerOptions
  #server: Bun.Server<undefined> | undefined

  constructor(options: HttpServerOptions) {
    super(options.name)
    this.#options = options
  }

  /** Where it listens, such as `http://127.0.0.1:8080`. */
  get url(): string {
    const { host } = this.#options
    const shown = host.includes(':') ? `[${host}]` : host
    return `http://${shown}:${this.port}`
  }

  /** The port it was given by the system. */
  get port(): number {
    const port = this.#server?.port
    if (port !== undefined) return port
    throw new MillraceError('service.stopped', `${this.name} does not listen.`)
  }

  protected override async onStart(): Promise<void> {
    const { app, host, port, telemetry, name, idleTimeoutS = IDLE_TIMEOUT_S } = this.#options
    try {
      this.#server = Bun.serve({
        hostname: host,
        port,
        idleTimeout: idleTimeoutS,
        maxRequestBodySize: BODY_BYTES_MAX,
        fetch: (request, server) => {
          if (isAddressed(request)) return app.fetch(request, server)
          const meant = addressed(request)
          return meant === undefined ? refuseUnaddressed() : app.fetch(meant, server)
        },
        error: (error) => {
          telemetry.emit('request.failed', { route: name, requestId: '', error: describeError(error) })
          return new Response(null, { status: 500 })
        },
      })
    } catch (cause) {
      throw new MillraceError(
        'config.invalid',
        `${name} can't listen on ${host} port ${port}: ${describeError(cause).replace(/[.?!]+$/, '')}. Choose another address or port, or end what uses it.`,
        { cause },
      )
    }
  }

  protected override async onStop(): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    const { clock, stopLimitMs = STOP_LIMIT_MS } = this.#options
    const over = new AbortController()
    const finished = server.stop(false).finally(() => over.abort())
    await Promise.race([finished, clock.sleep(stopLimitMs, over.signal)])
    if (!over.signal.aborted) await server.stop(true)
  }
}
