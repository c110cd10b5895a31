/** A real redis-server of a test's own: private directory and Unix socket, gone afterwards. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ConnectionRole, RedisLinks } from '../../src/redis/connection.ts'
import { SILENT_TELEMETRY } from './telemetry.ts'

export interface TestRedis extends AsyncDisposable {
  /** `unix://…`, fit for REDIS_URL. */
  readonly url: string
  readonly pid: number
  readonly directory: string
  readonly links: RedisLinks
  /** A ready connection of the given role, closed with the server. */
  open(role?: ConnectionRole): Promise<import('../../src/redis/connection.ts').RedisLink>
  /** SIGKILL, as a crash of the server. */
  kill(): Promise<void>
  /** Starts the server again on the same directory. */
  restart(): Promise<void>
}

const BINARY = Bun.env['MILLRACE_REDIS_SERVER'] ?? 'redis-server'

/**
 * Starts a server with AOF on (`appendfsync no` unless asked otherwise: tests don't crash the machine). `env` is added to
 * its environment, such as that of a clock of its own.
 */
export async function startTestRedis(
  extra: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Promise<TestRedis> {
  const directory = await mkdtemp(join(tmpdir(), 'millrace-test-'))
  const socket = join(directory, 'redis.sock')
  const launch = () =>
    Bun.spawn(
      [
        BINARY,
        ...['--port', '0', '--unixsocket', socket, '--dir', directory, '--save', '', '--loglevel', 'warning'],
        ...['--appendonly', 'yes', '--appendfsync', 'no', ...extra],
      ],
      { stdout: 'ignore', stderr: 'ignore', env: { ...Bun.env, ...env } },
    )
  let child = launch()
  const links = new RedisLinks({
    address: { url: `unix://${socket}` },
    telemetry: SILENT_TELEMETRY,
    random: Math.random,
    blockMs: 500,
    commandTimeoutMs: 5000,
  })
  const open = async (role: ConnectionRole = 'command') => {
    const link = links.open(role)
    await link.whenReady(10_000)
    return link
  }
  await open()
  const close = async () => {
    links.closeAll()
    child.kill('SIGKILL')
    await child.exited
    await rm(directory, { recursive: true, force: true })
  }
  return {
    url: `unix://${socket}`,
    get pid() {
      return child.pid
    },
    directory,
    links,
    open,
    kill: async () => {
      child.kill('SIGKILL')
      await child.exited
    },
    restart: async () => {
      child = launch()
      await open()
    },
    [Symbol.asyncDispose]: close,
  }
}
