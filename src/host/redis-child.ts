/**
 * The redis-server of one data folder as a process: its files, how it is launched, and how it is recognised later.
 *
 *   redis.conf     written before each launch; INFO names it, which tells our server from any other
 *   redis.sock     the only way in, or, where the path is too long for a socket, a loopback port with a password
 *   address.json   that way in, for other roles (readable by this user only)
 *   redis.log      what the server said
 *   appendonlydir/ the data
 *
 * The child has a session of its own: Ctrl-C reaches us, not it, and it outlives us if we are killed.
 */
import {
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { childEnvironment } from '../config/environment.ts'
import { describeError, MillraceError } from '../contracts/errors.ts'

/** `sun_path` holds 108 bytes on Linux, 104 on macOS, the final zero included. */
const SOCKET_BYTES_MAX = process.platform === 'darwin' ? 103 : 107
const LOG_BYTES_MAX = 4 * 1024 ** 2

export interface ServerFolder {
  /** Absolute, without symbolic links. */
  readonly path: string
  readonly configFile: string
  readonly logFile: string
  readonly addressFile: string
}

export interface ServerAddress {
  readonly url: string
  /** Where the child listens: a socket, or a port with a password. */
  readonly listen: { readonly socket: string } | { readonly port: number; readonly password: string }
}

/**
 * @throws MillraceError `config.invalid` when the folder can't be made
 */
export function openServerFolder(dataFolder: string): ServerFolder {
  const wanted = join(dataFolder, 'redis')
  try {
    mkdirSync(wanted, { recursive: true, mode: 0o700 })
    chmodSync(wanted, 0o700)
    const path = realpathSync(wanted)
    return {
      path,
      configFile: join(path, 'redis.conf'),
      logFile: join(path, 'redis.log'),
      addressFile: join(path, 'address.json'),
    }
  } catch (cause) {
    throw new MillraceError(
      'config.invalid',
      `The data folder ${wanted} can't be made: ${describeError(cause)}. Give rights, or set MILLRACE_DATA_DIR to another folder.`,
      { cause },
    )
  }
}

/** The address of the folder's server: the one that was noted, else a socket, else a free port. */
export function chooseAddress(folder: ServerFolder): ServerAddress {
  const socket = join(folder.path, 'redis.sock')
  if (Buffer.byteLength(socket) <= SOCKET_BYTES_MAX) return { url: `unix://${socket}`, listen: { socket } }
  const noted = readAddress(folder)
  if (noted !== undefined && 'port' in noted.listen) return noted
  return portAddress(
    freePort(),
    Buffer.from(crypto.getRandomValues(new Uint8Array(24))).toString('base64url'),
  )
}

/** The same password on another port, for when the noted one was taken meanwhile. */
export function moveAddress(address: ServerAddress): ServerAddress {
  return 'port' in address.listen ? portAddress(freePort(), address.listen.password) : address
}

function portAddress(port: number, password: string): ServerAddress {
  return { url: `redis://:${password}@127.0.0.1:${port}`, listen: { port, password } }
}

function freePort(): number {
  const probe = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data: () => undefined } })
  const { port } = probe
  probe.stop(true)
  return port
}

export function noteAddress(folder: ServerFolder, address: ServerAddress): void {
  const draft = `${folder.addressFile}.${process.pid}`
  writeFileSync(draft, `${JSON.stringify(address)}\n`, { mode: 0o600 })
  renameSync(draft, folder.addressFile)
}

export function readAddress(folder: ServerFolder): ServerAddress | undefined {
  try {
    return JSON.parse(readFileSync(folder.addressFile, 'utf8')) as ServerAddress
  } catch {
    return undefined
  }
}

/**
 * @throws MillraceError `config.invalid` when there is no such program
 */
export function findProgram(named: string | undefined): string {
  const candidates = named === undefined ? ['redis-server', 'valkey-server'] : [named]
  const path = childEnvironment()['PATH'] ?? ''
  for (const candidate of candidates) {
    const found = Bun.which(candidate, { PATH: path })
    if (found !== null) return found
  }
  throw new MillraceError(
    'config.invalid',
    `There is no program ${candidates.join(' or ')}: install Redis 7.0 or newer (apt-get install redis-server, brew install redis), name it with MILLRACE_REDIS_SERVER, or set REDIS_URL to a running server.`,
  )
}

