/** What a run of faults is asked to do: the command line, checked as a whole before anything is started. */
import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { RunError } from '../fleet/failure.ts'
import { SCENARIOS } from './catalogue.ts'
import type { Scenario } from './scenario.ts'

export interface FaultsOptions {
  readonly scenarios: readonly Scenario[]
  readonly commands: number | undefined
  readonly seconds: number | undefined
  readonly seed: number
  /** Where the result goes as JSON: a file, or `-` for stdout. */
  readonly json: string | undefined
  readonly keep: boolean
  /** For a machine that is busy with other things. */
  readonly slackMs: number
}

type Parsed = {
  scenario?: string[]
  commands?: number
  seconds?: number
  seed?: number
  json?: string
  keep?: boolean
  slackMs: number
}

const SEED_MAX = 2 ** 32 - 1

/** @throws RunError `usage`; ends the process after --help */
export function parseOptions(args: readonly string[]): FaultsOptions {
  const program = new Command('faults')
    .description(
      'Breaks things under load, with real processes and real signals, and counts what came of it.',
    )
    .option('--scenario <names...>', 'only these, by name; default all')
    .option('--commands <number>', 'commands of each scenario, instead of its own number', wholeNumber(10))
    .option(
      '--seconds <number>',
      'how long each scenario is under load; faults scale down with it',
      wholeNumber(1),
    )
    .option('--seed <number>', 'repeats the plan of faults of an earlier run', wholeNumber(0, SEED_MAX))
    .option('--json <file>', 'write the result as one JSON object, to a file or to stdout (-)')
    .option('--keep', 'leave data, journals and logs behind')
    .option('--slack-ms <ms>', 'added to limits on time, for a busy machine', wholeNumber(0), 0)
    .addHelpText('after', notes())
    .allowExcessArguments(false)
    .exitOverride()
    .configureOutput({ writeErr: () => undefined })
  try {
    return checked(program.parse(args, { from: 'user' }).opts<Parsed>())
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) process.exit(0)
    throw new RunError(
      'usage',
      `${error.message.replace(/^error: /, '').replaceAll('\n', ' ')} (--help tells more)`,
    )
  }
}

function checked(parsed: Parsed): FaultsOptions {
  const names = parsed.scenario?.flatMap((name) => name.split(',')) ?? SCENARIOS.map(({ name }) => name)
  return {
    scenarios: names.map(scenarioOf),
    commands: parsed.commands,
    seconds: parsed.seconds,
    seed: parsed.seed ?? crypto.getRandomValues(new Uint32Array(1))[0] ?? 0,
    json: parsed.json,
    keep: parsed.keep ?? false,
    slackMs: parsed.slackMs,
  }
}

function scenarioOf(name: string): Scenario {
  const found = SCENARIOS.find((scenario) => scenario.name === name)
  if (found !== undefined) return found
  const known = SCENARIOS.map((scenario) => scenario.name)
  const near = known
    .map((each) => ({ each, distance: editDistance(name, each) }))
    .sort((a, b) => a.distance - b.distance)[0]
  const hint = near !== undefined && near.distance <= 3 ? ` Did you mean "${near.each}"?` : ''
  throw new RunError('usage', `There is no scenario "${name}"; use ${known.join(', ')}.${hint}`)
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

function wholeNumber(min: number, max = 1e9): (text: string) => number {
  return (text) => {
    const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(`Use a whole number from ${min} to ${max}.`)
  }
}

function notes(): string {
  const width = Math.max(...SCENARIOS.map(({ name }) => name.length))
  const lines = SCENARIOS.map(({ name, promise }) => `  ${name.padEnd(width)}  ${promise}`)
  return `
Scenarios:
${lines.join('\n')}

Exit codes: 0 every promise held, 1 one broke, 2 usage, 69 something needed is missing.

Examples:
  bun run faults --seconds 10
  bun run faults --scenario kills --seed 7 --json -
`
}
