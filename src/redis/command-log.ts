/**
 * The command streams as producers and operators see them: append, status, cancel, depth.
 *
 * Appending is at most once per idempotency key; two windows of records are kept, so a key is remembered for at least one
 * window and at most two.
 */
import type { DeadReason } from '../contracts/dead-reason.ts'
import { MillraceError } from '../contracts/errors.ts'
import { NO_TENANT, type Tenant } from '../contracts/tenant.ts'
import { isNothing, replyArray, replyBuffer, replyNumber, replyText } from './bytes.ts'
import type { RedisLink, ScriptRunner } from './connection.ts'
import { bytesOf, joinEntries, type LyingEntry } from './entry-slab.ts'
import { GROUP, idempotencyCountKey, idempotencyKey, type PartitionKeys } from './keys.ts'
import { unpackPayload } from './payload-codec.ts'
import { NO_QUOTA, packTenants, quotaArguments, type TenantQuota } from './tenant-loads.ts'

/** What a producer's retry is recognised by. */
export interface IdempotencyMark {
  /** 16 bytes over tenant and key. */
  readonly digest: Buffer
  /** 8 bytes over type, content type and body. */
  readonly fingerprint: Buffer
}

export interface NewCommand {
  readonly entry: LyingEntry
  /** Absent: none. */
  readonly tenant?: Tenant
  readonly mark: IdempotencyMark | undefined
  /** Absent: at once. */
  readonly deliver: { readonly delayMs: number } | { readonly atMs: number } | undefined
}

export type AppendResult =
  | { readonly kind: 'stored' | 'known'; readonly token: string }
  /** Stored on the primary, not confirmed by enough replicas. */
  | { readonly kind: 'unconfirmed'; readonly token: string }
  /**
   * Not stored: another body under the same key, no room for more keys, too much of its tenant waiting, or held back with an
   * all-or-none neighbour.
   */
  | { readonly kind: 'conflict' | 'full' | 'quota' | 'held-back' }

export interface IdempotencyLimits {
  /** A key is remembered at least this long. */
  readonly windowMs: number
  /** Records per window over all keys. */
  readonly recordsMax: number
}

export interface AppendLimits extends IdempotencyLimits {
  /** Absent: none. */
  readonly tenantQuota?: TenantQuota
}

const COUNTERS = 64

/** Appends commands without key and delay; their tokens. All are stored, or the error says that nothing is certain. */
export async function appendPlain(
  link: ScriptRunner,
  keys: PartitionKeys,
  entries: readonly LyingEntry[],
): Promise<string[]> {
  const tokens = replyText(await link.run('append', [keys.commands], [joinEntries(entries)]))
  if (tokens === '') return []
  const all = tokens.split(' ')
  link.marks.note(keys, 'commands', all.at(-1)?.slice(1) ?? '')
  return all
}

/** Appends commands with idempotency keys or delays; `atomic` stores all or none. The window is the caller's guess; the server corrects it. */
export async function appendKeyed(
  link: ScriptRunner,
  keys: PartitionKeys,
  commands: readonly NewCommand[],
  limits: AppendLimits,
  nowMs: number,
  atomic = false,
): Promise<AppendResult[]> {
  let window = Math.floor(nowMs / limits.windowMs)
  for (let round = 0; round < 3; round++) {
    const { scriptKeys, args } = keyedArguments(keys, commands, limits, window, atomic)
    const reply = replyText(await link.run('append-keyed', scriptKeys, args))
    if (!reply.startsWith('W')) {
      const results = reply === '' ? [] : reply.split(' ').map(appendResult)
      noteNewest(link, keys, results)
      return results
    }
    window = Number(reply.slice(1))
  }
  throw new MillraceError(
    'redis.unavailable',
    'The idempotency window changed twice while appending; retry.',
    {
      retryAfterS: 1,
    },
  )
}

/** What was stored last is the newest; where nothing was, what was known already is what this process has told of. */
function noteNewest(link: ScriptRunner, keys: PartitionKeys, results: readonly AppendResult[]): void {
  for (const [letter, log] of [
    ['e', 'commands'],
    ['x', 'counter'],
  ] as const) {
    const newest = newestToken(results, 'stored', letter) ?? newestToken(results, 'known', letter)
    if (newest !== undefined) link.marks.note(keys, log, newest.slice(1))
  }
}

function newestToken(
  results: readonly AppendResult[],
  kind: 'stored' | 'known',
  letter: string,
): string | undefined {
  const found = results.findLast((result) => result.kind === kind && result.token.startsWith(letter))
  return found !== undefined && 'token' in found ? found.token : undefined
}

