/**
 * Rate limits over HTTP: requests pass or get 429, and every answer of a limited route tells what is left
 * (draft-ietf-httpapi-ratelimit-headers: `RateLimit-Policy`, `RateLimit`).
 *
 * Whether a route is limited at all is decided when it is added. The limit comes before everything else that a request
 * costs. A bulk request takes one token for each command in it, once it was read: all or none where it is atomic, else as
 * many as there are, and each command beyond them is refused by itself.
 */
import { isRefusal, type MaybeSubmission } from '../commands/readable-submissions.ts'
import { MillraceError } from '../contracts/errors.ts'
import type { RequestSubject } from '../contracts/rate-limit.ts'
import type { Claim, RateLimiter } from '../limits/rate-limiter.ts'
import { takeAll, takeEach, takeTogether } from '../limits/takings.ts'
import { checkRateLimitNames } from '../policies/rate-limit-rules.ts'
import type { Passage, RouteLimits } from './answers.ts'
import type { Exchange } from './direct-routes.ts'

export interface RateLimitParts {
  readonly limiter: RateLimiter
  /** Command types of the application. */
  readonly types: ReadonlySet<string>
  /** `X-RateLimit-…` too. */
  readonly legacyHeaders: boolean
}

const SEND = 'command.send'
const SEND_BULK = 'command.send-bulk'
const EXEMPT = /^(?:health\.|problem$)/

export class RateLimits implements RouteLimits {
  readonly #parts: RateLimitParts
  /** What a bulk request fell under, until it is answered. */
  readonly #bulkClaims = new WeakMap<Request, readonly Claim[]>()

  constructor(parts: RateLimitParts) {
    this.#parts = parts
  }

  /** @throws MillraceError `config.invalid` for a rule that names what does not exist */
  check(routes: readonly string[]): void {
    const { limiter, types } = this.#parts
    const limited = routes.filter((route) => !EXEMPT.test(route))
    checkRateLimitNames(limiter.limits, { routes: limited, types: [...types] })
  }

  passage(route: string, refuse: (exchange: Exchange, error: unknown) => Response): Passage | undefined {
    const { limiter } = this.#parts
    if (EXEMPT.test(route) || !limiter.covers(route)) return undefined
    if (route === SEND_BULK) return this.#bulkPassage(refuse)
    const isSend = route === SEND
    return (exchange, proceed) => {
      const type = isSend ? this.#declared(exchange.params[0]) : undefined
      const claims = limiter.claims(route, type, exchange.principal)
      if (claims.length === 0) return proceed(exchange)
      const finish = (refused: Claim | undefined): Response | Promise<Response> => {
        if (refused !== undefined) return this.#tell(refuse(exchange, quotaError(claims, refused, 1)), claims)
        const response = proceed(exchange)
        if (!(response instanceof Promise)) return this.#tell(response, claims)
        return response.then((settled) => this.#tell(settled, claims))
      }
      const refused = takeAll(claims, 1)
      return refused instanceof Promise ? refused.then(finish) : finish(refused)
    }
  }

  /** What has nothing left is refused before its body is read. */
  #bulkPassage(refuse: (exchange: Exchange, error: unknown) => Response): Passage {
    return async (exchange, proceed) => {
      const claims = this.#parts.limiter.claims(SEND_BULK, undefined, exchange.principal)
      const exhausted = claims.find(({ allotment }) => allotment.isExhausted)
      if (exhausted !== undefined) {
        return this.#tell(refuse(exchange, quotaError(claims, exhausted, 1)), claims)
      }
      const response = await proceed(exchange)
      const counted = this.#bulkClaims.get(exchange.request)
      // A body in which nothing could be counted has cost us a look at it.
      if (counted === undefined) await takeAll(claims, 1)
      return this.#tell(response, counted ?? claims)
    }
  }

