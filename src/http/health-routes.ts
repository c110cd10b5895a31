/**
 * Health, for whoever keeps processes alive and sends them requests.
 *
 *   livez     this process answers; never asks Redis
 *   startupz  everything has started
 *   readyz    send me work: every service says it is ready, and nothing drains
 *
 * `?verbose` names each service with a sentence.
 */
import type { Hono } from 'hono'
import type { HealthSource } from '../contracts/health.ts'
import { type Answers, jsonResponse, type RouteContext } from './answers.ts'
import type { HttpEnv } from './http-env.ts'
import { readQuery, readSwitch } from './query.ts'

export interface HealthParts {
  readonly answers: Answers
  /** What the role runs. Asked at each request, so services may come later. */
  readonly sources: () => readonly HealthSource[]
  readonly started: () => boolean
  readonly draining: () => boolean
}

export function addHealthRoutes(app: Hono<HttpEnv>, parts: HealthParts): void {
  const { answers, started } = parts
  app.get(
    '/livez',
    answers.on('health.live', (c) => answer(c, true, [])),
  )
  app.get(
    '/startupz',
    answers.on('health.startup', (c) => answer(c, started(), [])),
  )
  app.get(
    '/readyz',
    answers.on('health.ready', (c) => {
      const checks = readChecks(parts)
      return answer(
        c,
        checks.every(({ ready }) => ready),
        checks,
      )
    }),
  )
}

interface Check {
  readonly name: string
  readonly ready: boolean
  readonly detail: string
}

function readChecks({ sources, started, draining }: HealthParts): Check[] {
  const process = draining()
    ? { name: 'process', ready: false, detail: 'draining' }
    : { name: 'process', ready: started(), detail: started() ? 'started' : 'starting' }
  return [process, ...sources().map((source) => ({ name: source.name, ...source.health() }))]
}

function answer(c: RouteContext, ok: boolean, checks: readonly Check[]): Response {
  const { verbose } = readQuery(c.req.raw.url, ['verbose'])
  const body = { ok, ...(readSwitch('verbose', verbose) ? { checks } : {}) }
  const retry = ok ? {} : { 'retry-after': '1' }
  return jsonResponse(body, ok ? 200 : 503, { 'cache-control': 'no-store', ...retry })
}
