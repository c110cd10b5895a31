/**
 * A limit for what Redis is asked about a lease: an answer that is late is given up, and the connection is dialled anew,
 * because a socket into the void would otherwise be waited for until the system notices.
 */
import { MillraceError } from '../contracts/errors.ts'
import type { RedisLink } from '../redis/connection.ts'
import type { Clock } from '../runtime/clock.ts'

/** @throws MillraceError `redis.unknown` when the answer did not come in time, or what the asking threw */
export async function answeredInTime<Answer>(
  { link, clock }: { readonly link: RedisLink; readonly clock: Clock },
  answer: Promise<Answer>,
  limitMs: number,
): Promise<Answer> {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = clock.after(limitMs, () => {
    reject(new MillraceError('redis.unknown', `Redis did not answer within ${Math.round(limitMs)} ms.`))
    link.reconnect()
  })
  try {
    return await Promise.race([answer, promise])
  } finally {
    timer.cancel()
  }
}
