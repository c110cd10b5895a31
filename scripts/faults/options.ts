/** What a run of faults is asked to do: the command line, checked as a whole before anything is started. */
import { Command } from 'commander'
import { findNamed, parseArguments, wholeNumber } from '../fleet/arguments.ts'
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
  return checked(parseArguments<Parsed>(program, args))
}

function checked(parsed: Parsed): FaultsOptions {
  const names = parsed.scenario?.flatMap((name) => name.split(',')) ?? SCENARIOS.map(({ name }) => name)
  return {
    scenarios: names.map((name) => findNamed('scenario', SCENARIOS, name)),
    commands: parsed.commands,
    seconds: parsed.seconds,
    seed: parsed.seed ?? crypto.getRandomValues(new Uint32Array(1))[0] ?? 0,
    json: parsed.json,
    keep: parsed.keep ?? false,
    slackMs: parsed.slackMs,
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
