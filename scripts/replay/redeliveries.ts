/**
 * Entries that were handed to a worker although another had held them when it died: what the workers said in their logs.
 *
 * A killed worker takes its counters along, but not its log, which is written line by line: nothing is missed.
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'

type LogLine = { readonly event?: string; readonly suspects?: number }

/** Adds up what workers took over, in the logs of processes that `isOurs` knows. */
export async function countRedeliveries(
  logsFolder: string,
  isOurs: (logFile: string) => boolean,
): Promise<number> {
  let sum = 0
  for (const name of readdirSync(logsFolder).filter((each) => each.startsWith('work-') && isOurs(each))) {
    for (const line of (await Bun.file(join(logsFolder, name)).text()).split('\n')) {
      if (line.includes('"entries.claimed"')) sum += (JSON.parse(line) as LogLine).suspects ?? 0
    }
  }
  return sum
}
