/**
 * Rate limit rules: from what an operator wrote to rules that were checked. Every mistake is one sentence that says what to
 * do. Pure.
 *
 * As text, rules stand behind each other, separated by `;` or line ends:
 *
 *   <name>: <limit> [by <subject>,…] [on <route>,…] [for <command type>,…]
 *   limit:  100 in 60s               a sliding window
 *           50/s burst 100           a token bucket; also 3000/m, 90000/h
 */
import { MillraceError } from '../contracts/errors.ts'
import { checkKnownOptions, nearest } from '../contracts/names.ts'
import { RATE_LIMIT_SUBJECTS, type RateLimitRule, type RateLimitSubject } from '../contracts/rate-limit.ts'
import type { Quota } from './quota.ts'

export interface RateLimit {
  readonly name: string
  readonly quota: Quota
  readonly by: readonly RateLimitSubject[]
  /** Undefined: all. */
  readonly routes: readonly string[] | undefined
  readonly types: readonly string[] | undefined
}

const NAME = /^[a-z0-9][a-z0-9_-]{0,62}$/
const RULES_MAX = 50
const SIZE_MAX = 1_000_000_000
const WINDOW_S_MAX = 86_400
const RULE_FIELDS = ['name', 'quota', 'windowS', 'ratePerS', 'burst', 'by', 'routes', 'types']
const SYNTAX =
  '"name: 100 in 60s by credential" or "name: 50/s burst 100 by tenant on command.send for order.place"'

/**
 * `text` is in the syntax above, or a JSON list of rules. `where` names the variable or option that it came from.
 *
 * @throws MillraceError `config.invalid`, `config.unknown-option`
 */
export function parseRateLimits(text: string, where: string): readonly RateLimit[] {
  const rules = text.trimStart().startsWith('[') ? parseJson(text, where) : parseText(text, where)
  if (rules.length > RULES_MAX) throw invalid(where, `holds ${rules.length} rules; at most ${RULES_MAX}`)
  const limits = rules.map((rule) => checkRule(rule, where))
  const names = limits.map(({ name }) => name)
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) throw invalid(where, `has two rules named "${twice}"; give each its own name`)
  return limits
}

function parseJson(text: string, where: string): readonly RateLimitRule[] {
  try {
    const value: unknown = JSON.parse(text)
    if (Array.isArray(value) && value.every((rule) => typeof rule === 'object' && rule !== null)) return value
  } catch {
    throw invalid(where, `begins with "[" and is not JSON; mend it, or write ${SYNTAX}`)
  }
  throw invalid(where, `must be a list of rules; write ${SYNTAX}`)
}

function parseText(text: string, where: string): readonly RateLimitRule[] {
  return text
    .split(/[;\n]/)
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .map((line) => parseRule(line, where))
}

const RULE = /^([^:\s]+)\s*:\s*(.+?)(?:\s+by\s+(.+?))?(?:\s+on\s+(.+?))?(?:\s+for\s+(.+?))?$/
const WINDOW = /^(\d+)\s+in\s+(\d+)\s*(s|m|h|d)$/
const BUCKET = /^(\d+(?:\.\d+)?)\s*\/\s*(s|m|h)\s+burst\s+(\d+)$/
const UNIT_S: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 }

function parseRule(line: string, where: string): RateLimitRule {
  const [, name = '', limit = '', by, on, types] = RULE.exec(line) ?? []
  const lists = {
    ...(by === undefined ? {} : { by: listOf(by) as readonly RateLimitSubject[] }),
    ...(on === undefined ? {} : { routes: listOf(on) }),
    ...(types === undefined ? {} : { types: listOf(types) }),
  }
  const [, quota, length, unit = ''] = WINDOW.exec(limit) ?? []
  if (quota !== undefined)
    return { name, quota: Number(quota), windowS: Number(length) * (UNIT_S[unit] ?? 1), ...lists }
  const [, rate, per = '', burst] = BUCKET.exec(limit) ?? []
  if (rate !== undefined)
    return { name, ratePerS: Number(rate) / (UNIT_S[per] ?? 1), burst: Number(burst), ...lists }
  throw invalid(where, `holds ${JSON.stringify(line.slice(0, 120))}, which is no rule; write ${SYNTAX}`)
}

