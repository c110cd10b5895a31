/**
 * Load generator: posts bodies of commands as fast as they are accepted, some at once. The bodies are made beforehand and
 * used again and again, so that the generator is not what is measured.
 */
import { bulkBody } from '../payload.ts'
import { input, tellReady, tellResult } from './_subject.ts'

const { url, type, commands, bodyCommands, requests } = input<{
  url: string
  type: string
  commands: number
  bodyCommands: number
  /** Requests at once. */
  requests: number
}>()

const DISTINCT_BODIES = 200
const PAUSE_MS = 5

const bodies = Array.from({ length: Math.min(DISTINCT_BODIES, commands / bodyCommands) }, (_, i) =>
  Buffer.from(bulkBody(type, i * bodyCommands, bodyCommands)),
)
/** Different order lines; behind them they come again. */
tellReady({ lines: bodies.length * bodyCommands })

const nowMs = (): number => performance.timeOrigin + performance.now()

let next = 0
let deferred = 0
let last = Buffer.alloc(0)

async function post(body: Buffer | undefined): Promise<void> {
  for (;;) {
    const headers = { 'content-type': 'application/x-ndjson' }
    const answer = await fetch(url, { method: 'POST', headers, body })
    const bytes = Buffer.from(await answer.arrayBuffer())
    if (answer.status === 202) {
      last = bytes
      return
    }
    if (answer.status !== 503) throw new Error(`${answer.status}: ${bytes.toString().slice(0, 300)}`)
    deferred += 1
    await Bun.sleep(PAUSE_MS)
  }
}

async function lane(): Promise<void> {
  while (next < commands) {
    const body = bodies[(next / bodyCommands) % bodies.length]
    next += bodyCommands
    await post(body)
  }
}

const startedMs = nowMs()
await Promise.all(Array.from({ length: requests }, lane))
const endedMs = nowMs()
const { results } = JSON.parse(last.toString()) as { results: { id: string }[] }
tellResult({ startedMs, endedMs, deferred, lastId: results.at(-1)?.id })
// Its processor time can be read as long as it is there.
setInterval(() => undefined, 60_000)
