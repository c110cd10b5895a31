/**
 * House rules that no linter has: a prose header on every file, bounded files, one vocabulary, one clock, one file that
 * reads the environment, a signature on every Lua script, and nothing that only exists on somebody's machine.
 */
import { expect, setDefaultTimeout, test } from 'bun:test'
import { join } from 'node:path'
import { type Node, Visitor } from 'oxc-parser'
import { filesMatching, parseSources, root, type SourceFile } from './source-files.ts'

// It parses every file of the tree.
setDefaultTimeout(60_000)
const linesMax = 450
const headerWordsMin = 8
/** The client has one of its own, because nothing of the runtime may come along into a browser. */
const clocks = ['src/runtime/clock.ts', 'src/client/client-clock.ts']
const environment = 'src/config/environment.ts'

/** Words we do not use in names that we choose, and what to say instead. */
const instead: Record<string, string> = {
  job: 'command',
  task: 'command, or the name of the service that runs it',
  message: 'command or event',
  stalled: 'pending, idle or suspect',
  lock: 'lease',
  offset: 'position, entry id or checkpoint',
  manager: 'the noun it owns (supervisor, registry, …)',
  helper: 'the noun it owns',
  util: 'the noun it owns',
}
/** Names the platform chose: Error's and pub/sub's `message`, worker ports, byte positions in a buffer, what `bun install` pins. */
const platformNames = new Set([
  'message',
  'errorMessage',
  'onmessage',
  'postMessage',
  'byteOffset',
  'bun.lock',
])

const src = await parseSources('src/**/*.ts')
const sources = [...src, ...(await parseSources('{workers,scripts}/**/*.ts'))]
const luaPaths = filesMatching('src/**/*.lua')

const lineOf = (file: SourceFile, at: number): string =>
  `${file.path}:${file.text.slice(0, at).split('\n').length}`

/** `fetchedJobs` and `JOB_ID` are made of words; compare those, in the singular. */
function bannedWord(name: string): string | undefined {
  if (platformNames.has(name)) return undefined
  if (/failed_?queue/i.test(name)) return `${name}: say dead letters`
  const words = name.split(/[^A-Za-z]+|(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])/)
  const word = words
    .map((each) => each.toLowerCase().replace(/s$/, ''))
    .find((each) => Object.hasOwn(instead, each))
  return word === undefined ? undefined : `${name}: not "${word}"; say ${instead[word]}`
}

/** Every name the file introduces: variables, parameters, functions, types, members. Uses of names are not listed. */
function declaredNames(file: SourceFile): { name: string; at: number }[] {
  const found: { name: string; at: number }[] = []
  const add = (node: Node | null | undefined): void => {
    if (node == null) return
    if ('name' in node && typeof node.name === 'string') found.push({ name: node.name, at: node.start })
    else if (node.type === 'ObjectPattern') node.properties.forEach(add)
    else if (node.type === 'Property') add(node.value)
    else if (node.type === 'ArrayPattern') node.elements.forEach(add)
    else if (node.type === 'AssignmentPattern') add(node.left)
    else if (node.type === 'RestElement') add(node.argument)
  }
  const named = (node: { id: Node | null }): void => add(node.id)
  const keyed = (node: { key: Node }): void => add(node.key)
  const callable = (node: { params: Node[] }): void => node.params.forEach(add)
  new Visitor({
    VariableDeclarator: named,
    ClassDeclaration: named,
    TSTypeAliasDeclaration: named,
    TSInterfaceDeclaration: named,
    FunctionDeclaration: (node) => {
      named(node)
      callable(node)
    },
    FunctionExpression: callable,
    ArrowFunctionExpression: callable,
    PropertyDefinition: keyed,
    MethodDefinition: keyed,
    TSPropertySignature: keyed,
    TSMethodSignature: keyed,
    ImportSpecifier: (node) => {
      if (node.local.start !== node.imported.start) add(node.local)
    },
  }).visit(file.program)
  return found
}

/** Uses of the ambient world: `Date.now` and `new Date()` as such, bare globals by name. */
function ambientUses(file: SourceFile): { name: string; at: number }[] {
  const found: { name: string; at: number }[] = []
  new Visitor({
    MemberExpression: (node) => {
      if (node.computed || node.property.type === 'PrivateIdentifier') return
      const owner =
        node.object.type === 'MetaProperty' ? 'import.meta' : 'name' in node.object && node.object.name
      if (owner === 'globalThis') found.push({ name: node.property.name, at: node.start })
      else if (owner) found.push({ name: `${owner}.${node.property.name}`, at: node.start })
    },
    Identifier: (node) => void found.push({ name: node.name, at: node.start }),
    NewExpression: (node) => {
      const isNow =
        node.callee.type === 'Identifier' && node.callee.name === 'Date' && node.arguments.length === 0
      if (isNow) found.push({ name: 'new Date()', at: node.start })
    },
  }).visit(file.program)
  return [...found, ...file.imports.map(({ specifier }) => ({ name: specifier, at: 0 }))]
}

