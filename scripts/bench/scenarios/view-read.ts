/** How often a second one API process answers with the same view. */
import { RunError } from '../../fleet/failure.ts'
import type { RedisServer } from '../../fleet/redis-server.ts'
import { duel } from '../duel.ts'
import { HttpLoad } from '../http-load.ts'
import { orderLine } from '../payload.ts'
import type { Measure, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'

const APP = 'sales'
const TYPE = 'sale.add'
const CONNECTIONS = 64
const LINE = orderLine(1)
const PATH = `/v1/views/customers/${LINE.customer}`

export const viewRead: Scenario = {
  name: 'view-read',
  summary: 'one view that everybody reads',
  async play(stage) {
    const redis = await stage.redis()
    await fold(stage, redis)
    const load = new HttpLoad(stage)
    const measure = (url: string, processes: Readonly<Record<string, number>>): Promise<Measure> =>
      load.measure({
        ...{ url, processes, status: 200, connections: CONNECTIONS },
        request: { kind: 'get', path: PATH },
      })
    const api = await stage.role('api', { redis, app: APP })
    const url = api.told('public')
    const answer = await readAnswer(url)
    const bare = stage.subject('bare-answer', answer)
    const { url: bareUrl } = await bare.ready<{ url: string }>()
    const row = await duel(stage, {
      name: 'view-read',
      unit: 'requests/s',
      millrace: { name: 'millrace', play: () => measure(url, { api: api.pid, redis: redis.pid }) },
      baseline: { name: 'bare Bun.serve, same answer', play: () => measure(bareUrl, { api: bare.pid }) },
      budget: { of: 'ratio', is: 'at least', bound: 0.8 },
      rounds: { full: 5, quick: 3 },
      setting: { connections: CONNECTIONS, bodyBytes: answer.body.length, apis: 1 },
    })
    return [row]
  },
}

/** One command is sent, handled and folded, so that there is a view. */
async function fold(stage: Stage, redis: RedisServer): Promise<void> {
  const all = await stage.role('all', { redis, app: APP })
  const url = all.told('public')
  const sent = await fetch(`${url}/v1/commands/${TYPE}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(LINE),
    signal: stage.signal,
  })
  const { id } = (await sent.json()) as { id: string }
  const seen = await fetch(`${url}${PATH}`, { headers: { 'millrace-after': id }, signal: stage.signal })
  if (seen.status !== 200) throw new RunError('failed', `There is no view to read: ${await seen.text()}`)
  await stage.end(all)
}

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** What the server adds by itself. */
const AUTOMATIC = new Set(['date', 'content-length', 'connection', 'keep-alive'])

async function readAnswer(url: string): Promise<Answer> {
  const response = await fetch(`${url}${PATH}`)
  const headers = [...response.headers].filter(([name]) => !AUTOMATIC.has(name))
  return { status: response.status, headers: Object.fromEntries(headers), body: await response.text() }
}
