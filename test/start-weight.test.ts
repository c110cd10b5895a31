/** What a process loads before it works: each of these would be back unnoticed, and costs every start. */
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { HeartbeatThread } from '../src/runtime/heartbeat.ts'

/** Files of packages that a process has loaded after it ran `code`. */
async function loadedBy(code: string): Promise<string> {
  const script = `${code}; console.log(Object.keys(require.cache).filter((path) => path.includes('node_modules')).join('\\n'))`
  const child = Bun.spawn([process.execPath, '-e', script], {
    cwd: join(import.meta.dir, '..'),
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  return await new Response(child.stdout).text()
}

const OPEN = `const { openProcessLogger } = await import('./src/host/process-logger.ts'); const log = openProcessLogger('warn', 'work')`

test('the logger is loaded with the first line that is written', async () => {
  expect(await loadedBy(`${OPEN}; log.info({}, 'unsaid')`)).not.toContain('node_modules/pino/')
  expect(await loadedBy(`${OPEN}; log.warn({}, 'said')`)).toContain('node_modules/pino/')
})

test('of the metrics library only what counts is loaded', async () => {
  const loaded = await loadedBy(`await import('./src/http/metrics.ts')`)
  expect(loaded).toContain('prom-client/lib/counter')
  expect(loaded).not.toMatch(/prom-client\/(index|lib\/(cluster|defaultMetrics|pushgateway))/)
})

test('what tells of routes is loaded when somebody asks', async () => {
  const loaded = await loadedBy(`await import('./src/http/public-app.ts')`)
  expect(loaded).toContain('/hono/')
  expect(loaded).not.toContain('helper/html')
})

test('a heartbeat thread that nobody asked to beat ends when it is stopped', async () => {
  const thread = new HeartbeatThread()
  await thread.start()
  await thread.stop()
  expect(thread.state).toBe('stopped')
  await thread.stop()
})
