/** The README's lines do what it says: each block that a reader can type is typed here, against a process of its own. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { type MillraceProcess, makeProject, type Project } from './support/project.ts'
import { until } from './support/until.ts'

setDefaultTimeout(60_000)
const ROOT = join(import.meta.dir, '..')
const readme = await Bun.file(join(ROOT, 'README.md')).text()

/** The fenced blocks of one language, in order. */
function blocks(language: string): string[] {
  return [...readme.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].flatMap(([, name, body]) =>
    name === language && body !== undefined ? [body] : [],
  )
}

let project: Project
let millrace: MillraceProcess
beforeAll(async () => {
  project = await makeProject({})
  millrace = project.start(['--workers-dir', join(ROOT, 'workers')])
  await millrace.untilReady()
})
afterAll(async () => {
  await millrace.stop()
  await project[Symbol.asyncDispose]()
})

/** A bare machine has no curl. */
const CURL =
  Bun.which('curl') === null
    ? `curl() { ${process.execPath} ${join(ROOT, 'test/support/curl.ts')} "$@"; }\n`
    : ''

/** Runs a block as printed, but for the ports and for the way Bun is found. */
async function type(block: string): Promise<string> {
  const script = (CURL + block)
    .replaceAll('http://127.0.0.1:8080', millrace.line('public'))
    .replaceAll('./scripts/millrace', `${process.execPath} ${join(ROOT, 'src/cli/main.ts')}`)
  const child = Bun.spawn(['sh', '-ec', script], {
    cwd: ROOT,
    env: { ...Bun.env, MILLRACE_URL: millrace.line('public'), MILLRACE_ADMIN_URL: millrace.line('admin') },
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const [out, err, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  if (code !== 0) throw new Error(`exit ${code} of ${script}\n${out}\n${err}`)
  return out
}

/** Types a block again until it prints what is expected: a view follows its events a moment later. */
async function typeUntil(block: string, expected: RegExp): Promise<void> {
  let out = ''
  await until(`${expected} from ${block}`, async () => {
    out = await type(block).catch((error: unknown) => String(error))
    return expected.test(out)
  })
  expect(out).toMatch(expected)
}

test('names the two commands', () => {
  expect(blocks('sh')[0]).toContain('./scripts/start')
  expect(blocks('sh')[0]).toContain('./scripts/test')
})

test('the lines to type work as printed: 202 with an id, the views follow, the rejected one is a dead letter', async () => {
  const [, place = '', look = '', reject = ''] = blocks('sh')
  const first = JSON.parse(await type(place)) as Record<string, unknown>
  const shape = JSON.parse((blocks('json')[0] ?? '').replace('e…', 'e1')) as Record<string, unknown>
  expect(Object.keys(first)).toEqual(Object.keys(shape))
  expect({ ...first, id: '' }).toEqual({ ...shape, id: '' })
  const second = JSON.parse(await type(place)) as Record<string, unknown>
  expect(second).toMatchObject({ id: first['id'] as string, deduplicated: true })
  const [one = '', customer = ''] = look.split('\n')
  await typeUntil(one, /"orderId":"o-1"/)
  await typeUntil(customer, /o-1/)
  await type(look)
  await typeUntil('./scripts/millrace view orders o-1', /cup/)
  await type(reject.split('\n')[0] ?? '')
  await typeUntil(reject.split('\n')[1] ?? '', /order\.ship/)
})

test('the first handler is a module that loads, handles a command and keeps a view', async () => {
  const [source = ''] = blocks('ts')
  expect(source.trim().split('\n').length).toBeLessThanOrEqual(25)
  await using own = await makeProject({ 'workers/greetings.ts': source })
  const running = own.start()
  try {
    await running.untilReady()
    const url = running.line('public')
    const answer = await fetch(`${url}/v1/commands/greeting.send`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name: 'Ada', words: 'hello' }),
    })
    expect(answer.status).toBe(202)
    const { id } = (await answer.json()) as { id: string }
    await until('the view', async () => {
      const view = await fetch(`${url}/v1/views/greetings/Ada`, { headers: { 'millrace-after': id } })
      return view.status === 200 && /"count":1/.test(await view.text())
    })
    const status = (await (await fetch(`${url}/v1/commands/${id}`)).json()) as Record<string, unknown>
    expect(status).toMatchObject({ status: 'done', result: { sent: true } })
  } finally {
    await running.stop()
  }
})

test('every file and folder it points to is there', () => {
  const links = [...readme.matchAll(/\]\(([^)#]+)\)/g)].map(([, link]) => link ?? '')
  expect(links.length).toBeGreaterThan(4)
  for (const link of links) expect(existsSync(join(ROOT, link)), link).toBe(true)
})