function listOf(text: string): readonly string[] {
  return text.split(/[\s,]+/).filter((word) => word !== '')
}

function checkRule(rule: RateLimitRule, where: string): RateLimit {
  const { name } = rule
  if (typeof name !== 'string' || !NAME.test(name)) {
    throw invalid(
      where,
      `names a rule ${JSON.stringify(name)?.slice(0, 80)}; use 1-63 characters of a-z, 0-9, "_" and "-"`,
    )
  }
  const what = `${where}, rule "${name}",`
  checkKnownOptions(what, rule, RULE_FIELDS)
  return {
    name,
    quota: checkQuota(rule, what),
    by: checkSubjects(rule.by ?? [], what),
    routes: checkNames(rule.routes, `${what} "routes"`),
    types: checkNames(rule.types, `${what} "types"`),
  }
}

function checkQuota({ quota, windowS, ratePerS, burst }: RateLimitRule, what: string): Quota {
  const [isWindow, isBucket] = [quota ?? windowS, ratePerS ?? burst].map((field) => field !== undefined)
  if (isWindow === isBucket) {
    throw invalid(
      what,
      'needs either "quota" and "windowS" (sliding window) or "ratePerS" and "burst" (token bucket)',
    )
  }
  if (isWindow) {
    return {
      kind: 'window',
      quota: checkNumber(`${what} "quota"`, quota, 1, SIZE_MAX),
      windowS: checkNumber(`${what} "windowS"`, windowS, 1, WINDOW_S_MAX),
    }
  }
  const size = checkNumber(`${what} "burst"`, burst, 1, SIZE_MAX)
  if (typeof ratePerS === 'number' && ratePerS >= size / WINDOW_S_MAX && ratePerS <= SIZE_MAX)
    return { kind: 'bucket', ratePerS, burst: size }
  throw invalid(
    `${what} "ratePerS"`,
    `is ${JSON.stringify(ratePerS)}; use a number up to ${SIZE_MAX} that fills the burst within a day`,
  )
}

function checkNumber(what: string, value: unknown, min: number, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
  throw invalid(what, `is ${JSON.stringify(value)}; use a whole number from ${min} to ${max}`)
}

function checkSubjects(given: readonly string[], what: string): readonly RateLimitSubject[] {
  if (!Array.isArray(given))
    throw invalid(`${what} "by"`, `must be a list of ${RATE_LIMIT_SUBJECTS.join(', ')}`)
  return given.map((word) => {
    const found = RATE_LIMIT_SUBJECTS.find((subject) => subject === word)
    if (found !== undefined) return found
    const near = nearest(String(word), RATE_LIMIT_SUBJECTS)
    const hint = near === undefined ? '' : ` (did you mean "${near}"?)`
    throw invalid(what, `counts by ${JSON.stringify(word)}; use ${RATE_LIMIT_SUBJECTS.join(', ')}${hint}`)
  })
}

function checkNames(given: readonly string[] | undefined, what: string): readonly string[] | undefined {
  if (given === undefined) return undefined
  if (Array.isArray(given) && given.length > 0 && given.every((name) => typeof name === 'string'))
    return given
  throw invalid(what, 'must be a list of names that is not empty')
}

/**
 * That a rule names only what there is: routes of the public listener, and command types of the application.
 *
 * @throws MillraceError `config.invalid`
 */
export function checkRateLimitNames(
  limits: readonly RateLimit[],
  known: { readonly routes: readonly string[]; readonly types: readonly string[] },
): void {
  for (const { name, routes = [], types = [] } of limits) {
    for (const route of routes) checkKnown(`Rate limit "${name}"`, 'route', route, known.routes)
    for (const type of types) checkKnown(`Rate limit "${name}"`, 'command type', type, known.types)
  }
}

function checkKnown(where: string, what: string, name: string, known: readonly string[]): void {
  if (known.includes(name)) return
  const near = nearest(name, known)
  const hint = near === undefined ? `; there are ${known.join(', ')}` : ` (did you mean "${near}"?)`
  throw invalid(where, `names the ${what} ${JSON.stringify(name)}, which does not exist${hint}`)
}

function invalid(where: string, what: string): MillraceError {
  return new MillraceError('config.invalid', `${where} ${what}.`)
}
