/** What the exit code of every command means (sysexits where they have one). */
import { type ErrorCode, errorCode, isConfigError } from '../contracts/errors.ts'

export const EXIT: {
  readonly ok: 0
  readonly fault: 1
  readonly usage: 2
  readonly notFound: 3
  readonly unavailable: 69
  readonly config: 78
} = { ok: 0, fault: 1, usage: 2, notFound: 3, unavailable: 69, config: 78 }

const UNAVAILABLE: readonly (ErrorCode | undefined)[] = [
  'redis.unavailable',
  'redis.unknown',
  'admission.overloaded',
  'admission.draining',
]
const NOT_FOUND: readonly (ErrorCode | undefined)[] = ['not-found', 'expired']

export function exitCodeOf(error: unknown): number {
  const code = errorCode(error)
  if (isConfigError(error)) return EXIT.config
  if (code === 'command.malformed') return EXIT.usage
  if (UNAVAILABLE.includes(code)) return EXIT.unavailable
  return NOT_FOUND.includes(code) ? EXIT.notFound : EXIT.fault
}
