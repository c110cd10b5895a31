/** What a replay is asked to do: the command line, checked as a whole before anything is started. */
import { resolve } from 'node:path'
import { Command, Option } from 'commander'
import { parseArguments, wholeNumber } from '../fleet/arguments.ts'
import { RunError } from '../fleet/failure.ts'

export interface ReplayOptions {
  /** Rows of the file to replay; undefined means all. */
  readonly limitRows: number | undefined
  readonly verify: boolean
  readonly killEveryMs: number | undefined
  readonly workers: number
  readonly ratePerSecond: number | undefined
  readonly durability: 'everysec' | 'fsync'
  /** Where the result goes as JSON: a file, or `-` for stdout. */
  readonly json: string | undefined
  /** Absolute. */
  readonly resumeFolder: string | undefined
  readonly keep: boolean
  /** Base URL of a running API, without a final slash; undefined brings up a stack of our own. */
  readonly target: string | undefined
  readonly bodyRows: number
  readonly requestsMax: number
}

type Parsed = {
  limit?: number
  verify?: boolean
  killEveryMs?: number
  workers?: number
  rate?: number
  durability?: 'everysec' | 'fsync'
  json?: string
  resume?: string
  keep?: boolean
  target?: string
  bodyRows: number
  requests: number
}

const NOTES = `
Without --target it starts redis-server, the API, the workers and a projector in a temporary folder, and ends them.
--resume starts a replay in a folder that stays, or goes on with the one that was interrupted there.
Exit codes: 0 all equal, 1 lost, duplicated or different, 2 usage, 69 something needed is missing, 78 configuration.

Examples:
  bun run replay --limit 20000 --verify
  bun run replay --verify --workers 3 --kill-every-ms 2000 --json -
`

/** @throws RunError `usage`; ends the process after --help */
export function parseOptions(args: readonly string[]): ReplayOptions {
  const program = new Command('replay')
    .description('Replays three million flight records as commands, and checks every view against the file.')
    .option('--limit <records>', 'only the first so many records', wholeNumber(1))
    .option('--verify', 'wait for the projections, then compare every view with a direct aggregation')
    .option('--kill-every-ms <ms>', 'SIGKILL a worker that holds commands, again and again', wholeNumber(50))
    .option('--workers <number>', 'worker processes, default 2', wholeNumber(1, 64))
    .option('--rate <records>', 'records per second at most', wholeNumber(1))
    .addOption(new Option('--durability <tier>', 'default everysec').choices(['everysec', 'fsync']))
    .option('--json <file>', 'write the result as one JSON object, to a file or to stdout (-)')
    .option('--resume <folder>', 'keep data and progress there; go on after a crash')
    .option('--keep', 'leave the temporary folder behind')
    .option('--target <url>', 'an API that runs already, such as http://127.0.0.1:8080')
    .option('--body-rows <records>', 'records in one request', wholeNumber(1, 10_000), 500)
    .option('--requests <number>', 'requests under way at once', wholeNumber(1, 64), 6)
    .addHelpText('after', NOTES)
    .allowExcessArguments(false)
  return checked(parseArguments<Parsed>(program, args))
}

function checked(parsed: Parsed): ReplayOptions {
  if (parsed.target !== undefined) {
    const clash = (['killEveryMs', 'workers', 'durability', 'keep'] as const).find(
      (name) => parsed[name] !== undefined,
    )
    if (clash !== undefined) {
      const flag = clash.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
      throw new RunError(
        'usage',
        `--${flag} is for a stack that the replay starts itself; it does not go together with --target.`,
      )
    }
  }
  return {
    limitRows: parsed.limit,
    verify: parsed.verify ?? false,
    killEveryMs: parsed.killEveryMs,
    workers: parsed.workers ?? 2,
    ratePerSecond: parsed.rate,
    durability: parsed.durability ?? 'everysec',
    json: parsed.json,
    resumeFolder: parsed.resume === undefined ? undefined : resolve(parsed.resume),
    keep: parsed.keep ?? false,
    target: parsed.target === undefined ? undefined : checkedUrl(parsed.target),
    bodyRows: parsed.bodyRows,
    requestsMax: parsed.requests,
  }
}

function checkedUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    throw new RunError('usage', `--target "${text}" is not an http:// or https:// address.`)
  }
  return url.href.replace(/\/+$/, '')
}
