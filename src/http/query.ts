/** Query parameters, each known by name: a typing mistake is told instead of ignored. */
import { MillraceError } from '../contracts/errors.ts'
import { nearest } from '../contracts/names.ts'

/**
 * The parameters of a URL, each at most once.
 *
 * @throws MillraceError `command.malformed` for one that is not known, or given twice
 */
export function readQuery<Name extends string>(
  url: string,
  known: readonly Name[],
): Partial<Record<Name, string>> {
  const found: Partial<Record<Name, string>> = {}
  const from = url.indexOf('?')
  if (from < 0) return found
  // Not through URL: what stands before the query comes from the Host header, which may be no host at all.
  for (const [given, value] of new URLSearchParams(url.slice(from + 1))) {
    const name = known.find((each) => each === given)
    if (name === undefined) throw unknown(given, known)
    if (found[name] !== undefined)
      throw new MillraceError('command.malformed', `Query parameter "${name}" is given twice.`)
    found[name] = value
  }
  return found
}

function unknown(given: string, known: readonly string[]): MillraceError {
  const near = nearest(given, known)
  const all = known.length === 0 ? 'There are none here.' : `Known here: ${known.join(', ')}.`
  const hint = near === undefined ? all : `Did you mean "${near}"?`
  return new MillraceError(
    'command.malformed',
    `There is no query parameter "${given.slice(0, 80)}". ${hint}`,
  )
}

/** @throws MillraceError `command.malformed` */
export function readSwitch(name: string, value: string | undefined): boolean {
  if (value === undefined || value === 'false') return false
  if (value === 'true' || value === '') return true
  throw new MillraceError('command.malformed', `Query parameter "${name}" is "true" or "false".`)
}

/** @throws MillraceError `command.malformed` */
export function readWhole(
  name: string,
  value: string | undefined,
  min: number,
  max: number,
): number | undefined {
  if (value === undefined) return undefined
  const number = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN
  if (number >= min && number <= max) return number
  throw new MillraceError(
    'command.malformed',
    `Query parameter "${name}" is a whole number from ${min} to ${max}.`,
  )
}
