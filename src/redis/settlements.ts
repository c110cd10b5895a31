/**
 * The one call that settles a batch: see `lua/settle.lua` for the rules, this file for the words.
 *
 * A request stays below 1 000 entries and 4 000 arguments (Lua's `unpack` gives up near 8 000), and can be sent again
 * unchanged when its answer was lost: what had been applied then answers "settled before".
 */
import type { Tenant } from '../contracts/tenant.ts'
import { replyArray, replyNumber, replyText } from './bytes.ts'
import type { RedisLink } from './connection.ts'
import type { Membership } from './membership.ts'
import { packLists } from './script-lists.ts'
import type { TenantLoad } from './tenant-loads.ts'

/** Where an entry was read from. */
export type Source = 'commands' | 'ready'

export interface EntryRef {
  readonly source: Source
  readonly entryId: string
  readonly token: string
  /** False: the token is the place of the entry, which is known without comparing texts. */
  readonly isNamed?: boolean
  /** Crash level known to the worker; its counter is removed with the settlement. */
  readonly level: number
  /** Of an ordered partition: how often it was retried in place. */
  readonly turn?: number
}

export interface FollowUp {
  /** `<stream>.<partition>` of another partition, '' for this one. */
  readonly target: string
  /** -1: at once. */
  readonly delayMs: number
  readonly blob: Buffer
}

/** The state that a decision was made on. The version alone does not tell: somebody else may have reached it meanwhile. */
export interface AggregateGuard {
  /** Redis key of the aggregate's stream, in this partition. */
  readonly key: string
  readonly expectedVersion: number
  /** Token of the command behind that version; '' for version 0. */
  readonly expectedToken: string
}

export interface AggregateAppend extends AggregateGuard {
  /** None only checks the version. */
  readonly events: readonly Buffer[]
}

export interface Success {
  readonly ref: EntryRef
  readonly events: readonly Buffer[]
  readonly followUps: readonly FollowUp[]
  readonly append: AggregateAppend | undefined
  /** Side record to keep, with its letter; '' for none. */
  readonly record: Buffer | ''
  /** What its tenant has less waiting, and more with what it sends; absent without a tenant. */
  readonly load?: TenantLoad | undefined
}

export interface Failure {
  readonly ref: EntryRef
  /** `hold` is a retry in its place, in an ordered partition. */
  readonly move: 'retry' | 'dead' | 'hold'
  readonly delayMs: number
  /** The entry as it moves; for `hold` only its trail. */
  readonly blob: Buffer
  readonly record: Buffer
  /** Counts only on this state. */
  readonly guard?: AggregateGuard | undefined
  /** As of a success; absent also where nothing changes. */
  readonly load?: TenantLoad | undefined
}

export interface SettleRequest {
  readonly plain: readonly EntryRef[]
  readonly successes: readonly Success[]
  readonly failures: readonly Failure[]
}

export type Verdict = 'applied' | 'settled-before' | 'conflict'

export interface SettleAnswer {
  /** True when the partition's lease has another epoch: nothing was written, and the rest is empty. */
  readonly isFenced: boolean
  /** How many of `plain` were still pending. */
  readonly plainAcknowledged: number
  readonly successes: readonly Verdict[]
  readonly failures: readonly Verdict[]
}

/** Bounds of one request. */
export const SETTLE_ENTRIES_MAX = 1000
export const SETTLE_ARGUMENTS_MAX = 4000
/** Of effects; one command's own may be more. A script holds up everybody for as long as it writes them. */
export const SETTLE_BYTES_MAX: number = 1024 ** 2

/** True for a success that needs nothing but its acknowledgement. */
export function isPlain(success: Success): boolean {
  return (
    sourceOf(success.ref) === 1 &&
    success.ref.level === 0 &&
    success.record === '' &&
    success.events.length === 0 &&
    success.followUps.length === 0 &&
    success.append === undefined &&
    success.load === undefined
  )
}

/**
 * True for a success of a fresh command whose only effects are events. They travel packed, as one value: an argument for
 * each part of each command costs its sender several times what cutting them costs Redis. So does one of a tenant without any: each
 * has a verdict of its own there, and what a tenant has waiting is kept exactly.
 */
function isEventful(success: Success): boolean {
  return (
    (success.events.length > 0 || success.load !== undefined) &&
    sourceOf(success.ref) === 1 &&
    success.record === '' &&
    success.followUps.length === 0 &&
    success.append === undefined
  )
}

/** Arguments that a success takes in a request. */
export function successArguments(success: Success): number {
  if (isPlain(success)) return 1
  if (isEventful(success)) return 1 + success.events.length
  return 12 + success.events.length + 3 * success.followUps.length + (success.append?.events.length ?? 0)
}

export const FAILURE_ARGUMENTS = 10

/** Bytes of what a success causes. */
export function successBytes({ events, followUps }: Success): number {
  let bytes = 0
  for (const event of events) bytes += event.length
  for (const { blob } of followUps) bytes += blob.length
  return bytes
}

const FENCED: SettleAnswer = { isFenced: true, plainAcknowledged: 0, successes: [], failures: [] }

const LETTERS: Readonly<Record<string, Verdict>> = { '1': 'applied', '0': 'settled-before', c: 'conflict' }

