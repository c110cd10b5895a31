/** What the exit code of every command means (sysexits where they have one). */
import { errorCode, isConfigError } from '../contracts/errors.ts'

export const EXIT: {
  readonly ok: 0
  readonly fault: 1
  readonly usage: 2
  readonly notFound: 3
  readonly unavailable: 69
  readonly config: 78
} = { ok: 0, fault: 1, usage: 2, notFound: 3, unavailable: 69, config: 78 }

export function exitCodeOf(error: unknown): number {
  if (isConfigError(error)) return EXIT.config
  switch (errorCode(error)) {
    case 'redis.unavailable':
    case 'redis.unknown':
    case 'admission.overloaded':
      return EXIT.unavailable
    case 'not-found':
    case 'expired':
      return EXIT.notFound
    default:
      return EXIT.fault
  }
}
