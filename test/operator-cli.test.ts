/** Operator commands as a shell sees them: data on stdout, the rest on stderr, exit codes; against a whole real process. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import {
  defineCommand,
  defineEvent,
  defineHandler,
  defineProjection,
  done,
  type Millrace,
  reject,
  startMillrace,
} from 'millrace'
import { z } from 'zod'
import { root } from './source-files.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

const note = z.object({ author: z.string(), text: z.string() })
const writeNote = defineCommand({ type: 'note.write', payload: note, key: ({ author }) => author })
const noteWritten = defineEvent({ type: 'note.written', payload: note })
const onWriteNote = defineHandler(writeNote, (command) => {
  if (command.payload.text === 'bad') return reject('the text is bad')
  command.emit(noteWritten, command.payload)
  return done({ length: command.payload.text.length })
})
const notes = defineProjection({ name: 'notes', initial: () => ({ count: 0 }) }).on(
  noteWritten,
  ({ payload }) => payload.author,
  (view) => ({ count: view.count + 1 }),
)

let redis: TestRedis
let millrace: Millrace

beforeAll(async () => {
  redis = await startTestRedis(['--appendfsync', 'everysec'])
  const definitions = [writeNote, noteWritten, onWriteNote, notes]
  millrace = await startMillrace({ redisUrl: redis.url, definitions, port: 0, adminPort: 0 })
})
afterAll(async () => {
  await millrace?.stop()
  await redis?.[Symbol.asyncDispose]()
})

interface Run {
  readonly code: number
  readonly out: string
  readonly said: string
}

async function run(args: readonly string[], input = '', env: Record<string, string> = {}): Promise<Run> {
  const child = Bun.spawn([process.execPath, join(root, 'src/cli/main.ts'), ...args], {
    env: {
      ...{ PATH: process.env['PATH'] ?? '', NO_COLOR: '1' },
      MILLRACE_URL: millrace.urls.public ?? '',
      MILLRACE_ADMIN_URL: millrace.urls.admin ?? '',
      ...env,
    },
    stdin: new Blob([input]),
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const [out, said, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  return { code, out, said }
}

/** Runs a command that must succeed, and answers what it printed. */
async function data(...args: string[]): Promise<string> {
  const { code, out, said } = await run(args)
  expect({ code, said: code === 0 ? '' : said }).toEqual({ code: 0, said: '' })
  return out.trimEnd()
}

const payload = (author: string, text = 'hello'): string => JSON.stringify({ author, text })

async function sendBad(author: string): Promise<string> {
  const id = await data('send', 'note.write', payload(author, 'bad'))
  await until('the dead letter', async () => (await data('status', id)).includes('dead'))
  return id
}

describe('send, status, view', () => {
  test('stdout is the id and nothing else; status and view follow it', async () => {
    const sent = await run(['send', 'note.write', payload('ada')])
    expect(sent.code).toBe(0)
    expect(sent.out).toMatch(/^main\.0\.e\d+-\d+\.[\w-]{11}\n$/)
    expect(sent.said).toContain('durability everysec')
    const id = sent.out.trim()
    expect(JSON.parse(await data('view', 'notes', 'ada', '--after', id, '--json'))).toEqual({ count: 1 })
    expect(JSON.parse(await data('status', id, '--json'))).toMatchObject({
      id,
      status: 'done',
      result: { length: 5 },
    })
    expect(await data('status', id)).toMatch(/^status +done$/m)
    expect(await data('view', 'notes', '--prefix', 'ad')).toBe('ada\t{"count":1}')
  })

  test('the payload from stdin, a key of its own, a delay', async () => {
    const first = await run(['send', 'note.write', '-', '--key', 'k "1"', '--json'], payload('bob'))
    const again = await run(['send', 'note.write', '-', '--key', 'k "1"', '--json'], payload('bob'))
    const [one, two] = [JSON.parse(first.out), JSON.parse(again.out)]
    expect(two).toEqual({ ...one, deduplicated: true })
    const later = JSON.parse(await data('send', 'note.write', payload('bob'), '--delay', '60000', '--json'))
    expect(later).toMatchObject({ status: 'scheduled' })
    expect(await data('status', later.id)).toMatch(/^dueAt +20/m)
  })

  test('a deadline: what has passed it is dead as expired, and listed as that', async () => {
    const at = new Date(Date.now() - 60_000).toISOString()
    const id = await data('send', 'note.write', payload('late'), '--expires-at', at)
    await until('it to expire', async () => (await data('status', id)).includes('dead'))
    expect(JSON.parse(await data('status', id, '--json'))).toMatchObject({
      status: 'dead',
      reason: 'expired',
      problem: { type: '/problems/command-expired' },
    })
    expect(await data('dlq', 'ls', '--reason', 'expired')).toContain(id)
    expect(await data('dlq', 'ls', '--reason', 'crashed')).not.toContain(id)
    await run(['dlq', 'purge', id, '--yes'])
    const kept = await data('send', 'note.write', payload('kept'), '--expires-in-ms', '60000')
    await until('it to be done', async () => (await data('status', kept)).includes('done'))
  })

  test.each([
    [2, ['send', 'note.write', '{"author":'], 'not JSON'],
    [2, ['send', 'note.write', '{}', '--delay', 'soon'], 'delayMs'],
    [2, ['send', 'note.write', '{}', '--expires-in-ms', '0'], 'expiresInMs'],
    [2, ['dlq', 'ls', '--reason', 'bored'], 'is one of rejected, failed, crashed, expired'],
    [2, ['status', 'whatever'], 'not a command id'],
    [2, ['send'], "missing required argument 'type'"],
    [2, ['view', 'notes', '--after', 'x'], '--after needs a key'],
    [2, ['sned'], 'Did you mean send?'],
    [2, ['send', 'note.write', '--dealy', '5'], 'Did you mean --delay?'],
    [3, ['send', 'note.wirte', '{}'], 'Did you mean "note.write"?'],
    [3, ['status', 'main.0.e1-1.AAAAAAAAAAA'], 'No such command'],
    [3, ['view', 'notes', 'nobody'], 'There is no view'],
    [3, ['view', 'nothing'], 'no projection'],
    [1, ['send', 'note.write', '{"author":7}'], '#/author'],
    [69, ['status', 'x', '--url', 'http://127.0.0.1:9'], 'Nobody answers'],
    [69, ['dlq', 'ls', '--admin-url', 'http://127.0.0.1:9'], 'Nobody answers'],
  ])('exit code %d for %p', async (code, args, sentence) => {
    const result = await run(args)
    expect([result.code, result.out]).toEqual([code, ''])
    expect(result.said).toContain(sentence)
    expect(result.said).not.toContain('    at ')
  })

  test('78 for an environment that makes no sense', async () => {
    const result = await run(['status', 'x'], '', { MILLRACE_ADMN_URL: 'http://x' })
    expect(result).toMatchObject({
      code: 78,
      said: expect.stringContaining('Did you mean MILLRACE_ADMIN_URL?'),
    })
  })

  test('an answer that was lost is asked for again with the same key', async () => {
    let asked = 0
    const keys = new Set<string | null>()
    const flaky = Bun.serve({
      hostname: '127.0.0.1',
      port: 0,
      fetch: (request) => {
        asked += 1
        keys.add(request.headers.get('idempotency-key'))
        if (asked < 3) {
          const problem = { title: 'Perhaps stored, perhaps not', detail: 'The answer was lost.' }
          return Response.json(problem, { status: 503, headers: { 'retry-after': '0' } })
        }
        return Response.json({
          id: 'main.0.e1-1.x',
          status: 'accepted',
          durability: 'everysec',
          deduplicated: true,
        })
      },
    })
    const result = await run(['send', 'note.write', '{}', '--url', flaky.url.href])
    await flaky.stop(true)
    expect(result).toMatchObject({
      code: 0,
      out: 'main.0.e1-1.x\n',
      said: expect.stringContaining('Trying again'),
    })
    expect([asked, keys.size]).toEqual([3, 1])
  })

  test('what answers but is not Millrace is told as such', async () => {
    const other = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => new Response('<html>') })
    const result = await run(['status', 'x', '--url', other.url.href])
    await other.stop(true)
    expect(result).toMatchObject({ code: 69, said: expect.stringContaining('is not Millrace') })
  })
})