export interface LaunchOptions {
  readonly folder: ServerFolder
  readonly address: ServerAddress
  readonly program: string
  readonly durability: 'everysec' | 'fsync'
}

export type RedisProcess = Bun.Subprocess<'ignore', number, number>

/** @throws MillraceError `config.invalid` when its files can't be written or the program can't be run */
export function launchServer(options: LaunchOptions): RedisProcess {
  const { folder, program } = options
  try {
    writeFileSync(folder.configFile, configText(options), { mode: 0o600 })
    noteAddress(folder, options.address)
    const log = openSync(folder.logFile, logIsLong(folder) ? 'w' : 'a', 0o600)
    try {
      const child = Bun.spawn([program, folder.configFile], {
        cwd: folder.path,
        env: childEnvironment(),
        stdio: ['ignore', log, log],
        detached: true,
      })
      child.unref()
      return child
    } finally {
      closeSync(log)
    }
  } catch (cause) {
    throw new MillraceError(
      'config.invalid',
      `${program} can't be started in ${folder.path}: ${describeError(cause)}. Free space or give rights, or set REDIS_URL to a running server.`,
      { cause },
    )
  }
}

function logIsLong(folder: ServerFolder): boolean {
  return (statSync(folder.logFile, { throwIfNoEntry: false })?.size ?? 0) > LOG_BYTES_MAX
}

function configText({ folder, address, durability }: LaunchOptions): string {
  const { listen } = address
  const lines = [
    ...('socket' in listen
      ? ['port 0', `unixsocket ${quote(listen.socket)}`, 'unixsocketperm 700']
      : [`port ${listen.port}`, 'bind 127.0.0.1', `requirepass ${quote(listen.password)}`]),
    `dir ${quote(folder.path)}`,
    'daemonize no',
    'save ""',
    'appendonly yes',
    `appendfsync ${durability === 'fsync' ? 'always' : 'everysec'}`,
    'no-appendfsync-on-rewrite no',
    'maxmemory-policy noeviction',
    'always-show-logo no',
    'set-proc-title no',
  ]
  return `# Written by millrace at each start; changes here are lost.\n${lines.join('\n')}\n`
}

function quote(text: string): string {
  return `"${text.replace(/[\\"]/g, '\\$&')}"`
}

/** What the server last complained about, for an error's sentence. */
export function lastWords(folder: ServerFolder): string {
  try {
    const lines = readFileSync(folder.logFile, 'utf8').trim().split('\n').slice(-10)
    const complaint = /error|fail|fatal|can't|could not|denied|no space|in use|bad /i
    const telling = lines.findLast((line) => complaint.test(line) && !line.includes('WARNING'))
    return (telling ?? lines.at(-1) ?? '').replace(/^\d+:\w .*? [*#.-] /, '').slice(0, 300)
  } catch {
    return ''
  }
}

/**
 * The server process of this folder, whoever started it: one that was orphaned and does not answer (yet) must not get a
 * second one beside it on the same files. Judged by name and working directory, never by a process id alone.
 */
export function findServerProcess(folder: ServerFolder): number | undefined {
  return process.platform === 'linux' ? searchProc(folder) : searchPs(folder)
}

function searchProc(folder: ServerFolder): number | undefined {
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    try {
      if (readlinkSync(`/proc/${entry}/cwd`) !== folder.path) continue
      if (isServerName(readFileSync(`/proc/${entry}/comm`, 'utf8'))) return Number(entry)
    } catch {
      // It ended while we looked, or belongs to another user.
    }
  }
  return undefined
}

/** Without /proc: the command line names our configuration file, because `set-proc-title no` leaves it as it was. */
function searchPs(folder: ServerFolder): number | undefined {
  const result = Bun.spawnSync(['ps', '-axww', '-o', 'pid=,command='], { env: childEnvironment() })
  for (const line of result.stdout.toString().split('\n')) {
    if (line.trimEnd().endsWith(folder.configFile) && isServerName(line))
      return Number(line.trim().split(' ', 1)[0])
  }
  return undefined
}

function isServerName(text: string): boolean {
  return /redis|valkey/i.test(text)
}

/** True while this process is the folder's server: not ended, not a zombie, not another one under a reused id. */
export function isServerRunning(folder: ServerFolder, pid: number): boolean {
  try {
    if (process.platform === 'linux') return readlinkSync(`/proc/${pid}/cwd`) === folder.path
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}
