/** What a run of mutants is asked to do: the command line, checked against the mutants that there are. */
import { Command, CommanderError } from 'commander'
import type { Mutant } from './mutant.ts'

export interface MutantOptions {
  readonly chosen: readonly Mutant[]
  readonly list: boolean
  /** Where the result goes as JSON: a file, or `-` for stdout. */
  readonly json: string | undefined
}

const NOTES = `
Each mutant is planted in a copy of the tree, in a temporary folder; the tree itself is never changed.
Exit codes: 0 every mutant was killed, 1 one survived, crashed or is stale, or a test was red before, 2 usage.

Examples:
  bun run mutants
  bun run mutants --only stale-failure no-client-kill
  bun run mutants --json -
`

/** What is wrong with a command line, in a sentence. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** @throws UsageError; ends the process after --help */
export function parseOptions(args: readonly string[], mutants: readonly Mutant[]): MutantOptions {
  const program = new Command('mutants')
    .description('Breaks one mechanism at a time in a copy of the tree, and shows which test notices.')
    .option('--only <names...>', 'only these mutants')
    .option('--list', 'name the mutants, and what each breaks')
    .option('--json <file>', 'write the result as one JSON object, to a file or to stdout (-)')
    .addHelpText('after', NOTES)
    .allowExcessArguments(false)
    .exitOverride()
    .configureOutput({ writeErr: () => undefined })
  try {
    const { only, list, json } = program
      .parse(args, { from: 'user' })
      .opts<{ only?: string[]; list?: boolean; json?: string }>()
    const known = new Set(mutants.map(({ name }) => name))
    const unknown = only?.find((name) => !known.has(name))
    if (unknown !== undefined) throw new UsageError(`There is no mutant "${unknown}"; --list names them.`)
    const chosen = only === undefined ? mutants : mutants.filter(({ name }) => only.includes(name))
    return { chosen, list: list ?? false, json }
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) process.exit(0)
    throw new UsageError(`${error.message.replace(/^error: /, '')} (--help tells more)`)
  }
}
