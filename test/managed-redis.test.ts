/** The redis-server that a process starts for itself: nothing lost, never two of them, nothing left behind. */
import { expect, test } from 'bun:test'
import { mkdtemp, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { errorCode } from '../src/contracts/errors.ts'
import { SILENT_LOGGER } from '../src/contracts/logger.ts'
import { ManagedRedis, type ManagedRedisOptions } from '../src/host/managed-redis.ts'
import { CONNECTION_DEFAULTS, type RedisLink, RedisLinks } from '../src/redis/connection.ts'
import { openFirstLink } from '../src/redis/server-check.ts'
import { SYSTEM_CLOCK } from '../src/runtime/clock.ts'
import { makeProject, serversOf } from './support/project.ts'
import { RecordedTelemetry, SILENT_TELEMETRY } from './support/telemetry.ts'
import { until } from './support/until.ts'

async function folderOf(name: string, use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), `millrace-${name}-`)))
  try {
    await use(folder)
    expect(serversOf(folder)).toEqual([])
  } finally {
    for (const pid of serversOf(folder)) process.kill(pid, 'SIGKILL')
    await rm(folder, { recursive: true, force: true })
  }
}

function managed(dataFolder: string, options: Partial<ManagedRedisOptions> = {}): ManagedRedis {
  return new ManagedRedis({
    dataFolder,
    program: Bun.env['MILLRACE_REDIS_SERVER'],
    durability: 'everysec',
    role: 'all',
    mayJoin: false,
    clock: SYSTEM_CLOCK,
    telemetry: SILENT_TELEMETRY,
    logger: SILENT_LOGGER,
    ...options,
  })
}

async function withLink<Answer>(url: string, use: (link: RedisLink) => Promise<Answer>): Promise<Answer> {
  const links = new RedisLinks({
    address: { url },
    telemetry: SILENT_TELEMETRY,
    random: Math.random,
    ...CONNECTION_DEFAULTS,
  })
  try {
    return await use(await openFirstLink(links, 10_000))
  } finally {
    links.closeAll()
  }
}

const append = (url: string, count: number): Promise<unknown> =>
  withLink(url, (link) =>
    Promise.all(Array.from({ length: count }, (_, i) => link.client.xadd('mr:{t.0}:c', '*', '-', `${i}`))),
  )
const length = (url: string): Promise<number> => withLink(url, (link) => link.client.xlen('mr:{t.0}:c'))

test('a restart keeps every command, and a stop leaves no process behind', async () => {
  await folderOf('restart', async (folder) => {
    const first = managed(folder)
    await first.start()
    await append(first.url, 1000)
    expect(serversOf(folder)).toEqual([first.pid ?? 0])
    await first.stop()
    expect(serversOf(folder)).toEqual([])
    const second = managed(folder)
    await second.start()
    expect(await length(second.url)).toBe(1000)
    await second.stop()
  })
})

test('a second owner of one folder is refused, with the first one named', async () => {
  await folderOf('second', async (folder) => {
    const first = managed(folder)
    await first.start()
    const error = await managed(folder)
      .start()
      .catch((thrown: unknown) => thrown)
    expect(errorCode(error)).toBe('folder.owned')
    expect(String(error)).toContain(`process ${process.pid} (role all)`)
    expect(await length(first.url)).toBe(0)
    await first.stop()
  })
})

test('other roles join the server of the folder, and take over when its owner stops', async () => {
  await folderOf('join', async (folder) => {
    const owner = managed(folder)
    await owner.start()
    const guest = managed(folder, { role: 'work', mayJoin: true })
    await guest.start()
    expect([owner.standing, guest.standing, guest.url]).toEqual(['owner', 'guest', owner.url])
    await append(guest.url, 10)
    await owner.stop()
    await until('the guest to own a server', () => guest.pid !== undefined)
    expect(await length(guest.url)).toBe(10)
    await guest.stop()
  })
})

test('a role that may join becomes the owner of a folder that nobody owns', async () => {
  await folderOf('alone', async (folder) => {
    const alone = managed(folder, { role: 'work', mayJoin: true })
    await alone.start()
    expect(alone.standing).toBe('owner')
    await alone.stop()
  })
})

test('a server that dies is launched again on the same address with all its data, and an alarm is raised', async () => {
  await folderOf('died', async (folder) => {
    const telemetry = new RecordedTelemetry()
    const owner = managed(folder, { telemetry, durability: 'fsync' })
    await owner.start()
    const { url, pid } = owner
    await append(url, 100)
    process.kill(pid ?? 0, 'SIGKILL')
    await telemetry.until('alarm.raised')
    await until('another server', () => owner.pid !== undefined && owner.pid !== pid)
    expect(telemetry.of('alarm.raised')[0]?.alarm).toBe('redis-server-ended')
    expect(owner.url).toBe(url)
    expect(await length(url)).toBe(100)
    expect(owner.health().ready).toBe(true)
    await owner.stop()
  })
})

