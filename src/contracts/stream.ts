/**
 * A stream: a named log of commands in a fixed number of partitions, and how long what it produces is kept.
 *
 * A stream needs no declaration: a command that names an undeclared one gets the defaults. The number of partitions is
 * written into Redis when the stream is first used and can't change afterwards; a start with another count is refused.
 */
import { MillraceError } from './errors.ts'
import { checkKnownOptions, checkPlainName, checkWhole } from './names.ts'

export interface RetentionOptions {
  /** How long events stay readable, and so how far back a view can be rebuilt from the log. Default 7 days. */
  readonly eventsMs?: number
  /** Cap on the approximate bytes of retained events per partition. Default 1 GiB. */
  readonly eventsBytesMax?: number
  /** How long results and other terminal records answer status queries. Default 24 h. */
  readonly resultsMs?: number
  /** How long dead letters wait for a person. Default 30 days. */
  readonly deadLettersMs?: number
}

/**
 * `none`: commands run as soon as there is a worker. `key`: commands of one key run one after another in the order in which
 * they arrived, retries included; each partition belongs to one worker at a time. A command of a type that this worker does not
 * know waits there, and its key with it, until the partition moves: let all workers of such a stream know all of its commands.
 */
export type Ordering = 'none' | 'key'

export interface StreamOptions {
  readonly name: string
  /** 1-256. Default 1. Fixed when the stream is first used. */
  readonly partitions?: number
  /** Default `none`. Fixed when the stream is first used. */
  readonly ordering?: Ordering
  /**
   * With `ordering: 'key'`: commands of one partition that may wait in a worker behind others of their key, 100-100 000.
   * Beyond it the partition reads nothing until one of them can go. Default 10 000.
   */
  readonly parkedMax?: number
  readonly retention?: RetentionOptions
  /**
   * How long the oldest command may have waited for a worker before no more are taken (503), 1000 ms or more. Default 24 h.
   * Delays and backoffs don't count.
   */
  readonly waitingMsMax?: number
  /** How many commands may be unfinished before no more are taken (503), 1 or more. Default 10 000 000. Delayed ones don't count. */
  readonly waitingCountMax?: number
  /** Share of Redis's memory in use at which no more are taken (503), 0.05-0.85. Default 0.85, which closes every stream. */
  readonly memoryShareMax?: number
}

export interface StreamDefinition {
  readonly kind: 'stream'
  readonly name: string
  readonly partitions: number
  readonly ordering: Ordering
  readonly parkedMax: number
  readonly retention: Required<RetentionOptions>
  readonly waitingMsMax: number
  readonly waitingCountMax: number
  readonly memoryShareMax: number
}

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

const RETENTION_DEFAULTS: Required<RetentionOptions> = {
  eventsMs: 7 * DAY_MS,
  eventsBytesMax: 1024 ** 3,
  resultsMs: DAY_MS,
  deadLettersMs: 30 * DAY_MS,
}

const PARKED_MAX_DEFAULT = 10_000
const WAITING_COUNT_MAX_DEFAULT = 10_000_000
const MEMORY_SHARE_MAX = 0.85
const MEMORY_SHARE_MIN = 0.05

export const DEFAULT_STREAM = 'main'

/**
 * Declares a stream.
 *
 * @throws MillraceError `definition.invalid`, `config.unknown-option`
 */
export function defineStream(options: StreamOptions): StreamDefinition {
  const known = [
    ...['name', 'partitions', 'ordering', 'parkedMax', 'retention'],
    ...['waitingMsMax', 'waitingCountMax', 'memoryShareMax'],
  ]
  checkKnownOptions('defineStream', options, known)
  const name = checkPlainName('Stream', options.name)
  const retention = { ...RETENTION_DEFAULTS, ...options.retention }
  checkKnownOptions(`Retention of stream "${name}"`, retention, Object.keys(RETENTION_DEFAULTS))
  for (const [key, value] of Object.entries(retention)) {
    checkWhole(`Retention "${key}" of stream "${name}"`, value, 1000, Number.MAX_SAFE_INTEGER)
  }
  const partitions = checkWhole(`"partitions" of stream "${name}"`, options.partitions ?? 1, 1, 256)
  const ordering = checkOrdering(name, options.ordering ?? 'none')
  if (ordering === 'none' && options.parkedMax !== undefined) {
    throw new MillraceError(
      'definition.invalid',
      `"parkedMax" of stream "${name}" has a meaning only with ordering: 'key'.`,
    )
  }
  const parkedMax = checkWhole(
    `"parkedMax" of stream "${name}"`,
    options.parkedMax ?? PARKED_MAX_DEFAULT,
    100,
    100_000,
  )
  const waitingMsMax = checkWhole(
    `"waitingMsMax" of stream "${name}"`,
    options.waitingMsMax ?? DAY_MS,
    1000,
    Number.MAX_SAFE_INTEGER,
  )
  return Object.freeze({
    kind: 'stream',
    name,
    partitions,
    ordering,
    parkedMax,
    retention: Object.freeze(retention),
    waitingMsMax,
    waitingCountMax: checkWhole(
      `"waitingCountMax" of stream "${name}"`,
      options.waitingCountMax ?? WAITING_COUNT_MAX_DEFAULT,
      1,
      Number.MAX_SAFE_INTEGER,
    ),
    memoryShareMax: checkShare(name, options.memoryShareMax ?? MEMORY_SHARE_MAX),
  })
}

function checkShare(name: string, share: unknown): number {
  if (typeof share === 'number' && share >= MEMORY_SHARE_MIN && share <= MEMORY_SHARE_MAX) return share
  throw new MillraceError(
    'definition.invalid',
    `"memoryShareMax" of stream "${name}" is ${JSON.stringify(share)}; use a number from ${MEMORY_SHARE_MIN} to ${MEMORY_SHARE_MAX}.`,
  )
}

function checkOrdering(name: string, ordering: unknown): Ordering {
  if (ordering === 'none' || ordering === 'key') return ordering
  throw new MillraceError(
    'definition.invalid',
    `"ordering" of stream "${name}" is ${JSON.stringify(ordering)}; use 'none' or 'key'.`,
  )
}
