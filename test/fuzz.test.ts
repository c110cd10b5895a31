/** The fuzzer: it knows every route that there is, its oracle sees what it should, and short runs of it hold. */
import { expect, test } from 'bun:test'
import { type FuzzCase, makeCase } from '../scripts/fuzz/cases.ts'
import { bytesOf, type HostileRequest } from '../scripts/fuzz/hostile-request.ts'
import { Oracle } from '../scripts/fuzz/oracle.ts'
import { type Listener, ROUTES } from '../scripts/fuzz/routes.ts'
import { shrunk } from '../scripts/fuzz/shrink.ts'
import type { WireAnswer } from '../scripts/fuzz/wire.ts'
import { createAdminApp } from '../src/http/admin-app.ts'
import { Metrics } from '../src/http/metrics.ts'
import { createPublicApp } from '../src/http/public-app.ts'
import { buildCatalogue } from '../src/policies/catalogue.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { TelemetryHub } from '../src/runtime/telemetry-hub.ts'
import { root } from './source-files.ts'

const GROUND = {
  ...{ publicPort: 1, adminPort: 2, viewCursor: 'c', deadCursor: 'd' },
  ...{ ended: ['a.0.e1-1.x'], dead: ['a.0.e1-2.x'], waiting: ['a.0.x1.x'], behind: 'a.0.x2.x' },
  ...{ viewKeys: ['k'], operations: ['o'], keys: ['y'] },
}

/** Both apps as a role puts them together; nothing is asked of what they are made of. */
function routesOf(listener: Listener): string[] {
  const catalogue = buildCatalogue([])
  const telemetry = new TelemetryHub()
  const nothing = {} as never
  const common = { telemetry, health: () => [], started: () => true, draining: () => false }
  const metrics = new Metrics({ catalogue, telemetry, streams: async () => new Map() })
  const parts = { bus: nothing, ends: nothing, views: nothing, tails: nothing, ids: nothing }
  const sources = { keys: nothing, command: nothing, schedules: nothing, deadLetters: nothing }
  const routes =
    listener === 'public'
      ? createPublicApp({ ...parts, catalogue, clock: SYSTEM_CLOCK, ...common }).routes
      : createAdminApp({ ...sources, catalogue, metrics, ...common }).routes
  metrics.close()
  const lines = routes.map(({ method, path }) => `${method} ${path}`)
  return [...new Set(lines)].sort()
}

for (const listener of ['public', 'admin'] as const) {
  test(`every route of the ${listener} listener is fuzzed: a new one needs a line in scripts/fuzz/routes.ts`, () => {
    const fuzzed = ROUTES.filter((route) => route.listener === listener)
    expect(fuzzed.map(({ method, path }) => `${method} ${path}`).sort()).toEqual(routesOf(listener))
  })
}

test('a case is made of the seed and its number alone, and chance reaches every route and kind', () => {
  const cases = Array.from({ length: 6000 }, (_, index) => makeCase(7, index, GROUND))
  const again = makeCase(7, 1234, GROUND)
  expect(bytesOf(again.request).equals(bytesOf((cases[1234] as FuzzCase).request))).toBe(true)
  expect(bytesOf(makeCase(8, 1234, GROUND).request).equals(bytesOf(again.request))).toBe(false)
  expect(new Set(cases.map(({ route }) => route)).size).toBe(ROUTES.length)
  expect(new Set(cases.map(({ kind }) => kind)).size).toBe(9)
  expect(new Set(cases.flatMap(({ request }) => request.raw?.name ?? [])).size).toBeGreaterThan(25)
})

test('a failing request shrinks to what makes it fail', async () => {
  const request: HostileRequest = {
    ...{ method: 'POST', target: '/v1/commands?a=1&b=2', sending: 'whole', raw: undefined },
    headers: [
      ['Accept', 'x'],
      ['Prefer', 'bad'],
      ['Cookie', 'y'],
    ],
    body: Buffer.from(`${'x'.repeat(500)}!${'y'.repeat(500)}`),
  }
  const small = await shrunk(
    request,
    async ({ headers, body }) => headers.some(([name]) => name === 'Prefer') && body?.includes('!') === true,
  )
  expect(small.headers).toEqual([['Prefer', 'bad']])
  expect(small.target).toBe('/v1/commands')
  expect(small.body?.length).toBeLessThan(40)
})

test('the oracle sees each kind of fault', () => {
  const oracle = new Oracle(['the-password'])
  const given = makeCase(7, 3, GROUND)
  const problem = { type: '/problems/x', title: 't', status: 400, instance: '/', requestId: 'r' }
  const ruleOf = (
    status: number,
    body: unknown,
    headers: Record<string, string> = {},
  ): string | undefined => {
    const text = typeof body === 'string' ? body : JSON.stringify(body)
    const all = { 'content-type': 'application/problem+json', ...headers }
    const answer: WireAnswer = { status, headers: new Map(Object.entries(all)), body: Buffer.from(text) }
    return oracle.judge({ ...given, request: { ...given.request, method: 'GET' } }, answer)?.rule
  }
  expect(ruleOf(400, problem)).toBeUndefined()
  expect(ruleOf(500, { ...problem, status: 500 })).toBe('no 5xx')
  expect(ruleOf(400, { ...problem, status: 404 })).toBe('well-formed problems')
  expect(ruleOf(400, 'Bad Request')).toBe('well-formed problems')
  expect(ruleOf(400, problem, { 'content-type': 'text/plain' })).toBe('well-formed problems')
  expect(ruleOf(400, { ...problem, instance: 'x'.repeat(400) })).toBe('well-formed problems')
  expect(ruleOf(400, { ...problem, detail: 'the-password' })).toBe('nothing repeated')
  expect(ruleOf(200, { a: given.marks.canary })).toBe('nothing repeated')
  expect(ruleOf(200, {}, { 'x-injected': '1' })).toBe('no injected header')
  expect(ruleOf(200, '{"a"', { 'content-type': 'application/json' })).toBe('JSON answers')
  expect(ruleOf(503, { ...problem, status: 503 }, { 'retry-after': '1' })).toBe('no 503 that was not meant')
  oracle.isPressed = true
  expect(ruleOf(503, { ...problem, status: 503 }, { 'retry-after': '1' })).toBeUndefined()
  expect(ruleOf(503, { ...problem, status: 503 })).toBe('well-formed problems')
})

/** The seed that is printed repeats it: `bun run fuzz --cases 1000 --seed …`. */
for (const seed of [5, crypto.getRandomValues(new Uint32Array(1))[0] ?? 0]) {
  test(`a thousand cases of seed ${seed} hold`, async () => {
    const child = Bun.spawn(
      [process.execPath, 'scripts/fuzz.ts', '--cases', '1000', '--seed', String(seed)],
      { cwd: root, stdout: 'ignore', stderr: 'pipe' },
    )
    const told = await child.stderr.text()
    if ((await child.exited) !== 0) console.log(told.replace(/^fuzz: (public|admin|not seen).*\n/gm, ''))
    expect(child.exitCode).toBe(0)
    expect(told).toContain('all held')
  }, 90_000)
}
