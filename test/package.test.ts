/**
 * The package as somebody installs it: packed, added to an empty folder from the registry's other packages, and used as the
 * README of `millrace init` says. Without the registry this fails: an unproved package must not look proved.
 */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { mkdtemp, readdir, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from './source-files.ts'
import { serversOf } from './support/project.ts'
import { until } from './support/until.ts'

const LIMIT_MS = 60_000
let folder: string
let app: string

interface Ran {
  readonly code: number
  readonly output: string
}

async function run(cwd: string, ...command: string[]): Promise<Ran> {
  const child = Bun.spawn([process.execPath, ...command], { cwd, stdout: 'pipe', stderr: 'pipe' })
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  return { code, output: stdout + stderr }
}

async function must(cwd: string, ...command: string[]): Promise<string> {
  const { code, output } = await run(cwd, ...command)
  if (code !== 0) throw new Error(`bun ${command.join(' ')} ended with ${code}:\n${output}`)
  return output
}

beforeAll(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'millrace-package-')))
  app = join(folder, 'app')
  await must(root, 'pm', 'pack', '--destination', folder, '--quiet')
  const [tarball] = (await readdir(folder)).filter((name) => name.endsWith('.tgz'))
  await Bun.write(join(app, 'package.json'), '{ "name": "app", "private": true, "type": "module" }\n')
  await must(app, 'add', join(folder, tarball ?? ''), 'zod')
}, LIMIT_MS)

afterAll(async () => {
  for (const pid of serversOf(folder)) process.kill(pid, 'SIGKILL')
  await rm(folder, { recursive: true, force: true })
})

const millrace = (...args: string[]): readonly string[] => ['node_modules/.bin/millrace', ...args]

test('the package holds what it needs and nothing else', async () => {
  const installed = join(app, 'node_modules/millrace')
  const top = await readdir(installed)
  expect(top).toEqual(expect.arrayContaining(['dist', 'package.json', 'LICENSE']))
  expect(await readdir(join(installed, 'dist'))).toEqual(expect.arrayContaining(['client.js', 'client.d.ts']))
  expect(top.filter((name) => ['src', 'test', 'scripts', 'workers', 'node_modules'].includes(name))).toEqual(
    [],
  )
  expect(await must(app, ...millrace('--version'))).toMatch(/^\d+\.\d+\.\d+\n$/)
})

test(
  'a first application is written, passes its own test, type-checks, and is never written over',
  async () => {
    const told = await must(app, ...millrace('init'))
    expect(told).toContain('wrote workers/visits.ts')
    expect(told).toContain('kept  package.json')
    const again = await run(app, ...millrace('init'))
    expect([again.code, again.output]).toEqual([78, expect.stringContaining('would be overwritten')])
    expect(await must(app, 'test')).toContain('1 pass')
    await must(app, join(root, 'node_modules/typescript/bin/tsc'), '-p', '.')
  },
  LIMIT_MS,
)

test(
  'it starts, takes a command and shows the view, and ends with nothing left',
  async () => {
    const env = { ...Bun.env, PORT: '0', MILLRACE_ADMIN_PORT: '0' }
    const child = Bun.spawn([process.execPath, ...millrace('start')], {
      cwd: app,
      env,
      stdout: 'ignore',
      stderr: 'pipe',
    })
    let lines = ''
    const read = (async () => {
      for await (const chunk of child.stderr) lines += new TextDecoder().decode(chunk)
    })()
    try {
      await until('the process to be ready', () => lines.includes('ready;') || child.exitCode !== null)
      const url = /public +(http\S+)/.exec(lines)?.[1] ?? `no URL in: ${lines}`
      const posted = await fetch(`${url}/v1/commands/visit.record`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ page: '/', visitor: 'ada' }),
      })
      expect(posted.status).toBe(202)
      const { id } = (await posted.json()) as { id: string }
      const view = await fetch(`${url}/v1/views/pages/%2F`, { headers: { 'millrace-after': id } })
      expect(await view.json()).toEqual({ visits: 1, lastVisitor: 'ada' })
      expect(await (await fetch(`${url}/openapi.json`)).text()).toContain('/v1/commands/visit.record')
    } finally {
      child.kill('SIGTERM')
      expect(await child.exited).toBe(0)
      await read
    }
    expect(serversOf(app)).toEqual([])
  },
  LIMIT_MS,
)
