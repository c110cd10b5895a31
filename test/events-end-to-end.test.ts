/** Event tails of real processes: cut, drained, killed; what the documentation prints does what it says. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { root } from './source-files.ts'
import { type MillraceProcess, makeProject, type Project } from './support/project.ts'
import { type Block, TailClient } from './support/tail-client.ts'
import { until } from './support/until.ts'

setDefaultTimeout(60_000)
let project: Project
let millrace: MillraceProcess
beforeAll(async () => {
  project = await makeProject({})
  millrace = await startMillrace()
})
afterAll(async () => {
  await millrace.stop()
  await project[Symbol.asyncDispose]()
})

async function startMillrace(): Promise<MillraceProcess> {
  const started = project.start(['--workers-dir', join(root, 'workers')])
  await started.untilReady()
  return started
}

async function place(orderId: string): Promise<void> {
  const answer = await fetch(`${millrace.line('public')}/v1/commands/order.place`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ orderId, customerId: 'c', items: [{ sku: 'tea', quantity: 1, unitCents: 100 }] }),
  })
  expect(answer.status).toBe(202)
}

const keyOf = ({ data }: Block): string => (data as { key: string }).key
const placed = (blocks: readonly Block[]): string[] =>
  blocks.filter(({ event }) => event === 'order.placed').map(keyOf)
const eventsUrl = (query = ''): string => `${millrace.line('public')}/v1/events/orders${query}`

/** A proxy that cuts every connection after some time. */
async function cutter(target: () => string): Promise<{ port: number; cuts(): number; close(): void }> {
  const open = new Set<Socket>()
  let cuts = 0
  const server = createServer((client) => {
    const upstream = connect(Number(new URL(target()).port), '127.0.0.1')
    open.add(client)
    client.pipe(upstream)
    upstream.pipe(client)
    for (const socket of [client, upstream]) {
      socket.on('error', () => undefined)
      socket.on('close', () => {
        client.destroy()
        upstream.destroy()
        open.delete(client)
      })
    }
  })
  const cutting = setInterval(() => {
    for (const socket of open) {
      cuts += 1
      socket.destroy()
    }
  }, 70)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    cuts: () => cuts,
    close: () => {
      clearInterval(cutting)
      for (const socket of open) socket.destroy()
      server.close()
    },
  }
}

test('a reader behind a proxy that cuts it again and again sees each event once', async () => {
  const proxy = await cutter(() => millrace.line('public'))
  const found: Block[] = []
  let cursor = ''
  const ids = Array.from({ length: 200 }, (_, n) => `cut-${n}`)
  const posting = (async () => {
    for (const id of ids) {
      await place(id)
      await Bun.sleep(5)
    }
  })()
  const first = await TailClient.open(eventsUrl('?type=order.placed'))
  await first.until('the greeting', () => first.lastId !== '')
  cursor = first.lastId
  found.push(...first.events)
  await first[Symbol.asyncDispose]()
  const cutBefore = proxy.cuts()
  await until('all orders', async () => {
    const url = `http://127.0.0.1:${proxy.port}/v1/events/orders?type=order.placed`
    const reader = await TailClient.open(url, { 'last-event-id': cursor }).catch(() => undefined)
    if (reader === undefined) return false
    await reader.untilEnded()
    found.push(...reader.events)
    cursor = reader.lastId === '' ? cursor : reader.lastId
    return placed(found).includes('cut-199')
  })
  await posting
  proxy.close()
  expect(proxy.cuts() - cutBefore).toBeGreaterThan(5)
  const last = await TailClient.open(eventsUrl('?type=order.placed'), { 'last-event-id': cursor })
  await last.until(
    'the rest',
    () => placed([...found, ...last.events]).length >= 200 || last.blocks.length > 1,
  )
  found.push(...last.events)
  await last[Symbol.asyncDispose]()
  const seen = placed(found).filter((id) => id.startsWith('cut-'))
  const missed = ids.slice(
    0,
    ids.indexOf(seen.toSorted((a, b) => Number(a.slice(4)) - Number(b.slice(4)))[0] ?? ''),
  )
  // The first reader began while orders were coming in: what it did not see was before its place.
  expect(seen.toSorted()).toEqual(ids.slice(missed.length).toSorted())
})

test('a stop ends tails at once; whoever comes back to the next process goes on', async () => {
  await using reader = await TailClient.open(eventsUrl('?type=order.placed'))
  await reader.until('the greeting', () => reader.lastId !== '')
  await place('before-stop')
  await reader.until('the order', () => placed(reader.events).includes('before-stop'))
  const started = performance.now()
  const code = await millrace.stop()
  expect(code).toBe(0)
  await reader.untilEnded()
  expect(reader.blocks.at(-1)).toMatchObject({ comment: 'draining' })
  // Answers under way get up to a quarter of the drain limit, 5 s: a tail must not use it up.
  expect(performance.now() - started).toBeLessThan(4000)
  millrace = await startMillrace()
  await place('after-stop')
  await using back = await TailClient.open(eventsUrl('?type=order.placed'), {
    'last-event-id': reader.lastId,
  })
  await back.until('the next order', () => back.events.length > 0)
  expect(placed(back.events)).toEqual(['after-stop'])
})

