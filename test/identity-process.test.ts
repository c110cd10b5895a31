/** Identity as an operator meets it: real processes, the command line, and what their logs say of all that was tried. */
import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from './source-files.ts'
import { type MillraceProcess, makeProject, type Project } from './support/project.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'
import { until } from './support/until.ts'

let redis: TestRedis
let project: Project
let folder: string
const running: MillraceProcess[] = []

beforeAll(async () => {
  redis = await startTestRedis(['--appendfsync', 'everysec'])
  project = await makeProject()
  folder = await mkdtemp(join(tmpdir(), 'millrace-secrets-'))
})
afterEach(async () => {
  await Promise.all(running.splice(0).map((each) => each.stop()))
  const link = await redis.open()
  await link.use('emptying', (client) => client.flushall())
  redis.links.close(link)
})
afterAll(async () => {
  await project[Symbol.asyncDispose]()
  await redis[Symbol.asyncDispose]()
  await rm(folder, { recursive: true, force: true })
})

function launch(role: string, env: Record<string, string> = {}): MillraceProcess {
  const started = project.start([role], { REDIS_URL: redis.url, ...env })
  running.push(started)
  return started
}

async function start(role: string, env: Record<string, string> = {}): Promise<MillraceProcess> {
  const started = launch(role, env)
  await started.untilReady()
  return started
}

/** On this machine, whatever it is bound to. */
const near = (url: string): string => url.replace('0.0.0.0', '127.0.0.1')

interface Run {
  readonly code: number
  readonly out: string
  readonly said: string
}

async function cli(
  process_: MillraceProcess,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<Run> {
  const child = Bun.spawn([process.execPath, join(root, 'src/cli/main.ts'), ...args], {
    env: {
      ...{ PATH: process.env['PATH'] ?? '', NO_COLOR: '1' },
      MILLRACE_ADMIN_URL: near(process_.line('admin')),
      ...(process_.line('public') === '' ? {} : { MILLRACE_URL: near(process_.line('public')) }),
      ...env,
    },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const [out, said, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited])
  return { code, out: out.trimEnd(), said }
}

async function makeKey(process_: MillraceProcess, ...args: string[]): Promise<string> {
  const { code, out, said } = await cli(process_, ['keys', 'create', ...args])
  expect([code, out]).toEqual([0, expect.stringMatching(/^mr_[0-9a-z]{12}_[0-9A-Za-z]{49}$/)])
  expect(said).not.toContain(out)
  return out
}

const post = (process_: MillraceProcess, key?: string): Promise<Response> =>
  fetch(`${near(process_.line('public'))}/v1/commands/note.write`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
    },
    body: '{"author":"ada","text":"hello"}',
  })

test('what is revoked in one API process ends in another within five seconds', async () => {
  const auth = { MILLRACE_AUTH: 'required' }
  const [one, two] = await Promise.all([start('api', auth), start('api', auth)])
  expect([(await post(one)).status, (await post(two)).status]).toEqual([401, 401])
  const key = await makeKey(one, '--scope', 'commands:write', '--label', 'shop')
  const id = key.split('_')[1] ?? ''
  expect([(await post(two, key)).status, (await post(one, key)).status]).toEqual([202, 202])
  const rotated = (await cli(two, ['keys', 'rotate', id])).out
  expect([
    (await post(one, rotated)).status,
    (await post(two, rotated)).status,
    (await post(one, key)).status,
  ]).toEqual([202, 202, 202])
  const asked = await cli(one, ['keys', 'revoke', id])
  expect([asked.code, asked.said]).toEqual([2, expect.stringContaining('add --yes')])
  const revoked = await cli(one, ['keys', 'revoke', id, '--yes'])
  const revokedMs = performance.now()
  expect([revoked.code, revoked.out]).toEqual([0, id])
  expect((await post(one, key)).status).toBe(401)
  await until('the key to end in the other process', async () => (await post(two, key)).status === 401)
  expect(performance.now() - revokedMs).toBeLessThan(5000)
  expect((await post(two, rotated)).status).toBe(401)
})

