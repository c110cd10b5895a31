/** Rate limits of whole processes: from their settings to 429, shared by the processes of a fleet, and in their metrics. */
import { expect, test } from 'bun:test'
import { defineCommand, startMillrace } from 'millrace'
import { z } from 'zod'
import { makeProject } from './support/project.ts'
import { startTestRedis } from './support/redis-server.ts'

const post = (url: string) =>
  fetch(`${url}/v1/commands/note.write`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ author: 'ada', text: 'x' }),
  })

test('two API processes let through together what one limit allows', async () => {
  await using redis = await startTestRedis(['--appendfsync', 'everysec'])
  await using project = await makeProject()
  const env = { REDIS_URL: redis.url, MILLRACE_RATE_LIMITS: 'api: 20 in 1h; wide: 1000/s burst 1000' }
  const apis = [1, 2].map(() => project.start(['api'], env))
  await Promise.all(apis.map((api) => api.untilReady()))
  const urls = apis.map((api) => api.line('public'))
  const statuses = await Promise.all(
    Array.from({ length: 60 }, async (_, n) => (await post(urls[n % 2] ?? '')).status),
  )
  expect(statuses.filter((status) => status === 202)).toHaveLength(20)
  expect(statuses.filter((status) => status === 429)).toHaveLength(40)
  expect(await Promise.all(apis.map((api) => api.stop()))).toEqual([0, 0])
}, 60_000)

test('rules from code limit, the metrics tell of them, and another setting adds the old headers', async () => {
  await using redis = await startTestRedis(['--appendfsync', 'everysec'])
  const writeNote = defineCommand({ type: 'note.write', payload: z.object({ author: z.string() }) })
  await using millrace = await startMillrace({
    ...{ role: 'api', definitions: [writeNote], redisUrl: redis.url, port: 0, adminPort: 0 },
    rateLimits: [{ name: 'api', quota: 1, windowS: 3600, types: ['note.write'] }],
    rateLimitHeaders: 'both',
  })
  const url = millrace.urls.public ?? ''
  const first = await post(url)
  expect(first.status).toBe(202)
  expect(first.headers.get('x-ratelimit-remaining')).toBe('0')
  expect((await post(url)).status).toBe(429)
  const metrics = await (await fetch(`${millrace.urls.admin}/metrics`)).text()
  expect(metrics).toContain('millrace_rate_limit_requests_total{policy="api",verdict="admitted"} 1')
  expect(metrics).toContain('millrace_rate_limit_requests_total{policy="api",verdict="refused"} 1')
  expect(metrics).toContain('millrace_rate_limit_held_tokens{policy="api"} 0')
}, 60_000)
