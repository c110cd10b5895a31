/**
 * The rate limits of this process: which of them a request falls under, and one allotment for each count that is in use.
 *
 * Which limits a route or a command type falls under is decided once, not per request. Allotments that nobody uses go away;
 * at the bound on their number the oldest makes room, and what it holds goes back when its own timer says so.
 */
import type { RateLimitSubject, RequestSubject } from '../contracts/rate-limit.ts'
import type { Telemetry } from '../contracts/telemetry.ts'
import { type Quota, quotaSize, quotaWindowS } from '../policies/quota.ts'
import type { RateLimit } from '../policies/rate-limit-rules.ts'
import type { ScriptRunner } from '../redis/connection.ts'
import { callQuota, quotaCount } from '../redis/limit-store.ts'
import { type Clock, randomId } from '../runtime/clock.ts'
import { Service } from '../runtime/service.ts'
import { Allotment, type PolicyTally } from './allotment.ts'

export interface RateLimiterParts {
  readonly limits: readonly RateLimit[]
  readonly link: ScriptRunner
  readonly clock: Clock
  readonly telemetry: Telemetry
}

/** One rule, and what this process counted of it. */
export interface Policy {
  readonly name: string
  readonly quota: Quota
  readonly tally: Readonly<PolicyTally>
  /** For `RateLimit-Policy`: tokens and seconds. */
  readonly size: number
  readonly windowS: number
}

/** The limits of a request, each with its allotment. */
export interface Claim {
  readonly policy: Policy
  readonly allotment: Allotment
}

interface Rule extends Policy {
  readonly limit: RateLimit
  readonly tally: PolicyTally
  toldAtMs: number
  untold: number
}

const ALLOTMENTS_MAX = 50_000
/** Refusals of one policy are told at most so often. */
const TELL_MS = 1000
const HOLDER_CHARS = 8

export class RateLimiter extends Service {
  readonly #parts: RateLimiterParts
  readonly #rules: readonly Rule[]
  readonly #allotments = new Map<string, Allotment>()
  readonly #byRoute = new Map<string, readonly Rule[]>()
  readonly #holder = randomId().slice(0, HOLDER_CHARS)
  #made = 0

  constructor(parts: RateLimiterParts) {
    super('rate-limits')
    this.#parts = parts
    this.#rules = parts.limits.map((limit) => ({
      limit,
      name: limit.name,
      quota: limit.quota,
      size: quotaSize(limit.quota),
      windowS: quotaWindowS(limit.quota),
      tally: { admitted: 0, returned: 0, refused: 0, unchecked: 0, calls: 0, leased: 0, held: 0 },
      toldAtMs: Number.NEGATIVE_INFINITY,
      untold: 0,
    }))
  }

  get limits(): readonly RateLimit[] {
    return this.#parts.limits
  }

  get policies(): readonly Policy[] {
    return this.#rules
  }

  /** True when a request of this route can fall under any rule. */
  covers(route: string): boolean {
    return this.#rules.some(({ limit: { routes } }) => routes === undefined || routes.includes(route))
  }

  /** What a request of this route falls under; `type` is that of its command, where it has one. */
  claims(route: string, type: string | undefined, subject: RequestSubject): readonly Claim[] {
    const rules = this.#rulesOf(route, type)
    const claims = new Array<Claim>(rules.length)
    for (let i = 0; i < rules.length; i++) {
      const rule = rules[i] as Rule
      claims[i] = { policy: rule, allotment: this.#allotment(rule, route, type, subject) }
    }
    return claims
  }

  /** Without a type only rules for all types: a type that nobody declared has no rule of its own, and takes no memory here. */
  #rulesOf(route: string, type: string | undefined): readonly Rule[] {
    const known = type !== undefined && this.#rules.some(({ limit }) => limit.types?.includes(type) === true)
    const key = known ? `${route} ${type}` : route
    const found = this.#byRoute.get(key)
    if (found !== undefined) return found
    const rules = this.#rules.filter(({ limit: { routes, types } }) => {
      if (routes !== undefined && !routes.includes(route)) return false
      return types === undefined || (type !== undefined && types.includes(type))
    })
    this.#byRoute.set(key, rules)
    return rules
  }

  #allotment(rule: Rule, route: string, type: string | undefined, subject: RequestSubject): Allotment {
    const { by } = rule.limit
    let key = rule.name
    for (const each of by) key += `\0${subjectValue(each, route, type, subject)}`
    const known = this.#allotments.get(key)
    if (known !== undefined) return known
    if (this.#allotments.size >= ALLOTMENTS_MAX) {
      for (const oldest of this.#allotments.keys()) {
        this.#allotments.delete(oldest)
        break
      }
    }
    const { clock, link } = this.#parts
    const allotment: Allotment = new Allotment({
      ...{ clock, holder: `${this.#holder}.${this.#made++}`, tally: rule.tally },
      count: quotaCount(rule.quota, key.split('\0')),
      call: (count, call) => callQuota(link, count, call),
      onRefused: (count) => this.#tellRefused(rule, count),
      onIdle: () => {
        if (this.#allotments.get(key) === allotment) this.#allotments.delete(key)
      },
    })
    this.#allotments.set(key, allotment)
    return allotment
  }

  /** The first at once, those after it together, once a second. */
  #tellRefused(rule: Rule, count: number): void {
    rule.untold += count
    const nowMs = this.#parts.clock.monotonicMs()
    if (nowMs - rule.toldAtMs < TELL_MS) return
    rule.toldAtMs = nowMs
    this.#parts.telemetry.emit('rate-limit.refused', { policy: rule.name, count: rule.untold })
    rule.untold = 0
  }

  protected override async onStart(): Promise<void> {
    // Nothing to open: counts begin with the first request.
  }

  /** Others may use at once what this process held. */
  protected override async onStop(): Promise<void> {
    await Promise.all([...this.#allotments.values()].map((allotment) => allotment.close()))
    this.#allotments.clear()
  }
}

function subjectValue(
  by: RateLimitSubject,
  route: string,
  type: string | undefined,
  { tenant, credential }: RequestSubject,
): string {
  switch (by) {
    case 'tenant':
      return tenant
    case 'credential':
      return `${tenant}\0${credential}`
    case 'route':
      return route
    case 'type':
      return type ?? ''
    default:
      return by satisfies never
  }
}
