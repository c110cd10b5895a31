/** What a producer is told about a command that Redis did not store, or not surely enough. */
import { MillraceError } from '../contracts/errors.ts'
import type { AppendResult } from '../redis/command-log.ts'

export const HELD_BACK = 'Nothing was stored: another command of this all-or-none request was refused.'

export function refusalOfAppend(kind: Exclude<AppendResult['kind'], 'stored' | 'known'>): MillraceError {
  switch (kind) {
    case 'unconfirmed':
      return new MillraceError(
        'durability.unconfirmed',
        'The command is stored, but too few replicas confirmed it in time; retry with the same idempotency key.',
        { retryAfterS: 1 },
      )
    case 'conflict':
      return new MillraceError(
        'idempotency.conflict',
        'This idempotency key was used for another command; use a new key, or send exactly what was sent before.',
      )
    case 'full':
      return new MillraceError('idempotency.full', 'No more idempotency keys can be remembered now.', {
        retryAfterS: 60,
      })
    case 'quota':
      return new MillraceError(
        'quota.exceeded',
        'As many commands of this tenant wait, or bytes of them, as one tenant may have waiting; send more when some of them have ended.',
        { retryAfterS: 1, policies: ['waiting'] },
      )
    case 'held-back':
      return new MillraceError('command.invalid', HELD_BACK)
    default:
      return kind satisfies never
  }
}
