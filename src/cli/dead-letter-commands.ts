/**
 * `millrace dlq`: look through dead letters, into one, send back, discard; one by its id, many by filter.
 *
 * Discarding asks first, or wants `--yes`. What concerns many runs in the process that was asked; the command follows it to
 * its end.
 */
import type { Command } from 'commander'
import { MillraceError } from '../contracts/errors.ts'
import { SYSTEM_CLOCK } from '../runtime/clock.ts'
import { checkJson, queryText } from './arguments.ts'
import type { OperatorClient } from './operator-client.ts'
import { fieldLines, print, printLines, tableLines, tell } from './output.ts'

type OpenAdmin = (url: string | undefined) => OperatorClient

interface AdminFlags {
  readonly adminUrl?: string
  readonly json?: boolean
}

interface FilterFlags {
  readonly stream?: string
  readonly type?: string
  readonly reason?: string
  readonly error?: string
  readonly from?: string
  readonly to?: string
}

export function registerDeadLetterCommands(program: Command, open: OpenAdmin): void {
  const group = program
    .command('dlq')
    .description('dead letters: commands that nobody will try again by itself')
  registerList(group, open)
  registerShow(group, open)
  registerRedrive(group, open)
  registerPurge(group, open)
}

function adminCommand(group: Command, name: string): Command {
  return group
    .command(name)
    .option('--admin-url <url>', 'address of the admin listener')
    .option('--json', 'print the answer as one line of JSON')
}

function withFilter(command: Command): Command {
  return command
    .option('--stream <name>', 'only of this stream')
    .option('--type <type>', 'only of this command type')
    .option('--reason <reason>', 'only dead for this: rejected, failed, crashed or expired')
    .option('--error <text>', 'only with this in their last error, or with this fingerprint')
    .option('--from <time>', 'only dead since this time or later (RFC 3339)')
    .option('--to <time>', 'only dead before this time (RFC 3339)')
}

function filterOf(flags: FilterFlags): Record<string, string | undefined> {
  const { stream, type, reason, error, from, to } = flags
  return { stream, type, reason, error, from, to }
}

function hasFilter(flags: FilterFlags): boolean {
  return Object.values(filterOf(flags)).some((value) => value !== undefined)
}

interface ListFlags extends AdminFlags, FilterFlags {
  readonly limit?: string
  readonly cursor?: string
}

interface LetterRow {
  readonly id: string
  readonly type: string
  readonly attempts: number
  readonly deadSince: string
  readonly error: string
}

interface LetterPage {
  readonly data: readonly LetterRow[]
  readonly page: { readonly next: string | null }
  readonly groups?: {
    readonly data: readonly { readonly fingerprint: string; readonly error: string; readonly count: number }[]
    readonly scanned: number
    readonly complete: boolean
  }
}

const ERROR_CHARS_SHOWN = 80

function registerList(group: Command, open: OpenAdmin): void {
  withFilter(adminCommand(group, 'ls'))
    .description('list dead letters, newest first, and the errors behind them')
    .option('--limit <count>', 'dead letters in a page, 1-500')
    .option('--cursor <cursor>', 'where the page before ended')
    .action(async (flags: ListFlags) => {
      const query = queryText({ ...filterOf(flags), limit: flags.limit, cursor: flags.cursor })
      const { body } = await open(flags.adminUrl).call({ method: 'GET', path: `/v1/dead-letters${query}` })
      if (flags.json === true) return print(body)
      const { data, page, groups } = body as LetterPage
      if (data.length === 0) return tell('no dead letters')
      const rows = data.map(({ id, type, attempts, deadSince, error }) => [
        id,
        type,
        String(attempts),
        deadSince,
        short(error),
      ])
      printLines(tableLines([['ID', 'TYPE', 'ATTEMPTS', 'DEAD SINCE', 'ERROR'], ...rows]))
      for (const { count, fingerprint, error } of groups?.data ?? [])
        tell(`${count} × ${fingerprint} ${short(error)}`)
      if (groups?.complete === false) tell(`only the newest ${groups.scanned} were counted`)
      if (page.next !== null) tell(`there are more: --cursor ${page.next}`)
    })
}

function short(error: string): string {
  return error.length > ERROR_CHARS_SHOWN ? `${error.slice(0, ERROR_CHARS_SHOWN - 1)}…` : error
}

function registerShow(group: Command, open: OpenAdmin): void {
  adminCommand(group, 'show')
    .description('print one dead letter with its payload and its failures')
    .argument('<id>', 'id of the command')
    .action(async (id: string, flags: AdminFlags) => {
      const { body } = await open(flags.adminUrl).call({ method: 'GET', path: letterPath(id) })
      if (flags.json === true) return print(body)
      printLines(fieldLines(body))
    })
}

function letterPath(id: string): string {
  return `/v1/dead-letters/${encodeURIComponent(id)}`
}

interface MoveFlags extends AdminFlags, FilterFlags {
  readonly all?: boolean
  readonly dryRun?: boolean
  readonly rate?: string
  readonly payload?: string
  readonly yes?: boolean
}

