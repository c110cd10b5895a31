/**
 * What both apps share: an empty Hono that answers every unknown path, every wrong method and every fault with a problem,
 * and serves the pages about problems that their types point to.
 */
import { Hono } from 'hono'
import type { Telemetry } from '../contracts/telemetry.ts'
import { Answers, jsonResponse, type RouteLimits, type RouteRules } from './answers.ts'
import type { HttpEnv } from './http-env.ts'
import { HttpMistake, PROBLEM_KINDS, type ProblemName, problemType } from './problem.ts'

export interface AppFrame {
  readonly app: Hono<HttpEnv>
  readonly answers: Answers
}

export function openApp(telemetry: Telemetry, rules?: RouteRules, limits?: RouteLimits): AppFrame {
  const app = new Hono<HttpEnv>()
  const answers = new Answers(telemetry, rules, limits)
  app.get(
    '/problems/:name',
    answers.on('problem', (c) => problemPage(c.req.param('name') ?? '')),
  )
  return { app, answers }
}

/**
 * Call when all routes stand: what matches none of them is 404, or 405 when another method would match. OPTIONS tells the
 * methods of a path, and which content types its POST takes (`acceptPost`, by path).
 */
export function closeApp(
  { app, answers }: AppFrame,
  acceptPost: Readonly<Record<string, string>> = {},
): void {
  const paths = pathsOf(app)
  app.notFound((c) => {
    const found = paths.filter(({ pattern }) => pattern.test(c.req.path))
    const allowed = methodsOf(found)
    if (allowed === undefined) {
      return answers.refuse(c, UNMATCHED, new HttpMistake('not-found', 'There is nothing under this path.'))
    }
    if (c.req.method === 'OPTIONS') {
      const types = found.map(({ path }) => acceptPost[path]).find((each) => each !== undefined)
      const headers = { allow: allowed, ...(types === undefined ? {} : { 'accept-post': types }) }
      return new Response(null, { status: 204, headers })
    }
    const detail = `${c.req.method} is not possible here; use ${allowed}.`
    return answers.refuse(c, UNMATCHED, new HttpMistake('method-not-allowed', detail, { allow: allowed }))
  })
  app.onError((error, c) => answers.refuse(c, UNMATCHED, error))
}

const UNMATCHED = 'unmatched'

interface Path {
  readonly path: string
  readonly pattern: RegExp
  readonly methods: string[]
}

function pathsOf(app: Hono<HttpEnv>): Path[] {
  const paths = new Map<string, Path>()
  for (const { path, method } of app.routes) {
    const known = paths.get(path)
    if (known === undefined) paths.set(path, { path, pattern: patternOf(path), methods: [method] })
    else known.methods.push(method)
  }
  return [...paths.values()]
}

/** `:name` is one segment, `:name{…}` one that matches the expression. */
function patternOf(path: string): RegExp {
  const segments = path.split('/').map((segment) => {
    if (!segment.startsWith(':')) return RegExp.escape(segment)
    return /\{(.+)\}$/.exec(segment)?.[1] ?? '[^/]+'
  })
  return new RegExp(`^${segments.join('/')}$`)
}

/** For `Allow`; undefined when no method would do. */
function methodsOf(found: readonly Path[]): string | undefined {
  const methods = new Set(found.flatMap((each) => each.methods))
  if (methods.size === 0) return undefined
  if (methods.has('GET')) methods.add('HEAD')
  return [...methods].sort().join(', ')
}

function problemPage(name: string): Response {
  if (!Object.hasOwn(PROBLEM_KINDS, name)) throw new HttpMistake('not-found', 'There is no such problem.')
  const { status, title, meaning } = PROBLEM_KINDS[name as ProblemName]
  return jsonResponse({ type: problemType(name as ProblemName), title, status, meaning })
}
