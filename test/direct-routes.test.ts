/** Routes that are found without Hono: a path answered otherwise in one form of it than in another would be two APIs. */
import { expect, test } from 'bun:test'
import { Hono } from 'hono'
import { DirectRoutes } from '../src/http/direct-routes.ts'
import type { HttpEnv } from '../src/http/http-env.ts'

function routes(): DirectRoutes {
  const app = new Hono<HttpEnv>()
  const direct = new DirectRoutes(app)
  const told = ({ path, params }: { path: string; params: readonly string[] }) =>
    Response.json({ path, params })
  direct.add('GET', '/v1/views/:projection/:key', told)
  direct.add('POST', '/v1/commands', told)
  direct.add('POST', '/v1/commands/:type', told)
  return direct
}

async function ask(direct: DirectRoutes, method: string, path: string): Promise<unknown> {
  const response = await direct.fetch(new Request(`http://host:1${path}`, { method }), {})
  return response.status === 200 ? await response.json() : response.status
}

test('plain, with a query and encoded, a path is answered alike, the first time and again', async () => {
  const direct = routes()
  for (let round = 0; round < 2; round++) {
    const view = { path: '/v1/views/a/b', params: ['a', 'b'] }
    expect(await ask(direct, 'GET', '/v1/views/a/b')).toEqual(view)
    expect(await ask(direct, 'GET', '/v1/views/a/b?x=1')).toEqual(view)
    expect(await ask(direct, 'GET', '/v1/views/%61/c%2Fd')).toMatchObject({ params: ['a', 'c/d'] })
    expect(await ask(direct, 'POST', '/v1/commands')).toEqual({ path: '/v1/commands', params: [] })
    expect(await ask(direct, 'POST', '/v1/commands/x.y')).toMatchObject({ params: ['x.y'] })
  }
})

test('a path is not found under another method, with a segment more or less, or an empty one', async () => {
  const direct = routes()
  await ask(direct, 'GET', '/v1/views/a/b')
  expect(await ask(direct, 'POST', '/v1/views/a/b')).toBe(404)
  for (const path of ['/v1/views/a', '/v1/views/a/', '/v1/views//b', '/v1/views/a/b/', '/v1/views/a/b/c']) {
    expect(await ask(direct, 'GET', path)).toBe(404)
  }
  for (const path of ['/v1/commands/', '/v1/commands/a/b', '/v1/commandsx']) {
    expect(await ask(direct, 'POST', path)).toBe(404)
  }
})
