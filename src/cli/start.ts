/** `millrace start [role]`: runs a role until it is told to stop, and says in plain lines what runs where. */
import { type Command, Option } from 'commander'
import { type GivenSettings, SETTING_NAMES, SETTINGS } from '../config/settings.ts'
import { MillraceHost, type MillraceSummary, settingsFrom } from '../host/millrace.ts'
import { openProcessLogger } from '../host/process-logger.ts'
import { checkRole, ROLES } from '../host/roles.ts'
import { SYSTEM_CLOCK } from '../runtime/clock.ts'
import { listenForStop } from '../runtime/stop-signals.ts'
import { EXIT } from './exit-codes.ts'

const EXAMPLES = `
Examples:
  millrace start                      all roles in one process, with a redis-server child
  millrace start api --port 8000      only the HTTP API, with the Redis of REDIS_URL
  REDIS_URL=rediss://me:secret@redis.example:6379 millrace start work --admin-port 0
`

export function registerStart(program: Command): void {
  const command = program
    .command('start')
    .description('run one role of a fleet, or all in one process, until SIGINT or SIGTERM')
    .argument('[role]', ROLES.join(', '), 'all')
  for (const name of SETTING_NAMES) {
    const { flag, help, variable, fallback } = SETTINGS[name]
    const from = fallback === undefined || fallback === '' ? variable : `${variable}, default ${fallback}`
    command.addOption(new Option(flag, `${help} [${from}]`))
  }
  command.addHelpText('after', EXAMPLES)
  command.action(async (role: string, options: Record<string, string>) => {
    process.exit(await start(role, givenFrom(options)))
  })
}

/** Commander names `--data-dir` `dataDir`; the settings call it `dataFolder`. */
function givenFrom(options: Record<string, string>): GivenSettings {
  const given: Record<string, string> = {}
  for (const name of SETTING_NAMES) {
    const value = options[new Option(SETTINGS[name].flag).attributeName()]
    if (value !== undefined) given[name] = value
  }
  return given
}

async function start(roleName: string, flags: GivenSettings): Promise<number> {
  const role = checkRole(roleName)
  const settings = settingsFrom(flags)
  const logger = openProcessLogger(settings.logLevel, role)
  const host = new MillraceHost({ role, settings, definitions: undefined, logger, onTelemetry: undefined })
  const told = Promise.withResolvers<void>()
  let isTold = false
  listenForStop(process, SYSTEM_CLOCK, {
    onStop: (signal) => {
      say(`${signal}: stopping, at most ${settings.drainLimitMs / 1000} s; once more to end now`)
      isTold = true
      told.resolve()
      void host.stop()
    },
    onAbandon: (exitCode) => {
      host.abandon()
      process.exit(exitCode)
    },
  })
  // Also when a fault in a handler's own loop ends the process: the server must not outlive what looks after it.
  process.on('exit', () => host.abandon())
  try {
    await host.start()
  } catch (error) {
    if (isTold) return EXIT.ok
    throw error
  }
  for (const line of startLines(host.summary)) say(line)
  await told.promise
  await host.stop()
  say('stopped')
  return host.endedCleanly ? EXIT.ok : EXIT.fault
}

function startLines(summary: MillraceSummary): string[] {
  const { urls, counts, files, unhandled, asking } = summary
  const lines = [
    `role        ${summary.role}`,
    `redis       ${summary.redis}`,
    `durability  ${summary.durability}`,
    `workers     ${files.join(', ')}`,
    `            ${counts.commands} commands, ${counts.handlers} handlers, ${counts.projections} projections, ${counts.schedules} schedules`,
  ]
  if (unhandled.length > 0)
    lines.push(`            no handler for ${unhandled.join(', ')}: they wait for a worker that has one`)
  if (asking.length > 0) lines.push(`access      credentials needed on: ${asking.join(', ')}`)
  if (urls.public !== undefined) lines.push(`public      ${urls.public}`)
  return [...lines, `admin       ${urls.admin}`, 'ready; Ctrl-C stops']
}

/** Plain lines go to stderr: stdout is the log's. */
function say(line: string): void {
  console.error(`millrace: ${line}`)
}
