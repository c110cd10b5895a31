/**
 * Which names may be declared, and the check every `define…` runs on them.
 *
 * A stream or projection name becomes part of a Redis key (inside a hash tag for streams), so its alphabet is closed:
 * no brace, no colon, no dot. Type names of commands and events may hold dots.
 */
import { MillraceError } from './errors.ts'

const PLAIN_NAME = /^[a-z0-9][a-z0-9_-]{0,62}$/
const TYPE_NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/

/** Names of streams, projections, aggregates and schedules. */
export function checkPlainName(what: string, name: unknown): string {
  if (typeof name === 'string' && PLAIN_NAME.test(name)) return name
  throw new MillraceError(
    'definition.invalid',
    `${what} name ${JSON.stringify(name)} is not allowed: use 1-63 characters of a-z, 0-9, "_" and "-", starting with a letter or digit.`,
  )
}

/** Type names of commands and events, such as `order.place`. */
export function checkTypeName(what: string, name: unknown): string {
  if (typeof name === 'string' && TYPE_NAME.test(name)) return name
  throw new MillraceError(
    'definition.invalid',
    `${what} type ${JSON.stringify(name)} is not allowed: use 1-63 characters of a-z, 0-9, ".", "_" and "-", starting with a letter or digit.`,
  )
}

/** A whole number inside bounds, or a definition error that names the option. */
export function checkWhole(what: string, value: unknown, min: number, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
  throw new MillraceError(
    'definition.invalid',
    `${what} must be a whole number from ${min} to ${max}, not ${JSON.stringify(value)}.`,
  )
}

/** Refuses option names nobody declared, with the nearest known one as a hint. */
export function checkKnownOptions(what: string, given: object, known: readonly string[]): void {
  for (const name of Object.keys(given)) {
    if (known.includes(name)) continue
    const near = nearest(name, known)
    const hint = near === undefined ? `Known options: ${known.join(', ')}.` : `Did you mean "${near}"?`
    throw new MillraceError('config.unknown-option', `${what} has no option "${name}". ${hint}`)
  }
}

/** The known name within an edit distance of 3, if there is one; for "did you mean". */
export function nearest(name: string, known: Iterable<string>): string | undefined {
  let best: string | undefined
  let bestDistance = Math.min(3, Math.max(1, Math.floor(name.length / 2))) + 1
  let lower: string | undefined
  for (const candidate of known) {
    // The name may be as long as a body, and come ten thousand times in it: what can not win costs next to nothing.
    if (Math.abs(name.length - candidate.length) >= bestDistance) continue
    lower ??= name.toLowerCase()
    const distance = editDistance(lower, candidate.toLowerCase(), bestDistance)
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

/**
 * Levenshtein, if it is less than `enough`; else some number that is not. Of each row only the cells near the diagonal matter,
 * and no row after one that has nothing small enough.
 */
function editDistance(a: string, b: string, enough: number): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  let next = new Array<number>(b.length + 1).fill(enough)
  for (let i = 1; i <= a.length; i++) {
    const from = Math.max(1, i - enough)
    const to = Math.min(b.length, i + enough)
    next[from - 1] = from === 1 ? i : enough
    let least = next[from - 1] ?? enough
    for (let j = from; j <= to; j++) {
      const substitution = (row[j - 1] ?? 0) + (a.charCodeAt(i - 1) === b.charCodeAt(j - 1) ? 0 : 1)
      const distance = Math.min(substitution, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1)
      next[j] = distance
      if (distance < least) least = distance
    }
    if (to < b.length) next[to + 1] = enough
    if (least >= enough) return enough
    ;[row, next] = [next, row]
  }
  return row[b.length] ?? 0
}
