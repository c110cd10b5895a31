/** A public app over a real Redis and a real listener, for tests of the HTTP surface. */
import { CommandBus } from '../../src/commands/command-bus.ts'
import { EndWatch } from '../../src/commands/end-watch.ts'
import type { CommandBusOptions } from '../../src/commands/submission.ts'

import type { Answers } from '../../src/http/answers.ts'
import type { BodyReader } from '../../src/http/body-reader.ts'
import type { Guard } from '../../src/http/guard.ts'
import { createPublicApp, type PublicApp, type PublicAppOptions } from '../../src/http/public-app.ts'

import type { RateLimitParts } from '../../src/http/rate-limits.ts'
import { HttpServer } from '../../src/http/server.ts'
import type { ViewSource } from '../../src/http/view-routes.ts'
import { RateLimiter } from '../../src/limits/rate-limiter.ts'
import type { Catalogue } from '../../src/policies/catalogue.ts'
import { parseRateLimits } from '../../src/policies/rate-limit-rules.ts'
import { ViewReader } from '../../src/projections/view-reader.ts'
import type { CommandIds } from '../../src/redis/command-id.ts'
import type { RedisLink } from '../../src/redis/connection.ts'
import { joinFleet } from '../../src/redis/fleet.ts'
import type { ReplicaQuorum } from '../../src/redis/replica-quorum.ts'
import { SYSTEM_CLOCK } from '../../src/runtime/clock.ts'
import { Tails, type TailsOptions } from '../../src/tails/tails.ts'
import type { TestRedis } from './redis-server.ts'
import { RecordedTelemetry } from './telemetry.ts'

export interface PublicServer extends AsyncDisposable {
  readonly url: string
  readonly bus: CommandBus
  readonly ends: EndWatch
  readonly server: HttpServer
  readonly tails: Tails
  readonly bodies: BodyReader
  readonly ids: CommandIds
  readonly telemetry: RecordedTelemetry
  readonly answers: Answers
  readonly routes: PublicApp['routes']
  /** The connection that appends go through. */
  readonly ingest: RedisLink
  fetch(path: string, init?: RequestInit): Promise<Response>
  /** POST with a JSON body, unless it is a string or bytes already. */
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>
}

export interface PublicServerOptions {
  readonly bus?: Partial<CommandBusOptions>
  readonly app?: Partial<PublicAppOptions>
  readonly views?: ViewSource
  readonly tails?: Partial<TailsOptions>
  /** The connection of pages; default: one of its own. */
  readonly command?: RedisLink
  readonly idleTimeoutS?: number
  /** Undefined: everybody may do everything. */
  readonly guard?: Guard
  readonly ends?: { readonly waitersMax: number }
  /** Rules as in MILLRACE_RATE_LIMITS. */
  readonly rateLimits?: string
  readonly limiting?: Partial<Pick<RateLimitParts, 'legacyHeaders'>>
  /** For durability `replicated`. */
  readonly quorum?: ReplicaQuorum
}

export async function startPublicServer(
  redis: Pick<TestRedis, 'open' | 'links'>,
  catalogue: Catalogue,
  options: PublicServerOptions = {},
): Promise<PublicServer> {
  const telemetry = new RecordedTelemetry()
  const command = await redis.open()
  const ingest = await redis.open('ingest')
  const ids = await joinFleet(command, catalogue.streams.values())
  const clock = SYSTEM_CLOCK
  const bus = new CommandBus({
    ...{ link: ingest, quorum: options.quorum, catalogue, ids, clock, telemetry },
    options: options.bus ?? {},
  })
  const views = new ViewReader({ links: redis.links, command, catalogue, ids, clock, telemetry })
  const ends = new EndWatch({ link: command, clock, ...options.ends })
  const tailsCommand = options.command ?? command
  const tails = new Tails({
    ...{ links: redis.links, command: tailsCommand, catalogue, clock, telemetry },
    options: options.tails ?? {},
  })
  await bus.start()
  await views.start()
  const limiter =
    options.rateLimits === undefined
      ? undefined
      : new RateLimiter({
          limits: parseRateLimits(options.rateLimits, 'rules'),
          ...{ link: await redis.open(), clock, telemetry },
        })
  await limiter?.start()
  const types = new Set([...catalogue.commands.values()].map(({ type }) => type))
  const limits = limiter && { limiter, types, legacyHeaders: false, ...options.limiting }
  const { app, answers, bodies, routes } = createPublicApp({
    ...{ limits, bus, ends, catalogue, views: options.views ?? views, tails, ids, clock, telemetry },
    health: () => [bus, views],
    started: () => true,
    draining: () => bus.state !== 'running',
    guard: options.guard,
    ...(options.app === undefined ? {} : { options: options.app }),
  })
  const server = new HttpServer({
    ...{ name: 'public', app, host: '127.0.0.1', port: 0, clock, telemetry },
    ...(options.idleTimeoutS === undefined ? {} : { idleTimeoutS: options.idleTimeoutS }),
  })
  await server.start()
  await ends.start()
  await tails.start()
  const request = (path: string, init?: RequestInit) => fetch(`${server.url}${path}`, init)
  return {
    url: server.url,
    ...{ bus, ends, server, bodies, tails, ids, telemetry, ingest, answers, routes },
    fetch: request,
    post: (path, body, headers = {}) =>
      request(path, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body),
      }),
    [Symbol.asyncDispose]: async () => {
      await tails.stop()
      await ends.stop()
      await server.stop()
      await limiter?.stop()
      await bus.stop()
      await views.stop()
    },
  }
}
