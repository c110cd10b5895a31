/**
 * Which telemetry becomes a line in the log, and how loud. The core never logs; this is the one place that decides.
 *
 * What happens per batch is debug. What costs a command its way is a warning. An alarm, or a projection that stopped, is an
 * error: a person must look. A service that fails again and again, because Redis is away for an hour, says so twice a
 * minute at most, and how often it went unsaid.
 */
import type { TelemetryListener, TelemetryName } from '../contracts/telemetry.ts'
import type { Clock } from '../runtime/clock.ts'
import type { ProcessLogger } from './process-logger.ts'

type Level = 'debug' | 'info' | 'warn' | 'error'

/** What is not listed is debug. */
const LEVELS: { readonly [Name in TelemetryName]?: Level } = {
  'alarm.raised': 'error',
  'projection.stopped': 'error',
  'command.dead-lettered': 'warn',
  'consumer.pronounced-dead': 'warn',
  'projection.event-skipped': 'warn',
  'connection.lost': 'warn',
  'service.failed': 'warn',
  'run.overdue': 'warn',
  'memory.pressed': 'warn',
  'connection.restored': 'info',
  'entries.claimed': 'info',
  'schedule.missed': 'warn',
  'lease.acquired': 'info',
  'lease.lost': 'warn',
  'lease.released': 'info',
  'key.created': 'info',
  'key.rotated': 'info',
  'key.revoked': 'info',
  'issuer-keys.fetched': 'info',
  'schedule.refused': 'info',
}

const REPEAT_AFTER_MS = 30_000

/** Subscribe it to the hub. */
export function logTelemetry(logger: ProcessLogger, clock: Clock): TelemetryListener {
  const failures = new Failures(clock)
  return (name, payload) => {
    const level = LEVELS[name] ?? 'debug'
    if (!logger.isLevelEnabled(level)) return
    const unsaid = name === 'service.failed' && 'service' in payload ? failures.said(payload.service) : 0
    if (unsaid === undefined) return
    const repeated = unsaid > 0 ? { unsaid } : {}
    logger[level]({ event: name, ...payload, ...repeated }, sentence(name, payload))
  }
}

/** When each service last failed aloud; a process has a fixed set of services. */
class Failures {
  readonly #clock: Clock
  readonly #last = new Map<string, { readonly atMs: number; unsaid: number }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** How many failures went unsaid since the last line of this service; undefined when this one is to be as well. */
  said(service: string): number | undefined {
    const nowMs = this.#clock.monotonicMs()
    const last = this.#last.get(service)
    if (last !== undefined && nowMs - last.atMs < REPEAT_AFTER_MS) {
      last.unsaid += 1
      return undefined
    }
    this.#last.set(service, { atMs: nowMs, unsaid: 0 })
    return last?.unsaid ?? 0
  }
}

function sentence(name: TelemetryName, payload: object): string {
  if ('detail' in payload && typeof payload.detail === 'string') return payload.detail
  return name.replace('.', ' ')
}