test('a public bind needs somebody who may come, or a word that nobody has to be asked', async () => {
  const open = { HOST: '0.0.0.0' }
  const refused = launch('api', open)
  expect([await refused.ended(), refused.lines]).toEqual([
    78,
    expect.stringMatching(
      /HOST 0\.0\.0\.0 .*no credential to ask for.*millrace keys create.*MILLRACE_JWT_ISSUER.*public-bind/,
    ),
  ])
  const both = launch('work', { MILLRACE_ADMIN_HOST: '0.0.0.0' })
  expect([await both.ended(), both.lines]).toEqual([
    78,
    expect.stringMatching(/MILLRACE_ADMIN_HOST .*--scope admin/),
  ])
  // A role without a public listener does not care where one would be.
  const work = await start('work', open)
  const shut = await start('api', { ...open, MILLRACE_AUTH: 'required' })
  expect(shut.lines).toContain('credentials needed on: public')
  expect((await post(shut)).status).toBe(401)
  const key = await makeKey(work, '--scope', 'commands:write')
  const asking = await start('api', open)
  expect([(await post(asking)).status, (await post(asking, key)).status]).toEqual([401, 202])
  const toAll = await start('api', { ...open, MILLRACE_ALLOW_UNSAFE: 'public-bind' })
  expect(toAll.lines).not.toContain('credentials needed')
  expect((await post(toAll)).status).toBe(202)
  const near = await start('api')
  expect((await post(near)).status).toBe(202)
})

test('a public admin listener needs scope admin, and the command line brings its key', async () => {
  const local = await start('work')
  const admin = await makeKey(local, '--scope', 'admin', '--label', 'ops')
  const plain = await makeKey(local, '--scope', 'commands:write', 'views:read')
  const file = join(folder, 'key')
  await Bun.write(file, `${admin}\n`)
  const remote = await start('work', { MILLRACE_ADMIN_HOST: '0.0.0.0' })
  expect(remote.lines).toContain('credentials needed on: admin')
  const bare = await cli(remote, ['keys', 'ls'])
  expect([bare.code, bare.out, bare.said]).toEqual([1, '', expect.stringContaining('MILLRACE_API_KEY')])
  const wrong = await cli(remote, ['dlq', 'ls'], { MILLRACE_API_KEY: plain })
  expect([wrong.code, wrong.said]).toEqual([1, expect.stringContaining('Not allowed')])
  const listed = await cli(remote, ['keys', 'ls'], { MILLRACE_API_KEY_FILE: file })
  expect([listed.code, listed.out.split('\n').length]).toEqual([0, 3])
  expect(listed.out).toMatch(/^ID +LABEL +TENANT +SCOPES/)
  const json = await cli(remote, ['keys', 'list', '--json'], { MILLRACE_API_KEY: admin })
  expect(
    JSON.parse(json.out)
      .data.map(({ label }: { label: string }) => label)
      .sort(),
  ).toEqual(['', 'ops'])
  expect((await cli(remote, ['dlq', 'ls'], { MILLRACE_API_KEY: admin })).code).toBe(0)
  // The whole key may stand where its id belongs: only the id is sent.
  const shown = await cli(remote, ['keys', 'show', plain], { MILLRACE_API_KEY: admin })
  expect([shown.code, shown.out]).toEqual([0, expect.stringContaining('commands:write')])
  expect((await cli(remote, ['keys', 'show', 'aaaaaaaaaaaa'], { MILLRACE_API_KEY: admin })).code).toBe(3)
  expect(
    (await cli(remote, ['keys', 'rotate', plain, '--old-expires-in-ms', 'x'], { MILLRACE_API_KEY: admin }))
      .code,
  ).toBe(2)
  const typo = await cli(local, ['keys', 'create', '--scope', 'comands:write'])
  expect([typo.code, typo.out, typo.said]).toEqual([
    1,
    '',
    expect.stringContaining('Did you mean "commands:write"?'),
  ])
  expect((await cli(local, ['keys', 'create'])).code).toBe(2)
  expect((await fetch(`${near(remote.line('admin'))}/readyz`)).status).toBe(200)
})