function registerRedrive(group: Command, open: OpenAdmin): void {
  withFilter(adminCommand(group, 'redrive'))
    .description('send dead letters back to their streams: one by id, or all that a filter means')
    .argument('[id]', 'id of the command')
    .option('--payload <json>', 'send it back with this payload (only with an id)')
    .option('--all', 'every dead letter')
    .option('--rate <per-second>', 'at most so many a second, 1-10000')
    .option('--dry-run', 'only tell what would be done')
    .action(async (id: string | undefined, flags: MoveFlags, command: Command) => {
      checkTarget(command, id, flags)
      const client = open(flags.adminUrl)
      if (id === undefined) {
        if (flags.payload !== undefined) command.error('error: --payload needs an id', { exitCode: 2 })
        return await runOperation(client, 'redrive', flags)
      }
      if (flags.payload !== undefined) checkJson(command, flags.payload)
      if (flags.dryRun === true) return await rehearse(client, id, flags)
      const body = flags.payload === undefined ? {} : { body: `{"payload":${flags.payload}}` }
      const answer = await client.call({ method: 'POST', path: `${letterPath(id)}/redrive`, ...body })
      if (flags.json === true) return print(answer.body)
      tell('sent back')
      printLines([id])
    })
}

function registerPurge(group: Command, open: OpenAdmin): void {
  withFilter(adminCommand(group, 'purge'))
    .description('discard dead letters for good: one by id, or all that a filter means')
    .argument('[id]', 'id of the command')
    .option('--all', 'every dead letter')
    .option('--rate <per-second>', 'at most so many a second, 1-10000')
    .option('--dry-run', 'only tell what would be done')
    .option('--yes', 'do not ask')
    .action(async (id: string | undefined, flags: MoveFlags, command: Command) => {
      checkTarget(command, id, flags)
      const client = open(flags.adminUrl)
      if (id !== undefined && flags.dryRun === true) return await rehearse(client, id, flags)
      if (flags.dryRun !== true) confirmPurge(command, id, flags)
      if (id === undefined) return await runOperation(client, 'purge', flags)
      await client.call({ method: 'DELETE', path: letterPath(id) })
      if (flags.json === true) return print({ id, status: 'purged' })
      tell('discarded')
      printLines([id])
    })
}

/** Nothing said must not mean everything. */
function checkTarget(command: Command, id: string | undefined, flags: MoveFlags): void {
  const chosen = [id !== undefined, hasFilter(flags), flags.all === true].filter(Boolean).length
  if (chosen === 1) return
  const text =
    chosen === 0
      ? 'name an id, a filter such as --type, or --all'
      : 'an id, a filter and --all exclude each other'
  command.error(`error: ${text}`, { exitCode: 2 })
}

function confirmPurge(command: Command, id: string | undefined, flags: MoveFlags): void {
  if (flags.yes === true) return
  if (process.stdin.isTTY !== true) {
    command.error('error: purging can not be undone; add --yes, or look first with --dry-run', {
      exitCode: 2,
    })
  }
  const what = id ?? (flags.all === true ? 'ALL dead letters' : 'all dead letters of this filter')
  if (confirm(`Discard ${what} for good?`)) return
  command.error('nothing was discarded', { exitCode: 1 })
}

/** A dry run for one: it must be there. */
async function rehearse(client: OperatorClient, id: string, flags: AdminFlags): Promise<void> {
  const { body } = await client.call({ method: 'GET', path: letterPath(id) })
  if (flags.json === true) return print(body)
  tell('dry run: nothing was changed')
  printLines([id])
}

interface Operation {
  readonly id: string
  readonly state: 'running' | 'finished' | 'stopped' | 'failed'
  readonly matched: number
  readonly done: number
  readonly failed: number
  readonly error?: string
}

const POLL_MIN_MS = 50
const POLL_MAX_MS = 1000

async function runOperation(
  client: OperatorClient,
  kind: 'redrive' | 'purge',
  flags: MoveFlags,
): Promise<void> {
  const plan = {
    filter: filterOf(flags),
    dryRun: flags.dryRun === true,
    ...(flags.rate === undefined ? {} : { ratePerSecond: Number(flags.rate) }),
  }
  const path = `/v1/dead-letters:${kind}`
  const started = await client.call({ method: 'POST', path, body: JSON.stringify(plan) })
  const operation = await follow(client, started.body as Operation)
  if (flags.json === true) print(operation)
  else {
    if (flags.dryRun === true) tell('dry run: nothing was changed')
    printLines(fieldLines({ matched: operation.matched, done: operation.done, failed: operation.failed }))
  }
  if (operation.state === 'finished') return
  const why = operation.error ?? 'the process that ran it was stopped'
  throw new MillraceError('service.stopped', `The operation ended early: ${why}. Start it again to go on.`)
}

async function follow(client: OperatorClient, started: Operation): Promise<Operation> {
  let operation = started
  for (
    let pauseMs = POLL_MIN_MS;
    operation.state === 'running';
    pauseMs = Math.min(POLL_MAX_MS, pauseMs * 2)
  ) {
    await SYSTEM_CLOCK.sleep(pauseMs)
    const { body } = await client.call({ method: 'GET', path: `/v1/operations/${operation.id}` })
    operation = body as Operation
    if (pauseMs === POLL_MAX_MS) tell(`${operation.done} of ${operation.matched} so far`)
  }
  return operation
}
