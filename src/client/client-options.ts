/** Options of a client: what may be given, the default and the bounds of each, resolved once. Inside nothing is optional. */
import { ClientError } from './client-error.ts'

export interface ClientBounds {
  /** How long a command waits for others to travel with, 0-1000 ms; 0 is one turn of the event loop. Default 0. */
  readonly lingerMs: number
  /** Commands in one request, 1-10 000. Default 500. */
  readonly batchCountMax: number
  /** Bytes in one request, 1 KiB to 64 MiB; a command that has more travels alone. Default 1 MiB. */
  readonly batchBytesMax: number
  /** Requests with commands under way at once, 1-64. Default 4. */
  readonly requestsInFlightMax: number
  /** Commands sent with `waitMs` under way at once, each in a request of its own, 1-1000. Default 32. */
  readonly waitsInFlightMax: number
  /** Commands that wait or are under way, 1 to 1 000 000. Default 10 000. */
  readonly queueCountMax: number
  /** Their bytes, 1 KiB to 1 GiB. Default 16 MiB. */
  readonly queueBytesMax: number
  /** How often a request is tried, 1-100. Default 10. */
  readonly attemptsMax: number
  /** The first pause between two tries is up to this long, each further one up to twice as long, 1-60 000 ms. Default 100. */
  readonly backoffMinMs: number
  /** Longest pause but for `Retry-After`, up to 600 000 ms. Default 5000. */
  readonly backoffMaxMs: number
  /** How long one try may take, 10-600 000 ms. Default 10 000. */
  readonly requestTimeoutMs: number
  /** How long a call may take, all tries and pauses together, 10-86 400 000 ms. Default 30 000. */
  readonly deadlineMs: number
}

export type Fetch = (url: string, init: RequestInit) => Promise<Response>
/** A token that changes is asked for before each request. */
export type TokenSource = string | (() => string | Promise<string>)

export interface ClientOptions extends Partial<ClientBounds> {
  /** Of the public listener, such as `https://commands.example.com`; it may have a path. */
  readonly url: string
  /** Sent as `Authorization: Bearer …`. Default: none. */
  readonly token?: TokenSource | undefined
  /** Default: the platform's. */
  readonly fetch?: Fetch | undefined
}

export interface ResolvedOptions extends ClientBounds {
  /** Without a slash at its end. */
  readonly url: string
  readonly token: TokenSource | undefined
  readonly fetch: Fetch
}

/** Default, least and most. */
const BOUNDS: Readonly<Record<keyof ClientBounds, readonly [number, number, number]>> = {
  lingerMs: [0, 0, 1000],
  batchCountMax: [500, 1, 10_000],
  batchBytesMax: [1024 ** 2, 1024, 64 * 1024 ** 2],
  requestsInFlightMax: [4, 1, 64],
  waitsInFlightMax: [32, 1, 1000],
  queueCountMax: [10_000, 1, 1_000_000],
  queueBytesMax: [16 * 1024 ** 2, 1024, 1024 ** 3],
  attemptsMax: [10, 1, 100],
  backoffMinMs: [100, 1, 60_000],
  backoffMaxMs: [5000, 1, 600_000],
  requestTimeoutMs: [10_000, 10, 600_000],
  deadlineMs: [30_000, 10, 86_400_000],
}

const BOUND_NAMES = Object.keys(BOUNDS) as (keyof ClientBounds)[]
const TOKEN = /^[\x21-\x7e]+$/

/** @throws ClientError `invalid-option` */
export function resolveOptions(options: ClientOptions): ResolvedOptions {
  checkNames('createClient', options, ['url', 'token', 'fetch', ...BOUND_NAMES])
  const { token, fetch = (url, init) => globalThis.fetch(url, init) } = options
  if (token !== undefined && typeof token !== 'function' && !TOKEN.test(token))
    throw refused('"token" must be printable ASCII without spaces, or a function that gives one.')
  return { ...resolveBounds(options), url: checkUrl(options.url), token, fetch }
}

/** @throws ClientError `invalid-option` */
export function resolveBounds(given: Partial<ClientBounds>): ClientBounds {
  const bounds = Object.fromEntries(BOUND_NAMES.map((name) => [name, resolveBound(name, given[name])]))
  const { backoffMinMs, backoffMaxMs } = bounds as unknown as ClientBounds
  if (backoffMinMs > backoffMaxMs) throw refused('"backoffMinMs" must not be more than "backoffMaxMs".')
  return bounds as unknown as ClientBounds
}

function resolveBound(name: keyof ClientBounds, given: number | undefined): number {
  const [standard, min, max] = BOUNDS[name]
  return given === undefined ? standard : checkWhole(name, given, min, max)
}

/** @throws ClientError `invalid-option` */
export function checkWhole(name: string, value: unknown, min: number, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
  throw refused(`"${name}" must be a whole number from ${min} to ${max}.`)
}

/** @throws ClientError `invalid-option` */
export function checkNames(what: string, given: object, known: readonly string[]): void {
  for (const name of Object.keys(given)) {
    if (!known.includes(name))
      throw refused(`${what} has no option "${name.slice(0, 80)}"; known are ${known.join(', ')}.`)
  }
}

function checkUrl(given: unknown): string {
  const sentence = '"url" must be an http or https URL such as "https://commands.example.com".'
  let url: URL
  try {
    url = new URL(String(given))
  } catch {
    throw refused(sentence)
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') throw refused(sentence)
  if (url.username !== '' || url.password !== '') throw refused('"url" holds no credentials; use "token".')
  if (url.search !== '' || url.hash !== '') throw refused('"url" has no query and no fragment.')
  return url.href.replace(/\/+$/, '')
}

function refused(sentence: string): ClientError {
  return new ClientError('invalid-option', sentence)
}
