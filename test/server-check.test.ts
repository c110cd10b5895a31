/** Which servers are fit to keep commands, asked of real ones, with the least rights that the documentation grants. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { join } from 'node:path'
import { errorCode } from '../src/contracts/errors.ts'
import { appendPlain } from '../src/redis/command-log.ts'
import { type RedisLink, RedisLinks } from '../src/redis/connection.ts'
import { joinFleet } from '../src/redis/fleet.ts'
import { partitionKeys } from '../src/redis/keys.ts'
import {
  checkServer,
  judgeServer,
  openFirstLink,
  readServerInfo,
  type ServerDemands,
} from '../src/redis/server-check.ts'
import { root } from './source-files.ts'
import { freePort } from './support/free-port.ts'
import { lyingEntry } from './support/lying-entries.ts'
import { startTestRedis, type TestRedis } from './support/redis-server.ts'

let redis: TestRedis
let link: RedisLink

beforeAll(async () => {
  redis = await startTestRedis(['--appendfsync', 'everysec'])
  link = await redis.open()
})
afterAll(() => redis[Symbol.asyncDispose]())

const demands = (durability: 'everysec' | 'fsync', ...tolerated: string[]): ServerDemands => ({
  durability,
  tolerated: new Set(tolerated),
})
const refusal = async (work: Promise<unknown>): Promise<string> => {
  const error: unknown = await work.then(
    () => 'accepted',
    (thrown: unknown) => thrown,
  )
  return error instanceof Error ? `${errorCode(error)}: ${error.message}` : String(error)
}

async function withConfig(name: string, value: string, use: () => Promise<void>): Promise<void> {
  const reply = await link.client.config('GET', name)
  await link.client.config('SET', name, value)
  try {
    await use()
  } finally {
    await link.client.config('SET', name, String(Array.isArray(reply) ? reply[1] : ''))
  }
}

test('a server with an append-only file and without eviction is fit', async () => {
  const info = await checkServer(link, demands('everysec'))
  expect(info).toMatchObject({ product: 'Redis', mode: 'standalone', appendOnly: true, processId: redis.pid })
})

const unfit: readonly {
  name: string
  value: string
  durability?: 'fsync'
  says: RegExp
  allowedBy: string
}[] = [
  {
    name: 'maxmemory-policy',
    value: 'allkeys-lru',
    says: /evict whole streams.*allkeys-lru/,
    allowedBy: 'eviction',
  },
  { name: 'appendonly', value: 'no', says: /no append-only file/, allowedBy: 'no-persistence' },
  { name: 'appendfsync', value: 'no', says: /appendfsync no/, allowedBy: 'lazy-fsync' },
  {
    name: 'appendfsync',
    value: 'everysec',
    durability: 'fsync',
    says: /needs appendfsync always, the server has everysec/,
    allowedBy: 'unverified-fsync',
  },
]
for (const { name, value, durability = 'everysec', says, allowedBy } of unfit) {
  test(`${name} ${value} is refused for ${durability}, and accepted only by the name ${allowedBy}`, async () => {
    await withConfig(name, value, async () => {
      const told = await refusal(checkServer(link, demands(durability)))
      expect(told).toStartWith('server.unsafe: ')
      expect(told).toMatch(says)
      expect(told).toContain(`MILLRACE_ALLOW_UNSAFE=${allowedBy}`)
      await checkServer(link, demands(durability, allowedBy))
    })
  })
}

test('fsync needs the file to be written through also while it is rewritten', async () => {
  await withConfig('appendfsync', 'always', async () => {
    await checkServer(link, demands('fsync'))
    await withConfig('no-appendfsync-on-rewrite', 'yes', async () => {
      expect(await refusal(checkServer(link, demands('fsync')))).toMatch(
        /needs no-appendfsync-on-rewrite no, the server has yes/,
      )
    })
  })
})

test('a server older than 7.0 is refused', async () => {
  const info = { ...(await readServerInfo(link)), version: '6.2.14' }
  const told = await refusal((async () => judgeServer(info, demands('everysec')))())
  expect(told).toMatch(/^server.version: The server is Redis 6\.2\.14; use Redis 7\.0 or newer/)
  judgeServer(info, demands('everysec', 'old-server'))
})

test('a replica is refused, whatever is allowed', async () => {
  await link.client.call('REPLICAOF', '127.0.0.1', '1')
  try {
    expect(await refusal(checkServer(link, demands('everysec', 'eviction', 'no-persistence')))).toMatch(
      /is a replica/,
    )
  } finally {
    await link.client.call('REPLICAOF', 'NO', 'ONE')
  }
})

test('a Cluster node is refused', async () => {
  await using cluster = await startTestRedis(['--cluster-enabled', 'yes'])
  expect(await refusal(checkServer(await cluster.open(), demands('everysec')))).toMatch(
    /cluster mode, which is not supported yet/,
  )
})

async function asUser<Answer>(
  user: string,
  password: string,
  use: (link: RedisLink) => Promise<Answer>,
): Promise<Answer> {
  const port = freePort()
  await link.client.config('SET', 'port', String(port))
  const address = { url: `redis://${user}:${encodeURIComponent(password)}@127.0.0.1:${port}` }
  const links = new RedisLinks({ ...redis.links.options, address })
  try {
    return await use(await openFirstLink(links, 5000))
  } finally {
    links.closeAll()
    await link.client.config('SET', 'port', '0')
  }
}

async function documentedRights(password: string): Promise<string[]> {
  const text = await Bun.file(join(root, 'docs/redis.md')).text()
  const line = /^ACL SETUSER millrace .*$/m.exec(text)?.[0] ?? ''
  expect(line).not.toBe('')
  return line.replace('PASSWORD', password).split(' ').slice(1)
}

test('the documented user may be checked, join and append', async () => {
  const password = 'p@ss:w/rd'
  await link.client.call('ACL', ...(await documentedRights(password)))
  await asUser('millrace', password, async (own) => {
    await checkServer(own, demands('everysec'))
    await joinFleet(own, [])
    expect(await appendPlain(own, partitionKeys('t', 0), [lyingEntry(Buffer.from('x'))])).toHaveLength(1)
    expect(await refusal(own.use('a foreign key', (client) => client.set('other', '1')))).toContain('NOPERM')
    expect(await refusal(own.use('FLUSHALL', (client) => client.flushall()))).toContain('NOPERM')
  })
})

test('without CONFIG GET everysec is fine and fsync is refused unless allowed by name', async () => {
  await link.client.call('ACL', ...(await documentedRights('secret')), '-config')
  await asUser('millrace', 'secret', async (own) => {
    await checkServer(own, demands('everysec'))
    expect(await refusal(checkServer(own, demands('fsync')))).toMatch(/does not let this user read it/)
    await checkServer(own, demands('fsync', 'unverified-fsync'))
  })
})

for (const [without, says] of [
  ['-info', /lacks a right: NOPERM .*'info'/],
  ['-@scripting', /lacks a right: NOPERM .*'evalsha'/],
  ['-time', /may not send time on/],
  ['-client|kill -client|unblock', /may not send client\|kill, client\|unblock on/],
  ['-@pubsub', /may not send publish, subscribe on/],
  ['resetchannels', /may not send publish, subscribe on/],
  ['-@write', /may not send set, xadd, xreadgroup on/],
  ['resetkeys', /may not send get, set, xadd, xreadgroup on/],
] as const) {
  test(`a user whose rights end with ${without} is refused at start, with where the rights are listed`, async () => {
    await link.client.call('ACL', ...(await documentedRights('secret')), ...without.split(' '))
    await asUser('millrace', 'secret', async (own) => {
      const told = await refusal(checkServer(own, demands('everysec')))
      expect(told).toMatch(
        /^config\.invalid: The user of REDIS_URL .* Grant the rights that docs\/redis\.md lists\.$/,
      )
      expect(told).toMatch(says)
    })
  })
}

test('a wrong password is told at once, without repeating it', async () => {
  await link.client.call('ACL', ...(await documentedRights('secret')))
  const told = await refusal(asUser('millrace', 'hunter2', async () => undefined))
  expect(told).toMatch(/^config.invalid: Redis refuses the user or password of REDIS_URL: WRONGPASS/)
  expect(told).not.toContain('hunter2')
})
