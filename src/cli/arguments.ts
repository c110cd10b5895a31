/** Arguments of operator commands: checked before anything is sent, and turned into queries. */
import type { Command } from 'commander'

/** Commander prints the sentence; the exit code is that of wrong usage. */
export function checkJson(command: Command, text: string): void {
  try {
    JSON.parse(text)
  } catch (error) {
    const why = error instanceof Error ? error.message : 'it does not parse'
    command.error(`error: the payload is not JSON: ${why}`, { exitCode: 2 })
  }
}

/** A query of what is given. */
export function queryText(parameters: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(parameters).filter((pair): pair is [string, string] => pair[1] !== undefined)
  return given.length === 0 ? '' : `?${new URLSearchParams(given)}`
}
