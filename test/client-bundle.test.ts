/**
 * The client as it is shipped: one module that names no platform, loaded and used by Node; its sources checked against the types
 * that Node 20 and browsers share; and types of an application's commands that hold what they promise.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test'
import { mkdtemp, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseSync, Visitor } from 'oxc-parser'
import { bundleClient } from '../scripts/client-bundle.ts'
import { root } from './source-files.ts'
import { type MillraceProcess, makeProject, type Project } from './support/project.ts'

setDefaultTimeout(60_000)

let folder: string
let bundle: string
beforeAll(async () => {
  folder = await realpath(await mkdtemp(join(tmpdir(), 'millrace-client-')))
  await bundleClient(folder)
  bundle = join(folder, 'client.js')
})
afterAll(() => rm(folder, { recursive: true, force: true }))

test('it imports nothing and names no platform', async () => {
  const text = await Bun.file(bundle).text()
  const { program, module, errors } = parseSync('client.js', text)
  expect(errors).toEqual([])
  expect([...module.staticImports, ...module.dynamicImports]).toEqual([])
  const names = new Set<string>()
  new Visitor({ Identifier: ({ name }) => void names.add(name) }).visit(program)
  expect(names.has('fetch')).toBe(true)
  const foreign = [
    'Bun',
    'Buffer',
    'Deno',
    'global',
    'module',
    'process',
    'require',
    'setImmediate',
    'window',
  ]
  expect(foreign.filter((name) => names.has(name))).toEqual([])
  expect(text).not.toMatch(/node:|bun:/)
  expect(text.length).toBeLessThan(64 * 1024)
})

const COMPILER = join(root, 'node_modules/typescript/bin/tsc')

/** The complaints of the compiler about some sources, with no more than ES2022 and a browser's types. */
async function complaints(lib: string, ...files: string[]): Promise<string> {
  const options = ['--module', 'preserve', '--moduleResolution', 'bundler', '--types', '', '--lib', lib]
  const strict = [
    '--strict',
    '--exactOptionalPropertyTypes',
    '--noUncheckedIndexedAccess',
    '--verbatimModuleSyntax',
  ]
  const child = Bun.spawn(
    [
      process.execPath,
      COMPILER,
      '--ignoreConfig',
      '--noEmit',
      '--allowImportingTsExtensions',
      ...options,
      ...strict,
      ...files,
    ],
    { cwd: root, stdout: 'pipe', stderr: 'pipe' },
  )
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  return stdout + stderr
}

const WEB = 'es2022,dom,dom.iterable,esnext.disposable'

test('its sources need nothing that Node 20 and browsers do not have', async () => {
  const newer = join(folder, 'newer.ts')
  await Bun.write(
    newer,
    'export const { promise }: { promise: Promise<void> } = Promise.withResolvers<void>()\n',
  )
  expect(await complaints(WEB, 'src/client.ts')).toBe('')
  expect(await complaints(WEB, newer)).toContain('withResolvers')
})

