/** Rate limits of a process that listens: nothing at all without rules, else a connection of their own and the limiter. */
import type { RateLimitParts } from '../http/rate-limits.ts'
import { RateLimiter } from '../limits/rate-limiter.ts'
import type { RoleGround } from './role-ground.ts'

/**
 * Lives until the supervisor stops.
 *
 * @throws MillraceError `redis.unavailable`
 */
export async function openRateLimits({
  settings,
  supervisor,
  links,
  catalogue,
  clock,
  telemetry,
}: RoleGround): Promise<RateLimitParts | undefined> {
  const { rateLimits, rateLimitHeaders, redisWaitMs } = settings
  if (rateLimits.length === 0) return undefined
  const link = links.open('command')
  // The first requests would be let through unchecked.
  await link.whenReady(redisWaitMs)
  const limiter = new RateLimiter({ limits: rateLimits, link, clock, telemetry })
  await supervisor.run(limiter)
  const types = new Set([...catalogue.commands.values()].map(({ type }) => type))
  return { limiter, types, legacyHeaders: rateLimitHeaders === 'both' }
}
