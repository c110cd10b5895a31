/** Baseline: Bun.serve with one answer to everything, made anew for each request. */
import { input, tellReady } from './_subject.ts'

const { status, headers, body } = input<{
  status: number
  headers: Readonly<Record<string, string>>
  body: string
}>()

/** Kept as `Headers`, which Bun takes over faster than a record. */
const kept = new Headers(headers)

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch: () => new Response(body, { status, headers: kept }),
})
tellReady({ url: server.url.origin })