test('commands and payloads of an application are checked where they are written', async () => {
  const header = `
    import { createClient } from '${join(root, 'src/client.ts')}'
    import type { CommandDefinition } from '${join(root, 'src/contracts/command.ts')}'
    import type { StandardSchemaV1 } from '@standard-schema/spec'
    declare const orders: {
      readonly place: CommandDefinition<'order.place', StandardSchemaV1<{ id: string; n?: number }, { id: string; n: number }>>
      readonly ship: CommandDefinition<'order.ship', StandardSchemaV1<{ id: string }>>
      readonly notACommand: (text: string) => number
    }
    const client = createClient<typeof orders>({ url: 'http://x' })
  `
  const right = `
    void client.send('order.place', { id: 'a' }, { waitMs: 5 })
    void client.send(orders.ship, { id: 'a' })
    void client.sendMany([{ command: 'order.place', payload: { id: 'a', n: 1 } }, { command: 'order.ship', payload: { id: 'b' } }])
    void createClient<[typeof orders.ship]>({ url: 'http://x' }).send('order.ship', { id: 'a' })
    void createClient({ url: 'http://x' }).send('whatever', { it: 'is' })
    void createClient({ url: 'http://x' }).sendMany([{ command: 'whatever', payload: 1 }])
    export const count: Promise<number | undefined> = client.view<{ count: number }>('v', 'k').then(({ value }) => value?.count)
  `
  const wrong = [
    "void client.send('order.plaec', { id: 'a' })",
    "void client.send('order.place', { id: 1 })",
    "void client.send('order.ship', { n: 1 })",
    'void client.send(orders.ship, { id: 7 })',
    "void client.send('notACommand', 'x')",
    "void client.sendMany([{ command: 'order.ship', payload: { id: 1 } }])",
    "void client.send('order.ship', { id: 'a' }, { wait: 5 })",
  ]
  const at = join(root, 'test', `client-types-${process.pid}`)
  try {
    await Bun.write(`${at}-right.ts`, header + right)
    expect(await complaints(WEB, `${at}-right.ts`)).toBe('')
    await Bun.write(`${at}-wrong.ts`, `${header}\n${wrong.join('\n')}\nexport {}\n`)
    const lines = header.split('\n').length
    const found = [...(await complaints(WEB, `${at}-wrong.ts`)).matchAll(/-wrong\.ts\((\d+),/g)]
    const told = new Set(found.map(([, line]) => Number(line) - lines - 1))
    expect([...told].sort()).toEqual(wrong.map((_, index) => index))
  } finally {
    await rm(`${at}-right.ts`, { force: true })
    await rm(`${at}-wrong.ts`, { force: true })
  }
})

/** Its version, or undefined where there is none; Bun calls itself node in some places. */
function nodeVersion(): string | undefined {
  const node = Bun.which('node')
  if (node === null) return undefined
  const version = Bun.spawnSync([node, '-p', 'process.versions.bun ? "" : process.versions.node'])
    .stdout.toString()
    .trim()
  return version === '' ? undefined : version
}

const node = nodeVersion()
const isOldEnough = node !== undefined && Number(node.split('.')[0]) >= 20

/** What an application writes; it prints what came of it. */
const SCRIPT = `
  import { createClient } from './client.js'
  const client = createClient({ url: process.argv[2] })
  const { ended } = await client.send('note.write', { author: 'node', text: 'hi' }, { waitMs: 20000 })
  const sent = await Promise.all(Array.from({ length: 50 }, (_, n) =>
    client.send('note.write', { author: 'node', text: String(n) })))
  const view = await client.view('notes-by-author', 'node', { after: sent.at(-1).id })
  const pages = []
  for await (const { views } of client.views('notes-by-author')) pages.push(...views.map(({ key }) => key))
  const code = await client.send('note.write', { author: 7 }).catch((error) => error.code)
  await client[Symbol.asyncDispose]()
  const closed = await client.status('x').catch((error) => error.code)
  console.log(JSON.stringify({ ended: ended.status, ids: new Set(sent.map(({ id }) => id)).size, view: view.value, pages, code, closed }))
`

const title = 'Node loads it and uses it against a real process'
if (!isOldEnough) console.log(`skipped, for there is no Node 20 or later here: ${title}`)
test.skipIf(!isOldEnough)(title, async () => {
  await using project: Project = await makeProject()
  const millrace: MillraceProcess = project.start()
  try {
    await millrace.untilReady()
    await Bun.write(join(folder, 'use.mjs'), SCRIPT)
    await Bun.write(join(folder, 'package.json'), '{ "type": "module" }\n')
    const child = Bun.spawn(['node', join(folder, 'use.mjs'), millrace.line('public')], {
      stdout: 'pipe',
      stderr: 'pipe',
    })
    const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
    expect([code, stderr]).toEqual([0, ''])
    expect(JSON.parse(stdout)).toEqual({
      ...{ ended: 'done', ids: 50, view: { count: 51 }, pages: ['node'], code: 'invalid', closed: 'closed' },
    })
  } finally {
    await millrace.stop()
  }
})
