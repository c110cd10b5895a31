/**
 * Where Redis is, from the text of REDIS_URL:
 *
 *   redis://user:password@host:6379/0            one server
 *   rediss://…                                   the same with TLS
 *   unix:///run/redis/redis.sock                 a socket
 *   redis+sentinel://user:password@host1:26379,host2:26379/<primary name>/0
 *                                                whichever server these Sentinels name as the primary
 *   rediss+sentinel://…                          the same with TLS, to Sentinels and servers
 *
 * User and password are those of the Redis servers; `?sentinelUsername=` and `?sentinelPassword=` those of the Sentinels.
 * No message here repeats the text: it may hold a password.
 */
import { isIP } from 'node:net'
import type { RedisOptions } from 'ioredis'
import { MillraceError } from '../contracts/errors.ts'
import { nearest } from '../contracts/names.ts'

const FORMS =
  'Use redis://[user:password@]host:port[/db], rediss:// (TLS), unix:// or redis+sentinel://host1:26379,host2:26379/<primary name>[/db].'
const SENTINEL_FORM =
  /^(?<scheme>rediss?)\+sentinel:\/\/(?:(?<user>[^@/:]*)(?::(?<password>[^@/]*))?@)?(?<hosts>[^/?#@]+)\/(?<name>[^/?#]+)(?:\/(?<db>[^/?#]*))?(?:\?(?<query>[^#]*))?$/
const SENTINEL_QUERY = ['sentinelUsername', 'sentinelPassword'] as const
const SENTINEL_PORT = 26_379
const REDIS_PORT = 6379

/** True for an address that Sentinels resolve. */
export function isSentinelUrl(url: string): boolean {
  return /^rediss?\+sentinel:/.test(url)
}

/**
 * Splits a Redis URL into ioredis options.
 *
 * @throws MillraceError `config.invalid`
 */
export function addressOptions(url: string): RedisOptions {
  if (url.startsWith('unix://')) return { path: url.slice('unix://'.length) }
  if (url.startsWith('/')) return { path: url }
  return isSentinelUrl(url) ? sentinelOptions(url) : serverOptions(url)
}

/** The address as it may be shown: without passwords. */
export function shownAddress(url: string): string {
  if (url.startsWith('unix://') || url.startsWith('/')) return url
  const bare = url.replace(/[?#].*$/s, '')
  const at = bare.lastIndexOf('@')
  if (at < 0) return bare
  const scheme = /^[a-z+]+:\/\//.exec(bare)?.[0] ?? ''
  const user = bare.slice(scheme.length, at).split(':', 1)[0] ?? ''
  return `${scheme}${user === '' ? '' : `${user}@`}${bare.slice(at + 1)}`
}

function invalid(sentence: string, cause?: unknown): MillraceError {
  return new MillraceError('config.invalid', sentence, cause === undefined ? {} : { cause })
}

function serverOptions(url: string): RedisOptions {
  let parsed: URL
  try {
    parsed = new URL(url)
  } catch (cause) {
    throw invalid(`REDIS_URL is not a URL. ${FORMS}`, cause)
  }
  if (parsed.protocol !== 'redis:' && parsed.protocol !== 'rediss:') {
    throw invalid(`REDIS_URL starts with "${parsed.protocol}//". ${FORMS}`)
  }
  const host = parsed.hostname.replace(/^\[|\]$/g, '') || '127.0.0.1'
  return {
    host,
    port: parsed.port === '' ? REDIS_PORT : Number(parsed.port),
    db: databaseOf(parsed.pathname.slice(1)),
    ...(parsed.username === '' ? {} : { username: decoded(parsed.username) }),
    ...(parsed.password === '' ? {} : { password: decoded(parsed.password) }),
    ...(parsed.protocol === 'rediss:' ? { tls: isIP(host) === 0 ? { servername: host } : {} } : {}),
  }
}

function sentinelOptions(url: string): RedisOptions {
  const parts = SENTINEL_FORM.exec(url)?.groups
  if (parts === undefined) {
    throw invalid(
      'REDIS_URL names Sentinels in a form that can not be read. Use redis+sentinel://[user:password@]host1:26379,host2:26379/<primary name>[/db], with what is special in user and password percent-encoded.',
    )
  }
  const { scheme, user = '', password = '', hosts = '', name = '', db = '', query = '' } = parts
  const own = sentinelCredentials(query)
  return {
    sentinels: hosts.split(',').map(endpoint),
    name: decoded(name),
    db: databaseOf(db),
    ...(user === '' ? {} : { username: decoded(user) }),
    ...(password === '' ? {} : { password: decoded(password) }),
    ...(own.sentinelUsername === '' ? {} : { sentinelUsername: own.sentinelUsername }),
    ...(own.sentinelPassword === '' ? {} : { sentinelPassword: own.sentinelPassword }),
    ...(scheme === 'rediss' ? { tls: {}, sentinelTLS: {}, enableTLSForSentinelMode: true } : {}),
  }
}

function sentinelCredentials(query: string): { sentinelUsername: string; sentinelPassword: string } {
  const given = new URLSearchParams(query)
  for (const key of given.keys()) {
    if (SENTINEL_QUERY.some((known) => known === key)) continue
    const near = nearest(key, SENTINEL_QUERY)
    const hint = near === undefined ? `There are ${SENTINEL_QUERY.join(' and ')}.` : `Did you mean ${near}?`
    throw invalid(`REDIS_URL has an unknown parameter "${key.slice(0, 40)}". ${hint}`)
  }
  return {
    sentinelUsername: given.get('sentinelUsername') ?? '',
    sentinelPassword: given.get('sentinelPassword') ?? '',
  }
}

function endpoint(text: string): { host: string; port: number } {
  const parts = /^(?:\[(?<v6>[0-9a-f:.]+)\]|(?<host>[^:[\]\s]+))(?::(?<port>\d{1,5}))?$/i.exec(text)?.groups
  const host = parts?.['v6'] ?? parts?.['host']
  const port = Number(parts?.['port'] ?? SENTINEL_PORT)
  if (host === undefined || port < 1 || port > 65_535) {
    throw invalid(
      'REDIS_URL lists a Sentinel that is no host:port; separate them by commas, IPv6 addresses in brackets.',
    )
  }
  return { host, port }
}

function databaseOf(text: string): number {
  if (text === '') return 0
  if (/^\d{1,5}$/.test(text)) return Number(text)
  // An unencoded slash in a password ends up here.
  const shown = text.includes('@') ? '' : ` "${text.slice(0, 20)}"`
  throw invalid(`REDIS_URL names database${shown}; use a number.`)
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (cause) {
    throw invalid('REDIS_URL holds a % that is no percent-encoding: write %25 for it.', cause)
  }
}
