/** What a run of the fuzzer is asked to do: the command line, checked as a whole before anything is started. */
import { Command } from 'commander'
import { parseArguments, wholeNumber } from '../fleet/arguments.ts'
import { RunError } from '../fleet/failure.ts'

export interface FuzzOptions {
  readonly isSlow: boolean
  readonly cases: number
  readonly seed: number
  /** Only this one. */
  readonly only: number | undefined
  /** Slow connections held open. */
  readonly connections: number
  readonly seconds: number
  /** Where the result goes as JSON: a file, or `-` for stdout. */
  readonly json: string | undefined
  readonly keep: boolean
}

type Parsed = Partial<Omit<FuzzOptions, 'only' | 'isSlow'>> & { case?: number }

const SEED_MAX = 2 ** 32 - 1

/** @throws RunError `usage`; ends the process after --help */
export function parseOptions(args: readonly string[]): FuzzOptions {
  const [mode, ...rest] = args
  const isSlow = mode === 'slow'
  if (!isSlow && mode !== undefined && !mode.startsWith('-')) {
    throw new RunError('usage', `There is no "${mode}"; use "slow", or options alone (--help tells more)`)
  }
  const program = new Command('fuzz')
    .description('Sends hostile requests to a process of its own, and checks what comes of them.')
    .option('--cases <number>', 'how many', wholeNumber(1))
    .option('--seed <number>', 'repeats the cases of an earlier run', wholeNumber(0, SEED_MAX))
    .option('--case <number>', 'only the case of this number', wholeNumber(0))
    .option('--connections <number>', 'with "slow": how many are held open', wholeNumber(4, 20_000))
    .option('--seconds <number>', 'with "slow": how long each measurement takes', wholeNumber(1, 600))
    .option('--json <file>', 'write the result as one JSON object, to a file or to stdout (-)')
    .option('--keep', 'leave data and logs behind')
    .addHelpText(
      'after',
      `
Exit codes: 0 everything held, 1 something broke, 2 usage, 69 something needed is missing.

Examples:
  bun run fuzz --cases 100000
  bun run fuzz --seed 7 --case 1234
  bun run fuzz slow --connections 1000
`,
    )
    .allowExcessArguments(false)
  const parsed = parseArguments<Parsed>(program, isSlow ? rest : args)
  return {
    isSlow,
    cases: parsed.cases ?? 10_000,
    seed: parsed.seed ?? crypto.getRandomValues(new Uint32Array(1))[0] ?? 0,
    only: parsed.case,
    connections: parsed.connections ?? 1000,
    seconds: parsed.seconds ?? 10,
    json: parsed.json,
    keep: parsed.keep ?? false,
  }
}
