/**
 * The log of a service: one JSON object a line on stdout, written at once, without a transport thread.
 *
 * Pino is loaded with the first line that is written: most processes start without a word, and it took 19 ms of every start
 * (2 cores).
 */
import { createRequire } from 'node:module'
import type * as Pino from 'pino'
import { LOG_LEVELS, type LogLevel } from '../config/settings.ts'
import type { Logger } from '../contracts/logger.ts'

export interface ProcessLogger extends Logger {
  isLevelEnabled(level: string): boolean
}

const require = createRequire(import.meta.url)

export function openProcessLogger(level: LogLevel, role: string): ProcessLogger {
  const isLevelEnabled = enabledFrom(level)
  let opened: Pino.Logger | undefined
  const at = (name: keyof Logger) => (fields: object, text: string) => {
    if (!isLevelEnabled(name)) return
    opened ??= openPino(level, role)
    opened[name](fields, text)
  }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error'), isLevelEnabled }
}

function openPino(level: LogLevel, role: string): Pino.Logger {
  const { pino } = require('pino') as typeof Pino
  const destination = pino.destination({ dest: 1, sync: true })
  const settings = { level, base: { role, pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime }
  return pino(settings, destination)
}

/** Gives a logger of the application the one question that the telemetry log asks. */
export function wrapLogger(logger: Logger, level: LogLevel): ProcessLogger {
  return {
    debug: (fields, text) => logger.debug(fields, text),
    info: (fields, text) => logger.info(fields, text),
    warn: (fields, text) => logger.warn(fields, text),
    error: (fields, text) => logger.error(fields, text),
    isLevelEnabled: enabledFrom(level),
  }
}

function enabledFrom(level: LogLevel): ProcessLogger['isLevelEnabled'] {
  const order: readonly string[] = LOG_LEVELS
  return (asked) => order.indexOf(asked) >= order.indexOf(level)
}
