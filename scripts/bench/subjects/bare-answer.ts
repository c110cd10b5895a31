/** Baseline: Bun.serve with one answer to everything, made anew for each request. */
import { input, tellReady } from './_subject.ts'

const { status, headers, body } = input<{
  status: number
  headers: Readonly<Record<string, string>>
  body: string
}>()

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch: () => new Response(body, { status, headers }),
})
tellReady({ url: server.url.origin })