export async function settle(
  link: RedisLink,
  membership: Membership,
  request: SettleRequest,
): Promise<SettleAnswer> {
  const eventful: Success[] = []
  const others: Success[] = []
  for (const success of request.successes) (isEventful(success) ? eventful : others).push(success)
  const { scriptKeys, args } = settleArguments(membership, { ...request, successes: others }, eventful)
  const answer = await link.run('settle', scriptKeys, args)
  if (!Array.isArray(answer)) return FENCED
  const reply = replyArray(answer)
  const lastEventId = replyText(reply[3])
  if (lastEventId !== '') link.marks.note(membership.keys, 'events', lastEventId)
  return {
    isFenced: false,
    plainAcknowledged: replyNumber(reply[0]),
    successes: inOrder(request.successes, verdicts(replyText(reply[4])), verdicts(replyText(reply[1]))),
    failures: verdicts(replyText(reply[2])),
  }
}

/** Verdicts as the successes stand in the request. */
function inOrder(
  successes: readonly Success[],
  eventful: readonly Verdict[],
  others: readonly Verdict[],
): readonly Verdict[] {
  if (others.length === 0) return eventful
  let [e, o] = [0, 0]
  return successes.map((success) => (isEventful(success) ? eventful[e++] : others[o++]) ?? 'settled-before')
}

function verdicts(letters: string): Verdict[] {
  const read: Verdict[] = []
  for (let i = 0; i < letters.length; i++) read.push(LETTERS[letters.charAt(i)] ?? 'settled-before')
  return read
}

/** An ordered command that leaves a record behind is told as a ready one: both streams are the same there. */
function sourceOf(ref: EntryRef): 1 | 2 {
  const hasRecord = ref.turn !== undefined && (ref.turn > 0 || isMoved(ref))
  return ref.source === 'ready' || hasRecord ? 2 : 1
}

/** The text of most tokens is never made: asked of each command of an ordered partition, that was 5 % of its worker's time. */
function isMoved({ isNamed, token, entryId }: EntryRef): boolean {
  return isNamed !== false && token !== `e${entryId}`
}

function letterOf({ move, ref }: Failure): string | number {
  switch (move) {
    case 'retry':
      return 'T'
    case 'dead':
      return 'X'
    case 'hold':
      return (ref.turn ?? 0) + 1
    default:
      return move satisfies never
  }
}

function settleArguments(
  { keys, group, consumer, epoch }: Membership,
  request: SettleRequest,
  eventful: readonly Success[],
): { scriptKeys: string[]; args: (string | Buffer | number)[] } {
  const scriptKeys = [
    ...[keys.commands, keys.ready, keys.events, keys.dead, keys.records, keys.recordTimes],
    ...[keys.due, keys.dueBodies, keys.outbox, keys.outboxLast, keys.crashes, keys.counter],
    ...[keys.lease, keys.held, keys.tenantLoads],
  ]
  const aggregates = new Map<string, number>()
  const guardArguments = (guard: AggregateGuard | undefined): (string | number)[] => {
    if (guard === undefined) return [0, 0, '']
    let index = aggregates.get(guard.key)
    if (index === undefined) {
      index = scriptKeys.push(guard.key)
      aggregates.set(guard.key, index)
    }
    return [index, guard.expectedVersion, guard.expectedToken]
  }
  const args: (string | Buffer | number)[] = [group, consumer, epoch ?? '', request.plain.length]
  for (const ref of request.plain) args.push(ref.entryId)
  args.push(eventful.length, packEventful(eventful))
  args.push(request.successes.length)
  for (const { ref, events, followUps, append, record } of request.successes) {
    args.push(sourceOf(ref), ref.entryId, ref.token)
    args.push(...guardArguments(append), append?.events.length ?? 0)
    for (const event of append?.events ?? []) args.push(event)
    args.push(events.length)
    for (const event of events) args.push(event)
    args.push(record, followUps.length)
    for (const followUp of followUps) args.push(followUp.target, followUp.delayMs, followUp.blob)
  }
  args.push(request.failures.length)
  for (const failure of request.failures) {
    const { ref, delayMs, blob, record, guard } = failure
    args.push(letterOf(failure), sourceOf(ref), ref.entryId, ref.token)
    args.push(delayMs, blob, record, ...guardArguments(guard))
  }
  args.push(packLoads({ e: eventful, s: request.successes, f: request.failures }))
  return { scriptKeys, args }
}

/** What tenants have less or more waiting, each with the verdict that it depends on; '' where nobody has a tenant. */
function packLoads(
  sections: Readonly<Record<'e' | 's' | 'f', readonly { readonly load?: TenantLoad | undefined }[]>>,
): Buffer | '' {
  let names: Map<Tenant, number> | undefined
  const rows: string[] = []
  for (const section of ['e', 's', 'f'] as const) {
    const all = sections[section]
    for (let i = 0; i < all.length; i++) {
      const load = all[i]?.load
      if (load === undefined) continue
      names ??= new Map()
      const number = names.get(load.tenant) ?? names.size + 1
      names.set(load.tenant, number)
      rows.push(section, String(i + 1), String(number), String(load.count), String(load.bytes))
    }
  }
  return names === undefined ? '' : packLists([[...names.keys()], rows])
}

/** For each: length of the entry id, entry id, number of events (2 bytes), and each event behind its length (4 bytes). */
function packEventful(successes: readonly Success[]): Buffer {
  let bytes = 0
  for (const { ref, events } of successes) {
    bytes += 3 + ref.entryId.length
    for (const event of events) bytes += 4 + event.length
  }
  const out = Buffer.allocUnsafe(bytes)
  let at = 0
  for (const { ref, events } of successes) {
    at = out.writeUInt8(ref.entryId.length, at)
    at += out.write(ref.entryId, at, 'latin1')
    at = out.writeUInt16BE(events.length, at)
    for (const event of events) {
      at = out.writeUInt32BE(event.length, at)
      out.set(event, at)
      at += event.length
    }
  }
  return out
}
