/** Options of a worker process, with bounds and defaults. */
import { MillraceError } from '../contracts/errors.ts'
import { checkKnownOptions } from '../contracts/names.ts'

export interface ConsumerOptions {
  /** Entries that a process holds, over all partitions, 2-100 000. */
  readonly inFlightMax: number
  /** Bytes of entries that a process holds, over all partitions. */
  readonly inFlightBytesMax: number
  /** Most entries that one read asks for, of each of a partition's two streams. */
  readonly readCountMax: number
  /** Batches that run at once in a process. */
  readonly batchesMax: number
  /** Settlements of a partition on their way at once. */
  readonly settleRequestsMax: number
  readonly heartbeatEveryMs: number
  /** How often the other consumers are looked at. */
  readonly lookEveryMs: number
  readonly promoteEveryMs: number
  readonly trimEveryMs: number
  /** An event loop that stands still for the longest handler limit and this much more is ended. */
  readonly stuckGraceMs: number
  /** How long a stop waits for running handlers. */
  readonly drainLimitMs: number
}

export const CONSUMER_DEFAULTS: ConsumerOptions = {
  inFlightMax: 1000,
  inFlightBytesMax: 64 * 1024 ** 2,
  readCountMax: 1000,
  batchesMax: 64,
  settleRequestsMax: 5,
  heartbeatEveryMs: 300,
  lookEveryMs: 300,
  promoteEveryMs: 200,
  trimEveryMs: 1000,
  stuckGraceMs: 10_000,
  drainLimitMs: 20_000,
}

/** Defaults, overridden by what is given. @throws MillraceError `config.unknown-option`, `config.invalid` */
export function resolveConsumerOptions(given: Partial<ConsumerOptions>): ConsumerOptions {
  checkKnownOptions('The consumer', given, Object.keys(CONSUMER_DEFAULTS))
  const options = { ...CONSUMER_DEFAULTS, ...given }
  for (const [name, value] of Object.entries(options)) {
    if (Number.isInteger(value) && value >= 1) continue
    throw new MillraceError('config.invalid', `${name} must be a whole number of at least 1, not ${value}.`)
  }
  if (options.inFlightMax < 2) {
    throw new MillraceError(
      'config.invalid',
      'inFlightMax must be at least 2: one entry of each stream is read at once.',
    )
  }
  if (options.heartbeatEveryMs > options.lookEveryMs) {
    throw new MillraceError(
      'config.invalid',
      'heartbeatEveryMs must not be longer than lookEveryMs, or living workers look dead.',
    )
  }
  return options
}
