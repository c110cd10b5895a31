/**
 * `millrace keys`: API keys by way of the admin listener. A key is printed once, alone on stdout, so that it can go into a file
 * without being seen: `millrace keys create --scope commands:write > key`.
 */
import type { Command } from 'commander'
import { queryText } from './arguments.ts'
import type { OperatorClient } from './operator-client.ts'
import { fieldLines, print, printLines, tableLines, tell } from './output.ts'

type OpenAdmin = (url: string | undefined) => OperatorClient

interface AdminFlags {
  readonly adminUrl?: string
  readonly json?: boolean
}

export function registerKeyCommands(program: Command, open: OpenAdmin): void {
  const group = program.command('keys').description('API keys: who may use the public listener, and for what')
  registerCreate(group, open)
  registerList(group, open)
  registerShow(group, open)
  registerRotate(group, open)
  registerRevoke(group, open)
}

function adminCommand(group: Command, name: string): Command {
  return group
    .command(name)
    .option('--admin-url <url>', 'address of the admin listener')
    .option('--json', 'print the answer as one line of JSON')
}

interface IssuedKey {
  readonly key: string
  readonly id: string
}

interface CreateFlags extends AdminFlags {
  readonly scope: readonly string[]
  readonly label?: string
  readonly tenant?: string
  readonly expiresInMs?: string
  readonly expiresAt?: string
}

function registerCreate(group: Command, open: OpenAdmin): void {
  adminCommand(group, 'create')
    .description('make a key; prints it, once')
    .requiredOption('--scope <scopes...>', 'what it may do, such as commands:write:orders or views:read')
    .option('--label <text>', 'whose it is, for people')
    .option('--tenant <name>', 'the tenant that it belongs to; "*" may choose one')
    .option('--expires-in-ms <ms>', 'end this many milliseconds from now')
    .option('--expires-at <time>', 'end at this time (RFC 3339)')
    .addHelpText(
      'after',
      '\nExample:\n  millrace keys create --label shop --scope commands:write:orders views:read\n',
    )
    .action(async (flags: CreateFlags, command: Command) => {
      const { scope, label, tenant, expiresAt } = flags
      const expiresInMs = wholeOf(command, '--expires-in-ms', flags.expiresInMs)
      const wanted = { scopes: scope, label, tenant, expiresAt, expiresInMs }
      const call = { method: 'POST', path: '/v1/keys', body: JSON.stringify(wanted) } as const
      const { body } = await open(flags.adminUrl).call(call)
      printIssued(body as IssuedKey, flags)
    })
}

function printIssued(issued: IssuedKey, { json }: AdminFlags): void {
  if (json !== true) tell(`key ${issued.id}; it is shown once`)
  if (json === true) print(issued)
  else printLines([issued.key])
}

interface KeyRow {
  readonly id: string
  readonly label: string
  readonly tenant: string
  readonly scopes: readonly string[]
  readonly expiresAt: string | null
  readonly lastUsedAt: string | null
  readonly secrets: readonly unknown[]
}

interface KeyPage {
  readonly data: readonly KeyRow[]
  readonly page: { readonly next: string | null }
}

function registerList(group: Command, open: OpenAdmin): void {
  adminCommand(group, 'list')
    .alias('ls')
    .description('list keys, oldest first')
    .option('--limit <count>', 'keys in a page, 1-500')
    .option('--cursor <cursor>', 'where the page before ended')
    .action(async (flags: AdminFlags & { readonly limit?: string; readonly cursor?: string }) => {
      const { limit, cursor } = flags
      const path = `/v1/keys${queryText({ limit, cursor })}`
      const { body } = await open(flags.adminUrl).call({ method: 'GET', path })
      if (flags.json === true) return print(body)
      const { data, page } = body as KeyPage
      if (data.length === 0) return tell('no keys')
      const rows = data.map((key) => [
        key.id,
        key.label,
        key.tenant,
        key.scopes.join(' '),
        String(key.secrets.length),
        key.lastUsedAt ?? 'never',
        key.expiresAt ?? 'never',
      ])
      printLines(
        tableLines([['ID', 'LABEL', 'TENANT', 'SCOPES', 'SECRETS', 'LAST USED', 'EXPIRES'], ...rows]),
      )
      if (page.next !== null) tell(`there are more: --cursor ${page.next}`)
    })
}

function registerShow(group: Command, open: OpenAdmin): void {
  adminCommand(group, 'show')
    .description('print what is known of a key; never the key itself')
    .argument('<id>', 'id of the key')
    .action(async (id: string, flags: AdminFlags) => {
      const { body } = await open(flags.adminUrl).call({ method: 'GET', path: keyPath(id) })
      if (flags.json === true) return print(body)
      printLines(fieldLines(body))
    })
}

interface RotateFlags extends AdminFlags {
  readonly oldExpiresInMs?: string
  readonly oldExpiresAt?: string
}

function registerRotate(group: Command, open: OpenAdmin): void {
  adminCommand(group, 'rotate')
    .description(
      'make a new secret for a key; prints it, once. The old one works until it is revoked or ends',
    )
    .argument('<id>', 'id of the key')
    .option('--old-expires-in-ms <ms>', 'end the old secret this many milliseconds from now')
    .option('--old-expires-at <time>', 'end the old secret at this time (RFC 3339)')
    .action(async (id: string, flags: RotateFlags, command: Command) => {
      const oldExpiresInMs = wholeOf(command, '--old-expires-in-ms', flags.oldExpiresInMs)
      const body = JSON.stringify({ oldExpiresInMs, oldExpiresAt: flags.oldExpiresAt })
      const answer = await open(flags.adminUrl).call({ method: 'POST', path: `${keyPath(id)}/rotate`, body })
      printIssued(answer.body as IssuedKey, flags)
    })
}

interface RevokeFlags extends AdminFlags {
  readonly old?: boolean
  readonly yes?: boolean
}

function registerRevoke(group: Command, open: OpenAdmin): void {
  adminCommand(group, 'revoke')
    .description('end a key, or only its old secret, within five seconds everywhere')
    .argument('<id>', 'id of the key')
    .option('--old', 'only the secret that a rotation left')
    .option('--yes', 'do not ask')
    .action(async (given: string, flags: RevokeFlags, command: Command) => {
      const id = idOf(given)
      const what = flags.old === true ? `the old secret of key ${id}` : `key ${id}`
      confirmRevoke(command, what, flags)
      const query = queryText({ secret: flags.old === true ? 'old' : undefined })
      await open(flags.adminUrl).call({ method: 'DELETE', path: `${keyPath(id)}${query}` })
      if (flags.json === true) return print({ id, status: 'revoked' })
      tell(`revoked ${what}`)
      printLines([id])
    })
}

function confirmRevoke(command: Command, what: string, { yes }: RevokeFlags): void {
  if (yes === true) return
  if (process.stdin.isTTY !== true) {
    command.error('error: revoking can not be undone; add --yes', { exitCode: 2 })
  }
  if (confirm(`Revoke ${what} for good?`)) return
  command.error('nothing was revoked', { exitCode: 1 })
}

/** Of a whole key that was found somewhere only the id is sent on. */
function idOf(given: string): string {
  return /^mr_([0-9a-z]{12})_/.exec(given)?.[1] ?? given
}

function keyPath(given: string): string {
  return `/v1/keys/${encodeURIComponent(idOf(given))}`
}

function wholeOf(command: Command, flag: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  if (/^\d{1,15}$/.test(text)) return Number(text)
  return command.error(`error: ${flag} is a whole number of milliseconds`, { exitCode: 2 })
}
