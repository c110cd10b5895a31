/** The log of a service: one JSON object a line on stdout, written at once, without a transport thread. */
import { pino } from 'pino'
import type { LogLevel } from '../config/settings.ts'
import type { Logger } from '../contracts/logger.ts'

export interface ProcessLogger extends Logger {
  isLevelEnabled(level: string): boolean
}

export function openProcessLogger(level: LogLevel, role: string): ProcessLogger {
  const destination = pino.destination({ dest: 1, sync: true })
  const settings = { level, base: { role, pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime }
  return pino(settings, destination)
}

/** Gives a logger of the application the one question that the telemetry log asks. */
export function wrapLogger(logger: Logger, level: LogLevel): ProcessLogger {
  const order: readonly string[] = ['debug', 'info', 'warn', 'error', 'silent']
  return {
    debug: (fields, text) => logger.debug(fields, text),
    info: (fields, text) => logger.info(fields, text),
    warn: (fields, text) => logger.warn(fields, text),
    error: (fields, text) => logger.error(fields, text),
    isLevelEnabled: (asked) => order.indexOf(asked) >= order.indexOf(level),
  }
}
