/** Command lines of the scripts that run processes: one mistake is one sentence and the exit code for usage. */
import { type Command, CommanderError, InvalidArgumentError } from 'commander'
import { RunError } from './failure.ts'

/** The options of a command line. @throws RunError `usage`; ends the process after --help */
export function parseArguments<Parsed extends object>(program: Command, args: readonly string[]): Parsed {
  program.exitOverride().configureOutput({ writeErr: () => undefined })
  try {
    return program.parse(args, { from: 'user' }).opts<Parsed>()
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) process.exit(0)
    const sentence = error.message.replace(/^error: /, '').replaceAll('\n', ' ')
    throw new RunError('usage', `${sentence} (--help tells more)`)
  }
}

/** Parses a whole number, or says which ones would do. */
export function wholeNumber(min: number, max = 1e9): (text: string) => number {
  return (text) => {
    const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(`Use a whole number from ${min} to ${max}.`)
  }
}

/** The one of this name. @throws RunError `usage`, with a guess at what was meant */
export function findNamed<Item extends { readonly name: string }>(
  what: string,
  items: readonly Item[],
  name: string,
): Item {
  const found = items.find((item) => item.name === name)
  if (found !== undefined) return found
  const near = items
    .map((item) => ({ name: item.name, distance: editDistance(name, item.name) }))
    .sort((a, b) => a.distance - b.distance)[0]
  const hint = near !== undefined && near.distance <= 3 ? ` Did you mean "${near.name}"?` : ''
  const known = items.map((item) => item.name).join(', ')
  throw new RunError('usage', `There is no ${what} "${name}"; use ${known}.${hint}`)
}

/** Levenshtein: letters to insert, drop or change. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next[j] = Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1)
    }
    row = next
  }
  return row[b.length] ?? 0
}
