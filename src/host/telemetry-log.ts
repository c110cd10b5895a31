/**
 * Which telemetry becomes a line in the log, and how loud. The core never logs; this is the one place that decides.
 *
 * What happens per batch is debug. What costs a command its way is a warning. An alarm, or a projection that stopped, is an
 * error: a person must look.
 */
import type { TelemetryListener, TelemetryName } from '../contracts/telemetry.ts'
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
  'connection.restored': 'info',
  'entries.claimed': 'info',
  'schedule.refused': 'info',
}

/** Subscribe it to the hub. */
export function logTelemetry(logger: ProcessLogger): TelemetryListener {
  return (name, payload) => {
    const level = LEVELS[name] ?? 'debug'
    if (!logger.isLevelEnabled(level)) return
    logger[level]({ event: name, ...payload }, sentence(name, payload))
  }
}

function sentence(name: TelemetryName, payload: object): string {
  if ('detail' in payload && typeof payload.detail === 'string') return payload.detail
  return name.replace('.', ' ')
}