test('nothing that was presented is in a log or an answer, whatever was wrong with it', async () => {
  const secretFile = join(folder, 'secret')
  const shared = `shared-${'s3cr3t'.repeat(6)}`
  await Bun.write(secretFile, shared)
  const api = await start('api', {
    ...{ MILLRACE_AUTH: 'required', LOG_LEVEL: 'debug' },
    ...{ MILLRACE_JWT_ISSUER: 'https://issuer.example', MILLRACE_JWT_AUDIENCE: 'millrace' },
    ...{ MILLRACE_JWT_SECRET_FILE: secretFile, MILLRACE_JWT_ALGORITHMS: 'HS256' },
    ...{ MILLRACE_TENANT_FROM: 'credential,header' },
  })
  const key = await makeKey(api, '--scope', 'views:read', '--tenant', 'acme')
  const gone = await makeKey(api, '--scope', 'commands:write')
  await cli(api, ['keys', 'revoke', gone, '--yes'])
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const jwt = (claims: object, secret = shared) => {
    const head = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ iss: 'https://issuer.example', aud: 'millrace', sub: 'ada@example.com', exp: Math.floor(Date.now() / 1000) + 600, ...claims })}`
    return `${head}.${new Bun.CryptoHasher('sha256', secret).update(head).digest('base64url')}`
  }
  const good = jwt({ scope: 'commands:write' })
  expect((await post(api, good)).status).toBe(202)
  const tokens = [
    key,
    gone,
    key.slice(0, -1),
    `${key}x`,
    key.replace(/.{4}$/, 'AAAA'),
    good,
    jwt({ exp: 1 }),
    jwt({ aud: 'x' }),
    jwt({}, 'wrong'),
    jwt({ scope: '' }),
    jwt({ tenant: 'B@d' }),
    'Password123456',
    'Zm9vYmFyYmF6cXV4',
  ]
  const base = api.line('public')
  const admin = api.line('admin')
  let told = ''
  const statuses = new Set<number>()
  const ask = async (url: string, init: RequestInit = {}): Promise<void> => {
    const response = await fetch(url, init)
    statuses.add(response.status)
    told += `${JSON.stringify([...response.headers])}${await response.text()}`
  }
  for (const token of tokens) {
    for (const authorization of [
      `Bearer ${token}`,
      `bearer ${token} ${token}`,
      `Basic ${btoa(`me:${token}`)}`,
      token,
    ]) {
      await ask(`${base}/v1/commands/note.write`, {
        method: 'POST',
        headers: { authorization, 'content-type': 'application/json' },
        body: '{',
      })
      await ask(`${base}/v1/views/notes-by-author`, {
        headers: { authorization, 'millrace-tenant': 'other' },
      })
      await ask(`${base}/v1/views/notes-by-author/x?access_token=${token}`, { headers: { authorization } })
    }
    await ask(`${base}/v1/commands/note.write?access_token=${token}`, { method: 'POST', body: '{}' })
    // What has no form of its own can't be told from a name there.
    if (/^(mr_|eyJ)/.test(token)) await ask(`${admin}/v1/keys/${encodeURIComponent(token)}`)
    await ask(`${admin}/v1/keys`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ scopes: ['views:read'], tenant: token }),
    })
  }
  expect([...statuses].sort()).toEqual([400, 401, 403, 404, 422])
  await api.stop()
  const all = told + api.log + api.lines
  expect(api.log.length).toBeGreaterThan(1000)
  const secrets = [
    shared,
    ...tokens.flatMap((token) => [token, token.slice(17), token.split('.')[2] ?? token]),
    'ada@example.com',
  ]
  for (const secret of secrets)
    if (secret.length >= 8) expect([secret, all.includes(secret)]).toEqual([secret, false])
  // The events themselves are there.
  expect(api.log).toContain('key.created')
  expect(api.log).toContain('key.revoked')
})
