/** Every mistake in what a process is told ends the start with exit code 78 and one sentence that says what to do. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { childEnvironment, readEnvironment } from '../src/config/environment.ts'
import { isLoopback } from '../src/config/loopback.ts'
import { resolveSettings, SETTING_NAMES, SETTINGS } from '../src/config/settings.ts'
import { errorCode } from '../src/contracts/errors.ts'
import { root } from './source-files.ts'
import { makeProject, type Project, SMALL_APP, serversOf } from './support/project.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'

let project: Project
let redis: TestRedis

beforeAll(async () => {
  project = await makeProject()
  redis = await startTestRedis(['--appendfsync', 'everysec'])
})
afterAll(async () => {
  await redis[Symbol.asyncDispose]()
  await project[Symbol.asyncDispose]()
})

interface Mistake {
  readonly name: string
  readonly args?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly says: RegExp
}

const told: readonly Mistake[] = [
  { name: 'an unknown role', args: ['wrok'], says: /no role "wrok"; use all, api.*Did you mean "work"\?/ },
  {
    name: 'an unknown option',
    args: ['--prot', '1'],
    says: /unknown option '--prot'\s+\(Did you mean --port\?/,
  },
  { name: 'an option without its value', args: ['--port'], says: /'--port <number>' argument missing/ },
  { name: 'too many arguments', args: ['api', 'work'], says: /too many arguments/ },
  {
    name: 'an unknown variable',
    env: { MILLRACE_DRAIN_LIMIT: '1' },
    says: /variable MILLRACE_DRAIN_LIMIT is not known. Did you mean MILLRACE_DRAIN_LIMIT_MS\?/,
  },
  {
    name: 'a port that is no number',
    env: { PORT: 'http' },
    says: /PORT is "http"; use a whole number from 0/,
  },
  { name: 'a port out of range', args: ['--port', '70000'], says: /--port is "70000"; use a whole number/ },
  {
    name: 'one port for both listeners',
    env: { PORT: '18181', MILLRACE_ADMIN_PORT: '18181' },
    says: /PORT and MILLRACE_ADMIN_PORT are both 18181; give each its own/,
  },
  {
    name: 'an address that others reach',
    env: { HOST: '0.0.0.0' },
    says: /HOST 0\.0\.0\.0 can be reached .*MILLRACE_ALLOW_UNSAFE=public-bind/,
  },
  {
    name: 'an admin address that others reach',
    args: ['--admin-host', '::'],
    says: /MILLRACE_ADMIN_HOST :: .*MILLRACE_ALLOW_UNSAFE=public-admin/,
  },
  {
    name: 'an unsafe name nobody knows',
    env: { MILLRACE_ALLOW_UNSAFE: 'public-bnd' },
    says: /MILLRACE_ALLOW_UNSAFE is "public-bnd"; use .*did you mean "public-bind"\?/,
  },
  {
    name: 'replicas of a server of our own',
    env: { MILLRACE_DURABILITY: 'replicated' },
    says: /"replicated", and a redis-server of our own has no replicas: name a primary .* with REDIS_URL/,
  },
  {
    name: 'a rate limit that is none',
    env: { MILLRACE_RATE_LIMITS: 'api: 100 per minute' },
    says: /MILLRACE_RATE_LIMITS holds "api: 100 per minute", which is no rule; write "name: 100 in 60s/,
  },
  {
    name: 'a rate limit on a route that does not exist',
    args: ['--rate-limits', 'api: 100 in 60s on command.sned'],
    says: /names the route "command.sned", which does not exist \(did you mean "command.send"\?\)/,
  },
  { name: 'a tier that is none', env: { MILLRACE_DURABILITY: 'fsnc' }, says: /did you mean "fsync"\?/ },
  {
    name: 'a log level that is none',
    env: { LOG_LEVEL: 'verbose' },
    says: /LOG_LEVEL is "verbose"; use debug, info/,
  },
  { name: 'a URL that is none', env: { REDIS_URL: 'not a url' }, says: /REDIS_URL is not a URL. Use redis:/ },
  {
    name: 'a URL of something else',
    env: { REDIS_URL: 'http://x' },
    says: /REDIS_URL starts with "http:\/\/"/,
  },
  {
    name: 'a database that is no number',
    env: { REDIS_URL: 'redis://x/a' },
    says: /names database "a"; use a number/,
  },
  {
    name: 'a secret given twice',
    env: { REDIS_URL: 'redis://x', REDIS_URL_FILE: '/x' },
    says: /Both REDIS_URL and REDIS_URL_FILE are set; keep one/,
  },
  {
    name: 'a secret without its file',
    env: { REDIS_URL_FILE: '/nowhere/x' },
    says: /REDIS_URL_FILE names a file that can't be read/,
  },
  {
    name: 'a workers folder that is not there',
    args: ['--workers-dir', 'nowhere'],
    says: /no workers folder .*nowhere: run `millrace init`/,
  },
  {
    name: 'a redis-server that is not there',
    env: { MILLRACE_REDIS_SERVER: '/nowhere/redis-server' },
    says: /There is no program \/nowhere\/redis-server: install Redis/,
  },
  {
    name: 'a data folder that can not be made',
    env: { MILLRACE_DATA_DIR: '/dev/null/x' },
    says: /data folder \/dev\/null\/x\/redis can't be made: .*set MILLRACE_DATA_DIR/,
  },
]

describe('what a process is told', () => {
  for (const { name, args = [], env = {}, says } of told) {
    test(name, async () => {
      const process = project.start(args, env)
      expect([await process.ended(), process.lines]).toEqual([78, expect.stringMatching(says)])
      expect(process.lines).not.toMatch(/^\s+at /m)
    })
  }
})

const HEADER = `
  import { defineCommand, defineEvent, defineHandler, defineProjection, defineSchedule, defineStream, done } from 'millrace'
  import { z } from 'zod'
  const payload = z.object({ id: z.string() })
`
const defined: readonly {
  readonly name: string
  readonly files: Record<string, string>
  readonly says: RegExp
}[] = [
  {
    name: 'a name used twice',
    files: {
      'a.ts': `${HEADER} export const a = defineCommand({ type: 'note.write', payload })`,
      'b.ts': `${HEADER} export const b = defineCommand({ type: 'note.write', payload })`,
    },
    says: /two definitions of command "note\.write@1"; rename or drop one/,
  },
  {
    name: 'an unknown option of a definition',
    files: {
      'a.ts': `${HEADER} export const a = defineCommand({ type: 'note.write', payload, keys: () => '' })`,
    },
    says: /In a\.ts: defineCommand has no option "keys". Did you mean "key"\?/,
  },
  {
    name: 'a handler without a command',
    files: { 'a.ts': `${HEADER} export const a = defineHandler(undefined, () => done())` },
    says: /In a\.ts: A handler needs a command made by defineCommand/,
  },
  {
    name: 'a handler of a command that is not exported',
    files: {
      'a.ts': `${HEADER} const a = defineCommand({ type: 'note.write', payload }); export const b = defineHandler(a, () => done())`,
    },
    says: /names command "note\.write@1", which is not registered: export it/,
  },
  {
    name: 'a projection over an event that is not exported',
    files: {
      'a.ts': `${HEADER}
        const noteWriten = defineEvent({ type: 'note.writen', payload })
        export const noteWritten = defineEvent({ type: 'note.written', payload })
        export const notes = defineProjection({ name: 'notes', initial: () => 0 }).on(noteWriten, () => 'all', (n) => n + 1)`,
    },
    says: /folds event "note\.writen", which is not registered \(did you mean "note\.written"\?\)/,
  },
  {
    name: 'a projection that folds nothing',
    files: { 'a.ts': `${HEADER} export const notes = defineProjection({ name: 'notes', initial: () => 0 })` },
    says: /Projection "notes" folds no event/,
  },
  {
    name: 'a name with a brace',
    files: { 'a.ts': `${HEADER} export const a = defineStream({ name: 'x}y{' })` },
    says: /Stream name "x}y\{" is not allowed/,
  },
  {
    name: 'a module that throws',
    files: { 'deep/er.ts': `throw new TypeError('no such flag')` },
    says: /The module deep\/er\.ts can't be loaded: TypeError: no such flag/,
  },
  {
    name: 'a package that is not installed',
    files: { 'a.ts': `import 'left-pad-of-yore'` },
    says: /The module a\.ts can't be loaded: .*left-pad-of-yore.* Is it installed\?/,
  },
  {
    name: 'a module that does not parse',
    files: { 'a.ts': 'export const = 1' },
    says: /The module a\.ts can't be loaded: /,
  },
  {
    name: 'a folder without a module',
    files: { 'notes.test.ts': '', '_private.ts': '', 'types.d.ts': '' },
    says: /There is no module in .*: write one, run `millrace init`/,
  },
  {
    name: 'modules that define nothing',
    files: { 'a.ts': 'export const x = 1' },
    says: /No module in .* exports a definition/,
  },
]

describe('what is defined', () => {
  for (const [index, { name, files, says }] of defined.entries()) {
    test(name, async () => {
      const folder = join(project.folder, `workers-${index}`)
      for (const [path, text] of Object.entries(files)) await Bun.write(join(folder, path), text)
      const process = project.start(['--workers-dir', folder])
      expect([await process.ended(), process.lines]).toEqual([78, expect.stringMatching(says)])
    })
  }
})

describe('what the server is', () => {
  test('other partitions than when the stream was first used', async () => {
    await using own = await makeProject({
      ...SMALL_APP,
      'workers/streams.ts': `import { defineStream } from 'millrace'; export const main = defineStream({ name: 'main', partitions: 4 })`,
    })
    const link = await redis.open()
    await link.client.hset('mr:stream:main', 'partitions', '2')
    try {
      const process = own.start([], { REDIS_URL: redis.url })
      expect([await process.ended(), process.lines]).toEqual([
        78,
        expect.stringMatching(/Stream "main" has 2 partitions in Redis, the definition says 4/),
      ])
    } finally {
      await link.client.del('mr:stream:main')
    }
  })

  test('unsafe settings, and the name that allows them', async () => {
    const link = await redis.open()
    await link.client.config('SET', 'maxmemory-policy', 'allkeys-lru')
    try {
      const process = project.start([], { REDIS_URL: redis.url })
      expect([await process.ended(), process.lines]).toEqual([
        78,
        expect.stringMatching(/may evict whole streams .*MILLRACE_ALLOW_UNSAFE=eviction/),
      ])
      const allowed = project.start(['--allow-unsafe', 'eviction'], { REDIS_URL: redis.url })
      await allowed.untilReady()
      expect(await allowed.stop()).toBe(0)
    } finally {
      await link.client.config('SET', 'maxmemory-policy', 'noeviction')
    }
  })

  test('the URL may stand in a file, and its password is never told', async () => {
    const file = join(project.folder, 'redis-url')
    await writeFile(file, `${redis.url}\n`)
    const process = project.start(['work'], { REDIS_URL_FILE: file })
    await process.untilReady()
    expect(process.line('redis')).toContain(redis.url)
    expect(await process.stop()).toBe(0)
    const refused = project.start(['work'], { REDIS_URL: 'redis://me:hunter2@127.0.0.1:1' })
    refused.child.kill('SIGTERM')
    await refused.ended()
    expect(refused.lines + refused.log).not.toContain('hunter2')
  })

  test('a server that is not there is unavailable, which is no mistake of configuration', async () => {
    const process = project.start(['work'], {
      REDIS_URL: 'redis://127.0.0.1:1',
      MILLRACE_REDIS_WAIT_MS: '300',
    })
    expect([await process.ended(), process.lines]).toEqual([
      69,
      expect.stringMatching(/Redis is not reachable: .*ECONNREFUSED/),
    ])
  })
})

describe('settings', () => {
  test('flags go before the environment, which goes before defaults', () => {
    const environment = readEnvironment({ PORT: '1', MILLRACE_ADMIN_PORT: '2', LOG_LEVEL: '' })
    const settings = resolveSettings({ code: { host: '::1' }, flags: { port: '3' }, environment })
    expect(settings).toMatchObject({
      host: '::1',
      port: 3,
      adminPort: 2,
      logLevel: 'info',
      durability: 'everysec',
    })
  })

  test('only addresses of this machine count as loopback', () => {
    expect(['127.0.0.1', '127.1.2.3', 'localhost', '::1'].map(isLoopback)).toEqual([true, true, true, true])
    expect(['0.0.0.0', '::', '10.0.0.1', '127.evil.com', ''].map(isLoopback)).toEqual(Array(5).fill(false))
  })

  test('variables of others are no business of ours, and none of ours reaches a child', () => {
    expect(readEnvironment({ HOME: '/root', MILLRACEX: '1', REDIS_URL: 'redis://x' }).get('REDIS_URL')).toBe(
      'redis://x',
    )
    expect(childEnvironment({ PATH: '/bin', REDIS_URL: 'redis://:secret@x' })).toEqual({ PATH: '/bin' })
  })

  test('a misspelt variable is refused where it is read', () => {
    const refused = () => readEnvironment({ MILLRACE_WORKER_DIR: 'x' })
    expect(refused).toThrow('Did you mean MILLRACE_WORKERS_DIR?')
    try {
      refused()
    } catch (error) {
      expect(errorCode(error)).toBe('config.unknown-option')
    }
  })
})

test('no start that was refused has left a redis-server behind', async () => {
  await mkdir(project.dataFolder, { recursive: true })
  expect(serversOf(project.folder)).toEqual([])
})

test('every variable and flag is in the documentation, and nothing else', async () => {
  const text = await Bun.file(join(root, 'docs/running.md')).text()
  const rows = text.split('\n').filter((line) => line.startsWith('| `'))
  for (const name of SETTING_NAMES) {
    const { variable, flag, fallback } = SETTINGS[name]
    const row = rows.find((line) => line.startsWith(`| \`${variable}\``)) ?? `no row for ${variable}`
    expect(row).toContain(`\`${flag.split(' ', 1)[0]}\``)
    if (fallback !== undefined && fallback !== '') expect(row).toContain(`| \`${fallback}\` |`)
  }
  const written = new Set(rows.join('\n').match(/MILLRACE_[A-Z_]+/g))
  const known = Object.fromEntries([...written].map((name) => [name, name.endsWith('_FILE') ? '' : 'x']))
  expect(() => readEnvironment(known)).not.toThrow()
})
