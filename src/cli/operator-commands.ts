/**
 * Operator commands: whatever they do is a call of a running process, the public listener for `send`, `status` and `view`,
 * the admin listener for `dlq` and `keys`. Data goes to stdout, all else to stderr; `--json` gives data as one line of JSON.
 */
import type { Command } from 'commander'
import { randomId, SYSTEM_CLOCK } from '../runtime/clock.ts'
import { checkJson, queryText } from './arguments.ts'
import { registerDeadLetterCommands } from './dead-letter-commands.ts'
import { registerKeyCommands } from './key-commands.ts'
import { OperatorClient } from './operator-client.ts'
import { fieldLines, print, printLines, tell } from './output.ts'

/** Where processes listen, unless a flag says otherwise. */
export interface OperatorTargets {
  readonly publicUrl: string
  readonly adminUrl: string
  /** What they are shown, if they ask for a credential. */
  readonly key?: string | undefined
}

interface PublicFlags {
  readonly url?: string
  readonly json?: boolean
}

/** `targets` is asked when a command runs, not before. */
export function registerOperatorCommands(program: Command, targets: () => OperatorTargets): void {
  const open = ({ url }: PublicFlags): OperatorClient => openClient(url, targets(), 'publicUrl')
  registerSend(program, open)
  registerStatus(program, open)
  registerView(program, open)
  const openAdmin = (url: string | undefined) => openClient(url, targets(), 'adminUrl')
  registerDeadLetterCommands(program, openAdmin)
  registerKeyCommands(program, openAdmin)
}

function openClient(
  url: string | undefined,
  targets: OperatorTargets,
  listener: 'publicUrl' | 'adminUrl',
): OperatorClient {
  return new OperatorClient(url ?? targets[listener], SYSTEM_CLOCK, targets.key)
}

type OpenPublic = (flags: PublicFlags) => OperatorClient

/** The flags that all commands of the public listener share. */
function publicCommand(program: Command, name: string): Command {
  return program
    .command(name)
    .option('--url <url>', 'address of the public listener')
    .option('--json', 'print the answer as one line of JSON')
}

interface SendFlags extends PublicFlags {
  readonly key?: string
  readonly delay?: string
  readonly at?: string
  readonly expiresInMs?: string
  readonly expiresAt?: string
}

function registerSend(program: Command, open: OpenPublic): void {
  publicCommand(program, 'send')
    .description('send one command; prints its id')
    .argument('<type>', 'command type, such as order.place')
    .argument('[payload]', 'payload as JSON; - reads it from stdin', '{}')
    .option('--key <key>', 'idempotency key; without one a new key is made for this call')
    .option('--delay <ms>', 'deliver this many milliseconds from now')
    .option('--at <time>', 'deliver at this time (RFC 3339)')
    .option('--expires-in-ms <ms>', 'never start it later than this many milliseconds from now')
    .option('--expires-at <time>', 'never start it at this time or later (RFC 3339)')
    .addHelpText('after', '\nExample:\n  millrace send order.place \'{"orderId":"o-1"}\' --key order-o-1\n')
    .action(async (type: string, payload: string, flags: SendFlags, command: Command) => {
      const body = payload === '-' ? await Bun.stdin.text() : payload
      checkJson(command, body)
      const query = queryText({
        delayMs: flags.delay,
        deliverAt: flags.at,
        expiresInMs: flags.expiresInMs,
        expiresAt: flags.expiresAt,
      })
      const key = flags.key ?? randomId()
      const call = {
        method: 'POST',
        path: `/v1/commands/${encodeURIComponent(type)}${query}`,
        body,
        headers: { 'idempotency-key': quoted(key) },
      } as const
      const { body: answer } = await open(flags).callUntilAnswered(call, (why) =>
        tell(`${why} Trying again.`),
      )
      const { id, status, durability, deduplicated } = answer as Record<string, unknown>
      if (flags.json === true) return print(answer)
      tell(`${String(status)}${deduplicated === true ? ' before' : ''}, durability ${String(durability)}`)
      printLines([String(id)])
    })
}

function registerStatus(program: Command, open: OpenPublic): void {
  publicCommand(program, 'status')
    .description('tell what became of a command')
    .argument('<id>', 'what `millrace send` printed')
    .action(async (id: string, flags: PublicFlags) => {
      const call = { method: 'GET', path: `/v1/commands/${encodeURIComponent(id)}` } as const
      const { body } = await open(flags).call(call)
      if (flags.json === true) return print(body)
      printLines(fieldLines(body))
    })
}

interface ViewFlags extends PublicFlags {
  readonly after?: string
  readonly limit?: string
  readonly cursor?: string
  readonly prefix?: string
}

function registerView(program: Command, open: OpenPublic): void {
  publicCommand(program, 'view')
    .description('print a view, or the keys and views of a projection')
    .argument('<projection>')
    .argument('[key]', 'key of one view; without it a page of views')
    .option('--after <id>', 'wait until the view holds the effects of this command')
    .option('--limit <count>', 'views in a page, 1-500')
    .option('--cursor <cursor>', 'where the page before ended')
    .option('--prefix <text>', 'only keys that start with this')
    .action(async (projection: string, key: string | undefined, flags: ViewFlags, command: Command) => {
      const client = open(flags)
      const base = `/v1/views/${encodeURIComponent(projection)}`
      if (key === undefined) {
        if (flags.after !== undefined) command.error('error: --after needs a key', { exitCode: 2 })
        const { limit, cursor, prefix } = flags
        const { body } = await client.call({
          method: 'GET',
          path: base + queryText({ limit, cursor, prefix }),
        })
        return printPage(body, flags.json === true)
      }
      const headers: Record<string, string> =
        flags.after === undefined ? {} : { 'millrace-after': flags.after }
      const answer = await client.call({ method: 'GET', path: `${base}/${encodeURIComponent(key)}`, headers })
      const fate = answer.headers.get('millrace-after-status')
      if (fate !== null && fate !== 'done') tell(`the command is ${fate}: it left no effects to wait for`)
      if (flags.json === true) return print(answer.body)
      printLines([JSON.stringify(answer.body, undefined, 2)])
    })
}

interface Page {
  readonly data: readonly { readonly key: string; readonly value: unknown }[]
  readonly page: { readonly next: string | null }
}

function printPage(body: unknown, asJson: boolean): void {
  const { data, page } = body as Page
  if (asJson) print(body)
  else printLines(data.map(({ key, value }) => `${key}\t${JSON.stringify(value)}`))
  if (page.next !== null) tell(`there are more: --cursor ${page.next}`)
}

function quoted(key: string): string {
  return `"${key.replace(/[\\"]/g, '\\$&')}"`
}
