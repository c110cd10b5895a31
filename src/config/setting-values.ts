/** How the text of a setting becomes a value: each refusal is one sentence that names where the text came from and what to write. */
import { MillraceError } from '../contracts/errors.ts'
import { nearest } from '../contracts/names.ts'

export function invalid(where: string, text: string | undefined, wanted: string): MillraceError {
  return new MillraceError('config.invalid', `${where} is ${JSON.stringify(text)}; use ${wanted}.`)
}

export function parseText(text: string | undefined, where: string): string {
  if (text === undefined || text.trim() === '') throw invalid(where, text, 'a value that is not empty')
  return text
}

export function whole(min: number, max: number): (text: string | undefined, where: string) => number {
  return (text, where) => {
    const value = text !== undefined && /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
    if (value >= min && value <= max) return value
    throw invalid(where, text, `a whole number from ${min} to ${max}`)
  }
}

export function oneOf<Value extends string>(
  known: readonly Value[],
): (text: string | undefined, where: string) => Value {
  return (text, where) => {
    const found = known.find((value) => value === text)
    if (found !== undefined) return found
    const near = nearest(text ?? '', known)
    throw invalid(where, text, `${known.join(', ')}${near === undefined ? '' : ` (did you mean "${near}"?)`}`)
  }
}

/** Names between commas, each one of those that are known. */
export function listOf<Value extends string>(
  known: readonly Value[],
): (text: string | undefined, where: string) => readonly Value[] {
  return (text, where) => {
    const names = (text ?? '')
      .split(',')
      .map((name) => name.trim())
      .filter((name) => name !== '')
    return [...new Set(names.map((name) => oneOf(known)(name, where)))]
  }
}
