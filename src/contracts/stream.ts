/**
 * A stream: a named log of commands in a fixed number of partitions, and how long what it produces is kept.
 *
 * A stream needs no declaration: a command that names an undeclared one gets the defaults. The number of partitions is
 * written into Redis when the stream is first used and can't change afterwards; a start with another count is refused.
 */
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

export interface StreamOptions {
  readonly name: string
  /** 1-256. Default 1. Fixed when the stream is first used. */
  readonly partitions?: number
  readonly retention?: RetentionOptions
  /**
   * How long the oldest command may have waited for a worker before no more are taken (503), 1000 ms or more. Default 24 h.
   * Delays and backoffs don't count.
   */
  readonly waitingMsMax?: number
}

export interface StreamDefinition {
  readonly kind: 'stream'
  readonly name: string
  readonly partitions: number
  readonly retention: Required<RetentionOptions>
  readonly waitingMsMax: number
}

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

const RETENTION_DEFAULTS: Required<RetentionOptions> = {
  eventsMs: 7 * DAY_MS,
  eventsBytesMax: 1024 ** 3,
  resultsMs: DAY_MS,
  deadLettersMs: 30 * DAY_MS,
}

export const DEFAULT_STREAM = 'main'

/**
 * Declares a stream.
 *
 * @throws MillraceError `definition.invalid`, `config.unknown-option`
 */
export function defineStream(options: StreamOptions): StreamDefinition {
  checkKnownOptions('defineStream', options, ['name', 'partitions', 'retention', 'waitingMsMax'])
  const name = checkPlainName('Stream', options.name)
  const retention = { ...RETENTION_DEFAULTS, ...options.retention }
  checkKnownOptions(`Retention of stream "${name}"`, retention, Object.keys(RETENTION_DEFAULTS))
  for (const [key, value] of Object.entries(retention)) {
    checkWhole(`Retention "${key}" of stream "${name}"`, value, 1000, Number.MAX_SAFE_INTEGER)
  }
  const partitions = checkWhole(`"partitions" of stream "${name}"`, options.partitions ?? 1, 1, 256)
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
    retention: Object.freeze(retention),
    waitingMsMax,
  })
}