function usesOf(names: readonly string[], files: readonly SourceFile[], advice: string): string[] {
  return files.flatMap((file) =>
    ambientUses(file)
      .filter(({ name }) => names.includes(name))
      .map(({ name, at }) => `${lineOf(file, at)} ${name}: ${advice}`),
  )
}

test('there are sources to judge', () => {
  expect(src.length).toBeGreaterThan(0)
  expect(src.flatMap(declaredNames).length).toBeGreaterThan(0)
})

test('every source file opens with a prose header', () => {
  const complaints = sources.filter((file) => {
    const code = file.text.replace(/^#!.*\n/, '').trimStart()
    const first = file.text.length - code.length
    const opening = file.comments.filter(
      ({ start, end }) => start >= first && end <= (file.program.body[0]?.start ?? end),
    )
    const words = opening.flatMap(({ value }) => value.match(/[A-Za-z]{2,}/g) ?? [])
    return opening[0]?.start !== first || words.length < headerWordsMin
  })
  expect(complaints.map(({ path }) => `${path}: say at the top what this file owns and promises`)).toEqual([])
})

test(`no source file is longer than ${linesMax} lines`, () => {
  const long = sources.filter(({ text }) => text.split('\n').length > linesMax)
  expect(long.map(({ path }) => `${path}: is this still one noun?`)).toEqual([])
})

test('names use one vocabulary', () => {
  const names = sources.flatMap((file) =>
    declaredNames(file).map(({ name, at }) => ({ name, where: lineOf(file, at) })),
  )
  const paths = ['src', 'workers', 'scripts', 'test'].flatMap((folder) => filesMatching(`${folder}/**/*`))
  const files = paths.flatMap((path) => path.split('/').map((name) => ({ name, where: path })))
  const complaints = [...names, ...files].flatMap(({ name, where }) => {
    const complaint = bannedWord(name)
    return complaint === undefined ? [] : [`${where} ${complaint}`]
  })
  expect([...new Set(complaints)]).toEqual([])
})

test('time and chance come from the clock', () => {
  // A socket's deadline (`AbortSignal.timeout`) belongs to the network, not to our logic, and is no business of the clock's.
  const wall = ['Date.now', 'new Date()', 'performance.now', 'Bun.nanoseconds', 'Math.random']
  const timers = ['setTimeout', 'setInterval', 'Bun.sleep', 'node:timers', 'node:timers/promises']
  const files = src.filter(({ path }) => !clocks.includes(path))
  expect(usesOf([...wall, ...timers], files, `ask the Clock (${clocks.join(', ')})`)).toEqual([])
})

test('one file reads the environment', () => {
  const files = sources.filter(({ path }) => path !== environment && !path.startsWith('scripts/'))
  const names = ['process.env', 'Bun.env', 'import.meta.env']
  expect(usesOf(names, files, `only ${environment} may; take it as an option`)).toEqual([])
})

test('only the command line writes to the console', () => {
  const files = sources.filter(({ path }) => !/^(src\/cli|scripts)\//.test(path))
  expect(usesOf(['console'], files, 'emit telemetry, or log through the Logger')).toEqual([])
})

test('every Lua script opens with its signature', async () => {
  expect(luaPaths.length).toBeGreaterThan(0)
  const texts = await Promise.all(luaPaths.map((path) => Bun.file(join(root, path)).text()))
  const complaints = texts.flatMap((text, index) => {
    const header = text.replace(/^#!.*\n/, '').match(/^(?:\s*--.*\n)+/)?.[0] ?? ''
    const missing = ['KEYS', 'ARGV', 'Returns'].filter(
      (part) => !new RegExp(`\\b${part}\\b`, 'i').test(header),
    )
    return missing.length === 0
      ? []
      : [`${luaPaths[index]}: its header comment does not tell ${missing.join(', ')}`]
  })
  expect(complaints).toEqual([])
})

test('no path of one particular machine is written down', async () => {
  const paths = filesMatching('**/*').filter((path) =>
    /(^|\/)[^.]+$|\.(ts|lua|json|md|toml|ya?ml|sh|html|css)$/.test(path),
  )
  expect(paths.length).toBeGreaterThan(10)
  const personal = /(?<![\w./*-])\/(?:home|Users|work|workspace|farm)\/[\w.-]/
  const complaints = await Promise.all(
    paths.map(async (path) => {
      const lines = (await Bun.file(join(root, path)).text()).split('\n')
      return lines.flatMap((line, index) =>
        personal.test(line) ? [`${path}:${index + 1} ${line.trim()}`] : [],
      )
    }),
  )
  expect(complaints.flat()).toEqual([])
})
