/**
 * Scopes: what a credential may do, as texts that people write.
 *
 *   commands:write            every stream
 *   commands:write:*          the same
 *   commands:write:orders     only stream orders; repeat it for more
 *   views:read:totals         only projection totals
 *   admin                     the admin listener, all of it
 */
import { nearest } from '../contracts/names.ts'
import { VERBS, type Verb } from '../contracts/principal.ts'

const EVERY = '*'
const NAME = /^[a-z0-9][a-z0-9_-]{0,62}$/
/** A credential is read whole by every process. */
export const SCOPES_MAX = 64

/** Verb to the names it is restricted to; undefined: to none. */
export class Scopes {
  readonly #names: ReadonlyMap<Verb, ReadonlySet<string> | undefined>

  constructor(texts: readonly string[]) {
    const names = new Map<Verb, Set<string> | undefined>()
    for (const text of texts) {
      const parsed = parseScope(text)
      if (parsed === undefined) continue
      const { verb, name } = parsed
      const known = names.get(verb)
      if (name === undefined || (names.has(verb) && known === undefined)) names.set(verb, undefined)
      else names.set(verb, (known ?? new Set()).add(name))
    }
    this.#names = names
  }

  allows(verb: Verb, name: string | undefined): boolean {
    if (!this.#names.has(verb)) return false
    const names = this.#names.get(verb)
    return names === undefined || (name !== undefined && names.has(name))
  }

  allowsSome(verb: Verb): boolean {
    return this.#names.has(verb)
  }
}

interface Scope {
  readonly verb: Verb
  /** Undefined: every one. */
  readonly name: string | undefined
}

/** Undefined for a text that is no scope. */
function parseScope(text: string): Scope | undefined {
  for (const verb of VERBS) {
    if (text === verb) return { verb, name: undefined }
    if (verb === 'admin' || !text.startsWith(`${verb}:`)) continue
    const name = text.slice(verb.length + 1)
    if (name === EVERY) return { verb, name: undefined }
    return NAME.test(name) ? { verb, name } : undefined
  }
  return undefined
}

/** What a restriction may name. */
export interface ScopeNames {
  readonly streams: readonly string[]
  readonly projections: readonly string[]
}

/** What is wrong with a scope, as a sentence that says what to write instead; undefined when nothing is. */
export function scopeComplaint(text: string, names: ScopeNames): string | undefined {
  const shown = JSON.stringify(text.slice(0, 80))
  const scope = parseScope(text)
  if (scope === undefined) {
    const near =
      nearest(text.slice(0, 80), VERBS) ?? nearest(text.split(':', 2).join(':').slice(0, 80), VERBS)
    const hint = near === undefined ? `Scopes are ${VERBS.join(', ')}` : `Did you mean "${near}"`
    const form = near === undefined ? ', all but admin also with a name, such as commands:write:orders.' : '?'
    return `There is no scope ${shown}. ${hint}${form}`
  }
  if (scope.name === undefined) return undefined
  const isView = scope.verb === 'views:read'
  const [what, known] = isView ? ['projection', names.projections] : ['stream', names.streams]
  if (known.includes(scope.name)) return undefined
  const near = nearest(scope.name, known)
  const hint = near === undefined ? `Known here: ${known.join(', ') || 'none'}.` : `Did you mean "${near}"?`
  return `Scope ${shown} names a ${what} that nobody defines. ${hint}`
}
