/** A whole process: what it says, what it answers, and that nothing of it is left when it has ended. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  defineCommand,
  defineEvent,
  defineHandler,
  defineProjection,
  done,
  type MillraceOptions,
  startMillrace,
} from 'millrace'
import { RecordedTelemetry } from 'millrace/testing'
import { z } from 'zod'
import { root } from './source-files.ts'
import { freePort } from './support/free-port.ts'
import { makeProject, serversOf } from './support/project.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { rejection } from './support/rejection.ts'
import { until } from './support/until.ts'

let redis: TestRedis

beforeAll(async () => {
  redis = await startTestRedis(['--appendfsync', 'everysec'])
})
afterAll(() => redis[Symbol.asyncDispose]())

const note = z.object({ author: z.string(), text: z.string() })
const writeNote = defineCommand({ type: 'note.write', payload: note, key: ({ author }) => author })
const noteWritten = defineEvent({ type: 'note.written', payload: note })
const onWriteNote = defineHandler(writeNote, (command) => {
  command.emit(noteWritten, command.payload)
  return done()
})
const notes = defineProjection({ name: 'notes', initial: () => ({ count: 0 }) }).on(
  noteWritten,
  ({ payload }) => payload.author,
  (view) => ({ count: view.count + 1 }),
)
const definitions = [writeNote, noteWritten, onWriteNote, notes]

async function post(url: string, payload: object): Promise<string> {
  const response = await fetch(`${url}/v1/commands/note.write`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(payload),
  })
  expect(response.status).toBe(202)
  return ((await response.json()) as { id: string }).id
}

async function viewAfter(url: string, projection: string, key: string, command: string): Promise<unknown> {
  const response = await fetch(`${url}/v1/views/${projection}/${key}`, {
    headers: { 'millrace-after': command },
  })
  expect(response.status).toBe(200)
  return response.json()
}

test('a process started from code takes a command, handles it, shows its view, and ends without a trace', async () => {
  const telemetry = new RecordedTelemetry()
  const millrace = await startMillrace({
    definitions,
    redisUrl: redis.url,
    port: 0,
    adminPort: 0,
    onTelemetry: telemetry.listener,
  })
  const { summary } = millrace
  expect(summary).toMatchObject({
    role: 'all',
    durability: 'everysec',
    counts: { commands: 1, projections: 1 },
  })
  const id = await post(millrace.urls.public ?? '', { author: 'ada', text: 'x' })
  expect(await viewAfter(millrace.urls.public ?? '', 'notes', 'ada', id)).toMatchObject({ count: 1 })
  await Promise.all([millrace.stop(), millrace.stop()])
  const started = telemetry.of('service.started').map(({ service }) => service)
  const stopped = telemetry.of('service.stopped').map(({ service }) => service)
  expect(stopped).toEqual(started.toReversed())
  expect(telemetry.of('alarm.raised')).toEqual([])
  expect((await rejection(fetch(`${millrace.urls.public}/livez`))).message).toMatch(/connect|ECONNREFUSED/i)
})

test('roles of one folder share its redis-server, and outlive its first owner', async () => {
  await using project = await makeProject()
  const api = project.start(['api'])
  await api.untilReady()
  const [work, views] = [project.start(['work']), project.start(['project'])]
  await Promise.all([work.untilReady(), views.untilReady()])
  expect(serversOf(project.folder)).toHaveLength(1)
  expect(work.line('redis')).toContain('joined')
  const first = await post(api.line('public'), { author: 'ada', text: 'x' })
  expect(await viewAfter(api.line('public'), 'notes-by-author', 'ada', first)).toMatchObject({ count: 1 })
  expect(await api.stop()).toBe(0)
  await until('another role to launch the server', () => serversOf(project.folder).length === 1)
  const next = project.start(['api'])
  await next.untilReady()
  const second = await post(next.line('public'), { author: 'ada', text: 'y' })
  expect(await viewAfter(next.line('public'), 'notes-by-author', 'ada', second)).toMatchObject({ count: 2 })
  expect(await Promise.all([next, work, views].map((each) => each.stop()))).toEqual([0, 0, 0])
  expect(serversOf(project.folder)).toEqual([])
})

const SLOW_APP = {
  'workers/slow.ts': `
    import { appendFileSync } from 'node:fs'
    import { defineCommand, defineHandler, done } from 'millrace'
    import { z } from 'zod'
    export const writeNote = defineCommand({ type: 'note.write', payload: z.object({ ms: z.number() }) })
    export const onWriteNote = defineHandler(writeNote, async (command) => {
      appendFileSync('ran.txt', 'start\\n')
      await Bun.sleep(command.payload.ms)
      appendFileSync('ran.txt', 'end\\n')
      return done('slept')
    })
  `,
}
const ran = (folder: string): Promise<string> => readFile(join(folder, 'ran.txt'), 'utf8').catch(() => '')

test('SIGTERM lets a running handler finish, and what it did is not done twice', async () => {
  await using project = await makeProject(SLOW_APP)
  const first = project.start()
  await first.untilReady()
  const id = await post(first.line('public'), { ms: 800 })
  await until('the handler to run', async () => (await ran(project.folder)) === 'start\n')
  expect(await first.stop()).toBe(0)
  expect(await ran(project.folder)).toBe('start\nend\n')
  const second = project.start()
  await second.untilReady()
  const status = await (await fetch(`${second.line('public')}/v1/commands/${id}`)).json()
  expect(status).toMatchObject({ status: 'done', result: 'slept' })
  expect(await ran(project.folder)).toBe('start\nend\n')
  expect(await second.stop()).toBe(0)
})

test('a handler that does not finish within the drain limit is handed back, and runs at the next start', async () => {
  await using project = await makeProject(SLOW_APP)
  const first = project.start(['--drain-limit-ms', '500'])
  await first.untilReady()
  await post(first.line('public'), { ms: 3000 })
  await until('the handler to run', async () => (await ran(project.folder)) === 'start\n')
  const startedMs = performance.now()
  await first.stop()
  expect(performance.now() - startedMs).toBeLessThan(2500)
  expect(serversOf(project.folder)).toEqual([])
  const second = project.start()
  await second.untilReady()
  await until('the handler to run again', async () =>
    (await ran(project.folder)).includes('start\nstart\nend\n'),
  )
  expect(await second.stop()).toBe(0)
})

test('a second signal ends the process at once, and its server by itself', async () => {
  await using project = await makeProject(SLOW_APP)
  const running = project.start()
  await running.untilReady()
  await post(running.line('public'), { ms: 20_000 })
  await until('the handler to run', async () => (await ran(project.folder)) === 'start\n')
  running.child.kill('SIGINT')
  await until('the first signal to be heard', () => running.lines.includes('once more to end now'))
  await Bun.sleep(400)
  expect(await running.stop('SIGINT')).toBe(130)
  const next = project.start()
  await next.untilReady()
  expect(await next.stop('SIGHUP')).toBe(0)
  await until('the server to end', () => serversOf(project.folder).length === 0)
  const log = await readFile(join(project.dataFolder, 'redis/redis.log'), 'utf8')
  expect(log).toContain('Received SIGTERM scheduling shutdown')
})

test('a fault outside of any handler ends the process with code 1, and its server too', async () => {
  await using project = await makeProject({
    ...SLOW_APP,
    'workers/fault.ts': `setTimeout(() => Promise.reject(new Error('a fault of the application')), 500)`,
  })
  const running = project.start()
  expect(await running.ended()).toBe(1)
  expect(running.lines).toContain('a fault of the application')
  await until('the server to end', () => serversOf(project.folder).length === 0)
})

test('a signal while starting ends the start in good order', async () => {
  await using project = await makeProject()
  const starting = project.start([], { REDIS_URL: 'redis://127.0.0.1:1' })
  await until('the start to wait for Redis', () => starting.log.includes('connection lost'))
  expect(await starting.stop()).toBe(0)
})

test('a port in use is told, and nothing is left of the start', async () => {
  await using project = await makeProject()
  using taken = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data: () => undefined } })
  for (const name of ['PORT', 'MILLRACE_ADMIN_PORT']) {
    const refused = project.start([], { [name]: String(taken.port) })
    expect([await refused.ended(), refused.lines]).toEqual([
      78,
      expect.stringMatching(
        /listener can't listen on 127\.0\.0\.1 port \d+: .*Choose another address or port/,
      ),
    ])
  }
  expect(serversOf(project.folder)).toEqual([])
})

test('a command without a handler is named at start: its commands would wait for ever in silence', async () => {
  await using project = await makeProject({
    'workers/a.ts': `
      import { defineCommand } from 'millrace'
      import { z } from 'zod'
      export const writeNote = defineCommand({ type: 'note.write', payload: z.object({}) })
    `,
  })
  const running = project.start()
  await running.untilReady()
  expect(running.lines).toContain('no handler for note.write')
  expect(await running.stop()).toBe(0)
})

test('a role that has nothing to do says so', async () => {
  await using project = await makeProject({
    'workers/a.ts': `
      import { defineCommand } from 'millrace'
      import { z } from 'zod'
      export const writeNote = defineCommand({ type: 'note.write', payload: z.object({}) })
    `,
  })
  const idle = project.start(['work'])
  expect([await idle.ended(), idle.lines]).toEqual([
    78,
    expect.stringContaining('define a handler in workers/'),
  ])
  const all = project.start()
  await all.untilReady()
  expect(await all.stop()).toBe(0)
})

test('mistakes in code are told as those of the command line are', async () => {
  const mistakes: [MillraceOptions, RegExp][] = [
    [{ port: 70_000 }, /^port is "70000"; use a whole number/],
    [{ host: '0.0.0.0' }, /^HOST 0\.0\.0\.0 can be reached/],
    [{ prot: 1 } as MillraceOptions, /has no option "prot"\. Did you mean "port"\?/],
    [{ allowUnsafe: ['evictoin' as 'eviction'] }, /^allowUnsafe is "evictoin"; .*did you mean "eviction"/],
    [{ definitions: [3 as never] }, /^One of the definitions is none \(number\)/],
    [{ definitions: [onWriteNote] }, /names command "note\.write@1", which is not registered/],
  ]
  for (const [options, says] of mistakes) {
    const refused = startMillrace({ redisUrl: redis.url, port: 0, adminPort: 0, ...options })
    expect((await rejection(refused)).message).toMatch(says)
  }
})

test('the rights that the documentation grants are enough for a whole process', async () => {
  const text = await readFile(join(root, 'docs/redis.md'), 'utf8')
  const rights =
    /^ACL (SETUSER millrace .*)$/m.exec(text)?.[1]?.replace('PASSWORD', 'secret').split(' ') ?? []
  const admin = (await redis.open()).client
  await admin.call('ACL', ...rights)
  await admin.call('ACL', 'LOG', 'RESET')
  const port = freePort()
  await admin.config('SET', 'port', String(port))
  await using project = await makeProject()
  const running = project.start([], { REDIS_URL: `redis://millrace:secret@127.0.0.1:${port}` })
  await running.untilReady()
  expect(running.lines + running.log).not.toContain('secret')
  const id = await post(running.line('public'), { author: 'acl', text: 'x' })
  expect(await viewAfter(running.line('public'), 'notes-by-author', 'acl', id)).toMatchObject({ count: 1 })
  expect(await running.stop()).toBe(0)
  expect(await admin.call('ACL', 'LOG')).toEqual([])
})

test('every role tells on its admin listener that it lives, has started and is ready', async () => {
  await using project = await makeProject()
  for (const role of ['api', 'work', 'project', 'schedule']) {
    const running = project.start([role], { REDIS_URL: redis.url })
    await running.untilReady()
    const admin = running.line('admin')
    const codes = await Promise.all(
      ['livez', 'startupz', 'readyz?verbose', 'metrics'].map(
        async (path) => (await fetch(`${admin}/${path}`)).status,
      ),
    )
    expect([role, ...codes]).toEqual([role, 200, 200, 200, 200])
    expect(running.line('public').startsWith('http')).toBe(role === 'api')
    expect(await running.stop()).toBe(0)
  }
})
