/**
 * The client in a real browser: a headless Chromium opens a page that loads the bundle as it is shipped, sends commands and reads
 * views, and tells what it saw. No part of the gate, because it needs a browser. Settings come from the environment; Bun prints a
 * line for each answer that is broken off on purpose.
 *
 *   bun scripts/client-browser.ts                  a Millrace of its own; the page's server hands requests on and loses answers
 *   bun scripts/client-browser.ts --cross-origin   the page asks Millrace itself, which must allow http://127.0.0.1:4173 by CORS
 *   … --browser PATH                               default: chromium, chromium-browser or google-chrome
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { defineCommand, defineEvent, defineHandler, defineProjection, done, startMillrace } from 'millrace'
import { z } from 'zod'
import { bundleClient } from './client-bundle.ts'

const PAGE_PORT = 4173
const LIMIT_MS = 60_000
/** Of this many answers one is lost. */
const LOSS = 4

const { values } = parseArgs({
  options: { 'cross-origin': { type: 'boolean' }, browser: { type: 'string' } },
})

const visit = z.object({ page: z.string(), n: z.number() })
const record = defineCommand({ type: 'visit.record', payload: visit, key: ({ page }) => page })
const recorded = defineEvent({ type: 'visit.recorded', payload: visit })
const onRecord = defineHandler(record, (command) => {
  command.emit(recorded, command.payload)
  return done({ kept: command.payload.n })
})
const visits = defineProjection({ name: 'visits', initial: () => ({ count: 0 }) }).on(
  recorded,
  (event) => event.payload.page,
  (view) => ({ count: view.count + 1 }),
)

/** Runs in the page. `API` is replaced. */
const PAGE = `<!doctype html><meta charset="utf-8"><title>client</title><script type="module">
  const report = (told) => fetch('/report', { method: 'POST', body: JSON.stringify(told) })
  try {
    const { createClient } = await import('/client.js')
    const client = createClient({ url: API, backoffMinMs: 5, attemptsMax: 30, batchCountMax: 20 })
    const page = 'browser-' + crypto.randomUUID()
    const startedMs = performance.now()
    const first = await client.send('visit.record', { page, n: 7 }, { waitMs: 20000 })
    const waitedMs = Math.round(performance.now() - startedMs)
    const sent = await Promise.all(Array.from({ length: 200 }, (_, n) => client.send('visit.record', { page, n })))
    const view = await client.view('visits', page, { after: sent.at(-1).id })
    const same = await client.view('visits', page, { ifNoneMatch: view.etag })
    const keys = []
    for await (const { views } of client.views('visits', { prefix: page })) keys.push(...views.map(({ key }) => key))
    const invalid = await client.send('visit.record', { page: 7 }).catch(({ code, status }) => [code, status])
    const stop = new AbortController()
    const waiting = client.result(sent[0].id.slice(0, -1) + '~', { signal: stop.signal }).catch(({ code }) => code)
    const delayed = await client.send('visit.record', { page, n: 0 }, { delayMs: 3600000 })
    setTimeout(() => stop.abort(), 50)
    const aborted = await client.result(delayed.id, { signal: stop.signal }).catch(({ code }) => code)
    await client.cancel(delayed.id)
    await waiting
    await client.close()
    await report({
      agent: navigator.userAgent, ended: first.ended.result, waitedMs, deduplicated: sent.filter((each) => each.deduplicated).length,
      ids: new Set(sent.map(({ id }) => id)).size, view: view.value, etag: view.etag !== undefined, unchanged: same.unchanged,
      keys: keys.length, invalid, aborted,
    })
  } catch (error) {
    await report({ failed: String(error), code: error.code, stack: error.stack })
  }
</script>`

interface Report {
  readonly failed?: string
  readonly ids?: number
  readonly view?: { readonly count: number }
  readonly [name: string]: unknown
}

/** An answer that breaks off, as when the connection is cut under it. */
function brokenOff(): Response {
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(new TextEncoder().encode('{"acc')),
    pull: (controller) => controller.error(new Error('cut')),
  })
  return new Response(body, { headers: { 'content-type': 'application/json' } })
}

function servePage(
  script: string,
  target: string,
  onReport: (report: Report) => void,
): Bun.Server<undefined> {
  let answers = 0
  return Bun.serve({
    hostname: '127.0.0.1',
    port: PAGE_PORT,
    idleTimeout: 60,
    error: () => new Response(null, { status: 502 }),
    fetch: async (request) => {
      const { pathname, search } = new URL(request.url)
      if (pathname === '/report') {
        onReport((await request.json()) as Report)
        return new Response()
      }
      if (pathname === '/client.js') return new Response(Bun.file(script))
      if (!pathname.startsWith('/v1/')) {
        const api = values['cross-origin'] === true ? JSON.stringify(target) : 'location.origin'
        return new Response(PAGE.replace('API', api), { headers: { 'content-type': 'text/html' } })
      }
      const body = request.method === 'POST' ? await request.arrayBuffer() : null
      const { method, headers } = request
      const answer = await fetch(`${target}${pathname}${search}`, { method, headers, body })
      answers += 1
      if (answers % LOSS !== 0) return answer
      await answer.arrayBuffer()
      return answers % (2 * LOSS) === 0 ? brokenOff() : new Response('bad gateway', { status: 502 })
    },
  })
}

function findBrowser(): string {
  const names = ['chromium', 'chromium-browser', 'google-chrome']
  const found = values.browser ?? names.map((name) => Bun.which(name)).find((path) => path !== null)
  if (found !== undefined && found !== null) return found
  console.error(`There is no ${names.join(', ')} here; give one with --browser.`)
  process.exit(69)
}

async function runBrowser(program: string, profile: string, told: Promise<Report>): Promise<Report> {
  const flags = [
    '--headless=new',
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    `--user-data-dir=${profile}`,
  ]
  const child = Bun.spawn([program, ...flags, `http://127.0.0.1:${PAGE_PORT}/`], {
    stdio: ['ignore', 'ignore', 'ignore'],
  })
  try {
    return await Promise.race([
      told,
      child.exited.then((code): Report => ({ failed: `the browser ended with ${code}` })),
      Bun.sleep(LIMIT_MS).then((): Report => ({ failed: `nothing was told within ${LIMIT_MS} ms` })),
    ])
  } finally {
    child.kill()
    await child.exited
  }
}

const browser = findBrowser()
const folder = await mkdtemp(join(tmpdir(), 'millrace-browser-'))
const definitions = [record, recorded, onRecord, visits]
const ports = { port: 0, adminPort: 0 }
const millrace = await startMillrace({ definitions, dataFolder: join(folder, 'data'), ...ports })
await bundleClient(folder)
const { promise, resolve } = Promise.withResolvers<Report>()
const server = servePage(join(folder, 'client.js'), millrace.urls.public ?? '', resolve)
try {
  const report = await runBrowser(browser, join(folder, 'profile'), promise)
  console.log(JSON.stringify(report, undefined, 2))
  const isRight = report.failed === undefined && report.ids === 200 && report.view?.count === 201
  console.log(isRight ? 'ok: 201 commands, each stored once' : 'FAILED')
  process.exitCode = isRight ? 0 : 1
} finally {
  await server.stop(true)
  await millrace.stop()
  await rm(folder, { recursive: true, force: true })
}
