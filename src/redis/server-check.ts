/**
 * Is this server fit to keep commands? Asked once at start, before anything is written.
 *
 * Almost all of it is read from INFO, so that a managed service without CONFIG passes. What is unfit is refused with the
 * reason and the way out; some of it can be tolerated by name. A tolerance is the operator's word that loss is accepted.
 */
import type { Durability } from '../contracts/durability.ts'
import { MillraceError } from '../contracts/errors.ts'
import type { RedisLink, RedisLinks } from './connection.ts'
import { pingChannel, streamMetaKey } from './keys.ts'
import { countFollowing, type ReplicationRule, readReplication } from './replication.ts'

/** What an operator may accept by name (`MILLRACE_ALLOW_UNSAFE`). */
export const TOLERANCES = [
  'eviction',
  'no-persistence',
  'lazy-fsync',
  'unverified-fsync',
  'old-server',
  'missing-replicas',
] as const
export type ServerTolerance = (typeof TOLERANCES)[number]

export interface ServerInfo {
  /** `Redis` or `Valkey`. */
  readonly product: string
  readonly version: string
  readonly processId: number
  /** The configuration file it was started with, or ''. */
  readonly configFile: string
  /** `standalone`, `cluster` or `sentinel`. */
  readonly mode: string
  readonly role: string
  readonly evictionPolicy: string
  readonly appendOnly: boolean
  readonly loading: boolean
}

export interface ServerDemands {
  readonly durability: Durability
  readonly tolerated: ReadonlySet<string>
}

const VERSION_MIN = 7

/** @throws MillraceError `redis.unavailable`, `redis.unknown` */
export async function readServerInfo(link: RedisLink): Promise<ServerInfo> {
  const text = await link.use('INFO', (client) => client.info())
  const fields = new Map<string, string>()
  for (const line of text.split(/\r?\n/)) {
    const colon = line.indexOf(':')
    if (colon > 0 && !line.startsWith('#')) fields.set(line.slice(0, colon), line.slice(colon + 1))
  }
  const field = (name: string): string => fields.get(name) ?? ''
  return {
    product: fields.has('valkey_version') ? 'Valkey' : 'Redis',
    version: field('valkey_version') || field('redis_version'),
    processId: Number(field('process_id')),
    configFile: field('config_file'),
    mode: field('cluster_enabled') === '1' ? 'cluster' : field('redis_mode') || 'standalone',
    role: field('role'),
    evictionPolicy: field('maxmemory_policy'),
    appendOnly: field('aof_enabled') === '1',
    loading: field('loading') === '1',
  }
}

/**
 * @throws MillraceError `server.version`, `server.unsafe`, `config.invalid` when the user lacks a right
 */
export async function checkServer(link: RedisLink, demands: ServerDemands): Promise<ServerInfo> {
  const info = await permitted(readServerInfo(link))
  judgeServer(info, demands)
  await checkRights(link, demands)
  await checkFsync(link, demands)
  return info
}

/** Asked before anything runs: a right that is missing later shows as a service that fails for ever. */
async function checkRights(link: RedisLink, { durability }: ServerDemands): Promise<void> {
  const args = [streamMetaKey('any'), pingChannel('any'), durability === 'replicated' ? '1' : '0']
  const missing = await permitted(link.run('missing-rights', [], args))
  if (!Array.isArray(missing) || missing.length === 0) return
  throw lacking(`may not send ${missing.join(', ')} on keys and channels that start with "mr:"`)
}

/** @throws MillraceError `config.invalid` instead of a reply that the user has no permission */
async function permitted<Result>(work: Promise<Result>): Promise<Result> {
  try {
    return await work
  } catch (error) {
    const denied = error instanceof Error ? /NOPERM .*/.exec(error.message)?.[0] : undefined
    throw denied === undefined ? error : lacking(`lacks a right: ${denied}`)
  }
}

function lacking(what: string): MillraceError {
  return new MillraceError(
    'config.invalid',
    `The user of REDIS_URL ${what}. Grant the rights that docs/redis.md lists.`,
  )
}

/**
 * Everything that INFO tells.
 *
 * @throws MillraceError `server.version`, `server.unsafe`
 */
export function judgeServer(info: ServerInfo, demands: ServerDemands): void {
  checkKind(info)
  checkVersion(info, demands)
  checkKeeping(info, demands)
}

function refuse(sentence: string, tolerance?: ServerTolerance): MillraceError {
  const wayOut = tolerance === undefined ? '' : ` To accept it, set MILLRACE_ALLOW_UNSAFE=${tolerance}.`
  return new MillraceError('server.unsafe', `${sentence}${wayOut}`)
}

function checkKind(info: ServerInfo): void {
  if (info.mode === 'cluster') {
    throw refuse(
      'The server runs in cluster mode, which is not supported yet; use a server with cluster-enabled no.',
    )
  }
  if (info.mode === 'sentinel') {
    throw refuse(
      'REDIS_URL points to a Sentinel: write redis+sentinel://host1:26379,host2:26379/<primary name>, and the primary is found.',
    )
  }
  if (info.role === 'slave') {
    throw refuse('The server is a replica, which accepts no writes; point REDIS_URL to its primary.')
  }
}