function keyedArguments(
  keys: PartitionKeys,
  commands: readonly NewCommand[],
  limits: AppendLimits,
  window: number,
  atomic: boolean,
): { scriptKeys: string[]; args: (string | Buffer | number)[] } {
  const scriptKeys = [
    ...[keys.commands, keys.due, keys.dueBodies, keys.records, keys.counter, keys.tenantLoads],
  ]
  const indexes = new Map<string, number>()
  const indexOf = (key: string): number => {
    const known = indexes.get(key)
    if (known !== undefined) return known
    scriptKeys.push(key)
    indexes.set(key, scriptKeys.length)
    return scriptKeys.length
  }
  const args: (string | Buffer | number)[] = [
    window,
    limits.windowMs,
    Math.ceil(limits.recordsMax / COUNTERS),
    atomic ? '1' : '0',
    packTenants(
      commands.map(({ tenant }) => tenant),
      quotaArguments(limits.tenantQuota ?? NO_QUOTA),
    ),
  ]
  for (const { entry, mark, deliver } of commands) {
    if (mark === undefined) args.push(0, 0, 0, '', '')
    else {
      const { digest, fingerprint } = mark
      args.push(
        indexOf(idempotencyKey(digest, window)),
        indexOf(idempotencyKey(digest, window - 1)),
        indexOf(idempotencyCountKey(digest, window)),
        digest,
        fingerprint,
      )
    }
    if (deliver === undefined) args.push('')
    else args.push('delayMs' in deliver ? `d${deliver.delayMs}` : `a${deliver.atMs}`)
    args.push(bytesOf(entry))
  }
  return { scriptKeys, args }
}

function appendResult(text: string): AppendResult {
  switch (text.charAt(0)) {
    case '=':
      return { kind: 'stored', token: text.slice(1) }
    case '~':
      return { kind: 'known', token: text.slice(1) }
    case '!':
      return { kind: 'conflict' }
    case '#':
      return { kind: 'full' }
    case '%':
      return { kind: 'quota' }
    case '-':
      return { kind: 'held-back' }
    default:
      throw new MillraceError('redis.unknown', `Redis answered "${text.slice(0, 20)}" to an append.`)
  }
}

export type CommandState =
  | 'scheduled'
  | 'retrying'
  | 'accepted'
  | 'processing'
  | 'done'
  | 'dead'
  | 'cancelled'
  | 'expired'
  | 'lost'

/** What the side record of a command may tell. */
export interface CommandRecord {
  readonly attempts?: number
  readonly error?: string
  /** Of a dead letter. */
  readonly reason?: DeadReason
  readonly result?: unknown
  readonly atMs?: number
  /** How often it was sent back from the dead letters. */
  readonly redrives?: number
}

export interface CommandStatus {
  readonly state: CommandState
  readonly record: CommandRecord
  /** When it will be delivered, Redis ms; for `scheduled` and `retrying`. */
  readonly dueAtMs: number | undefined
  /** Entry id in the dead-letter stream, for `dead` while the dead letter is kept. */
  readonly deadLetterId: string | undefined
  /** Last entry of the partition's event log at that moment. */
  readonly lastEventId: string
}

export async function readStatus(
  link: RedisLink,
  keys: PartitionKeys,
  token: string,
): Promise<CommandStatus> {
  const reply = replyArray(
    await link.run(
      'status',
      [keys.commands, keys.ready, keys.records, keys.floors, keys.counter, keys.events],
      [GROUP, token],
    ),
  )
  const state = replyText(reply[0]) as CommandState
  const detail = isNothing(reply[1]) ? Buffer.alloc(0) : replyBuffer(reply[1])
  const { head, record } = splitRecord(state, detail)
  return {
    state,
    record,
    dueAtMs: state === 'scheduled' || state === 'retrying' ? Number(head) : undefined,
    deadLetterId: state === 'dead' && head !== '' ? head : undefined,
    lastEventId: replyText(reply[2]),
  }
}

/** `done` and `cancelled` records are msgpack; the others start with a position or a time and a colon. */
function splitRecord(state: CommandState, detail: Buffer): { head: string; record: CommandRecord } {
  const bare = state === 'done' || state === 'cancelled'
  const colon = bare ? -1 : detail.indexOf(':')
  if (colon < 0) {
    if (bare) return { head: '', record: detail.length === 0 ? {} : readRecord(detail) }
    return { head: detail.toString('latin1'), record: {} }
  }
  const rest = detail.subarray(colon + 1)
  return { head: detail.toString('latin1', 0, colon), record: rest.length === 0 ? {} : readRecord(rest) }
}

function readRecord(bytes: Buffer): CommandRecord {
  try {
    return unpackPayload(bytes) as CommandRecord
  } catch {
    return {}
  }
}

/** True when it was cancelled; false when it has started or ended. */
export async function cancelCommand(
  link: ScriptRunner,
  keys: PartitionKeys,
  token: string,
  record: Buffer,
  tenant: Tenant = NO_TENANT,
): Promise<boolean> {
  const reply = await link.run(
    'cancel',
    [keys.commands, keys.records, keys.recordTimes, keys.due, keys.dueBodies, keys.tenantLoads],
    [GROUP, token, record, tenant],
  )
  return replyNumber(reply) === 1
}