test('the redis-server is killed and comes back: the tail stays open, and no event is missing', async () => {
  await using reader = await TailClient.open(eventsUrl('?type=order.placed'))
  await reader.until('the greeting', () => reader.lastId !== '')
  const pid = Number(/process (\d+)/.exec(millrace.line('redis'))?.[1])
  expect(pid).toBeGreaterThan(1)
  process.kill(pid, 'SIGKILL')
  await until('commands to be taken again', async () => {
    const answer = await fetch(`${millrace.line('public')}/readyz`)
    return answer.ok
  })
  for (let n = 0; n < 20; n++) {
    await until('an order to be taken', () =>
      place(`killed-${n}`).then(
        () => true,
        () => false,
      ),
    )
  }
  await reader.until('all of them', () => new Set(placed(reader.events)).size >= 20)
  expect(placed(reader.events).toSorted()).toEqual(
    Array.from({ length: 20 }, (_, n) => `killed-${n}`).toSorted(),
  )
  expect(reader.ended).toBe(false)
})

test('metrics tell of tails', async () => {
  await using reader = await TailClient.open(eventsUrl('?from=start'))
  await reader.until('an event', () => reader.events.length > 0)
  const text = await (await fetch(`${millrace.line('admin')}/metrics`)).text()
  expect(text).toMatch(/^millrace_tails_open 1$/m)
  expect(text).toMatch(/^millrace_tail_events_sent_total\{stream="orders"\} \d+$/m)
  expect(text).toMatch(/^millrace_tails_closed_total\{stream="orders",end="client"\} \d+$/m)
})

const page = await Bun.file(join(root, 'docs/events.md')).text()
const block = (language: string): string =>
  new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'm').exec(page)?.[1]?.trim() ?? ''

test.skipIf(Bun.which('curl') === null)(
  'the curl line of docs/events.md prints events as the page does',
  async () => {
    await place('curled')
    const line = block('sh').replaceAll('http://127.0.0.1:8080', millrace.line('public'))
    expect(line).toContain('curl -N')
    const child = Bun.spawn(['sh', '-c', `exec ${line}`], { stdout: 'pipe', stderr: 'ignore' })
    const decoder = new TextDecoder()
    let said = ''
    for await (const chunk of child.stdout) {
      said += decoder.decode(chunk, { stream: true })
      if (/"key":"curled"/.test(said)) break
    }
    child.kill()
    await child.exited
    const [id, event, data] = block('text')
      .split('\n')
      .map((each) => each.split(': ', 1)[0])
    expect([id, event, data]).toEqual(['id', 'event', 'data'])
    const printed = JSON.parse((block('text').split('\ndata: ')[1] ?? '').trim()) as object
    const real = /^id: [\w-]+\nevent: order\.placed\ndata: (\{.*\})$/m.exec(said)?.[1] ?? '{}'
    expect(Object.keys(JSON.parse(real) as object)).toEqual(Object.keys(printed))
  },
)

test('the EventSource of docs/events.md hears the order', async () => {
  const readers: TailClient[] = []
  /** What a browser has, for one page. */
  class PageEventSource {
    readonly #opening: Promise<TailClient>
    constructor(url: string) {
      this.#opening = TailClient.open(url.replace('http://127.0.0.1:8080', millrace.line('public')))
      void this.#opening.then((reader) => readers.push(reader))
    }
    addEventListener(type: string, call: (event: { data: string; lastEventId: string }) => void): void {
      const listening = this.#opening.then(async (reader) => {
        await reader.until(type, () => reader.events.some(({ event }) => event === type))
        for (const { event, data, id = '' } of reader.events) {
          if (event === type) call({ data: JSON.stringify(data), lastEventId: id })
        }
      })
      // A page that hears nothing of a kind waits until it is left.
      listening.catch(() => undefined)
    }
  }
  const said: unknown[][] = []
  const record = { log: (...words: unknown[]) => said.push(words), warn: () => undefined }
  new Function('EventSource', 'console', block('js'))(PageEventSource, record)
  await until('the page to listen', () => (readers[0]?.lastId ?? '') !== '')
  await place('heard')
  await until('the page to be told', () => said.length > 0)
  expect(said[0]?.[0]).toBe('heard')
  for (const reader of readers) await reader[Symbol.asyncDispose]()
})