function checkVersion(info: ServerInfo, demands: ServerDemands): void {
  const major = Number.parseInt(info.version, 10)
  if (major >= VERSION_MIN || demands.tolerated.has('old-server')) return
  throw new MillraceError(
    'server.version',
    `The server is ${info.product} ${info.version || 'of unknown version'}; use Redis ${VERSION_MIN}.0 or newer, or Valkey. To try it all the same, set MILLRACE_ALLOW_UNSAFE=old-server.`,
  )
}

function checkKeeping(info: ServerInfo, demands: ServerDemands): void {
  if (info.evictionPolicy !== 'noeviction' && !demands.tolerated.has('eviction')) {
    throw refuse(
      `The server may evict whole streams (maxmemory-policy ${info.evictionPolicy || 'unknown'}): set maxmemory-policy noeviction.`,
      'eviction',
    )
  }
  if (!info.appendOnly && !demands.tolerated.has('no-persistence')) {
    throw refuse('The server keeps no append-only file: set appendonly yes.', 'no-persistence')
  }
}

/** How eagerly the append-only file is written is the one thing that INFO does not tell. */
async function checkFsync(link: RedisLink, demands: ServerDemands): Promise<void> {
  const config = await fsyncConfig(link)
  if (demands.durability === 'fsync') return checkAlways(config, demands)
  if (config?.get('appendfsync') !== 'no' || demands.tolerated.has('lazy-fsync')) return
  throw refuse(
    'The server leaves writing the append-only file to the operating system (appendfsync no), which may lose 30 s in a machine crash: set appendfsync everysec or always.',
    'lazy-fsync',
  )
}

function checkAlways(config: ReadonlyMap<string, string> | undefined, demands: ServerDemands): void {
  if (demands.tolerated.has('unverified-fsync')) return
  if (config === undefined) {
    throw refuse(
      'Durability fsync needs appendfsync always, and the server does not let this user read it (CONFIG GET): grant +config|get.',
      'unverified-fsync',
    )
  }
  for (const [name, wanted] of [
    ['appendfsync', 'always'],
    ['no-appendfsync-on-rewrite', 'no'],
  ] as const) {
    if (config.get(name) === wanted) continue
    throw refuse(
      `Durability fsync needs ${name} ${wanted}, the server has ${config.get(name)}: set it, or use MILLRACE_DURABILITY=everysec.`,
      'unverified-fsync',
    )
  }
}

/** undefined where CONFIG GET is denied, renamed away or hidden. */
export async function fsyncConfig(link: RedisLink): Promise<ReadonlyMap<string, string> | undefined> {
  let reply: unknown
  try {
    reply = await link.client.config('GET', '*append*fsync*')
  } catch {
    return undefined
  }
  if (!Array.isArray(reply)) return undefined
  const found = new Map<string, string>()
  for (let i = 0; i + 1 < reply.length; i += 2) found.set(String(reply[i]), String(reply[i + 1]))
  return found.has('appendfsync') ? found : undefined
}

/**
 * The replicas that tier `replicated` counts on, waited for a while: after a failover the old primary may still be coming back.
 *
 * @throws MillraceError `server.unsafe` after `waitMs` (`missing-replicas` tolerates it)
 */
export async function checkReplicas(
  link: RedisLink,
  { replicas }: ReplicationRule,
  tolerated: ReadonlySet<string>,
  pause: () => Promise<boolean>,
): Promise<void> {
  for (;;) {
    const following = countFollowing(await readReplication(link))
    if (following >= replicas) return
    if (await pause()) continue
    if (tolerated.has('missing-replicas')) return
    throw refuse(
      `Durability replicated counts on MILLRACE_REPLICAS=${replicas}, and the primary has ${following} that follow it: connect the missing ones, or declare fewer.`,
      'missing-replicas',
    )
  }
}

/**
 * Opens the first connection of a process.
 *
 * @throws MillraceError `redis.unavailable` after `waitMs`; `config.invalid` at once when the credentials are refused
 */
export async function openFirstLink(
  links: RedisLinks,
  waitMs: number,
  signal?: AbortSignal,
): Promise<RedisLink> {
  const link = links.open('command')
  const refused = new AbortController()
  let reason = ''
  const onError = (error: Error): void => {
    if (!/^(WRONGPASS|NOAUTH|NOPERM|ERR (invalid password|AUTH))/.test(error.message)) return
    reason = error.message.slice(0, 200)
    refused.abort()
  }
  link.client.on('error', onError)
  try {
    await link.whenReady(
      waitMs,
      signal === undefined ? refused.signal : AbortSignal.any([signal, refused.signal]),
    )
    return link
  } catch (error) {
    links.close(link)
    if (!refused.signal.aborted) throw error
    throw new MillraceError(
      'config.invalid',
      `Redis refuses the user or password of REDIS_URL: ${reason} Correct it, or grant the rights that docs/redis.md lists.`,
    )
  } finally {
    link.client.off('error', onError)
  }
}
