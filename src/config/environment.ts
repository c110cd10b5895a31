/**
 * The only reader of the environment. It knows every variable by name, so that a misspelt one is an error and not a
 * default; secrets may stand in a file instead (`REDIS_URL_FILE=/run/secrets/redis`).
 */
import { readFileSync } from 'node:fs'
import { describeError, MillraceError } from '../contracts/errors.ts'
import { nearest } from '../contracts/names.ts'

/** Variables of processes (`millrace start`); `settings.ts` says what each one means. */
export const VARIABLES = [
  'REDIS_URL',
  'HOST',
  'PORT',
  'LOG_LEVEL',
  'MILLRACE_ADMIN_HOST',
  'MILLRACE_ADMIN_PORT',
  'MILLRACE_DATA_DIR',
  'MILLRACE_WORKERS_DIR',
  'MILLRACE_DURABILITY',
  'MILLRACE_REPLICAS',
  'MILLRACE_REPLICA_WAIT_MS',
  'MILLRACE_DRAIN_LIMIT_MS',
  'MILLRACE_IDEMPOTENCY_RECORDS_MAX',
  'MILLRACE_IDEMPOTENCY_WINDOW_MS',
  'MILLRACE_IN_FLIGHT_MAX',
  'MILLRACE_TAILS_MAX',
  'MILLRACE_TAIL_BYTES_MAX',
  'MILLRACE_TAIL_HEARTBEAT_MS',
  'MILLRACE_TENANT_WAITING_MAX',
  'MILLRACE_TENANT_WAITING_BYTES_MAX',
  'MILLRACE_ALLOW_UNSAFE',
  'MILLRACE_REDIS_SERVER',
  'MILLRACE_REDIS_WAIT_MS',
  'MILLRACE_AUTH',
  'MILLRACE_JWT_ISSUER',
  'MILLRACE_JWT_AUDIENCE',
  'MILLRACE_JWT_JWKS',
  'MILLRACE_JWT_SECRET_FILE',
  'MILLRACE_JWT_ALGORITHMS',
  'MILLRACE_JWT_TENANT_CLAIM',
  'MILLRACE_JWT_SCOPE_CLAIM',
  'MILLRACE_TENANT_FROM',
  'MILLRACE_TENANT_DOMAIN',
  'MILLRACE_COMMAND_WAIT_MAX_MS',
  'MILLRACE_AUTOSCALE_TARGET',
  'MILLRACE_CORS_ORIGINS',
  'MILLRACE_RATE_LIMITS',
  'MILLRACE_RATE_LIMIT_HEADERS',
] as const

export type Variable = (typeof VARIABLES)[number]

/** Where operator commands find the listeners of a process that runs elsewhere. */
const PROCESS_URLS = ['MILLRACE_URL', 'MILLRACE_ADMIN_URL'] as const

/** Variables whose value may stand in the file that `<name>_FILE` names. */
const SECRETS: readonly Variable[] = ['REDIS_URL']

/** What operator commands show to a process that asks for a credential. */
const OPERATOR_KEY = 'MILLRACE_API_KEY'

const KNOWN: readonly string[] = [
  ...VARIABLES,
  ...PROCESS_URLS,
  OPERATOR_KEY,
  ...[...SECRETS, OPERATOR_KEY].map((name) => `${name}_FILE`),
]

/** The known variables that are set; an empty one counts as not set. */
export type Environment = ReadonlyMap<Variable, string>

type RawEnvironment = Readonly<Record<string, string | undefined>>

/**
 * @throws MillraceError `config.unknown-option` for a `MILLRACE_…` variable that nobody reads, `config.invalid` for a
 * secret's file that can't be read
 */
export function readEnvironment(raw: RawEnvironment = process.env): Environment {
  checkNames(Object.keys(raw))
  const found = new Map<Variable, string>()
  for (const name of VARIABLES) {
    const value = SECRETS.includes(name) ? secret(name, raw) : raw[name]
    if (value !== undefined && value !== '') found.set(name, value)
  }
  return found
}

/** `MILLRACE_URL` and `MILLRACE_ADMIN_URL`, for commands that talk to a running process. */
export function readProcessUrls(raw: RawEnvironment = process.env): {
  readonly publicUrl: string | undefined
  readonly adminUrl: string | undefined
} {
  const [publicUrl, adminUrl] = PROCESS_URLS.map((name) => (raw[name] === '' ? undefined : raw[name]))
  return { publicUrl, adminUrl }
}

/** `MILLRACE_API_KEY`, or what stands in the file that `MILLRACE_API_KEY_FILE` names. */
export function readOperatorKey(raw: RawEnvironment = process.env): string | undefined {
  const key = secret(OPERATOR_KEY, raw)
  return key === '' ? undefined : key
}

/** What a child process needs to find its libraries and write its times; nothing of ours, no secret. */
export function childEnvironment(raw: RawEnvironment = process.env): Record<string, string> {
  const kept = ['PATH', 'HOME', 'TZ', 'LANG', 'TMPDIR', 'LD_LIBRARY_PATH', 'DYLD_LIBRARY_PATH']
  return Object.fromEntries(
    kept.flatMap((name) => {
      const value = raw[name]
      return value === undefined ? [] : [[name, value]]
    }),
  )
}

function checkNames(names: readonly string[]): void {
  for (const name of names) {
    if (!name.startsWith('MILLRACE_') || KNOWN.includes(name)) continue
    const near = nearest(name, KNOWN)
    const hint = near === undefined ? 'Unset it, or see `millrace start --help`.' : `Did you mean ${near}?`
    throw new MillraceError('config.unknown-option', `The variable ${name} is not known. ${hint}`)
  }
}

function secret(name: string, raw: RawEnvironment): string | undefined {
  const [value, path] = [raw[name], raw[`${name}_FILE`]]
  if (path === undefined || path === '') return value
  if (value !== undefined && value !== '') {
    throw new MillraceError('config.invalid', `Both ${name} and ${name}_FILE are set; keep one.`)
  }
  try {
    return readFileSync(path, 'utf8').trim()
  } catch (cause) {
    throw new MillraceError(
      'config.invalid',
      `${name}_FILE names a file that can't be read: ${describeError(cause)}. Mount it, or set ${name}.`,
    )
  }
}
