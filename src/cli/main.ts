#!/usr/bin/env bun
/**
 * The command line: starts processes, makes a first project, asks running processes. Data goes to stdout, all else to
 * stderr; a mistake is one sentence and an exit code that scripts can tell apart (see `exit-codes.ts`).
 */
import { Command, CommanderError } from 'commander'
import { version } from '../../package.json' with { type: 'json' }
import { MillraceError } from '../contracts/errors.ts'
import { EXIT, exitCodeOf } from './exit-codes.ts'
import { registerInit } from './init.ts'
import { registerOperatorCommands } from './operator-commands.ts'
import { registerStart } from './start.ts'
import { processUrls } from './targets.ts'

const program = new Command('millrace')
  .description('A command runtime for Bun and Redis Streams.')
  .version(version)
  .exitOverride()
  .showHelpAfterError('(--help tells more)')
registerStart(program)
registerInit(program)
registerOperatorCommands(program, processUrls)

/** Commander has already said what is wrong. A mistake in what a process is told is one of configuration. */
function exitCodeOfUsage(error: CommanderError): number {
  if (error.exitCode === 0) return EXIT.ok
  return process.argv[2] === 'start' ? EXIT.config : EXIT.usage
}

function tell(error: unknown): void {
  if (error instanceof MillraceError) console.error(`millrace: ${error.message}`)
  else console.error(error)
}

// Not awaited at the top level: while that waits, Bun 1.4.5 prints an unhandled rejection and carries on.
program.parseAsync().catch((error: unknown) => {
  if (error instanceof CommanderError) process.exit(exitCodeOfUsage(error))
  tell(error)
  process.exit(exitCodeOf(error))
})
