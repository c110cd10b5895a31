/** What the benchmark is asked to do: the command line, checked as a whole before anything is started. */
import { Command } from 'commander'
import { findNamed, parseArguments, wholeNumber } from '../fleet/arguments.ts'
import { RunError } from '../fleet/failure.ts'
import { SCENARIOS } from './catalogue.ts'
import type { Scenario } from './scenario.ts'

export interface BenchOptions {
  readonly scenarios: readonly Scenario[]
  readonly quick: boolean
  /** How long a measurement by time lasts; undefined: as the scenario is defined. */
  readonly seconds: number | undefined
  /** Where the result goes as JSON or Markdown: a file, or `-` for stdout. */
  readonly json: string | undefined
  readonly markdown: string | undefined
  /** False: a missed budget does not make the run fail. */
  readonly gate: boolean
  readonly withPeers: boolean
  readonly keep: boolean
}

type Parsed = {
  quick?: boolean
  seconds?: number
  json?: string
  markdown?: string
  gate: boolean
  withPeers?: boolean
  keep?: boolean
}

/** @throws RunError `usage`; ends the process after --help */
export function parseOptions(args: readonly string[]): BenchOptions {
  const program = new Command('bench')
    .description(
      'Measures throughput and latency against baselines that do the same work with nothing around it.',
    )
    .argument('[scenarios...]', 'only these, by name; default all')
    .option('--quick', 'at most 15 s a scenario: less to rely on, and the result says so')
    .option(
      '--seconds <number>',
      'how long each measurement by time lasts, default 5, with --quick 2',
      wholeNumber(1, 600),
    )
    .option('--json <file>', 'write the result as one JSON object, to a file or to stdout (-)')
    .option('--markdown <file>', 'write the result as a Markdown table, to a file or to stdout (-)')
    .option('--no-gate', 'exit with 0 also when a budget is missed')
    .option('--with-peers', 'install other systems in scripts/bench/peers, and measure against them')
    .option('--keep', 'leave data and logs behind')
    .addHelpText('after', notes())
  const parsed = parseArguments<Parsed>(program, args)
  const named = program.args.flatMap((name) => name.split(','))
  const withPeers = parsed.withPeers ?? false
  const scenarios =
    named.length === 0
      ? SCENARIOS.filter(({ needsPeers }) => withPeers || needsPeers !== true)
      : named.map((name) => findNamed('scenario', SCENARIOS, name))
  const lacking = scenarios.find(({ needsPeers }) => needsPeers === true && !withPeers)
  if (lacking !== undefined) {
    throw new RunError(
      'usage',
      `${lacking.name} compares with another system: add --with-peers, which installs it.`,
    )
  }
  return {
    scenarios,
    quick: parsed.quick ?? false,
    seconds: parsed.seconds,
    json: parsed.json,
    markdown: parsed.markdown,
    gate: parsed.gate,
    withPeers,
    keep: parsed.keep ?? false,
  }
}

function notes(): string {
  const width = Math.max(...SCENARIOS.map(({ name }) => name.length))
  const lines = SCENARIOS.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`)
  return `
Scenarios:
${lines.join('\n')}

Exit codes: 0 every budget met, 1 one missed, 2 usage, 69 something needed is missing.
Figures of a machine that does something else beside it are worth nothing.

Examples:
  bun run bench --quick
  bun run bench consume-noop ingest-single --json -
  bun run bench --with-peers --json bench.json --markdown bench.md
`
}