  /**
   * The same items, with a refusal in the place of each that is over a limit.
   *
   * @throws MillraceError `quota.exceeded`, `command.too-large` for an atomic request as a whole
   */
  async admitItems(
    request: Request,
    subject: RequestSubject,
    items: readonly MaybeSubmission[],
    atomic: boolean,
  ): Promise<readonly MaybeSubmission[]> {
    const byType = new Map<string | undefined, readonly Claim[]>()
    const claimsOf = (item: MaybeSubmission): readonly Claim[] => {
      const type = isRefusal(item) ? undefined : this.#declared(item.type)
      const known = byType.get(type)
      if (known !== undefined) return known
      const claims = this.#parts.limiter.claims(SEND_BULK, type, subject)
      byType.set(type, claims)
      return claims
    }
    const claims = items.map(claimsOf)
    const all = distinct(byType.values())
    // One that could not be read means that none is stored: then the request counts once.
    if (atomic && items.some(isRefusal)) return items
    this.#bulkClaims.set(request, all)
    if (atomic) {
      await takeTogetherOrThrow(claims, all)
      return items
    }
    const refusals = await takeEach(claims)
    return items.map((item, index) => {
      const refused = refusals[index]
      return refused === undefined || isRefusal(item) ? item : quotaError(claims[index] ?? [], refused, 1)
    })
  }

  /** Undefined for a type that the application does not have: what a client invents gets no count of its own. */
  #declared(type: string | undefined): string | undefined {
    return type !== undefined && this.#parts.types.has(type) ? type : undefined
  }

  #tell(response: Response, claims: readonly Claim[]): Response {
    if (claims.length === 0) return response
    const { headers } = response
    let [policies, state] = ['', '']
    let least = claims[0] as Claim
    for (const claim of claims) {
      const { name, size, windowS } = claim.policy
      const { remaining } = claim.allotment
      const comma = policies === '' ? '' : ', '
      policies += `${comma}"${name}";q=${size};w=${windowS}`
      state += `${comma}"${name}";r=${remaining};t=${resetS(claim, remaining)}`
      if (remaining < least.allotment.remaining) least = claim
    }
    headers.set('ratelimit-policy', policies)
    headers.set('ratelimit', state)
    if (this.#parts.legacyHeaders) {
      const { remaining } = least.allotment
      headers.set('x-ratelimit-limit', String(least.policy.size))
      headers.set('x-ratelimit-remaining', String(remaining))
      headers.set('x-ratelimit-reset', String(resetS(least, remaining)))
    }
    return response
  }
}

/** Seconds for which `remaining` must do; then there is more. */
function resetS({ policy, allotment }: Claim, remaining: number): number {
  if (remaining >= policy.size) return policy.windowS
  return Math.max(1, Math.ceil(allotment.nextMs / 1000))
}

function distinct(lists: Iterable<readonly Claim[]>): readonly Claim[] {
  const byAllotment = new Map<Claim['allotment'], Claim>()
  for (const claims of lists) for (const claim of claims) byAllotment.set(claim.allotment, claim)
  return [...byAllotment.values()]
}

async function takeTogetherOrThrow(
  claims: readonly (readonly Claim[])[],
  all: readonly Claim[],
): Promise<void> {
  for (const { policy, allotment } of all) {
    const wanted = claims.filter((each) => each.some((claim) => claim.allotment === allotment)).length
    if (wanted > policy.size) {
      throw new MillraceError(
        'command.too-large',
        `All or none of ${wanted} commands can never be taken: rate limit "${policy.name}" allows ${policy.size} at once. Send fewer, or send them without "atomic".`,
      )
    }
  }
  const refused = await takeTogether(claims)
  if (refused !== undefined) throw quotaError(all, refused.claim, refused.wanted)
}

/** Whoever comes again after the longest of the waits finds enough, if nobody else took it. */
function quotaError(claims: readonly Claim[], refused: Claim, wanted: number): MillraceError {
  const violated = claims.filter((claim) => claim === refused || claim.allotment.isExhausted)
  const waitMs = Math.max(
    0,
    ...violated.map((claim) => claim.allotment.untilMs(claim === refused ? wanted : 1)),
  )
  const retryAfterS = Math.max(1, Math.ceil(waitMs / 1000))
  const { name, size, windowS } = refused.policy
  const allowed = refused.policy.quota.kind === 'window' ? `${size} in ${windowS} s` : `a burst of ${size}`
  return new MillraceError(
    'quota.exceeded',
    `Rate limit "${name}" allows ${allowed}. Try again in ${retryAfterS} s.`,
    { retryAfterS, policies: violated.map(({ policy }) => policy.name) },
  )
}