describe('dlq', () => {
  test('ls, show, redrive with a mended payload', async () => {
    const id = await sendBad('carl')
    const list = await run(['dlq', 'ls'])
    expect(list.out).toContain(id)
    expect(list.out.split('\n')[0]).toMatch(/^ID +TYPE +ATTEMPTS +DEAD SINCE +ERROR$/)
    expect(list.said).toContain('the text is bad')
    expect(JSON.parse(await data('dlq', 'ls', '--type', 'note.write', '--json'))).toMatchObject({
      data: [{ id }],
    })
    expect(JSON.parse(await data('dlq', 'show', id, '--json'))).toMatchObject({
      payload: { author: 'carl', text: 'bad' },
    })
    expect(await data('dlq', 'redrive', id, '--dry-run')).toBe(id)
    expect(await data('dlq', 'redrive', id, '--payload', payload('carl', 'good'))).toBe(id)
    await until('the redriven one to be done', async () => /^status +done$/m.test(await data('status', id)))
    expect((await run(['dlq', 'show', id])).code).toBe(3)
  })

  test('redrive by filter is followed to its end', async () => {
    const ids = [await sendBad('dora'), await sendBad('dora')]
    const dry = JSON.parse(await data('dlq', 'redrive', '--error', 'the text is bad', '--dry-run', '--json'))
    expect(dry).toMatchObject({ state: 'finished', dryRun: true, matched: 2, done: 0 })
    expect(await data('dlq', 'redrive', '--type', 'note.write', '--rate', '1000')).toMatch(/^done +2$/m)
    for (const id of ids) await until('dead again', async () => (await data('status', id)).includes('dead'))
  })

  test('purge wants --yes, or only rehearses', async () => {
    const id = await sendBad('emil')
    for (const target of [[id], ['--all']]) {
      const refused = await run(['dlq', 'purge', ...target])
      expect(refused).toMatchObject({ code: 2, out: '', said: expect.stringContaining('--yes') })
    }
    expect(await data('dlq', 'purge', id, '--dry-run')).toBe(id)
    expect(
      JSON.parse(await data('dlq', 'purge', '--all', '--dry-run', '--json')).matched,
    ).toBeGreaterThanOrEqual(1)
    expect(await data('dlq', 'purge', id, '--yes')).toBe(id)
    expect((await run(['dlq', 'show', id])).code).toBe(3)
    await data('dlq', 'purge', '--all', '--yes')
    expect(await run(['dlq', 'ls'])).toMatchObject({ code: 0, out: '', said: 'millrace: no dead letters\n' })
  })

  test('nothing said does not mean everything', async () => {
    for (const args of [
      ['redrive'],
      ['purge', '--yes'],
      ['redrive', 'x', '--all'],
      ['redrive', '--all', '--type', 'x'],
    ]) {
      expect((await run(['dlq', ...args])).code).toBe(2)
    }
    expect((await run(['dlq', 'redrive', '--all', '--payload', '{}'])).code).toBe(2)
  })
})