test('a path too long for a socket gets a loopback port behind a password', async () => {
  await folderOf('long', async (folder) => {
    const deep = join(folder, 'd'.repeat(90), 'e'.repeat(30))
    const first = managed(deep)
    await first.start()
    expect(first.url).toStartWith('redis://:')
    await append(first.url, 5)
    const open = first.url.replace(/:[^:@]+@/, '')
    expect(String(await length(open).catch((error: unknown) => error))).toContain(
      'Redis refuses the user or password',
    )
    const guest = managed(deep, { role: 'api', mayJoin: true })
    await guest.start()
    expect(guest.url).toBe(first.url)
    await guest.stop()
    await first.stop()
    const second = managed(deep)
    await second.start()
    expect(await length(second.url)).toBe(5)
    await second.stop()
  })
})

test('what an earlier process left lying about does not matter', async () => {
  await folderOf('stale', async (folder) => {
    const first = managed(folder)
    await first.start()
    await append(first.url, 3)
    await first.stop()
    // A note that names a living process, a file where the socket was: neither is proof of anything.
    await writeFile(join(folder, 'redis/owner.json'), JSON.stringify({ pid: process.pid, role: 'all' }))
    await writeFile(join(folder, 'redis/redis.sock'), 'not a socket')
    const second = managed(folder)
    await second.start()
    expect(await length(second.url)).toBe(3)
    await second.stop()
  })
})

test('data that the server can not read stops the start with its own words', async () => {
  await folderOf('broken', async (folder) => {
    const first = managed(folder)
    await first.start()
    await append(first.url, 3)
    await first.stop()
    await writeFile(join(folder, 'redis/appendonlydir/appendonly.aof.manifest'), 'nonsense\n')
    const second = managed(folder)
    const error = await second.start().catch((thrown: unknown) => thrown)
    expect(errorCode(error)).toBe('config.invalid')
    expect(String(error)).toMatch(/redis-server ended at start: .*AOF manifest.* Its log is /i)
    await second.stop()
  })
})

test('the fsync tier writes through, also on a server that is taken over', async () => {
  await folderOf('fsync', async (folder) => {
    const owner = managed(folder, { durability: 'fsync' })
    await owner.start()
    const config = await withLink(owner.url, (link) => link.client.config('GET', '*append*fsync*'))
    expect(config).toEqual(expect.arrayContaining(['appendfsync', 'always']))
    await owner.stop()
  })
})

test('the server of an owner that was killed is adopted with all that it holds', async () => {
  await using project = await makeProject()
  const killed = project.start()
  await killed.untilReady()
  const [server] = serversOf(project.folder)
  const url = `unix://${project.dataFolder}/redis/redis.sock`
  await append(url, 50)
  await killed.kill()
  expect(serversOf(project.folder)).toEqual([server ?? 0])
  const next = project.start()
  await next.untilReady()
  expect(serversOf(project.folder)).toEqual([server ?? 0])
  expect(next.line('redis')).toContain(`process ${server}`)
  expect(await length(url)).toBe(50)
  expect(await next.stop()).toBe(0)
  expect(serversOf(project.folder)).toEqual([])
})

test('an orphaned server that does not answer gets no second one beside it', async () => {
  await using project = await makeProject()
  const killed = project.start()
  await killed.untilReady()
  const [server = 0] = serversOf(project.folder)
  await killed.kill()
  process.kill(server, 'SIGSTOP')
  const next = project.start([], { LOG_LEVEL: 'debug' })
  await until('the next owner to hold the folder', async () =>
    (await readFile(join(project.dataFolder, 'redis/owner.json'), 'utf8')).includes(`${next.pid}`),
  )
  await Bun.sleep(300)
  expect(serversOf(project.folder)).toEqual([server])
  expect(next.lines).not.toContain('ready;')
  process.kill(server, 'SIGCONT')
  await next.untilReady()
  expect(serversOf(project.folder)).toEqual([server])
  expect(await next.stop()).toBe(0)
})

test('of owners that start at the same moment one wins, the others say so', async () => {
  await using project = await makeProject()
  const starters = [1, 2, 3].map(() => project.start())
  await until('all but one to end', () => starters.filter(({ child }) => child.exitCode === 78).length === 2)
  const winner = starters.find(({ child }) => child.exitCode === null)
  await winner?.untilReady()
  expect(serversOf(project.folder)).toHaveLength(1)
  for (const loser of starters.filter((each) => each !== winner)) {
    await loser.ended()
    expect(loser.lines).toContain('is in use by')
  }
  expect(await winner?.stop()).toBe(0)
})

test('Ctrl-C reaches the process, not its server, and ends both in order', async () => {
  await using project = await makeProject()
  const running = project.start()
  await running.untilReady()
  expect(await running.interruptGroup()).toBe(0)
  expect(serversOf(project.folder)).toEqual([])
  const log = await readFile(join(project.dataFolder, 'redis/redis.log'), 'utf8')
  expect(log).toContain('User requested shutdown')
  expect(log).not.toContain('Received SIGINT')
  expect(running.log).not.toContain('"level":40')
})
